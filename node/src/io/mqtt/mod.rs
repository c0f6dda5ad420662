//! The broker as the configuration wants it; and the commands about who may use it.

pub(super) mod certificate;
pub(super) mod clients;
pub(super) mod passwd;

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bus::topic::InvalidTopic;
use bus::{Filter, Name, Topic};
use device_twin::gate::access::{Passwords, PasswordsError, Rights, Rule, RuleError};
use device_twin::io::external::ExternalConfig;
use device_twin::io::{BrokerConfig, ClientCa, Listener, Tls, TlsError};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tracing::warn;

use crate::config::{ClientCertificate, MqttConfig, MqttExternal, MqttListener, MqttRight, MqttTls};
use crate::io::cli::host_and_port_or;
use crate::io::shown::Served;

/// IANA's for MQTT.
const MQTT_PORT: u16 = 1883;

/// A password file of as many users as there may be, with room for comments; a longer one is none.
const MAX_PASSWORDS_LEN: u64 = 32 << 20;

/// What is wrong with the configuration of the broker, or with a file that it names.
#[derive(Debug, Error)]
pub(super) enum MqttConfigError {
    #[error("mqtt.rights, rule {number} ('{who}')")]
    Rule { number: usize, who: String, source: RuleError },
    #[error("mqtt.rights")]
    Rules(#[source] RuleError),
    #[error("mqtt.passwords: cannot read {path}", path = path.display())]
    PasswordFile { path: PathBuf, source: std::io::Error },
    #[error("mqtt.passwords: {path} is longer than {MAX_PASSWORDS_LEN} bytes", path = path.display())]
    TooLong { path: PathBuf },
    #[error("mqtt.passwords: {path}", path = path.display())]
    Passwords { path: PathBuf, source: PasswordsError },
    #[error(
        "{key} ({address}) lets nobody in: it is not loopback, so clients must say who they are. Name a password file \
         in mqtt.passwords, give it tls with clients' certificates, or write 'anonymous: true' to let everybody in"
    )]
    Nobody { key: String, address: SocketAddr },
    #[error("{key}.tls: certificate and key go together")]
    HalfPair { key: String },
    #[error("{key}.tls: {path} holds nothing of use in PEM", path = path.display())]
    Pem { key: String, path: PathBuf, source: pem::Error },
    #[error("{key}.tls: {path} holds no certificate", path = path.display())]
    NoCertificate { key: String, path: PathBuf },
    #[error("{key}.tls")]
    Tls { key: String, source: TlsError },
    #[error("mqtt.max-keep-alive: write 0s, or 1s to 65535s")]
    KeepAlive,
    #[error("mqtt.external.address: {0}")]
    Address(String),
    #[error("mqtt.external: the site's broker says who may what; remove mqtt.{0}, or mqtt.external")]
    BothBrokers(&'static str),
    #[error("mqtt.external.client-id: '{0}' can be no part of a topic")]
    ClientId(String),
    #[error("mqtt.external: username and password-file go together")]
    HalfLogin,
    #[error("mqtt.external.password-file: cannot read {path}", path = path.display())]
    PasswordOfNode { path: PathBuf, source: std::io::Error },
    #[error("mqtt.external.subscribe: '{text}'")]
    Subscribe { text: String, source: InvalidTopic },
}

/// Reads all files that the configuration names.
pub(super) fn broker(config: &MqttConfig, node: &Served) -> Result<BrokerConfig, MqttConfigError> {
    let MqttConfig { listen, anonymous, listeners, passwords, rights, max_keep_alive, external: _ } = config;
    let passwords = passwords.as_deref().map(read_passwords).transpose()?;
    let plain = MqttListener { address: *listen, tls: None, websocket: false, anonymous: *anonymous };
    let first = listener("mqtt.listen".to_owned(), &plain, passwords.is_some(), node)?;
    let rest = listeners.iter().enumerate().map(|(index, wanted)| {
        listener(format!("mqtt.listeners[{index}]"), wanted, passwords.is_some(), node)
    });
    Ok(BrokerConfig {
        listen: *listen,
        anonymous: first.anonymous,
        listeners: rest.collect::<Result<_, _>>()?,
        passwords,
        rights: read_rights(rights)?,
        max_keep_alive: read_keep_alive(*max_keep_alive)?,
        ..BrokerConfig::default()
    })
}

/// In whole seconds, as MQTT has it; 0: none.
fn read_keep_alive(longest: Duration) -> Result<u16, MqttConfigError> {
    let seconds = longest.as_secs_f64();
    u16::try_from(longest.as_secs())
        .ok()
        .filter(|whole| f64::from(*whole) == seconds)
        .ok_or(MqttConfigError::KeepAlive)
}

/// The site's own broker, as the configuration describes it; `None`: the embedded one is used.
pub(super) fn external(
    config: &MqttConfig,
    node: &Name,
    seed: u64,
) -> Result<Option<ExternalConfig>, MqttConfigError> {
    let Some(wanted) = &config.external else { return Ok(None) };
    let MqttExternal { address, username, password_file, client_id, subscribe } = wanted;
    let unused = [
        ("listeners", !config.listeners.is_empty()),
        ("passwords", config.passwords.is_some()),
        ("rights", !config.rights.is_empty()),
    ];
    if let Some((key, _)) = unused.into_iter().find(|(_, is_there)| *is_there) {
        return Err(MqttConfigError::BothBrokers(key));
    }
    let (host, port) = host_and_port_or(address, MQTT_PORT).map_err(MqttConfigError::Address)?;
    let credentials = match (username, password_file) {
        (Some(username), Some(path)) => Some((username.clone(), read_password(path)?)),
        (None, None) => None,
        _ => return Err(MqttConfigError::HalfLogin),
    };
    let subscribe = subscribe.iter().map(|text| {
        Filter::new(text).map_err(|source| MqttConfigError::Subscribe { text: text.clone(), source })
    });
    let client_id = client_id.clone().unwrap_or_else(|| format!("kubebus-{node}"));
    let state = Topic::new(&format!("kubebus/{client_id}/state"))
        .map_err(|_| MqttConfigError::ClientId(client_id.clone()))?;
    Ok(Some(ExternalConfig {
        host,
        port,
        client_id,
        state,
        credentials,
        subscribe: subscribe.collect::<Result<_, _>>()?,
        max_packet: BrokerConfig::default().max_packet,
        seed,
    }))
}

fn read_password(path: &Path) -> Result<String, MqttConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| MqttConfigError::PasswordOfNode { path: path.to_owned(), source })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn read_rights(rights: &[MqttRight]) -> Result<Rights, MqttConfigError> {
    let rules = rights.iter().enumerate().map(|(index, MqttRight { who, publish, subscribe })| {
        Rule::new(who, publish.clone(), subscribe.clone()).map_err(|source| MqttConfigError::Rule {
            number: index + 1,
            who: who.clone(),
            source,
        })
    });
    Rights::new(rules.collect::<Result<_, _>>()?).map_err(MqttConfigError::Rules)
}

fn read_passwords(path: &Path) -> Result<Passwords, MqttConfigError> {
    let unread = |source| MqttConfigError::PasswordFile { path: path.to_owned(), source };
    let about = std::fs::metadata(path).map_err(unread)?;
    if about.len() > MAX_PASSWORDS_LEN {
        return Err(MqttConfigError::TooLong { path: path.to_owned() });
    }
    if about.mode() & 0o007 != 0 {
        warn!(path = %path.display(), "everybody on this machine can read the hashes of passwords; chmod 600");
    }
    let text = std::fs::read_to_string(path).map_err(unread)?;
    Passwords::parse(&text).map_err(|source| MqttConfigError::Passwords { path: path.to_owned(), source })
}

/// `key`: where it is configured.
fn listener(
    key: String,
    wanted: &MqttListener,
    passwords: bool,
    node: &Served,
) -> Result<Listener, MqttConfigError> {
    let MqttListener { address, tls, websocket, anonymous } = wanted;
    let is_loopback = address.ip().is_loopback();
    let anonymous = anonymous.unwrap_or(is_loopback);
    if !anonymous && !passwords && tls.is_none() {
        return Err(MqttConfigError::Nobody { key, address: *address });
    }
    if !is_loopback && tls.is_none() {
        match anonymous {
            true => {
                warn!(%address, "MQTT: everybody who reaches this address is let in, and nothing is encrypted")
            }
            false => warn!(%address, "MQTT: passwords and messages are not encrypted on this address"),
        }
    }
    let tls = tls.as_ref().map(|tls| read_tls(&key, tls, node)).transpose()?;
    Ok(Listener { address: *address, tls, websocket: *websocket, anonymous })
}

fn read_tls(key: &str, wanted: &MqttTls, node: &Served) -> Result<Tls, MqttConfigError> {
    let MqttTls { certificate, key: key_file, client_ca, client_certificate } = wanted;
    let own = match (certificate, key_file) {
        (Some(certificate), Some(secret)) => Some((certificates(key, certificate)?, secret_in(key, secret)?)),
        (None, None) => None,
        _ => return Err(MqttConfigError::HalfPair { key: key.to_owned() }),
    };
    let clients = match client_ca {
        Some(path) => ClientCa::Site { roots: certificates(key, path)? },
        None => ClientCa::Cluster { ca: node.ca.clone(), name: node.cluster.clone() },
    };
    let required = *client_certificate == ClientCertificate::Required;
    let tls = match own {
        Some((chain, secret)) => Tls::new(chain, secret, clients, required),
        None => Tls::resolved(node.shown.clone(), clients, required),
    };
    tls.map_err(|source| MqttConfigError::Tls { key: key.to_owned(), source })
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, MqttConfigError> {
    let failed = |source| MqttConfigError::Pem { key: key.to_owned(), path: path.to_owned(), source };
    let found = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(failed)?;
    if found.is_empty() {
        return Err(MqttConfigError::NoCertificate { key: key.to_owned(), path: path.to_owned() });
    }
    Ok(found)
}

fn secret_in(key: &str, path: &Path) -> Result<PrivateKeyDer<'static>, MqttConfigError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| MqttConfigError::Pem {
        key: key.to_owned(),
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;

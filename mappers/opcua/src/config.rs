//! How a server is reached.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kubebus_sdk::schemars::Schema;
use kubebus_sdk::{Error, JsonSchema};
use opcua::crypto::SecurityPolicy;
use opcua::types::MessageSecurityMode;
use serde::{Deserialize, Serialize};

use crate::trust::Trust;

/// What a server that says nothing is given, unless the device says otherwise. The SDK gives a reading 10 s, so that this is
/// what ends first and says what was waited for.
const DEFAULT_TIMEOUT_S: u64 = 5;
const LONGEST_TIMEOUT_S: u64 = 9;

/// Longest password file that is read.
const MAX_PASSWORD_BYTES: usize = 4096;

/// Connection settings of a device; the keys of KubeEdge's OPC UA mapper (`userName`, `securityPolicy`, `securityMode`,
/// `certificate`, `privateKey`, `timeout`) are understood too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
#[schemars(transform = name_aliases)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// `opc.tcp://10.0.0.9:4840`, as the server's own endpoint names it after the port.
    pub url: String,
    /// What happens to messages; with a policy `sign-and-encrypt`, without one `none`.
    #[serde(default, alias = "securityMode", skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
    /// With which algorithms; Basic256Sha256 if there is security. Basic128Rsa15 and Basic256 are broken and not spoken.
    #[serde(default, alias = "securityPolicy", skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// Nobody if missing: an anonymous session.
    #[serde(default, alias = "userName", skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password itself or, if it begins with `/`, a file with it, as in KubeEdge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// A file whose first line is the password.
    #[serde(default, alias = "passwordFile", skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Which certificate the server has: its SHA-256 fingerprint, a file, or a directory of files (DER or PEM). The directory
    /// `trusted` beside our own certificate if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<String>,
    /// Directory in which our own certificate is made and kept. `$STATE_DIRECTORY/opcua` if missing, or
    /// `~/.local/state/kubebus/opcua`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<PathBuf>,
    /// A certificate to show instead of our own (`.der` or `.pem`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// The private key of that certificate (`.pem`).
    #[serde(default, alias = "privateKey", skip_serializing_if = "Option::is_none")]
    pub private_key: Option<PathBuf>,
    /// Seconds that the server is given for an answer: 1 to 9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

/// The schema knows fields by one name each.
fn name_aliases(schema: &mut Schema) {
    let Some(serde_json::Value::Object(properties)) = schema.get_mut("properties") else { return };
    for (key, alias) in ALIASES {
        if let Some(property) = properties.get(key).cloned() {
            properties.insert(alias.to_owned(), property);
        }
    }
}

/// KubeEdge's words for ours.
const ALIASES: [(&str, &str); 5] = [
    ("security", "securityMode"),
    ("policy", "securityPolicy"),
    ("user", "userName"),
    ("password-file", "passwordFile"),
    ("private-key", "privateKey"),
];

/// What happens to messages on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
#[serde(rename_all = "kebab-case")]
pub enum Security {
    #[serde(alias = "None")]
    None,
    #[serde(alias = "Sign")]
    Sign,
    #[serde(alias = "SignAndEncrypt")]
    SignAndEncrypt,
}

/// Algorithms, as OPC 10000-7 names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
pub enum Policy {
    #[serde(alias = "none")]
    None,
    Basic256Sha256,
    #[serde(rename = "Aes128Sha256RsaOaep", alias = "Aes128_Sha256_RsaOaep")]
    Aes128Sha256RsaOaep,
    #[serde(rename = "Aes256Sha256RsaPss", alias = "Aes256_Sha256_RsaPss")]
    Aes256Sha256RsaPss,
}

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A configuration that makes sense.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) url: String,
    pub(crate) mode: MessageSecurityMode,
    pub(crate) policy: SecurityPolicy,
    pub(crate) user: Option<(String, Secret)>,
    pub(crate) trust: Option<Trust>,
    pub(crate) identity: Option<PathBuf>,
    pub(crate) own: Option<(PathBuf, PathBuf)>,
    pub(crate) timeout: Duration,
}

impl Settings {
    pub(crate) fn of(config: &Config) -> Result<Self, Error> {
        let (mode, policy) = protection(config.security, config.policy)?;
        Ok(Self {
            url: url(&config.url)?,
            mode,
            policy,
            user: user(config)?,
            trust: config.trust.as_deref().map(Trust::parse).transpose()?,
            identity: config.identity.clone(),
            own: own(config)?,
            timeout: timeout(config.timeout)?,
        })
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.mode != MessageSecurityMode::None
    }
}

fn url(url: &str) -> Result<String, Error> {
    let host = url.strip_prefix("opc.tcp://").and_then(|rest| rest.split(['/', ':']).next());
    if host.is_none_or(str::is_empty) || url.chars().any(char::is_whitespace) {
        return Err(Error::Config(format!("url: '{url}' is none: it looks like opc.tcp://10.0.0.9:4840")));
    }
    Ok(url.to_owned())
}

fn protection(
    security: Option<Security>,
    policy: Option<Policy>,
) -> Result<(MessageSecurityMode, SecurityPolicy), Error> {
    let (security, policy) = match (security, policy) {
        (None, None | Some(Policy::None)) | (Some(Security::None), None) => (Security::None, Policy::None),
        (None, Some(policy)) => (Security::SignAndEncrypt, policy),
        (Some(security), None) => (security, Policy::Basic256Sha256),
        (Some(security), Some(policy)) => (security, policy),
    };
    if (security == Security::None) != (policy == Policy::None) {
        let why = "security and policy contradict each other: leave one of them out, or set neither or both to none";
        return Err(Error::Config(why.to_owned()));
    }
    let mode = match security {
        Security::None => MessageSecurityMode::None,
        Security::Sign => MessageSecurityMode::Sign,
        Security::SignAndEncrypt => MessageSecurityMode::SignAndEncrypt,
    };
    let policy = match policy {
        Policy::None => SecurityPolicy::None,
        Policy::Basic256Sha256 => SecurityPolicy::Basic256Sha256,
        Policy::Aes128Sha256RsaOaep => SecurityPolicy::Aes128Sha256RsaOaep,
        Policy::Aes256Sha256RsaPss => SecurityPolicy::Aes256Sha256RsaPss,
    };
    Ok((mode, policy))
}

fn user(config: &Config) -> Result<Option<(String, Secret)>, Error> {
    let file = match (&config.password, &config.password_file) {
        (Some(_), Some(_)) => {
            return Err(Error::Config("password and password-file are both there: keep one".to_owned()));
        }
        (Some(Secret(text)), None) if text.starts_with('/') => Some(Path::new(text)),
        (_, file) => file.as_deref(),
    };
    let password = match (file, &config.password) {
        (Some(file), _) => Some(read_password(file)?),
        (None, password) => password.clone(),
    };
    match (&config.user, password) {
        (Some(user), Some(password)) => Ok(Some((user.clone(), password))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Error::Config("user needs a password or a password-file".to_owned())),
        (None, Some(_)) => Err(Error::Config("password needs a user".to_owned())),
    }
}

fn read_password(file: &Path) -> Result<Secret, Error> {
    let unreadable = |why: String| Error::Config(format!("password-file {}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|e| unreadable(e.to_string()))?;
    if text.len() > MAX_PASSWORD_BYTES {
        return Err(unreadable(format!("longer than {MAX_PASSWORD_BYTES} bytes")));
    }
    Ok(Secret(text.lines().next().unwrap_or_default().to_owned()))
}

fn own(config: &Config) -> Result<Option<(PathBuf, PathBuf)>, Error> {
    match (&config.certificate, &config.private_key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate.clone(), key.clone()))),
        (None, None) => Ok(None),
        _ => Err(Error::Config("certificate and private-key go together: name both or neither".to_owned())),
    }
}

fn timeout(seconds: Option<u64>) -> Result<Duration, Error> {
    let seconds = seconds.unwrap_or(DEFAULT_TIMEOUT_S);
    if (1..=LONGEST_TIMEOUT_S).contains(&seconds) {
        return Ok(Duration::from_secs(seconds));
    }
    Err(Error::Config(format!("timeout: {seconds} is not within 1 to {LONGEST_TIMEOUT_S} seconds")))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;

//! A node's WireGuard gateway, and `kubebus wireguard`.

mod client;
mod qr;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use bus::overlay::Lease;
use bus::{WireguardGateway, WireguardPeer};
use controller::io::secret_file;
use router::io::wireguard::{Gateway, PrivateKey, Settings, Status, Tunnel, Wanted};
use router::{Policy, Table};
use serde_json::{Value, json};
use tracing::{error, info};

use super::cli::host_and_port_or;
use super::node::seed;
use crate::admin::describe;
use crate::config::{WireguardBackend, WireguardConfig};

pub(super) use client::WireguardCommand;
pub(super) use client::carry_out;

/// The gateway's private key, in the data directory, as `wg genkey` writes one.
const KEY: &str = "wireguard.key";

/// What became of the configured gateway.
#[derive(Debug)]
pub enum Wireguard {
    Off,
    /// The rest of the node goes on.
    Failed(String),
    Up {
        gateway: Box<Gateway>,
        endpoint: String,
    },
}

impl Wireguard {
    /// Fails where the configuration or the key file is at fault; what the machine refuses is said in status and log.
    pub(super) fn start(config: &WireguardConfig, data_dir: &Path, overlay: Option<&str>) -> Result<Self> {
        let WireguardConfig { listen, endpoint, interface, backend } = config;
        let (port, endpoint) = match (listen, endpoint) {
            (None, None) => return Ok(Self::Off),
            (Some(port), Some(endpoint)) => (*port, endpoint.clone()),
            (Some(port), None) => {
                bail!(
                    "wireguard.listen: clients need an address to dial: say wireguard.endpoint, HOST:{port}"
                )
            }
            (None, Some(_)) => bail!("wireguard.endpoint: say the port as well: wireguard.listen: 51820"),
        };
        let dialled = host_and_port_or(&endpoint, port);
        let (host, dialled_port) = dialled.map_err(|why| anyhow::anyhow!("wireguard.endpoint: {why}"))?;
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let key = key(&data_dir.join(KEY)).context("the WireGuard gateway's key")?;
        let settings = Settings {
            interface: interface.clone(),
            overlay: overlay.unwrap_or_default().to_owned(),
            port,
            key,
            backend: match backend {
                WireguardBackend::Auto => Wanted::Any,
                WireguardBackend::Kernel => Wanted::Kernel,
                WireguardBackend::Userspace => Wanted::Userspace,
            },
            seed: [seed()?, seed()?],
        };
        if overlay.is_none() {
            return Ok(Self::failed(
                "overlay.enabled is false, and clients reach nothing without it".to_owned(),
            ));
        }
        Ok(match Gateway::start(settings) {
            Ok(gateway) => {
                let Status { backend, instead, .. } = gateway.status();
                let instead = instead.unwrap_or_default();
                info!(backend = backend.as_str(), instead, port, "WireGuard clients are let in");
                Self::Up { gateway: Box::new(gateway), endpoint: format!("{host}:{dialled_port}") }
            }
            Err(why) => Self::failed(describe(&why)),
        })
    }

    fn failed(why: String) -> Self {
        error!(why, "no WireGuard client is let in");
        Self::Failed(why)
    }

    /// How clients reach this node.
    pub(super) fn told(&self) -> Option<WireguardGateway> {
        let Self::Up { gateway, endpoint } = self else { return None };
        Some(WireguardGateway { public_key: gateway.status().public_key, endpoint: endpoint.clone() })
    }

    pub(super) fn set_clients(&self, clients: Vec<WireguardPeer>) {
        if let Self::Up { gateway, .. } = self {
            gateway.set_clients(clients);
        }
    }

    pub(super) fn set_overlay(&self, lease: &Lease, table: &Arc<Table>) {
        if let Self::Up { gateway, .. } = self {
            gateway.set_lease(lease);
            gateway.set_table(Arc::clone(table));
        }
    }

    pub(super) fn set_policy(&self, policy: &Arc<Policy>) {
        if let Self::Up { gateway, .. } = self {
            gateway.set_policy(Arc::clone(policy));
        }
    }

    pub(super) fn status(&self) -> Value {
        match self {
            Self::Off => json!({ "backend": "off" }),
            Self::Failed(why) => json!({ "backend": "none", "problem": why }),
            Self::Up { gateway, endpoint } => {
                let Status { backend, instead, interface, port, public_key, clients, denied, problem } =
                    gateway.status();
                json!({
                    "backend": backend.as_str(), "kernel": instead, "interface": interface, "port": port,
                    "endpoint": endpoint, "public_key": public_key, "clients": clients,
                    "packets_denied": denied, "problem": problem,
                })
            }
        }
    }

    /// The list of clients, those of this gateway with what is known of their tunnels.
    pub(super) fn with_tunnels(&self, mut clients: Value) -> Value {
        let tunnels = if let Self::Up { gateway, .. } = self { gateway.tunnels() } else { Vec::new() };
        for client in clients.as_array_mut().into_iter().flatten() {
            let its = tunnels.iter().find(|tunnel| client["public_key"] == json!(tunnel.public_key));
            client["tunnel"] = json!(its.map(shown));
        }
        clients
    }
}

fn shown(Tunnel { public_key: _, endpoint, last_handshake, received, sent }: &Tunnel) -> Value {
    let age = last_handshake.and_then(|at| SystemTime::now().duration_since(at).ok());
    let age_ms = age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    json!({ "endpoint": endpoint, "handshake_age_ms": age_ms, "received": received, "sent": sent })
}

/// The key in the file, or a new one that is there from then on.
fn key(path: &Path) -> Result<PrivateKey> {
    match secret_file::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            PrivateKey::from_base64(text.trim()).with_context(|| {
                format!(
                    "{} holds no WireGuard key: restore it, or remove it and rotate all clients",
                    path.display()
                )
            })
        }
        Err(secret_file::ReadError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let key = PrivateKey::generate();
            secret_file::create(path, format!("{}\n", key.to_base64()).as_bytes())
                .with_context(|| format!("write {}", path.display()))?;
            Ok(key)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn config(listen: Option<u16>, endpoint: Option<&str>) -> WireguardConfig {
        WireguardConfig { listen, endpoint: endpoint.map(str::to_owned), ..WireguardConfig::default() }
    }

    #[test]
    fn the_key_lasts_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEY);
        let first = key(&path).unwrap().public();
        assert_eq!(key(&path).unwrap().public(), first);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "no key").unwrap();
        let told = format!("{:#}", key(&path).unwrap_err());
        assert!(told.contains("holds no WireGuard key"), "{told}");
    }

    #[test]
    fn half_a_configuration_says_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        for (config, words) in [
            (config(Some(51820), None), "say wireguard.endpoint, HOST:51820"),
            (config(None, Some("gw.example:51820")), "wireguard.listen: 51820"),
            (config(Some(51820), Some("a:b:51820")), "put an IPv6 address in brackets"),
        ] {
            let told = Wireguard::start(&config, dir.path(), Some("kb0")).unwrap_err().to_string();
            assert!(told.contains(words), "{told}");
        }
        assert!(matches!(Wireguard::start(&config(None, None), dir.path(), Some("kb0")), Ok(Wireguard::Off)));
    }

    #[test]
    fn without_an_overlay_the_node_goes_on_and_says_why_nobody_is_let_in() {
        let dir = tempfile::tempdir().unwrap();
        let started = Wireguard::start(&config(Some(51820), Some("gw.example")), dir.path(), None).unwrap();
        assert_eq!(started.status()["backend"], "none");
        assert!(started.status()["problem"].as_str().unwrap().starts_with("overlay.enabled is false"));
        assert_eq!(started.told(), None);
    }
}

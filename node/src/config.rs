//! The configuration file: one YAML document, a section for each part.
//!
//! Every key has a default and a reason for it; `kubebus.example.yaml` at the top of the repository shows them all
//! and is tested to equal them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bus::Name;
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Where the node keeps its identity, its store and its admin socket. Mode 0700.
    pub data_dir: PathBuf,
    pub cloud: CloudConfig,
    pub edge: EdgeConfig,
    pub link: LinkConfig,
    pub overlay: OverlayConfig,
    pub mqtt: MqttConfig,
    pub kubeedge: KubeEdgeConfig,
}

/// Read by `kubebus cloud` only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct CloudConfig {
    /// The cluster's name, fixed at the first start: it is part of every certificate.
    pub cluster: Name,
    /// This cloud node's name, fixed at the first start: its edges know it by that.
    pub name: Name,
    /// UDP address that edges dial. 10001 lies outside the ephemeral range and is no registered service in use.
    pub listen: SocketAddr,
    /// Where edges dial, `host:port`, in turn. Edges that joined are told too, keep it and need no restart; the address
    /// that they joined by stays the last resort. Empty: what they were told before.
    pub endpoints: Vec<String>,
    /// The cloud VMs' subnets that this node is the gateway of.
    pub vm_subnets: Vec<IpNet>,
    /// The cloud containers' subnets on this node.
    pub container_subnets: Vec<IpNet>,
    /// Where the cloud keeps what it knows.
    pub store: CloudStore,
}

/// A cloud's store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloudStore {
    /// `store.redb` in the data directory: one cloud, nothing else to run.
    #[default]
    File,
    /// For a cloud in several replicas: see `docs/etcd.md`.
    Etcd(EtcdPlace),
}

/// Where etcd is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EtcdPlace {
    /// Of all members: `https://10.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// For https, files in PEM: who signed etcd's certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// By what etcd knows this cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// A replica that leads and does not answer the others for so long is taken over from. Long enough for the way between
    /// them; 0s: only when its lease in etcd ends, after 10 s.
    #[serde(default = "silence", with = "duration")]
    pub takeover_after: Duration,
}

fn silence() -> Duration {
    Duration::from_millis(600)
}

/// Read by `kubebus edge` only.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct EdgeConfig {
    /// Start with a new store when the old one is damaged or gone, as 'kubebus edge --renew-store' does. Off, since
    /// what waited to go up and what rules had latched is lost with it.
    pub renew_damaged_store: bool,
}

/// The QUIC links.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LinkConfig {
    /// Something is sent at least this often: NATs forget a UDP flow after 30 s at the earliest (RFC 4787 §4.3 asks
    /// for more, the field does not listen).
    #[serde(with = "duration")]
    pub keepalive: Duration,
    /// A peer that is silent this long is gone: three keepalives.
    #[serde(with = "duration")]
    pub idle: Duration,
    /// Whether this edge makes links to other edges, so that their packets need not go by the cloud.
    pub direct: bool,
    /// Whether this edge keeps a link to a replica of the cloud that stands by, if there are several.
    pub standby: bool,
}

/// The overlay network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct OverlayConfig {
    /// Off: twins and messages only, no packets, no privileges needed.
    pub enabled: bool,
    /// The interface that carries the overlay.
    pub interface: String,
    /// Addresses of nodes, containers, and LANs that several sites have. Read by the cloud; fixed once leases exist. A
    /// /16 holds 127 edges with a container /24 each; take a /8 for 32,767.
    pub pool: Ipv4Net,
}

/// The embedded MQTT broker, or the one that the site has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct MqttConfig {
    /// Plain TCP address of the broker. Loopback by default: what is said there can be read and changed on the way.
    pub listen: SocketAddr,
    /// Whether clients that do not say who they are are let in at `listen`. Not said: if that is loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<bool>,
    /// Where else clients come in.
    pub listeners: Vec<MqttListener>,
    /// Names and passwords of clients, in mosquitto's format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passwords: Option<PathBuf>,
    /// Who may publish and subscribe to what. Empty: whoever is let in may everything, but a mapper keeps to its own
    /// topics.
    pub rights: Vec<MqttRight>,
    /// The longest silence that a 5.0 client may ask for; who asks for more, or for none, is told this instead (server
    /// keep alive). 0s: as long as it likes.
    #[serde(with = "duration")]
    pub max_keep_alive: Duration,
    /// A broker that the site has already, instead of the embedded one, which the rest of this section is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<MqttExternal>,
}

/// A broker that the site has already; it speaks MQTT 5.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MqttExternal {
    /// `host[:port]`, 1883 if none is given. What is said there can be read and changed on the way.
    pub address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Its first line is the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// How the broker knows the node: `<client-id>-twins` and `<client-id>-mesh`. Not said: `kubebus-<node>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// What this site wants of other sites, as topic filters: the broker does not tell what its clients subscribe to.
    #[serde(default = "all_of_the_mesh")]
    pub subscribe: Vec<String>,
}

fn all_of_the_mesh() -> Vec<String> {
    vec!["mesh/#".to_owned()]
}

/// One more address of the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MqttListener {
    pub address: SocketAddr,
    /// Without it, all is said in plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<MqttTls>,
    /// MQTT in WebSocket frames.
    #[serde(default)]
    pub websocket: bool,
    /// Whether clients that do not say who they are are let in. Not said: if the address is loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<bool>,
}

/// TLS of a listener. Files are PEM. Nothing said: the node's own certificate, and clients' of the cluster's authority.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct MqttTls {
    /// What the broker shows, instead of the node's certificate; those who signed it may follow in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Who signs clients' certificates, instead of the cluster's authority. Their common names are users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    pub client_certificate: ClientCertificate,
}

/// Whether clients need a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCertificate {
    #[default]
    Optional,
    Required,
}

/// A rule: what all those that `who` names may publish and subscribe to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MqttRight {
    /// `anonymous`, `user/<name>`, `user/*`, `mapper/<name>`, `mapper/*` or `*`.
    pub who: String,
    /// Topic filters, in which {name} and {client} stand for the client's name and client id.
    #[serde(default)]
    pub publish: Vec<String>,
    #[serde(default)]
    pub subscribe: Vec<String>,
}

/// What KubeEdge's own mappers need. Read by `kubebus edge` only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct KubeEdgeConfig {
    /// The Unix socket on which they register and report (DMI v1beta1), mode 0660: an absolute path, or `off`. They expect
    /// `/etc/kubeedge/dmi.sock`. Off, since whoever may open it speaks for every device of the edge.
    pub dmi_socket: DmiSocket,
}

/// Where DMI is served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DmiSocket {
    #[default]
    Off,
    At(PathBuf),
}

impl TryFrom<String> for DmiSocket {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "off" => Ok(Self::Off),
            path if path.starts_with('/') => Ok(Self::At(PathBuf::from(path))),
            _ => Err(format!("'{text}' is neither an absolute path nor off; write /etc/kubeedge/dmi.sock")),
        }
    }
}

impl From<DmiSocket> for String {
    fn from(socket: DmiSocket) -> Self {
        match socket {
            DmiSocket::Off => "off".to_owned(),
            DmiSocket::At(path) => path.to_string_lossy().into_owned(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/kubebus"),
            cloud: CloudConfig::default(),
            edge: EdgeConfig::default(),
            link: LinkConfig::default(),
            overlay: OverlayConfig::default(),
            mqtt: MqttConfig::default(),
            kubeedge: KubeEdgeConfig::default(),
        }
    }
}

#[expect(clippy::expect_used, reason = "constants, covered by a test")]
fn constant<T: std::str::FromStr>(text: &str) -> T {
    text.parse().ok().expect("a valid constant")
}

impl Default for CloudConfig {
    fn default() -> Self {
        Self {
            cluster: constant("kubebus"),
            name: constant("cloud"),
            listen: constant("0.0.0.0:10001"),
            endpoints: Vec::new(),
            vm_subnets: Vec::new(),
            container_subnets: Vec::new(),
            store: CloudStore::File,
        }
    }
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            keepalive: Duration::from_secs(15),
            idle: Duration::from_secs(45),
            direct: true,
            standby: true,
        }
    }
}

impl Default for OverlayConfig {
    fn default() -> Self {
        Self { enabled: true, interface: "kb0".to_owned(), pool: constant("10.86.0.0/16") }
    }
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            listen: constant("127.0.0.1:1883"),
            anonymous: None,
            listeners: Vec::new(),
            passwords: None,
            rights: Vec::new(),
            max_keep_alive: Duration::ZERO,
            external: None,
        }
    }
}

mod duration {
    //! Durations as people write them: `15s`, `2m`.

    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&humantime::format_duration(*value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(d)?;
        humantime::parse_duration(&text)
            .map_err(|e| de::Error::custom(format!("'{text}': {e}; write 15s or 2m")))
    }
}

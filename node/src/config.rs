//! The configuration file: one YAML document, a section for each part.
//!
//! Every key has a default and a reason for it; `kubebus.example.yaml` at the top of the repository shows them all
//! and is tested to equal them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bus::Name;
use ipnet::{IpNet, Ipv4Net};
use router::queue::BitRate;
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
    pub dns: DnsConfig,
    pub wireguard: WireguardConfig,
    pub mqtt: MqttConfig,
    pub kubeedge: KubeEdgeConfig,
    pub telemetry: TelemetryConfig,
    pub api: ApiConfig,
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
    /// How long nodes' certificates hold that this cloud signs, its own too; they renew themselves when a third is left.
    /// Long enough that a cloud may be down for a month; a short one bounds for how long a stolen one is of use. At least
    /// 10s, which is for trying it out.
    #[serde(with = "duration")]
    pub certificate_validity: Duration,
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
    /// Of that certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// A replica that leads and does not answer the others for so long is taken over from. Long enough for the way between
    /// them, 600ms if not said; 0s: only when its lease in etcd ends, after 10 s.
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
    /// Networks behind this edge, beside those of its token. One that the token does not grant waits until somebody
    /// approves it at the cloud: `kubebus route approve`.
    pub lans: Vec<IpNet>,
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
    /// What this node's line carries towards its peers, if that is known: packets are then held to a little less from the
    /// start, which otherwise a thin line has to show first.
    #[serde(with = "rate", skip_serializing_if = "Option::is_none")]
    pub rate: Option<BitRate>,
    /// Whether the packets that this node sends have a congestion control around their own.
    pub congestion: Congestion,
}

/// As [`router::io::shard::Congestion`] has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Congestion {
    #[default]
    None,
    Cubic,
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

/// Names of nodes and of hosts on LANs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct DnsConfig {
    /// Answer at port 53 of the node's overlay addresses. Off, since a name server on this machine that is to listen on
    /// all addresses, as dnsmasq does, could not start any more.
    pub enabled: bool,
    /// Where else to answer, for instance at an address that the node has on its LAN. Only those who lie behind a node of
    /// the cluster are answered, wherever they ask.
    #[serde(deserialize_with = "certain_addresses")]
    pub listen: Vec<SocketAddr>,
    /// Who knows all other names, `address[:port]`, in turn. Empty: nobody, so questions for them are refused.
    pub upstream: Vec<Resolver>,
}

/// Answers must come from the address that was asked.
fn certain_addresses<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<SocketAddr>, D::Error> {
    let addresses = Vec::<SocketAddr>::deserialize(d)?;
    match addresses.iter().find(|address| address.ip().is_unspecified()) {
        Some(address) => Err(serde::de::Error::custom(format!(
            "{address} is every address: name those that are asked, for instance 192.168.10.1:53"
        ))),
        None => Ok(addresses),
    }
}

/// Somebody else's name server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Resolver(pub SocketAddr);

impl TryFrom<String> for Resolver {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let address = text.parse().or_else(|_| text.parse().map(|ip| SocketAddr::new(ip, 53)));
        address.map(Self).map_err(|_| {
            format!(
                "'{text}' is no name server's address; write 192.168.10.1, or [2001:db8::1]:5353 with a port"
            )
        })
    }
}

impl From<Resolver> for String {
    fn from(Resolver(address): Resolver) -> Self {
        address.to_string()
    }
}

/// A gateway for stock WireGuard clients; off while no port is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct WireguardConfig {
    /// UDP port, on all addresses. WireGuard's is 51820.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<u16>,
    /// `host:port`, as clients dial this node: what a NAT before it forwards to the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The interface that clients are behind.
    pub interface: String,
    pub backend: WireguardBackend,
}

/// Who encrypts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WireguardBackend {
    /// The kernel's WireGuard if there is one and this process may use it, else ours.
    #[default]
    Auto,
    Kernel,
    Userspace,
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
    /// Who the node is there.
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
    /// Where it listens, over TCP.
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
    /// Of that certificate.
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
    /// The same for what they hear.
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

/// Where metrics and logs are sent. Metrics are to be had at `/metrics` anyway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// An OpenTelemetry collector, which is sent metrics by OTLP over HTTP with JSON: `http://127.0.0.1:4318`,
    /// `https://otel.example:4318`, or `off`. A cloud sends those of its edges too. Off, since a scrape needs nothing that
    /// runs beside.
    pub otlp: Collector,
    /// A file in PEM with the authorities that may vouch for the collector, where it is one of `https`. Without it those
    /// of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// What of the log it is sent too: `error`, `warn`, `info`, `debug`, or `off`; never more than `--log` lets through. Off:
    /// it names people and machines, so whoever wants it elsewhere says so.
    pub logs: LogLevel,
    /// Between two requests, at least 10s. As often as Prometheus scrapes by default.
    #[serde(with = "duration")]
    pub interval: Duration,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { otlp: Collector::Off, ca: None, logs: LogLevel::Off, interval: Duration::from_secs(60) }
    }
}

/// Down to which level lines of the log count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    #[default]
    Off,
    Error,
    Warn,
    Info,
    Debug,
}

impl LogLevel {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// Where a collector is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Collector {
    #[default]
    Off,
    At {
        /// By `https`.
        tls: bool,
        /// `host:port`, and the beginning of a path if there is one.
        place: String,
    },
}

impl TryFrom<String> for Collector {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let wrong = || {
            format!(
                "telemetry.otlp: '{text}' is neither off nor like http://127.0.0.1:4318 or https://otel.example:4318"
            )
        };
        let (tls, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err(wrong()),
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
        let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
        let is_written = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '@');
        if host.is_empty() || !is_port || !rest.chars().all(is_written) {
            return Err(wrong());
        }
        Ok(Self::At { tls, place: rest.to_owned() })
    }
}

impl From<Collector> for String {
    fn from(collector: Collector) -> Self {
        match collector {
            Collector::Off => "off".to_owned(),
            Collector::At { tls: false, place } => format!("http://{place}"),
            Collector::At { tls: true, place } => format!("https://{place}"),
        }
    }
}

/// The API over HTTPS, for kubectl, scripts and the page: see `docs/access.md`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ApiConfig {
    /// TCP addresses. Off: a node opens no port that nobody asked for, and two nodes of one machine do not get into each
    /// other's way. 10443 is the port that the documentation uses.
    pub listen: Vec<SocketAddr>,
    /// A file in PEM. Without it and its key the node shows its own certificate, which `kubebus kubeconfig` knows how to
    /// check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// The certificate's key, a file in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
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
            dns: DnsConfig::default(),
            wireguard: WireguardConfig::default(),
            mqtt: MqttConfig::default(),
            kubeedge: KubeEdgeConfig::default(),
            telemetry: TelemetryConfig::default(),
            api: ApiConfig::default(),
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
            certificate_validity: Duration::from_secs(90 * 24 * 3600),
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
            rate: None,
            congestion: Congestion::None,
            standby: true,
        }
    }
}

impl Default for OverlayConfig {
    fn default() -> Self {
        Self { enabled: true, interface: "kb0".to_owned(), pool: constant("10.86.0.0/16") }
    }
}

impl Default for WireguardConfig {
    fn default() -> Self {
        let backend = WireguardBackend::Auto;
        Self { listen: None, endpoint: None, interface: "kbwg0".to_owned(), backend }
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

mod rate {
    //! Rates as people write them: `3Mbit`, `2500kbit`.

    use router::queue::BitRate;
    use serde::{Deserialize, Deserializer, Serializer, de};

    const UNITS: [(&str, u64); 3] = [("Gbit", 1_000_000_000), ("Mbit", 1_000_000), ("kbit", 1000)];

    pub(super) fn serialize<S: Serializer>(value: &Option<BitRate>, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{}kbit", value.map_or(0, BitRate::bits_per_s) / 1000))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<BitRate>, D::Error> {
        let text = String::deserialize(d)?;
        let split = UNITS.iter().find_map(|(unit, bits)| Some((text.strip_suffix(unit)?, bits)));
        let number = split.and_then(|(number, bits)| Some((number.trim().parse::<u64>().ok()?, bits)));
        match number.and_then(|(number, bits)| number.checked_mul(*bits)) {
            Some(bits) if bits >= LEAST => Ok(Some(BitRate::from_bits(bits))),
            Some(_) | None => Err(de::Error::custom(format!(
                "'{text}' is no rate of a line: write 3Mbit or 2500kbit, at least 64kbit"
            ))),
        }
    }

    /// Less carries no packet of the overlay's MTU within a CoDel interval.
    const LEAST: u64 = 64_000;
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

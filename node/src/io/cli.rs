//! The command line: what was typed, and what it means.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus::twin::DeviceId;
use bus::{JoinToken, Name, NodeId, Value};
use clap::{Args, Parser, Subcommand, ValueEnum};
use device_twin::command::CommandId;
use device_twin::condition::Condition;
use ipnet::IpNet;

use super::audit::show::AuditArgs;
use super::completions::{CompletionsArgs, ManArgs};
use super::debug::DebugCommand;
use super::fleet::StatusArgs;
use super::kubeconfig::KubeconfigArgs;
use super::label::LabelArgs;
use super::mapper::MapperCommand;
use super::names::DnsCommand;
use super::objects::{DescribeArgs, GetKind, WatchArgs};
use super::ping::PingArgs;
use super::route::RouteCommand;
use super::top::TopArgs;
use super::trace::TraceArgs;
use super::user::UserCommand;
use super::visit::PageArgs;
use super::wireguard::WireguardCommand;

/// Cloud and edges behind NAT as one system: overlay network, device twins, message bus.
///
/// Without a command the demo runs: a small internet on this machine, one cloud, two sites behind NAT, a water
/// utility on top.
#[derive(Debug, Parser)]
#[command(name = "kubebus", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show everything at work on this machine; needs no root
    Demo(DemoArgs),
    /// Whether this machine lets the demo have networks of its own
    #[command(hide = true)]
    DemoProbe,
    /// Run the cloud node, the one with a public address; back it up, restore it
    Cloud(CloudArgs),
    /// Join this machine to a cluster as an edge; starts nothing
    Join(JoinArgs),
    /// Run the edge node that 'kubebus join' prepared
    Edge(EdgeArgs),
    /// Invite edges
    #[command(subcommand)]
    Token(TokenCommand),
    /// Create or update devices, models, rules, policies and hosts from YAML or JSON files
    Apply(ApplyArgs),
    /// List nodes, devices, models, policies, rules, hosts, and all other kinds of objects
    Get(GetArgs),
    /// Tell all that is known of one object: manifest, state, links, twins, decisions, commands, events
    Describe(DescribeArgs),
    /// Print objects of a kind, and each change of them, until Ctrl-C
    Watch(WatchArgs),
    /// Delete a node, device, model, policy, rule or host
    Delete(DeleteArgs),
    /// Read and set device twins
    #[command(subcommand)]
    Twin(TwinCommand),
    /// What rules do and why; their log, and whether it replays
    #[command(subcommand)]
    Rule(RuleCommand),
    /// Who may reach whom over the overlay
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Which way packets go over the overlay
    #[command(subcommand)]
    Route(RouteCommand),
    /// Label sites and edges for access policies; at the cloud
    Label(LabelArgs),
    /// What machines on LANs are called
    #[command(subcommand)]
    Dns(DnsCommand),
    /// Ping a node or an address over the overlay; exits with 9 if nothing answers
    Ping(PingArgs),
    /// Say over which nodes packets go to a node or an address, how long each takes, and where it ends
    Trace(TraceArgs),
    /// Let in phones, routers and machines that have WireGuard and no kubebus
    #[command(subcommand)]
    Wireguard(WireguardCommand),
    /// Mappers, which connect devices: run one, list them, begin one of your own
    #[command(subcommand)]
    Mapper(MapperCommand),
    /// Who may use the MQTT broker: passwords, certificates
    #[command(subcommand)]
    Mqtt(MqttCommand),
    /// Who may come in over HTTPS, and what each may do
    #[command(subcommand)]
    User(UserCommand),
    Kubeconfig(KubeconfigArgs),
    Audit(AuditArgs),
    Page(PageArgs),
    /// How all nodes are that the running one knows of, what is wrong and what to do; with -o wide its own queues too
    Status(StatusArgs),
    /// The same live, what is wrong first: q quits, s sorts, arrows scroll
    Top(TopArgs),
    /// Is this machine fit; what is wrong and what to do; all of it in one file for whoever helps
    #[command(subcommand)]
    Debug(DebugCommand),
    /// Print the script by which a shell completes kubebus' commands
    ///
    /// bash: kubebus completions bash > /etc/bash_completion.d/kubebus
    Completions(CompletionsArgs),
    /// Write the manual pages
    Man(ManArgs),
    /// Which build this is
    Version {
        /// How to print
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
}

const DEFAULT_LOG: &str = "info";

/// Where the node's files are.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Configuration file; see kubebus.example.yaml for the keys
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The node's data directory, instead of the configured one (/var/lib/kubebus)
    #[arg(long, value_name = "DIR", env = "KUBEBUS_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub place: Place,
    /// What to log: error, warn, info, debug, or per part as in router=debug,info
    #[arg(long, default_value = DEFAULT_LOG, env = "KUBEBUS_LOG")]
    pub log: String,
}

#[derive(Debug, Args)]
pub struct EdgeArgs {
    /// If the store is damaged or gone, make a new one, which the cloud fills again
    ///
    /// What waited to go up is lost, except for samples, and so is what rules had latched. A damaged
    /// store is kept aside as store.redb.damaged-N; a sound one is used as it is.
    #[arg(long)]
    pub renew_store: bool,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct CloudArgs {
    #[command(subcommand)]
    pub command: Option<CloudCommand>,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub enum CloudCommand {
    /// Write all that the cloud is into one file: what it knows, its authority, its key
    ///
    /// The cloud may run or be stopped. The file is there whole or not at all. It holds the cluster's keys: keep it
    /// where the cloud's own disk could be kept, or encrypt it (kubebus cloud backup - | age -r KEY > FILE).
    Backup(BackupArgs),
    /// Make a cloud out of a backup, in an empty data directory; starts nothing
    ///
    /// Edges that reach the new cloud follow the old one no more.
    Restore(RestoreArgs),
}

#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Where to; one that is there is replaced. '-' for standard output
    pub file: PathBuf,
    /// Stop the cloud first, for good: to move it without a loss
    #[arg(long)]
    pub stop: bool,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// What 'kubebus cloud backup' wrote; '-' for standard input
    pub file: PathBuf,
    /// The new cloud's epoch, instead of the one after the backup's: higher than that of any cloud restored from it
    #[arg(long, value_name = "NUMBER")]
    pub epoch: Option<u64>,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// End after this long instead of at Ctrl-C
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Check what is claimed, print what held and what did not, and exit with 7 if something did not
    #[arg(long)]
    pub check: bool,
    /// Keep the nodes' files here instead of in a temporary directory
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Kill and restart the cloud or an edge this many times (kill -9 at random moments), then check
    #[arg(long, value_name = "TIMES", default_value_t = 0)]
    pub kills: u32,
    /// Run on loopback without packets, as where user namespaces are forbidden
    #[arg(long)]
    pub no_packets: bool,
    /// Leave out the packets' tour and the cut: what there is to see is on the page
    #[arg(long)]
    pub calm: bool,
    /// Serve the page at this port of 127.0.0.1; 0 is any that is free
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub page: u16,
}

#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The cloud's address: host, or host:port
    pub cloud: String,
    /// What 'kubebus token create' printed at the cloud
    #[arg(long)]
    pub token: JoinToken,
    /// This node's name; the host name if not given
    #[arg(long)]
    pub name: Option<Name>,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Print a token with which an edge of a site can join
    Create {
        /// The site that the edge belongs to
        #[arg(long)]
        site: Name,
        /// A network behind the edge that it may advertise; repeat for more
        #[arg(long, value_name = "CIDR")]
        lan: Vec<IpNet>,
        /// How long the token is good for
        #[arg(long, default_value = "24h", value_parser = humantime::parse_duration)]
        ttl: Duration,
        /// How many edges may join with it
        #[arg(long, default_value_t = 1)]
        uses: u32,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// List tokens; their secrets are not stored
    List {
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Revoke a token that was not used up
    Revoke {
        /// The id that 'kubebus token list' shows, or its beginning; or the token itself
        id: String,
        #[command(flatten)]
        place: Place,
    },
}

/// How to reach the running node and how to show the answer.
#[derive(Debug, Clone, Args)]
pub struct AskArgs {
    #[command(flatten)]
    pub place: Place,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    /// A table with all fields
    Wide,
    /// Names alone, one a line
    Name,
    Json,
    Yaml,
}

#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Manifest file, '-' for standard input; repeat for more. Documents may stand in any order
    #[arg(short, long, required = true)]
    pub filename: Vec<PathBuf>,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    #[value(alias = "node")]
    Nodes,
    #[value(alias = "device")]
    Devices,
    #[value(alias = "devicemodel")]
    Devicemodels,
    #[value(alias = "twinpolicy")]
    Twinpolicies,
    #[value(alias = "rule")]
    Rules,
    #[value(alias = "accesspolicy")]
    Accesspolicies,
    #[value(alias = "host")]
    Hosts,
}

impl Kind {
    /// The kind as the store names it; nodes are no stored resource.
    pub fn resource(self) -> Option<&'static str> {
        match self {
            Self::Nodes => None,
            Self::Devices => Some("device"),
            Self::Devicemodels => Some("devicemodel"),
            Self::Twinpolicies => Some("twinpolicy"),
            Self::Rules => Some("rule"),
            Self::Accesspolicies => Some("accesspolicy"),
            Self::Hosts => Some("host"),
        }
    }
}

#[derive(Debug, Args)]
pub struct GetArgs {
    #[arg(value_parser = GetKind::parser(), ignore_case = true)]
    pub kind: GetKind,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    #[arg(value_enum)]
    pub kind: Kind,
    /// namespace/name, or name in the namespace 'default'
    pub name: DeviceId,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Subcommand)]
pub enum TwinCommand {
    /// Show desired and reported of one device, or of all
    Get {
        /// namespace/device
        device: Option<DeviceId>,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Set what is desired: at the cloud, or at an edge that holds the authority
    ///
    /// Several at a time are carried out as one, all or none: kubebus twin set water/v1 position 0 water/v2 position
    /// 100. At an edge without the authority it is an operator's set, which lasts ten minutes.
    Set(SetArgs),
    /// Change some of what is desired of a device by JSON merge patch (RFC 7396); null takes a wish back
    Patch {
        /// namespace/device
        device: DeviceId,
        /// An object by property: '{"position": 40, "mode": null}'
        patch: String,
        #[command(flatten)]
        place: Place,
    },
    /// Order something that happens now or not at all, and wait for what becomes of it
    ///
    /// kubebus twin command water/valve set position=40 --expires 30s --when 'level<3.2'
    Command(CommandArgs),
    /// What became of commands
    Commands {
        /// namespace/device
        device: Option<DeviceId>,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Take the authority over what is desired of a device: at its edge, if its policy allows, or back at the cloud
    Take {
        /// namespace/device
        device: DeviceId,
        /// Why, for those who find it taken
        #[arg(long, default_value = "")]
        reason: String,
        /// Hand it back by itself after this long; at an edge only
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        lasting: Option<Duration>,
        #[command(flatten)]
        place: Place,
    },
    /// What was read of a device, as its edge keeps it
    History(HistoryArgs),
    /// Who set what, and what became of it; at the edge of a device, or at the cloud
    Audit {
        /// namespace/device
        device: Option<DeviceId>,
        /// From then on: how long ago ('2h'), or a time ('2026-11-28T10:00:00Z')
        #[arg(long, value_parser = parse_moment)]
        since: Option<Moment>,
        #[arg(long, value_parser = parse_moment)]
        until: Option<Moment>,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Hand the authority back to the cloud; at the edge that holds it
    HandBack {
        /// namespace/device
        device: DeviceId,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Subcommand)]
pub enum RuleCommand {
    /// What each rule does, what is latched, and which of its inputs are unknown
    List {
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Print the rules' log of this edge: each evaluation that changed something
    Log {
        #[command(flatten)]
        place: Place,
    },
    /// Evaluate a log again, and say where another decision comes out; exits with 1 if one does
    Replay {
        /// What 'kubebus rule log' printed; '-' for standard input
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct SetArgs {
    /// namespace/device, property and value, once or more often; a value is JSON, a bare word a string
    #[arg(num_args = 3.., required = true, value_names = ["DEVICE", "PROPERTY", "VALUE"], allow_negative_numbers = true)]
    pub wishes: Vec<String>,
    /// What the values are counted in, if not in their properties' units: a UCUM code
    #[arg(long)]
    pub unit: Option<String>,
    /// Only if this is the present version of all of them, as 'kubebus twin get' shows it
    #[arg(long, value_name = "VERSION")]
    pub if_version: Option<String>,
    /// Only if this holds of reported values: 'water/tank/level<3.2'; repeat for more
    #[arg(long, value_name = "CONDITION")]
    pub when: Vec<Condition>,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// namespace/device
    pub device: DeviceId,
    /// All of the device's if not given
    pub property: Option<String>,
    /// From then on: how long ago ('2h'), or a time ('2026-11-28T10:00:00Z')
    #[arg(long, value_parser = parse_moment)]
    pub since: Option<Moment>,
    #[arg(long, value_parser = parse_moment)]
    pub until: Option<Moment>,
    /// The newest so many; with --csv all there are
    #[arg(long, default_value_t = 100)]
    pub limit: usize,
    /// Comma-separated values (RFC 4180), oldest first
    #[arg(long)]
    pub csv: bool,
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub u64);

pub(super) fn parse_moment(text: &str) -> Result<Moment, String> {
    let time = match (humantime::parse_duration(text), humantime::parse_rfc3339_weak(text)) {
        (Ok(ago), _) => SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH),
        (_, Ok(time)) => time,
        (Err(_), Err(_)) => return Err("write '2h', '30m' or '2026-11-28T10:00:00Z'".to_owned()),
    };
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Moment(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}

#[derive(Debug, Args)]
pub struct CommandArgs {
    /// namespace/device
    pub device: DeviceId,
    /// set, reset-rule, or a method of the device's manifest
    pub name: String,
    /// property=value; a value is JSON, a bare word a string
    #[arg(value_parser = parse_argument)]
    pub args: Vec<(String, Value)>,
    /// How long the command is good for: after that nothing moves
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub expires: Duration,
    /// How long its values hold against weaker wishes; the property's desiredMaxAge if not given
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub hold: Option<Duration>,
    /// Only if this holds at the edge when it is carried out: 'level<3.2'; repeat for more
    #[arg(long, value_name = "CONDITION")]
    pub when: Vec<Condition>,
    /// Its id, so that it can be sent again without being done twice; one is made if not given
    #[arg(long)]
    pub id: Option<CommandId>,
    /// Do not wait for what becomes of it
    #[arg(long)]
    pub no_wait: bool,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Say whether FROM may begin to talk to TO, and which access policy decides; exits with 8 if it is denied
    ///
    /// Answers pass without a policy of their own. Ask at the cloud; an edge knows what may come in to it. The policies
    /// themselves: kubebus get accesspolicies.
    Test(PolicyTestArgs),
}

#[derive(Debug, Args)]
pub struct PolicyTestArgs {
    /// A node's name, or an address on the overlay
    pub from: String,
    /// A node's name, or an address on the overlay
    pub to: String,
    /// tcp, udp, icmp, or a number of IANA's; all of them if not given
    #[arg(long)]
    pub protocol: Option<String>,
    /// The port at TO; all of them if not given
    #[arg(long, requires = "protocol")]
    pub port: Option<u16>,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Subcommand)]
pub enum MqttCommand {
    /// Set the password of a client; it is asked for, or read from standard input
    ///
    /// The file is mosquitto's, so that mosquitto_passwd can change it too. A node reads it at its start.
    Passwd(PasswdArgs),
    /// Issue a certificate by which a mapper or user is known to every broker of the cluster; at the cloud
    ///
    /// kubebus mqtt certificate user/alice --out alice writes key, certificate and the authority's certificate into
    /// the directory. The cloud keeps no copy of the key.
    Certificate(CertificateArgs),
    /// List the certificates of mappers and apps that were issued, when they end, and which were revoked
    ///
    /// Those that were issued while the cloud did not run are not among them. Users with a role are in 'kubebus user list'.
    List {
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Let a mapper or app in no more, here and at all edges; connections that it has end. At the cloud
    ///
    /// It counts for the embedded brokers and for HTTPS; an edge that is cut off hears of it when its link is back. A site's
    /// own broker (mqtt.external) knows nothing of it. What is issued afterwards counts.
    Revoke(RevokeClientArgs),
}

#[derive(Debug, Args)]
pub struct RevokeClientArgs {
    /// mapper/NAME or user/NAME
    #[arg(value_name = "WHO")]
    pub who: NodeId,
    /// Only this one of its certificates, as 'kubebus mqtt list' has it; the beginning will do. All if not given
    #[arg(long, value_name = "ID")]
    pub certificate: Option<String>,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub struct PasswdArgs {
    /// The client's user name; mapper/NAME for a mapper
    pub name: String,
    /// The password file, instead of the configured one (mqtt.passwords)
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Remove the client instead
    #[arg(long)]
    pub remove: bool,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub struct CertificateArgs {
    /// mapper/NAME or user/NAME
    #[arg(value_name = "WHO")]
    pub who: NodeId,
    /// The directory to write into
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
    /// How long it holds
    #[arg(long = "for", value_name = "TIME", default_value = "90d", value_parser = humantime::parse_duration)]
    pub lasting: Duration,
    #[command(flatten)]
    pub place: Place,
}

fn parse_argument(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("'{text}' is no property=value"))?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::Text(value.to_owned()));
    Ok((name.to_owned(), value))
}

pub fn parse_value(text: &str) -> Result<Value, std::convert::Infallible> {
    Ok(serde_json::from_str(text).unwrap_or_else(|_| Value::Text(text.to_owned())))
}

/// Splits `host[:port]`, with KubeBus' port if none is given.
pub fn host_and_port(text: &str) -> Result<(String, u16), String> {
    host_and_port_or(text, 10001)
}

/// Splits `host[:port]`.
pub fn host_and_port_or(text: &str, default: u16) -> Result<(String, u16), String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok((address.ip().to_string(), address.port()));
    }
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Ok((text.to_owned(), default));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| format!("'{port}' is no port"))?),
        None => (text, default),
    };
    if host.is_empty() || host.contains(':') {
        return Err(format!(
            "'{text}' is no host[:port]; put an IPv6 address in brackets: [2001:db8::1]:{default}"
        ));
    }
    Ok((host.to_owned(), port))
}

impl Place {
    /// The directory in force: flag, else configuration.
    pub fn data_dir<'a>(&'a self, config: &'a crate::config::Config) -> &'a Path {
        self.data_dir.as_deref().unwrap_or(&config.data_dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_cloud_address_may_leave_out_the_port() {
        for (text, host, port) in [
            ("cloud.example", "cloud.example", 10001),
            ("cloud.example:99", "cloud.example", 99),
            ("203.0.113.10", "203.0.113.10", 10001),
            ("[2001:db8::1]:7", "2001:db8::1", 7),
            ("2001:db8::1", "2001:db8::1", 10001),
        ] {
            assert_eq!(host_and_port(text), Ok((host.to_owned(), port)), "{text}");
        }
        assert!(host_and_port("cloud:port").is_err());
        assert!(host_and_port(":7").is_err());
    }

    #[test]
    fn twin_values_are_json_or_a_bare_word() {
        assert_eq!(parse_value("3.5"), Ok(Value::Float(3.5)));
        assert_eq!(parse_value("true"), Ok(Value::Bool(true)));
        assert_eq!(parse_value("open"), Ok(Value::Text("open".into())));
    }
}

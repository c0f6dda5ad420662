//! Stock WireGuard clients behind a NAT, through real gateways in networks of their own: what a policy lets pass, what not,
//! and what becomes of it when clients are removed or get other keys, and when the cloud is away.
//!
//! Only a process with one thread can enter a user namespace, so this is no test of the standard harness.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking; the lint knows only the standard harness"
)]

mod client;
#[path = "../lab_node/mod.rs"]
#[expect(dead_code, reason = "shared with the target `network`")]
mod lab_node;
mod stage;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lab::io::Namespace;
use lab::io::probe::{EchoServer, ProbeError, ping, tcp_echo, udp_echo};

use client::Client;
use lab_node::{Node, PATIENCE};
use stage::Stage;

const PORT: u16 = 7007;

/// Long enough for the round trip, short enough to wait for in vain.
const IN_VAIN: Duration = Duration::from_millis(700);

/// Exit code as `kubebus` documents it.
const DENIED: i32 = 8;

const NOTHING: [bool; 3] = [false; 3];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut filters = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
    let no_filter = filters.peek().is_none();
    let filters: Vec<&String> = filters.collect();
    let wanted = |name: &str| no_filter || filters.iter().any(|filter| name.contains(filter.as_str()));
    let names = ["userspace", "kernel"]
        .map(|backend| (backend, format!("stock_clients_come_in_by_policy_with_the_{backend}_backend")));
    let wanted: Vec<_> = names.into_iter().filter(|(_, name)| wanted(name)).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        wanted.iter().for_each(|(_, name)| say(&format!("{name}: test")));
        return ExitCode::SUCCESS;
    }
    if wanted.is_empty() {
        return ExitCode::SUCCESS;
    }
    stage::enter();
    for (backend, name) in wanted {
        match stage::probe(backend) {
            Ok(()) => {
                stock_clients_come_in_by_policy(backend);
                say(&format!("test {name} ... ok"));
            }
            Err(why) => say(&format!("test {name} ... not run, this kernel has no WireGuard: {why}")),
        }
    }
    ExitCode::SUCCESS
}

fn say(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").unwrap();
}

fn stock_clients_come_in_by_policy(backend: &str) {
    let mut stage = Stage::build(backend);
    let _servers: Vec<EchoServer> = stage.servers();
    if let Err(why) = stage::probe("kernel") {
        nobody_is_let_in_where_the_backend_is_not_to_be_had(&stage.far, &why);
    }
    by_the_cloud(&stage, backend);
    by_an_edge(&mut stage, backend);
}

/// The node says why, and all else that follows goes through it.
fn nobody_is_let_in_where_the_backend_is_not_to_be_had(far: &Node, why: &str) {
    let status = &far.json(&["status"])["wireguard"];
    assert_eq!(status["backend"], "none", "{status}");
    let problem = status["problem"].as_str().unwrap();
    let refused = why.rsplit(": ").next().unwrap();
    assert!(problem.starts_with("the kernel's WireGuard is not to be had: "), "{problem}");
    assert!(problem.ends_with(refused), "{problem}");
}

fn by_the_cloud(stage: &Stage, backend: &str) {
    let Stage { cloud, far, .. } = stage;
    let mut phone = Client::new(stage, "phone", 31);
    let invited = cloud.command(&["wireguard", "add", "phone", "--site", "people", "--gateway", "cloud/hq"]);
    let (config, told) = invited.expect_both(0);
    assert_eq!(told, "", "the QR code is for eyes: a key has no place in the log of a job");
    phone.configure(&config);
    let _phones = phone.servers();
    let hosts = far.lan();
    let depot = ["192.168.20.0/24", "fd20::/64"];
    phone.route_into_tunnel(&depot);
    assert_eq!(through(&phone.network, hosts[0]), NOTHING, "there is no policy yet");

    cloud.apply(&policy(
        "reads",
        "{site: people}",
        "{site: depot}",
        "[{protocol: tcp, from: 7007, to: 7008}, {protocol: icmp}]",
    ));
    for host in hosts {
        becomes(&format!("{host} is reached"), [true, false, true], || through(&phone.network, host));
    }
    for address in phone.addresses() {
        assert_eq!(through(&far.host, address), NOTHING, "the host only answers");
    }
    cloud.apply(&policy("calls", "{site: depot}", "{node: phone}", "[{protocol: udp, port: 7007}]"));
    for address in phone.addresses() {
        becomes(&format!("{address} is called"), [false, true, false], || through(&far.host, address));
    }
    the_gateway_itself_is_closed(stage, &phone);
    it_is_told(cloud, backend, &phone);

    let mut talk = Talk::begin(&phone.network, &far.host, SocketAddr::new(hosts[0], PORT + 1));
    let mut tablet = Client::new(stage, "tablet", 32);
    tablet.configure(&cloud.command(&["wireguard", "add", "tablet", "--site", "people"]).expect(0));
    becomes("a second client comes in", [true, false, true], || through(&tablet.network, hosts[0]));
    talk.goes_on();

    let old = config;
    let new = cloud.command(&["wireguard", "rotate", "phone"]).expect(0);
    assert!(new.contains("192.168.20.0/24"), "what the policy opened since is in AllowedIPs: {new}");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(through(&phone.network, hosts[0]), NOTHING, "the old key lets nobody in");
    phone.configure(&old);
    phone.route_into_tunnel(&depot);
    assert_eq!(through(&phone.network, hosts[0]), NOTHING, "nor does a new handshake with it");
    phone.configure(&new);
    becomes("the new key is in force", [true, false, true], || through(&phone.network, hosts[0]));
    assert_eq!(through(&tablet.network, hosts[0]), [true, false, true], "the other client is as it was");

    cloud.command(&["wireguard", "remove", "phone"]).expect(0);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(through(&phone.network, hosts[0]), NOTHING);
    assert_eq!(through(&far.host, phone.addresses()[0]), NOTHING);
    assert_eq!(through(&tablet.network, hosts[0]), [true, false, true]);
    let names = |node: &Node| -> Vec<String> {
        let list = node.json(&["wireguard", "list"]);
        list.as_array().unwrap().iter().map(|client| client["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(cloud), ["tablet"]);
}

/// What does not go over the overlay is asked of the policy too: the gateway's own addresses, and clients beside each
/// other.
fn the_gateway_itself_is_closed(stage: &Stage, phone: &Client) {
    let gateway = stage.cloud.address();
    assert_eq!(through(&phone.network, gateway), NOTHING);
    phone.route_into_tunnel(&["203.0.113.22/32"]);
    let of_the_internet: IpAddr = "203.0.113.22".parse().unwrap();
    assert_eq!(through(&phone.network, of_the_internet), NOTHING, "the gateway is no way to the internet");
    stage.cloud.apply(&policy("to-cloud", "{node: phone}", "{site: hq}", "[{protocol: udp, port: 7007}]"));
    becomes("the gateway is opened", [false, true, false], || through(&phone.network, gateway));
}

fn it_is_told(cloud: &Node, backend: &str, phone: &Client) {
    let status = cloud.json(&["status"]);
    assert_eq!(status["wireguard"]["backend"], backend, "{status}");
    let list = cloud.json(&["wireguard", "list"]);
    let client = &list[0];
    assert_eq!((&client["name"], &client["site"]), (&"phone".into(), &"people".into()), "{list}");
    assert!(client["tunnel"]["handshake_age_ms"].as_u64().unwrap() < 180_000, "{list}");
    assert!(client["tunnel"]["received"].as_u64().unwrap() > 500, "{list}");
    let endpoint = client["tunnel"]["endpoint"].as_str().unwrap();
    assert!(endpoint.starts_with("203.0.113.31:"), "the NAT's address: {list}");
    let table = cloud.command(&["wireguard", "list"]).expect(0);
    assert!(table.starts_with("NAME") && table.contains(" ago ") && table.contains("cloud/hq"), "{table}");
    let found = cloud.json(&["route", "get", "phone"]);
    assert_eq!(
        (&found["owner"], &found["peer"], &found["site"]),
        (&"cloud/hq".into(), &"phone".into(), &"people".into())
    );
    assert_eq!(
        (&found["kind"], &found["address"]),
        (&"wireguard".into(), &phone.addresses()[0].to_string().into())
    );
    let test = ["policy", "test", "phone", "192.168.20.20", "--protocol", "tcp", "--port"];
    let told = cloud.command(&[&test[..], &["7007"]].concat()).expect(0);
    assert!(told.contains("(site people, client phone) to 192.168.20.20"), "{told}");
    cloud.command(&[&test[..], &["7009"]].concat()).expect(DENIED);
}

/// Clients of an edge are let in without the cloud, also after a restart.
fn by_an_edge(stage: &mut Stage, backend: &str) {
    let mut plc = Client::new(stage, "plc", 33);
    let public = plc.public_key();
    let invited = ["wireguard", "add", "plc", "--gateway", "edge/gate", "--public-key", &public];
    let config = stage.cloud.command(&invited).expect(0);
    plc.configure(&config);
    let _plcs = plc.servers();
    let behind_gate = stage.gate.lan();
    stage.cloud.apply(&policy("plcs", "{node: plc}", "{site: depot}", "[{protocol: icmp}]"));
    let far_host = stage.far.lan()[0];
    plc.route_into_tunnel(&["192.168.20.0/24", "192.168.10.0/24", "fd10::/64"]);
    becomes("a host behind another edge is reached", [false, false, true], || {
        through(&plc.network, far_host)
    });
    for host in behind_gate {
        assert_eq!(through(&plc.network, host), NOTHING, "the gateway's own LAN is another site");
    }
    assert_eq!(through(&stage.gate.host, plc.addresses()[0]), NOTHING);
    stage.cloud.apply(&policy(
        "to-plant",
        "{node: plc}",
        "{site: plant, kind: lan}",
        "[{protocol: tcp, port: 7007}]",
    ));
    for host in behind_gate {
        becomes("the gateway's LAN is opened", [true, false, false], || through(&plc.network, host));
    }
    assert_eq!(stage.gate.json(&["status"])["wireguard"]["backend"], backend);
    let list = stage.gate.json(&["wireguard", "list"]);
    assert_eq!(list.as_array().unwrap().len(), 1, "its own alone: {list}");
    assert!(list[0]["tunnel"]["sent"].as_u64().unwrap() > 0, "{list}");

    let before = stage.gate.public_key();
    stage.cloud.kill();
    assert_eq!(through(&plc.network, behind_gate[0]), [true, false, false], "the cloud is away");
    stage.gate.kill();
    stage.gate.start();
    assert_eq!(stage.gate.public_key(), before);
    becomes("the gateway is back without the cloud", [true, false, false], || {
        through(&plc.network, behind_gate[0])
    });
    assert_eq!(through(&stage.gate.host, plc.addresses()[0]), NOTHING);

    stage.cloud.start();
    becomes("packets pass between sites again", [false, false, true], || through(&plc.network, far_host));
    stage.cloud.command(&["wireguard", "remove", "plc"]).expect(0);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(through(&plc.network, behind_gate[0]), NOTHING);
}

fn policy(name: &str, from: &str, to: &str, ports: &str) -> String {
    format!(
        "apiVersion: kubebus.io/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: {name}}}\n\
         spec: {{from: [{from}], to: [{to}], ports: {ports}}}\n"
    )
}

/// What gets through: TCP, UDP and a ping.
fn through(from: &Namespace, to: IpAddr) -> [bool; 3] {
    let target = SocketAddr::new(to, PORT);
    let passes = |outcome: Result<Duration, ProbeError>| outcome.is_ok();
    let probe =
        || [passes(tcp_echo(target, IN_VAIN)), passes(udp_echo(target, IN_VAIN)), passes(ping(to, IN_VAIN))];
    from.run(probe).unwrap()
}

/// A TCP connection that lasts; an [`EchoServer`] hangs up on who is silent.
struct Talk {
    client: TcpStream,
    server: TcpStream,
}

impl Talk {
    fn begin(from: &Namespace, host: &Namespace, at: SocketAddr) -> Self {
        let listener = host.run(|| TcpListener::bind(at)).unwrap().unwrap();
        let client = from.run(|| TcpStream::connect_timeout(&at, PATIENCE)).unwrap().unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut talk = Self { client, server };
        talk.goes_on();
        talk
    }

    fn goes_on(&mut self) {
        self.client.write_all(b"still there").unwrap();
        let mut heard = [0; 11];
        self.server.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"still there");
    }
}

fn becomes<const N: usize>(what: &str, wanted: [bool; N], mut look: impl FnMut() -> [bool; N]) {
    let mut seen = [false; N];
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        seen = look();
        if seen == wanted {
            return;
        }
    }
    panic!("{what}: {seen:?} and not {wanted:?} within {PATIENCE:?}");
}

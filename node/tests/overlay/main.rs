//! Packets between two sites, through real nodes in networks of their own: what a policy lets pass, and what not.
//!
//! Only a process with one thread can enter a user namespace, so this is no test of the standard harness.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking; the lint knows only the standard harness"
)]

mod stage;

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lab::io::Namespace;
use lab::io::probe::{EchoServer, ProbeError, ping, tcp_echo, udp_echo};

use stage::{Node, Stage};

const NAME: &str = "a_policy_opens_one_port_from_one_site_to_another_and_nothing_else";

const PORT: u16 = 7007;

/// For one thing to come true: many times what an idle machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Long enough for the round trip, short enough to wait for in vain.
const IN_VAIN: Duration = Duration::from_millis(700);

const POLICY: &str = "
apiVersion: kubebus.io/v1alpha1
kind: AccessPolicy
metadata: {name: a-calls-b}
spec:
  from: [{site: site-a}]
  to: [{site: site-b}]
  ports: [{protocol: tcp, port: 7007}, {protocol: icmp}]
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut filters = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
    let is_wanted = filters.peek().is_none() || filters.any(|filter| NAME.contains(filter.as_str()));
    if is_wanted && arguments.iter().any(|argument| argument == "--list") {
        say(&format!("{NAME}: test"));
    } else if is_wanted {
        one_port_from_one_site_to_another();
        say(&format!("test {NAME} ... ok"));
    }
    ExitCode::SUCCESS
}

fn say(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").unwrap();
}

fn one_port_from_one_site_to_another() {
    let mut stage = Stage::build();
    let [a, b] = [address(&stage.a), address(&stage.b)];
    let _servers = [server(&stage.a, a), server(&stage.b, b)];

    assert_eq!(through(&stage.a.network, b), [false; 3], "there is no policy yet");
    assert_eq!(through(&stage.b.network, a), [false; 3]);
    assert!(denied(&stage.cloud) >= 6);
    stage.a.command(&["policy", "test", "b", "a", "--protocol", "icmp"]).expect(8);

    stage.cloud.apply(POLICY);
    becomes("the policy is in force", [true, false, true], || through(&stage.a.network, b));
    assert_eq!(through(&stage.b.network, a), [false; 3], "b only answers");
    stage.b.command(&["policy", "test", "a", "b", "--protocol", "tcp", "--port", "7007"]).expect(0);

    let before = denied(&stage.cloud);
    stage.cloud.kill();
    stage.b.kill();
    stage.b.start();
    stage.b.command(&["policy", "test", "a", "b", "--protocol", "tcp", "--port", "7007"]).expect(0);
    stage.b.command(&["policy", "test", "a", "b", "--protocol", "tcp", "--port", "7008"]).expect(8);
    stage.cloud.start();
    becomes("packets pass again", [true, false, true], || through(&stage.a.network, b));
    assert!(before > 0 && denied(&stage.cloud) > 0, "a new process counts anew");

    stage.cloud.command(&["delete", "accesspolicy", "a-calls-b"]).expect(0);
    becomes("the policy is gone", [false; 3], || through(&stage.a.network, b));
    stage.cloud.command(&["policy", "test", "a", "b"]).expect(8);
}

/// What gets through: TCP, UDP and a ping.
fn through(from: &Namespace, to: IpAddr) -> [bool; 3] {
    let target = SocketAddr::new(to, PORT);
    let passes = |outcome: Result<Duration, ProbeError>| outcome.is_ok();
    let probe =
        || [passes(tcp_echo(target, IN_VAIN)), passes(udp_echo(target, IN_VAIN)), passes(ping(to, IN_VAIN))];
    from.run(probe).unwrap()
}

fn server(node: &Node, at: IpAddr) -> EchoServer {
    EchoServer::start(&node.network, SocketAddr::new(at, PORT)).unwrap()
}

/// The node's IPv4 address on the overlay, once it has one.
fn address(node: &Node) -> IpAddr {
    eventually("a lease", || node.status()["overlay"]["addresses"][0].as_str()?.parse().ok())
}

fn denied(node: &Node) -> u64 {
    node.status()["counters"]["router_packets_dropped"]["denied"].as_u64().unwrap()
}

fn becomes<const N: usize>(what: &str, wanted: [bool; N], mut look: impl FnMut() -> [bool; N]) {
    eventually(what, || (look() == wanted).then_some(()));
}

/// Looks until it is there.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

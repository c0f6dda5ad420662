//! What a policy lets pass, what not, and who says why.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lab::io::Namespace;
use lab::io::probe::{EchoServer, ProbeError, ping, tcp_echo, udp_echo};

use crate::lab_node::{CONFIG, Node, eventually};
use crate::stage::Stage;
use crate::{IN_VAIN, PORT};

/// Exit codes as `kubebus` documents them.
const NOT_FOUND: i32 = 4;
const UNREACHABLE: i32 = 9;

const POLICY: &str = "
apiVersion: kubebus.io/v1alpha1
kind: AccessPolicy
metadata: {name: a-calls-b}
spec:
  from: [{site: site-a}]
  to: [{site: site-b}]
  ports: [{protocol: tcp, port: 7007}, {protocol: icmp}]
";

pub(crate) fn one_port_from_one_site_to_another() {
    // What is decided at the cloud is to be seen there.
    let mut stage = Stage::build_with(&CONFIG.replace("idle: 5s", "idle: 5s, direct: false"));
    let [a, b] = [stage.a.address(), stage.b.address()];
    let _servers = [server(&stage.a, a), server(&stage.b, b)];

    assert_eq!(through(&stage.a.network, b), [false; 3], "there is no policy yet");
    assert_eq!(through(&stage.b.network, a), [false; 3]);
    assert!(denied(&stage.cloud) >= 6);
    ways_are_told(&stage, b);
    silence_is_explained(&stage);
    stage.a.command(&["policy", "test", "b", "a", "--protocol", "icmp"]).expect(8);

    stage.cloud.apply(POLICY);
    becomes("the policy is in force", [true, false, true], || through(&stage.a.network, b));
    assert_eq!(through(&stage.b.network, a), [false; 3], "b only answers");
    b_is_pinged(&stage, b);
    stage.b.command(&["policy", "test", "a", "b", "--protocol", "tcp", "--port", "7007"]).expect(0);

    let before = denied(&stage.cloud);
    stage.cloud.kill();
    the_way_is_cut(&stage);
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

/// Each node knows the way to `b`, the cloud also what its policy says, and nobody knows what nobody has.
fn ways_are_told(stage: &Stage, b: IpAddr) {
    let way = |node: &Node| node.json(&["route", "get", "b"]);
    let from_edge = way(&stage.a);
    assert_eq!(from_edge["prefix"], format!("{b}/32"));
    assert_eq!((&from_edge["owner"], &from_edge["site"]), (&"edge/b".into(), &"site-b".into()));
    assert_eq!(from_edge["next_hop"]["peer"], "cloud/hq");
    assert_eq!(from_edge["link"]["remote"], "203.0.113.10:10001");
    assert_eq!(from_edge["policy"]["decision"], "unknown");
    let from_cloud = way(&stage.cloud);
    assert_eq!(
        (&from_cloud["next_hop"]["peer"], &from_cloud["link"]["peer"]),
        (&"edge/b".into(), &"edge/b".into())
    );
    assert_eq!(from_cloud["policy"]["because"], "no access policy is about these two");
    let table = stage.a.command(&["route", "get", &b.to_string()]).expect(0);
    assert!(table.contains("link       203.0.113.10:10001, rtt "), "{table}");
    let list = stage.a.json(&["route", "list"]);
    let of_b = list.as_array().unwrap().iter().filter(|route| route["owner"] == "edge/b");
    assert_eq!(of_b.count(), 4, "its own addresses and its containers', of both families: {list}");
    for command in [&["route", "get", "10.99.0.1"][..], &["route", "get", "nobody"], &["ping", "nobody"]] {
        stage.a.command(command).expect(NOT_FOUND);
    }
}

fn silence_is_explained(stage: &Stage) {
    let ping = ["ping", "b", "-c", "1"];
    let told = stage.cloud.command(&ping).expect_both(UNREACHABLE).1;
    assert!(told.contains("no access policy is about these two"), "{told}");
    let told = stage.a.command(&ping).expect_both(UNREACHABLE).1;
    assert!(told.contains("ask there: kubebus policy test"), "{told}");
}

fn b_is_pinged(stage: &Stage, b: IpAddr) {
    let told = stage.a.command(&["ping", "b", "-c", "3", "-i", "100ms"]).expect(0);
    assert!(told.starts_with(&format!("ping {b} (edge/b) from ")), "{told}");
    assert!(told.contains("3 sent, 3 answered, 0 % lost\nmin/avg/max "), "{told}");
    assert!(told.contains("path: cloud/hq at 203.0.113.10:10001, rtt "), "{told}");
    hops_are_told(stage, b);
    let v6 = stage.b.status()["overlay"]["addresses"][1].as_str().unwrap().to_owned();
    stage.a.command(&["ping", &v6, "-c", "1"]).expect(0);
    // From here on a datagram socket will do, instead of a raw one.
    let allow = || std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0");
    stage.a.network.run(allow).unwrap().unwrap();
    for address in [b.to_string(), v6] {
        stage.a.command(&["ping", &address, "-c", "1"]).expect(0);
    }
}

/// The policy opens `b` to pings and not the cloud.
fn hops_are_told(stage: &Stage, b: IpAddr) {
    let told = stage.a.command(&["trace", "b"]).expect(0);
    let rows: Vec<&str> = told.lines().collect();
    assert!(rows[0].starts_with(&format!("trace {b} (edge/b) from ")), "{told}");
    let hop = |row: &str| row.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>();
    let (cloud, edge) = (hop(rows[2]), hop(rows[3]));
    assert_eq!(
        (&cloud[..2], cloud[4].as_str()),
        (&["1".to_owned(), "cloud/hq".to_owned()][..], "0/3"),
        "{told}"
    );
    assert!(rows[2].contains("203.0.113.10:10001, rtt ") && rows[2].contains("the cloud decides"), "{told}");
    assert_eq!(
        (edge[1].as_str(), edge[2].as_str(), edge[4].as_str()),
        ("edge/b", b.to_string().as_str(), "3/3")
    );
}

/// The edge sees that its link is gone, and says so.
fn the_way_is_cut(stage: &Stage) {
    let cut = || stage.a.command(&["route", "get", "b"]).ended_with(UNREACHABLE).then_some(());
    eventually("the link is gone", cut);
    let told = stage.a.command(&["route", "get", "b"]).expect(UNREACHABLE);
    assert!(told.contains("no packets link to cloud/hq"), "{told}");
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

fn denied(node: &Node) -> u64 {
    node.status()["counters"]["router_packets_dropped"]["denied"].as_u64().unwrap()
}

fn becomes<const N: usize>(what: &str, wanted: [bool; N], mut look: impl FnMut() -> [bool; N]) {
    eventually(what, || (look() == wanted).then_some(()));
}

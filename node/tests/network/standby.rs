//! Packets between two edges when one of their cloud's replicas is killed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use lab::NatKind;
use lab::io::probe::{EchoServer, udp_echo};
use lab::io::{Namespace, Wire, enter_user_namespace};

use crate::direct::POLICY;
use crate::lab_node::{CLOUD, Node, attach, attach_behind, eventually};
use crate::{IN_VAIN, PORT, say};

const SECOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);
const ETCD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 40);

/// Direct paths would carry on by themselves.
const CONFIG: &str = "
cloud:
  cluster: water
  name: hq
  endpoints: ['203.0.113.10:10001', '203.0.113.11:10001']
  store: {etcd: {endpoints: ['http://203.0.113.40:2379']}}
link: {direct: false}
mqtt: {listen: '127.0.0.1:1883'}
";

/// One member, in a network of its own.
struct Etcd {
    process: Child,
    _network: Namespace,
}

impl Etcd {
    fn start(wire: &Wire, room: &Path) -> Self {
        let network = Namespace::create("etcd").unwrap();
        attach(wire, &network, ETCD, None);
        let at = format!("http://{ETCD}:2379");
        let mut command = Command::new("etcd");
        command
            .args(["--data-dir", "etcd", "--log-level", "error", "--listen-client-urls", &at])
            .args(["--advertise-client-urls", &at])
            .current_dir(room)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        network.command(&mut command);
        let process = command
            .spawn()
            .unwrap_or_else(|why| panic!("cannot start etcd ({why}): apt-get install etcd-server"));
        Self { process, _network: network }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn packets_go_on_by_the_replica_that_takes_over() {
    enter_user_namespace().unwrap();
    let (wire, room) = (Wire::start(7).unwrap(), tempfile::tempdir().unwrap());
    let _etcd = Etcd::start(&wire, room.path());
    let [mut first, second] = [("hq", CLOUD), ("hq-2", SECOND)].map(|(name, public)| {
        let mut cloud = Node::new("cloud", name, room.path());
        cloud.configure(CONFIG);
        attach(&wire, &cloud.network, public, None);
        cloud.start();
        cloud
    });
    let [a, b] = [("a", 21), ("b", 22)].map(|(name, last)| {
        let mut edge = Node::new("edge", name, room.path());
        edge.configure(CONFIG);
        attach_behind(NatKind::PortRestricted, &wire, &edge.network, last);
        let token = first.command(&["token", "create", "--site", &format!("site-{name}")]).expect(0);
        edge.command(&["join", &CLOUD.to_string(), "--token", token.trim(), "--name", name]).expect(0);
        edge.start();
        edge
    });
    first.apply(POLICY);
    let addresses = [&a, &b].map(Node::address);
    let _servers = [(&a, addresses[0]), (&b, addresses[1])]
        .map(|(node, at)| EchoServer::start(&node.network, SocketAddr::new(at, PORT)).unwrap());
    let answers = |from: &Node, to: IpAddr| {
        let target = SocketAddr::new(to, PORT);
        from.network.run(|| udp_echo(target, IN_VAIN).is_ok()).unwrap().then_some(())
    };
    eventually("packets pass", || answers(&a, addresses[1]));
    for edge in [&a, &b] {
        eventually("a standby", || (edge.status()["standby"]["state"] == "ready").then_some(()));
    }
    eventually("the second replica is ready", || {
        (second.status()["replica"]["takes_over"] == "at once").then_some(())
    });
    assert!(answers(&a, addresses[1]).is_some(), "a lane in reserve takes no packets");

    first.kill();
    let start = Instant::now();
    eventually("packets pass again", || answers(&a, addresses[1]));
    let took = start.elapsed();
    eventually("and from the other side", || answers(&b, addresses[0]));
    say(&format!("packets passed again {took:?} after the kill"));
    let way = a.json(&["route", "get", "b"]);
    assert_eq!(way["link"]["remote"], "203.0.113.11:10001");
    // It comes back as the one that waits, and packets stay where they are.
    first.start();
    for edge in [&a, &b] {
        eventually("a standby again", || (edge.status()["standby"]["state"] == "ready").then_some(()));
    }
    assert!(answers(&a, addresses[1]).is_some());
    assert_eq!(second.status()["replica"]["state"], "leads");
}

//! Two edges behind NATs that find a way past their cloud, and what they still do when it is gone.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use ipnet::Ipv4Net;
use lab::io::lan::{LanAddress, LanLink, connect};
use lab::io::probe::{EchoServer, tcp_echo, udp_echo};
use lab::io::{Namespace, Wire, enter_user_namespace};
use lab::{NatKind, NatSettings, PortId};
use serde_json::Value;
use tempfile::TempDir;

use crate::lab_node::{CLOUD, CONFIG, Node, PATIENCE, attach, attach_behind, eventually};
use crate::{IN_VAIN, PORT};

pub(crate) const POLICY: &str = "
apiVersion: kubebus.io/v1alpha1
kind: AccessPolicy
metadata: {name: a-and-b}
spec:
  from: [{site: site-a}, {site: site-b}]
  to: [{site: site-a}, {site: site-b}]
";

const JUNCTION: &str = "
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: sensor, namespace: water}
spec: {properties: [{name: pressure, type: FLOAT, accessMode: ReadOnly}]}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: junction, namespace: water}
spec: {deviceModelRef: {name: sensor}, nodeName: a, protocol: {protocolName: virtual}}
";

/// The order of fields is that of dropping: processes, then their network, then their files.
struct Pair {
    a: Node,
    b: Node,
    cloud: Node,
    _servers: Vec<EchoServer>,
    addresses: [IpAddr; 2],
    wire: Wire,
    ports: Vec<PortId>,
    _room: TempDir,
}

impl Pair {
    fn behind(kinds: [NatKind; 2]) -> Self {
        enter_user_namespace().unwrap();
        let wire = Wire::start(7).unwrap();
        let networks = ["a", "b"].map(|name| Namespace::create(name).unwrap());
        let places = kinds.into_iter().zip([21, 22]).zip(&networks);
        let ports = places.map(|((kind, last), network)| attach_behind(kind, &wire, network, last)).collect();
        Self::join(wire, networks, ports)
    }

    /// Both behind one router, which is behind a NAT.
    fn in_one_network() -> Self {
        enter_user_namespace().unwrap();
        let (wire, router) = (Wire::start(7).unwrap(), Namespace::create("router").unwrap());
        let gateway = Ipv4Addr::new(192, 168, 2, 1);
        let inside = Ipv4Net::new(gateway, 24).unwrap();
        let nat = NatSettings { kind: NatKind::PortRestricted, inside };
        let port = attach(&wire, &router, Ipv4Addr::new(203, 0, 113, 21), Some(nat));
        // Their public addresses lead to each other too, and only one way is to be taken.
        wire.set_hairpin(port, true);
        let networks = [("a", 2), ("b", 3)].map(|(name, last)| {
            let network = Namespace::create(name).unwrap();
            let host = Ipv4Addr::new(192, 168, 2, last);
            let link = LanLink {
                gateway_interface: format!("lan-{name}"),
                host_interface: "eth0".to_owned(),
                addresses: vec![LanAddress { gateway: gateway.into(), host: host.into() }],
            };
            connect(&router, &network, &link).unwrap();
            network
        });
        Self::join(wire, networks, vec![port])
    }

    /// Both have joined, each for a site of its own, and may talk to each other.
    fn join(wire: Wire, networks: [Namespace; 2], ports: Vec<PortId>) -> Self {
        let room = tempfile::tempdir().unwrap();
        let mut cloud = Node::new("cloud", "hq", room.path());
        cloud.configure(CONFIG);
        attach(&wire, &cloud.network, CLOUD, None);
        cloud.start();
        cloud.apply(POLICY);
        cloud.apply(JUNCTION);
        let mut names = ["a", "b"].into_iter();
        let [a, b] = networks.map(|network| {
            let name = names.next().unwrap();
            let mut edge = Node::within(network, "edge", name, room.path());
            edge.configure(CONFIG);
            let token = cloud.command(&["token", "create", "--site", &format!("site-{name}")]).expect(0);
            edge.command(&["join", &CLOUD.to_string(), "--token", token.trim(), "--name", name]).expect(0);
            edge.start();
            edge
        });
        let addresses = [&a, &b].map(Node::address);
        let servers = [&a, &b].into_iter().zip(addresses);
        let servers = servers.map(|(node, at)| EchoServer::start(&node.network, (at, PORT).into()).unwrap());
        Self { _servers: servers.collect(), a, b, cloud, addresses, wire, ports, _room: room }
    }

    /// Whether a packet of `a` is answered by `b`.
    fn is_answered(&self) -> bool {
        let target = SocketAddr::new(self.addresses[1], PORT);
        self.a.network.run(|| udp_echo(target, IN_VAIN).is_ok()).unwrap()
    }

    /// Both talk until each says this of the way to the other.
    fn talk_until(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        eventually(what, || {
            self.is_answered();
            [&self.a, &self.b].iter().all(|node| is_so(&way(node))).then_some(())
        });
    }

    fn become_neighbours(&self) {
        self.talk_until("the edges are neighbours", |way| way["path"] == "direct");
    }
}

/// What a node says of the way to the other edge.
fn way(node: &Node) -> Value {
    node.status()["paths"][0].clone()
}

pub(crate) fn neighbours_work_on_while_the_cloud_is_away() {
    let mut pair = Pair::behind([NatKind::PortRestricted, NatKind::RestrictedCone]);
    let heard = Heard::at(&pair.b, "twin/water/junction/reported/pressure");
    eventually("b hears of the device by the cloud", || {
        report(&pair.a, 1.0);
        heard.values().contains(&1.0).then_some(())
    });
    pair.become_neighbours();
    assert_eq!(way(&pair.a)["remote"].as_str().unwrap().split(':').next(), Some("203.0.113.22"));
    let forwarded =
        |pair: &Pair| pair.cloud.status()["counters"]["router_packets_forwarded"].as_u64().unwrap();
    let before = forwarded(&pair);
    assert!((0..20).all(|_| pair.is_answered()));
    assert_eq!(forwarded(&pair), before, "nothing goes by the cloud");
    assert_eq!(pair.a.json(&["route", "get", "b"])["next_hop"]["peer"], "edge/b");
    pair.a.command(&["ping", "b", "-c", "2", "-i", "100ms"]).expect(0);

    pair.cloud.kill();
    for _ in 0..10 {
        assert!(pair.is_answered(), "no packet is lost with the cloud");
    }
    for edge in [&pair.a, &pair.b] {
        eventually("the cloud is known to be gone", || {
            (edge.status()["cloud"]["connected"] == false).then_some(())
        });
    }
    let target = SocketAddr::new(pair.addresses[1], PORT);
    pair.a.network.run(|| tcp_echo(target, PATIENCE)).unwrap().unwrap();
    for value in [2.0, 3.0, 4.0] {
        report(&pair.a, value);
        eventually("b hears it without the cloud", || heard.values().contains(&value).then_some(()));
    }

    pair.cloud.start();
    for edge in [&pair.a, &pair.b] {
        eventually("the cloud is back", || (edge.status()["cloud"]["connected"] == true).then_some(()));
    }
    report(&pair.a, 5.0);
    eventually("b hears by the cloud again", || heard.values().contains(&5.0).then_some(()));
    let mut values = heard.values();
    values.dedup();
    let since = values.iter().position(|value| *value == 2.0).unwrap();
    assert_eq!(values[since..], [2.0, 3.0, 4.0, 5.0], "nothing goes back to what was before");
}

pub(crate) fn a_symmetric_nat_keeps_a_pair_with_the_cloud_which_says_so() {
    let pair = Pair::behind([NatKind::Symmetric, NatKind::PortRestricted]);
    pair.talk_until("they do not meet, and say why", |way| {
        let because = way["because"].as_str().unwrap_or_default();
        way["path"] == "relayed" && because.contains("symmetric NAT")
    });
    assert!((0..10).all(|_| pair.is_answered()), "by the cloud");
    let table = pair.a.command(&["status"]).expect(0);
    assert!(table.contains("symmetric NAT"), "{table}");
}

pub(crate) fn behind_one_nat_the_way_inside_is_taken() {
    let pair = Pair::in_one_network();
    pair.become_neighbours();
    for (node, there) in [(&pair.a, "192.168.2.3:"), (&pair.b, "192.168.2.2:")] {
        let remote = way(node)["remote"].as_str().unwrap().to_owned();
        assert!(remote.starts_with(there), "{remote}");
    }
    // The site's line to the world is cut, and its edges still talk.
    pair.wire.cut(pair.ports[0]);
    assert!((0..10).all(|_| pair.is_answered()));
}

pub(crate) fn a_way_that_breaks_is_left_at_once_and_found_again() {
    let pair = Pair::behind([NatKind::FullCone, NatKind::PortRestricted]);
    pair.become_neighbours();
    let old = way(&pair.a)["remote"].clone();
    // A connection of an app does not notice.
    let listener =
        pair.b.network.run(|| std::net::TcpListener::bind((pair.addresses[1], 7008))).unwrap().unwrap();
    let app = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut echo = stream.try_clone().unwrap();
        std::io::copy(&mut &stream, &mut echo)
    });
    let target = SocketAddr::new(pair.addresses[1], 7008);
    let mut client = pair.a.network.run(|| std::net::TcpStream::connect(target)).unwrap().unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut says = |text: &[u8]| {
        let mut answer = vec![0; text.len()];
        client.write_all(text).unwrap();
        std::io::Read::read_exact(&mut client, &mut answer).unwrap();
        assert_eq!(answer, text);
    };
    says(b"straight");
    // Only the way between the two is closed.
    let close = "nft add table ip lab; nft add chain ip lab in '{ type filter hook input priority 0; }'; \
                 nft add rule ip lab in ip saddr 203.0.113.22 udp dport 1-65535 drop";
    let mut shell = Command::new("sh");
    shell.args(["-c", close]);
    let ran = pair.a.network.command(&mut shell).output().unwrap();
    assert!(ran.status.success(), "nft (Debian: nftables) in a namespace: {ran:?}");
    says(b"by the cloud");
    eventually("the way by the cloud is known", || (way(&pair.a)["path"] == "relayed").then_some(()));
    says(b"still by the cloud");
    let mut shell = Command::new("nft");
    shell.args(["delete", "table", "ip", "lab"]);
    assert!(pair.a.network.command(&mut shell).status().unwrap().success());
    pair.become_neighbours();
    assert_eq!(way(&pair.a)["remote"], old);
    says(b"straight again");
    drop(client);
    app.join().unwrap().unwrap();
}

fn report(node: &Node, value: f64) {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-q", "1", "-t", "twin/water/junction/report/pressure", "-m", &value.to_string()]);
    let ran = node.network.command(&mut command).output();
    let ran = ran.unwrap_or_else(|error| {
        panic!("mosquitto_pub: {error}; install it: apt-get install mosquitto-clients")
    });
    assert!(ran.status.success(), "{ran:?}");
}

/// A client that listens at a node's broker.
struct Heard {
    process: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Heard {
    fn at(node: &Node, filter: &str) -> Self {
        let mut command = Command::new("mosquitto_sub");
        command.args(["-q", "1", "-t", filter]).stdin(Stdio::null()).stdout(Stdio::piped());
        let spawned = node.network.command(&mut command).spawn();
        let mut process = spawned.unwrap_or_else(|error| {
            panic!("mosquitto_sub: {error}; install it: apt-get install mosquitto-clients")
        });
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (kept, stdout) = (Arc::clone(&lines), process.stdout.take().unwrap());
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.for_each(|line| kept.lock().unwrap().push(line));
        });
        Self { process, lines }
    }

    fn values(&self) -> Vec<f64> {
        let value = |line: &String| serde_json::from_str::<Value>(line).ok()?["value"].as_f64();
        self.lines.lock().unwrap().iter().filter_map(value).collect()
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

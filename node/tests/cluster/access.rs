//! Who may use the broker: certificates of the cluster, passwords, rights, as an operator sets them up.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Cluster, Node};
use crate::process::{Ran, run, run_with};

/// Exit codes as `kubebus` documents them.
const FAILURE: i32 = 1;
const USAGE: i32 = 2;

/// A listener of the node besides the one that all tests use.
fn beside(node: &Node) -> SocketAddr {
    SocketAddr::new(node.mqtt().ip(), node.mqtt().port() + 1)
}

/// Adds to the section `mqtt` of a node's configuration.
fn configure(node: &Node, more: &str) {
    let text = std::fs::read_to_string(node.config()).unwrap();
    let listen = format!("mqtt: {{listen: '{}'", node.mqtt());
    assert!(text.contains(&listen), "{text}");
    std::fs::write(node.config(), text.replace(&listen, &format!("{listen}, {more}"))).unwrap();
}

fn publish(at: SocketAddr, topic: &str, more: &[&str]) -> Ran {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", &at.ip().to_string(), "-p", &at.port().to_string(), "-V", "mqttv5", "-q", "1"]);
    command.args(["-t", topic, "-m", "online"]).args(more);
    run(command)
}

/// Its word was not taken, and it was told why.
#[track_caller]
fn is_refused(ran: &Ran) {
    assert!(ran.stderr.contains("Not authorized"), "{ran:?}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_certificate_of_the_cloud_opens_every_edges_broker_to_what_its_holder_may() {
    let cluster = Cluster::start();
    let papers = cluster.path("papers");
    let issued =
        cluster.cloud.say(&["mqtt", "certificate", "user/alice", "--out", text(&papers), "--for", "1h"]);
    assert!(issued.starts_with("spiffe://water/user/alice, valid until 20"), "{issued}");
    cluster.cloud.say(&["mqtt", "certificate", "mapper/modbus", "--out", text(&papers)]);
    let key = papers.join("user-alice.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);

    let edge = cluster.stranger("a");
    let at = beside(&edge);
    configure(
        &edge,
        &format!(
            "listeners: [{{address: '{at}', tls: {{client-certificate: required}}}}], \
             rights: [{{who: 'user/*', publish: ['mesh/{{name}}/#']}}, {{who: anonymous, publish: ['#']}}]"
        ),
    );
    let edge = cluster.admit(edge);
    let ca = papers.join("cluster-ca.pem");
    // The node's certificate names the node, not the host.
    let as_holder = |who: &str| {
        let file = |end: &str| text(&papers.join(format!("{who}.{end}"))).to_owned();
        let args = ["--cafile", text(&ca), "--cert", &file("pem"), "--key", &file("key"), "--insecure"];
        args.map(str::to_owned)
    };
    let [alice, modbus] = ["user-alice", "mapper-modbus"].map(as_holder);
    let [alice, modbus] = [&alice, &modbus].map(|args| args.iter().map(String::as_str).collect::<Vec<_>>());
    publish(at, "mesh/alice/x", &alice).expect(0);
    is_refused(&publish(at, "mesh/bob/x", &alice));
    publish(at, "mapper/modbus/state", &modbus);
    is_refused(&publish(at, "mapper/other/state", &modbus));
    assert_ne!(publish(at, "mesh/alice/x", &["--cafile", text(&ca), "--insecure"]).code, Some(0));
    publish(edge.mqtt(), "mesh/whatever", &[]).expect(0);

    let counters = edge.ask(&["status"])["counters"].clone();
    assert_eq!((&counters["mqtt_refused"], &counters["mqtt_handshakes_failed"]), (&2.into(), &1.into()));
    let again = cluster.cloud.run(&["mqtt", "certificate", "user/alice", "--out", text(&papers)]);
    again.refused(FAILURE, &["user-alice.key is there", "--out"]);
    cluster.cloud.run(&["mqtt", "certificate", "edge/a"]).refused(USAGE, &["'edge/a' is no client"]);
    edge.run(&["mqtt", "certificate", "user/alice"]).refused(FAILURE, &["issue certificates at the cloud"]);
}

#[test]
fn passwords_are_set_by_kubebus_and_by_mosquitto_alike() {
    let mut cluster = Cluster::start();
    let file = cluster.path("passwords");
    let set = |node: &Node, name: &str, password: &str| {
        run_with(node.command(&["mqtt", "passwd", name, "--file", text(&file)]), &format!("{password}\n"))
    };
    set(&cluster.cloud, "alice", "old").expect(0);
    set(&cluster.cloud, "alice", "right").expect(0);
    set(&cluster.cloud, "gone", "x").expect(0);
    let mut theirs = Command::new("mosquitto_passwd");
    theirs.args(["-b", text(&file), "bob", "theirs"]);
    run(theirs).expect(0);
    cluster.cloud.say(&["mqtt", "passwd", "gone", "--remove", "--file", text(&file)]);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    set(&cluster.cloud, "mapper/No", "x").refused(USAGE, &["mapper"]);
    set(&cluster.cloud, "carl", "").refused(FAILURE, &["an empty password"]);

    cluster.cloud.terminate();
    configure(&cluster.cloud, &format!("anonymous: false, passwords: '{}'", text(&file)));
    cluster.cloud.start();
    let at = cluster.cloud.mqtt();
    for (name, password) in [("alice", "right"), ("bob", "theirs")] {
        publish(at, "mesh/x", &["-u", name, "-P", password]).expect(0);
    }
    for login in [&["-u", "alice", "-P", "old"][..], &["-u", "gone", "-P", "x"], &[]] {
        assert_ne!(publish(at, "mesh/x", login).code, Some(0), "{login:?}");
    }
    assert_eq!(cluster.cloud.ask(&["status"])["counters"]["mqtt_not_admitted"], 3);
    mosquitto_knows(&file, ("alice", "right"));
}

/// mosquitto itself lets in whom our file names.
#[track_caller]
fn mosquitto_knows(file: &Path, (name, password): (&str, &str)) {
    let [.., high, low] = std::process::id().to_be_bytes();
    let at = SocketAddr::new(Ipv4Addr::new(127, high, low, 253).into(), 21885);
    let config = file.with_extension("conf");
    let lines = format!("listener {} {}\npassword_file {}\nuser root\n", at.port(), at.ip(), file.display());
    std::fs::write(&config, lines).unwrap();
    let mut broker = Command::new("mosquitto").arg("-c").arg(&config).stderr(Stdio::null()).spawn().unwrap();
    let known = crate::process::eventually("mosquitto listens", || {
        let ran = publish(at, "x", &["-u", name, "-P", password]);
        if ran.stderr.contains("refused") { Err(format!("{ran:?}")) } else { Ok(ran) }
    });
    broker.kill().unwrap();
    broker.wait().unwrap();
    known.expect(0);
}

#[test]
fn a_broker_that_nobody_could_use_or_all_the_world_could_does_not_start_by_mistake() {
    let cluster = Cluster::start();
    let edge = cluster.stranger("a");
    cluster.join(&edge, &cluster.token()).expect(0);
    let passwords = cluster.file("plain", "alice:secret\n");
    let text = std::fs::read_to_string(edge.config()).unwrap();
    let cases = [
        (
            "listeners: [{address: '0.0.0.0:21886'}]".to_owned(),
            vec!["mqtt.listeners[0] (0.0.0.0:21886)", "anonymous: true"],
        ),
        (format!("passwords: '{}'", passwords.display()), vec!["plain: line 1", "mosquitto_passwd -U"]),
        ("rights: [{who: bob}]".to_owned(), vec!["mqtt.rights, rule 1 ('bob')"]),
    ];
    for (more, told) in cases {
        std::fs::write(edge.config(), &text).unwrap();
        configure(&edge, &more);
        edge.run(&["edge"]).refused(FAILURE, &told);
    }
}

//! Faults of nodes on loopback.

use std::net::TcpListener;
use std::time::{Duration, SystemTime};

use bus::{Identity, UnixMillis};
use controller::io::ca::CertificateAuthority;
use controller::io::csr_for;
use rustls::pki_types::PrivatePkcs8KeyDer;

use crate::Diagnosis;
use crate::harness::{Cluster, Node, QUICK_LINK};
use crate::meters;
use crate::process::eventually;

#[track_caller]
pub(crate) fn diagnose(node: &Node, about: &[&str]) -> Diagnosis {
    let ran = node.run(&[&["debug", "diagnose", "-o", "json"], about].concat());
    Diagnosis::read(ran.code, &ran.stdout)
}

/// Waits until the node is healthy: right after a start the cloud and its edges are still getting to know each other.
#[track_caller]
pub(crate) fn is_healthy(node: &Node) {
    first_becomes(node, &[], "nothing");
}

/// Waits until the first finding is this one.
#[track_caller]
pub(crate) fn first_becomes(node: &Node, about: &[&str], cause: &str) -> Diagnosis {
    eventually(&format!("{} {about:?} has {cause}", node.name), || {
        let found = diagnose(node, about);
        if found.first() == cause { Ok(found) } else { Err(format!("{:#}", found.document)) }
    })
}

pub(crate) fn of_a_site() {
    let cluster = Cluster::start();
    let mut a = cluster.edge("a");
    is_healthy(&a);
    is_healthy(&cluster.cloud);

    // A mapper that is not there, told from both ends of the link.
    cluster.apply(&meters::without_mapper());
    for node in [&a, &cluster.cloud] {
        let found = first_becomes(node, &[], "mapper-away");
        let finding = &found.document["findings"][0];
        assert_eq!((&finding["about"], found.causes.len()), (&"water/meter".into(), 1), "{finding}");
        assert_eq!(finding["evidence"][0], "mapper modbus is not connected");
        first_becomes(node, &["water/meter"], "mapper-away");
    }
    cluster.cloud.say(&["delete", "device", "water/meter"]);
    is_healthy(&a);

    // What is not known is refused with the command that helps.
    a.run(&["debug", "diagnose", "water/nothing"]).refused(4, &["water/nothing", "kubebus get devices"]);

    // A second machine with a copy of the first one's files.
    a.kill();
    let copy = a.copy_data();
    a.start();
    let mut twin = cluster.stranger("twin");
    std::fs::create_dir(twin.data_dir()).unwrap();
    twin.put_back(&copy);
    twin.start();
    first_becomes(&a, &[], "same-identity");
    twin.kill();

    // A broker of the site's own that is away.
    a.kill();
    let config = std::fs::read_to_string(a.config()).unwrap();
    let external = config.replace("mqtt: {listen:", "mqtt: {external: {address: '127.0.0.1:1'}, listen:");
    std::fs::write(a.config(), external).unwrap();
    a.start();
    first_becomes(&a, &[], "broker");
    a.kill();
    std::fs::write(a.config(), config).unwrap();

    // The process, and what keeps it from starting.
    first_becomes(&a, &[], "node-down");
    first_becomes(&cluster.cloud, &["a"], "edge-away");
    let _squatter = TcpListener::bind(a.mqtt()).unwrap();
    let found = first_becomes(&a, &[], "port-taken");
    let by = format!("(process {})", std::process::id());
    assert!(found.document["findings"][0].to_string().contains(&by), "{:#}", found.document);
}

pub(crate) fn of_the_cloud() {
    let mut cluster = Cluster::start();
    let [mut a, mut b] = ["a", "b"].map(|name| cluster.edge(name));

    // The name of the cloud is nobody's.
    let (identity, endpoint) = (a.data_dir().join("identity.json"), cluster.cloud.endpoint());
    let right = std::fs::read_to_string(&identity).unwrap();
    a.kill();
    std::fs::write(&identity, right.replace(&endpoint, "cloud.invalid:21001")).unwrap();
    a.start();
    first_becomes(&a, &[], "dns");
    a.kill();
    std::fs::write(&identity, right).unwrap();
    a.start();
    cluster.in_step("a");
    is_healthy(&a);

    // Deleted, by what a running node met, and by a try of one that does not run.
    cluster.cloud.say(&["delete", "node", "a"]);
    first_becomes(&a, &[], "not-member");
    a.kill();
    let found = diagnose(&a, &[]);
    assert_eq!(found.causes, ["node-down", "not-member"], "{:#}", found.document);

    // A cloud that was outlived by one restored from its backup.
    let backup = cluster.path("backup");
    let file = backup.to_str().unwrap();
    cluster.cloud.say(&["cloud", "backup", file]);
    let mut next = cluster.second_cloud("next");
    next.say(&["cloud", "restore", file]);
    b.kill();
    let identity = b.data_dir().join("identity.json");
    let right = std::fs::read_to_string(&identity).unwrap();
    std::fs::write(&identity, right.replace(&endpoint, &next.endpoint())).unwrap();
    next.start();
    b.start();
    is_healthy(&b);
    eventually("b follows the next cloud", || {
        let connected = next.ask(&["status"])["connected"].clone();
        if connected[0]["in_step"] == true { Ok(()) } else { Err(connected.to_string()) }
    });
    b.kill();
    std::fs::write(&identity, right).unwrap();
    b.start();
    first_becomes(&b, &[], "outdated-cloud");
    first_becomes(&cluster.cloud, &[], "outdated-cloud");
    next.kill();

    // Nobody at the port, and then a cloud of somebody else.
    cluster.cloud.kill();
    first_becomes(&b, &[], "nothing-listens");
    std::fs::remove_dir_all(cluster.cloud.data_dir()).unwrap();
    cluster.cloud.start();
    first_becomes(&b, &[], "wrong-authority");
}

pub(crate) fn of_files_and_disks() {
    let mut cluster = Cluster::start();

    // A clock that is an hour ahead.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now = UnixMillis(now.as_millis().try_into().unwrap());
    let mut maker = bus::io::virtual_clock::Maker::start(now);
    let clock = cluster.path("a.clock");
    maker.add_machine(&clock, 3_600_000).unwrap();
    let mut a = cluster.stranger("a");
    a.env.push((bus::io::virtual_clock::FILE, clock));
    let mut a = cluster.admit(a);
    first_becomes(&a, &[], "clock-skew");

    // A certificate whose time is over, with a node that runs and one that does not.
    a.kill();
    let long_ago = UnixMillis(now.0 - 200 * 24 * 3_600_000);
    let authority = CertificateAuthority::open_or_create(
        &cluster.cloud.data_dir().join("ca"),
        &"water".parse().unwrap(),
        now,
    );
    let key = std::fs::read(a.data_dir().join("node.key.der")).unwrap();
    let csr = csr_for(&PrivatePkcs8KeyDer::from(key.as_slice())).unwrap();
    let identity: Identity = "spiffe://water/edge/a".parse().unwrap();
    let signed =
        authority.unwrap().issue(&csr, &identity, long_ago, Duration::from_secs(90 * 24 * 3600)).unwrap();
    std::fs::write(a.data_dir().join("node.crt.der"), signed.certificate_der).unwrap();
    assert_eq!(diagnose(&a, &[]).causes, ["certificate-expired", "node-down"]);
    let ran = a.run(&["debug", "check"]).expect(10);
    assert!(ran.stdout.contains("fail   certificate"), "{ran:?}");
    a.start();
    let found = first_becomes(&a, &[], "certificate-expired");
    assert!(found.document.to_string().contains("own-certificate-expired"), "{:#}", found.document);

    // A disk without room, which the edge's machine and the cloud know of.
    let small = Node::new("edge", "small", &cluster.path(""), QUICK_LINK).on_small_disk();
    let mut small = cluster.admit(small);
    is_healthy(&small);
    small.disk().fill();
    first_becomes(&small, &[], "disk-full");

    // A damaged file, and one that makes no sense.
    cluster.cloud.kill();
    std::fs::write(cluster.cloud.data_dir().join("cloud.id"), "nobody").unwrap();
    assert_eq!(diagnose(&cluster.cloud, &[]).first(), "data-dir");
    let ran = cluster.stranger("nobody").run(&["debug", "diagnose", "-o", "json"]);
    assert_eq!(Diagnosis::read(ran.code, &ran.stdout).first(), "not-joined");
    std::fs::write(cluster.cloud.config(), "links: {}\n").unwrap();
    let ran = cluster.cloud.run(&["debug", "check", "-o", "json"]).expect(10);
    assert!(ran.stdout.contains("unknown field"), "{ran:?}");
}

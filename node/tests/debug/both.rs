//! Faults that only an edge sees, named at its cloud, which asks it over their link.

use std::process::{Child, Stdio};
use std::time::Instant;

use crate::Diagnosis;
use crate::faults::{diagnose, first_becomes, is_healthy};
use crate::harness::process::{eventually, run};
use crate::harness::{Cluster, Node, SHIPPED_LINK, kubebus};
use crate::meters;

/// A process that ends with the test, also with one that fails.
struct Running(Child);

impl Running {
    fn start(args: &[&str]) -> Self {
        let mut command = kubebus(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first finding is the edge's own, and the cloud found nothing else.
#[track_caller]
fn is_named(cloud: &Node, edge: &str, cause: &str) -> Diagnosis {
    let found = first_becomes(cloud, &["--node", &format!("edge/{edge}")], cause);
    let first = &found.document["findings"][0];
    assert_eq!(first["node"], format!("edge/{edge}"), "{:#}", found.document);
    found
}

pub(crate) fn faults_of_an_edge_at_the_cloud() {
    let cluster = Cluster::start_with(SHIPPED_LINK);
    let (cloud, mut a) = (&cluster.cloud, cluster.edge("a"));
    both_ends_are_healthy(cloud, &a);

    // Its mapper: first none, then one that does not find its device.
    cluster.apply(&meters::without_mapper());
    let found = is_named(cloud, "a", "mapper-away");
    assert_eq!(found.document["findings"][0]["about"], "water/meter");
    // By the device's name too, and both ends say it once.
    let found = first_becomes(cloud, &["water/meter"], "mapper-away");
    let first = &found.document["findings"][0];
    assert_eq!((&first["node"], found.causes.len()), (&"edge/a".into(), 1), "{first:#}");
    cloud.say(&["delete", "device", "water/meter"]);
    cluster.apply(&meters::of_unknown_host());
    let broker = a.mqtt().to_string();
    let mapper = Running::start(&["mapper", "run", "modbus", "--broker", &broker]);
    let found = is_named(cloud, "a", "device-name");
    assert_eq!(found.document["findings"][0]["about"], "water/nowhere", "{:#}", found.document);
    drop(mapper);
    cloud.say(&["delete", "device", "water/nowhere"]);

    // A file with which it would not start again is a line of its checks. What it runs with is looked at, not that.
    let config = std::fs::read_to_string(a.config()).unwrap();
    std::fs::write(a.config(), "links: {}\n").unwrap();
    eventually("the edge's configuration fails", || {
        let checked = cloud.run(&["debug", "check", "--node", "a"]);
        // What was asked within ten seconds is answered once.
        let is_named = checked.stdout.contains("fail") && checked.stdout.contains("unknown field");
        if is_named && checked.code == Some(10) { Ok(()) } else { Err(format!("{checked:?}")) }
    });
    let found = diagnose(cloud, &["--node", "edge/a"]);
    assert!(!found.causes.iter().any(|cause| cause == "broker"), "{:#}", found.document);

    // Its site's broker.
    a.kill();
    let external = config.replace("mqtt: {listen:", "mqtt: {external: {address: '127.0.0.1:1'}, listen:");
    std::fs::write(a.config(), external).unwrap();
    a.start();
    is_named(cloud, "a", "broker");
    a.kill();
    std::fs::write(a.config(), config).unwrap();

    // Its disk.
    let small = Node::new("edge", "small", &cluster.path(""), SHIPPED_LINK).on_small_disk();
    let mut small = cluster.admit(small);
    small.disk().fill();
    is_named(cloud, "small", "disk-full");

    // A process that hangs, while its link stands.
    a.start();
    cluster.in_step("a");
    let signal = |name: &str| {
        let mut kill = std::process::Command::new("kill");
        kill.args([name, &a.pid().to_string()]);
        run(kill).expect(0);
    };
    signal("-STOP");
    let began = Instant::now();
    let found = diagnose(cloud, &["a"]);
    signal("-CONT");
    assert_eq!(found.first(), "edge-silent", "{:#}", found.document);
    assert!(began.elapsed().as_secs() < 40, "{:?}", began.elapsed());

    // And one that is away: what the cloud alone knows, and what to run there.
    a.terminate();
    let found = first_becomes(cloud, &["--node", "a"], "edge-away");
    let advice = found.document["findings"][0]["advice"].as_str().unwrap();
    assert!(advice.contains("kubebus debug diagnose"), "{advice}");
    cloud.run(&["debug", "check", "--node", "a"]).refused(1, &["not connected", "kubebus debug check"]);
    cloud.run(&["debug", "check", "--node", "nobody"]).refused(4, &["no node 'nobody'"]);
}

#[track_caller]
fn both_ends_are_healthy(cloud: &Node, a: &Node) {
    is_healthy(a);
    for (node, about) in [(cloud, &["--node", "edge/a"][..]), (a, &[])] {
        let found = first_becomes(node, about, "nothing");
        let ends = found.document["ends"].as_array().unwrap();
        for from in ["cloud/cloud", "edge/a"] {
            let is_its = |end: &&serde_json::Value| end["from"] == from && end["mtu"].as_u64() >= Some(1200);
            assert!(ends.iter().any(|end| is_its(&end)), "{from}: {:#}", found.document);
        }
        assert!(ends.iter().any(|end| end["message_ms"].is_f64()), "{:#}", found.document);
    }
    let told = cloud.say(&["debug", "diagnose", "a"]);
    assert!(told.contains("nothing wrong that can be seen at either end"), "{told}");
    assert!(told.contains("MEASURED AT") && told.contains("edge/a"), "{told}");
    let told = a.say(&["debug", "diagnose"]);
    assert!(told.contains("cloud/cloud sees of this edge:\n   certificate ends 20"), "{told}");
    // What an edge is not asked for by its cloud it does not do.
    a.run(&["debug", "check", "--node", "a"]).refused(1, &["only the cloud can do this"]);
}

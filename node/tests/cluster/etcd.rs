//! A cloud in several replicas over a real etcd of three members.

#[cfg(feature = "etcd")]
#[path = "../../../metadata/src/io/etcd/cluster.rs"]
pub(crate) mod members;

#[cfg(feature = "etcd")]
pub(crate) mod replicas {
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, Signal, kill_process};
    use serde_json::json;

    use super::members::EtcdCluster;
    use crate::harness::{Node, QUICK_LINK};
    use crate::mqtt::{self, V5};
    use crate::process::eventually;
    use crate::twins::Plant;

    const COUNT: (&str, &str) = ("water/meter", "count");
    const SETPOINT: (&str, &str) = ("water/valve", "setpoint");
    const REPORT: &str = "twin/water/meter/report/count";

    /// A lease of 10 s, and what a standby needs to read everything and start.
    const TAKEOVER: Duration = Duration::from_secs(25);

    /// Makes it a replica at its next start.
    fn replicate(node: &Node, etcd: &EtcdCluster, endpoints: &[String], takeover_after: &str) {
        node.configure(QUICK_LINK, endpoints);
        let text = std::fs::read_to_string(node.config()).unwrap();
        let store = format!(
            "cloud: {{store: {{etcd: {{takeover-after: {takeover_after}, endpoints: {:?}}}}}, ",
            etcd.endpoints()
        );
        std::fs::write(node.config(), text.replace("cloud: {", &store)).unwrap();
    }

    /// A plant whose cloud kept a file until now, and a second replica that stands by. It takes over when a lease ends.
    fn moved_into(etcd: &EtcdCluster) -> (Plant, Node) {
        moved_into_with(etcd, "0s")
    }

    pub(crate) fn moved_into_with(etcd: &EtcdCluster, takeover_after: &str) -> (Plant, Node) {
        let mut plant = Plant::start();
        plant.cluster.cloud.say(&["twin", "set", "water/valve", "setpoint", "2.5"]);
        plant.cluster.cloud.twin_becomes(SETPOINT, "/converged", json!(true));
        assert!(plant.cluster.cloud.terminate().0.success());
        let mut second = plant.cluster.second_cloud("second");
        let endpoints = [plant.cluster.cloud.endpoint(), second.endpoint()];
        for replica in [&plant.cluster.cloud, &second] {
            replicate(replica, etcd, &endpoints, takeover_after);
        }
        plant.cluster.cloud.start();
        second.launch(&[]);
        eventually("the second replica stands by", || match second.logged("standby: cloud/cloud on") {
            0 => Err("silence".into()),
            _ => Ok(()),
        });
        plant.cluster.in_step("a");
        (plant, second)
    }

    /// Waits until a standby that was launched answers as the cloud.
    pub(crate) fn leads(node: &Node) -> Duration {
        let start = Instant::now();
        eventually(&format!("{} leads", node.name), || {
            let ran = node.run(&["status", "-o", "json"]);
            let leads = ran.code == Some(0) && ran.stdout.contains("\"leads\"");
            if leads { Ok(()) } else { Err(format!("{ran:?}")) }
        });
        start.elapsed()
    }

    #[test]
    fn a_cloud_moves_into_etcd_and_goes_on_in_another_replica_when_it_is_killed() {
        let etcd = EtcdCluster::start();
        let (mut plant, second) = moved_into(&etcd);
        let pid = plant.a.pid();
        let cloud = &plant.cluster.cloud;
        assert_eq!(cloud.twin("water/valve", "setpoint")["desired"], json!(2.5));
        mqtt::say(&plant.a, V5, REPORT, "7");
        cloud.twin_becomes(COUNT, "/reported/value", json!(7));
        plant.cluster.cloud.say(&["twin", "set", "water/valve", "setpoint", "3"]);
        plant.cluster.cloud.kill();

        let mut first = std::mem::replace(&mut plant.cluster.cloud, second);
        let took = leads(&plant.cluster.cloud);
        assert!(took < TAKEOVER, "{took:?}");
        assert_eq!(plant.cluster.cloud.twin("water/valve", "setpoint")["desired"], json!(3.0));
        plant.cluster.in_step("a");
        // Its reports stayed at the first: the edge says them again.
        plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(7));
        plant.cluster.cloud.twin_becomes(SETPOINT, "/converged", json!(true));
        mqtt::say(&plant.a, V5, REPORT, "8");
        plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(8));
        // The authority is the same one.
        let _b = plant.cluster.edge("b");

        // The first comes back, stands by, and knows no old tale when it leads again.
        first.launch(&[]);
        eventually("the first stands by", || match first.logged("standby: cloud/cloud on") {
            0 => Err("silence".into()),
            _ => Ok(()),
        });
        assert!(plant.cluster.cloud.terminate().0.success());
        let _second = std::mem::replace(&mut plant.cluster.cloud, first);
        leads(&plant.cluster.cloud);
        ["a", "b"].iter().for_each(|edge| plant.cluster.in_step(edge));
        plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(8));
        plant.cluster.cloud.twin_becomes(SETPOINT, "/converged", json!(true));
        assert_eq!(plant.a.pid(), pid);
    }

    #[test]
    fn the_death_of_etcds_leader_under_a_stream_of_wishes_loses_none() {
        let mut etcd = EtcdCluster::start();
        let (plant, _second) = moved_into(&etcd);
        let cloud = &plant.cluster.cloud;
        let mut versions = Vec::new();
        for wish in 1..=60 {
            let said = cloud.say(&["twin", "set", "water/valve", "setpoint", &(1 + wish % 5).to_string()]);
            versions.push(said.rsplit(' ').next().unwrap_or_default().to_owned());
            if [20, 40].contains(&wish) {
                let leader = etcd.leader();
                etcd.kill(leader);
                std::thread::sleep(Duration::from_millis(wish * 20));
                etcd.run(leader);
            }
        }
        let expected: Vec<_> = (2..=61).map(|seq| format!("0.{seq}")).collect();
        assert_eq!(versions, expected);
        cloud.twin_becomes(SETPOINT, "/ack/version", json!("0.61"));
        cloud.twin_becomes(SETPOINT, "/converged", json!(true));
        assert_eq!(plant.valve.value("setpoint"), json!(1.0));
    }

    #[test]
    fn what_edges_report_costs_etcd_nothing() {
        let etcd = EtcdCluster::start();
        let (plant, _second) = moved_into(&etcd);
        mqtt::say(&plant.a, V5, REPORT, "1");
        plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(1));
        let commits = || etcd.ctl(0, &["get", "/kubebus/water/head", "-w", "fields"]);
        let before = last_commit(&commits());
        let lines: String = (2..=300).map(|count| format!("{count}\n")).collect();
        mqtt::say_lines(&plant.a, REPORT, &lines);
        plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(300));
        assert_eq!(last_commit(&commits()), before);
        plant.cluster.cloud.say(&["twin", "set", "water/valve", "setpoint", "3"]);
        assert_ne!(last_commit(&commits()), before);
    }

    fn last_commit(fields: &str) -> String {
        let found = fields.lines().find(|line| line.starts_with("\"ModRevision\""));
        found.unwrap_or_else(|| panic!("no commit in {fields}")).to_owned()
    }

    #[test]
    fn a_cloud_that_stood_still_for_longer_than_its_lease_ends_and_says_why() {
        let etcd = EtcdCluster::start();
        let (mut plant, second) = moved_into(&etcd);
        let pid = |node: &Node| Pid::from_raw(node.pid().cast_signed()).unwrap();
        let old = pid(&plant.cluster.cloud);
        kill_process(old, Signal::STOP).unwrap();
        let mut first = std::mem::replace(&mut plant.cluster.cloud, second);
        leads(&plant.cluster.cloud);
        plant.cluster.cloud.say(&["twin", "set", "water/valve", "setpoint", "4"]);
        kill_process(old, Signal::CONT).unwrap();
        assert_eq!(first.ended().code(), Some(1));
        assert_eq!(first.logged("another cloud took over (cloud/cloud on"), 1);
        plant.cluster.in_step("a");
        plant.cluster.cloud.twin_becomes(SETPOINT, "/reported/value", json!(4.0));
    }
}

#[cfg(not(feature = "etcd"))]
#[test]
fn a_kubebus_without_etcd_says_how_to_build_one_with_it() {
    let cluster = crate::harness::Cluster::start();
    let node = cluster.second_cloud("second");
    let text = std::fs::read_to_string(node.config()).unwrap();
    let store = "cloud: {store: {etcd: {endpoints: ['http://127.0.0.1:2379']}}, ";
    std::fs::write(node.config(), text.replace("cloud: {", store)).unwrap();
    node.run(&["cloud"]).refused(1, &["cargo build --release --features etcd", "protobuf-compiler"]);
}

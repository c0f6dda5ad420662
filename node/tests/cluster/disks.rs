//! Disks that were lost, or put back as they were a while ago, or refuse writes.

use serde_json::{Value, json};

use crate::harness::{Cluster, Node};
use crate::mqtt::{self, Subscriber, V5};
use crate::process::{Ran, becomes, eventually, run_with};
use crate::twins::Plant;

const COUNT: (&str, &str) = ("water/meter", "count");
const POSITION: (&str, &str) = ("water/valve", "position");
const SETPOINT: (&str, &str) = ("water/valve", "setpoint");
const REPORT: &str = "twin/water/meter/report/count";

/// Exit code of a request that contradicts what is there.
const CONFLICT: i32 = 5;

/// Exit code of what only the cloud's administrator can mend.
const FAILURE: i32 = 1;

/// Reports on either side of the copy: enough that the numbers given out after it were given out before.
const REPORTS: i64 = 5;

#[test]
fn an_edge_on_an_old_copy_of_its_disk_is_heard_again() {
    let mut plant = Plant::start();
    let b = plant.cluster.edge("b");
    plant.a.kill();
    let copy = plant.a.copy_data();
    plant.a.start();
    for count in 1..=REPORTS {
        mqtt::say(&plant.a, V5, REPORT, &count.to_string());
        plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(count));
    }
    plant.cluster.cloud.say(&["twin", "set", "water/valve", "setpoint", "2"]);
    plant.cluster.cloud.twin_becomes(SETPOINT, "/converged", json!(true));

    plant.a.kill();
    plant.a.put_back(&copy);
    plant.a.start();
    plant.cluster.in_step("a");
    let there = Subscriber::start(&b, V5, REPORTED);
    for count in 11..=11 + 2 * REPORTS {
        mqtt::say(&plant.a, V5, REPORT, &count.to_string());
        plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(count));
        there.gets(REPORTED, "/value", &json!(count));
    }
    plant.a.twin_becomes(SETPOINT, "/desired", json!(2.0));
    plant.cluster.cloud.say(&["twin", "set", "water/valve", "setpoint", "3"]);
    plant.cluster.cloud.twin_becomes(SETPOINT, "/reported/value", json!(3.0));
    plant.cluster.cloud.twin_becomes(SETPOINT, "/converged", json!(true));
}

#[test]
fn a_cloud_on_an_old_copy_of_its_disk_is_obeyed_again() {
    let mut plant = Plant::start();
    plant.cluster.cloud.kill();
    let copy = plant.cluster.cloud.copy_data();
    plant.cluster.cloud.start();
    for setpoint in [2.0, 2.5, 3.0] {
        plant.cluster.cloud.say(&["twin", "set", "water/valve", "setpoint", &setpoint.to_string()]);
        plant.cluster.cloud.twin_becomes(SETPOINT, "/reported/value", json!(setpoint));
        plant.cluster.cloud.twin_becomes(SETPOINT, "/converged", json!(true));
    }
    mqtt::say(&plant.a, V5, REPORT, "7");
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(7));

    plant.cluster.cloud.kill();
    plant.cluster.cloud.put_back(&copy);
    plant.cluster.cloud.start();
    plant.cluster.in_step("a");
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(7));
    plant.cluster.cloud.twin_becomes(SETPOINT, "/reported/value", json!(3.0));
    plant.cluster.cloud.say(&["twin", "set", "water/valve", "setpoint", "4"]);
    plant.cluster.cloud.twin_becomes(SETPOINT, "/reported/value", json!(4.0));
    plant.cluster.cloud.twin_becomes(SETPOINT, "/converged", json!(true));
}

#[test]
fn a_machine_that_lost_its_disk_takes_its_place_again_and_moves_nothing() {
    let mut plant = Plant::start();
    for (id, value) in [(POSITION, 40.0), (SETPOINT, 2.5)] {
        plant.cluster.cloud.say(&["twin", "set", id.0, id.1, &value.to_string()]);
        plant.cluster.cloud.twin_becomes(id, "/converged", json!(true));
    }
    plant.a.kill();
    std::fs::remove_dir_all(plant.a.data_dir()).unwrap();
    // The position is meant for five seconds.
    std::thread::sleep(std::time::Duration::from_secs(6));
    let before = plant.valve.written().len();

    let token = plant.cluster.token();
    plant.cluster.join(&plant.a, &token).refused(CONFLICT, &["another key", "kubebus delete node a"]);
    plant.cluster.cloud.say(&["delete", "node", "a"]);
    plant.cluster.join(&plant.a, &token).expect(0);
    plant.a.start();
    plant.cluster.in_step("a");

    plant.a.twin_becomes(POSITION, "/reported/quality", json!("good"));
    mqtt::say(&plant.a, V5, REPORT, "3");
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(3));
    plant.a.twin_becomes(SETPOINT, "/desired", json!(2.5));
    plant.cluster.cloud.twin_becomes(SETPOINT, "/converged", json!(true));
    let moved: Vec<(String, Value)> = plant.valve.written().split_off(before);
    assert!(moved.iter().all(|(register, _)| register == "setpoint"), "{moved:?}");
    assert_eq!(plant.valve.value("position"), json!(40.0));
}

const REPORTED: &str = "twin/water/meter/reported/count";

/// How mosquitto_pub tells the reason code of a PUBACK that says no because of the disk (0x83).
const REFUSED: &str = "Implementation specific error";

/// More than a store has room for that was made to fit, in bytes.
const LONG: usize = 100_000;

/// Reports a text for which the store must grow, then one count after the other until the disk refuses one; returns the
/// last that was acknowledged.
#[track_caller]
fn report_until_refused(edge: &Node, from: i64) -> i64 {
    let mut count = from;
    let text = json!("x".repeat(LONG)).to_string();
    mqtt::publish(edge, V5, "twin/water/meter/report/remarks", &text);
    eventually("a report is refused", || {
        let ran = mqtt::publish(edge, V5, REPORT, &count.to_string());
        if ran.stderr.contains(REFUSED) {
            return Ok(count - 1);
        }
        assert_eq!(ran.stderr, "");
        count += 1;
        Err(format!("{count} were taken"))
    })
}

/// A model for which the store must grow: what only changes may fit for ever into pages that it has.
fn long_model(number: u32) -> String {
    format!(
        "apiVersion: devices.kubeedge.io/v1beta1\nkind: DeviceModel\nmetadata: {{name: long-{number}, namespace: water}}\n\
         spec: {{properties: [{{name: text, type: STRING, accessMode: ReadOnly, description: {}}}]}}\n",
        "x".repeat(LONG)
    )
}

#[track_caller]
fn is_refused(ran: &Ran) {
    assert!(ran.stderr.contains(REFUSED), "{ran:?}");
}

/// What a site needs: values are published, the cloud is told and obeyed, and a person's wish reaches the device.
#[track_caller]
fn goes_on(plant: &Plant, count: i64, setpoint: f64, position: f64) {
    let subscriber = Subscriber::start(&plant.a, V5, REPORTED);
    is_refused(&mqtt::publish(&plant.a, V5, REPORT, &count.to_string()));
    subscriber.gets(REPORTED, "/value", &json!(count));
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(count));
    is_refused(&mqtt::publish(&plant.a, V5, "twin/water/valve/set/setpoint", &setpoint.to_string()));
    becomes("the valve's setpoint", &json!(setpoint), || plant.valve.value("setpoint"));
    plant.cluster.cloud.say(&["twin", "set", "water/valve", "position", &position.to_string()]);
    becomes("the valve's position", &json!(position), || plant.valve.value("position"));
}

#[test]
fn a_site_goes_on_with_a_full_or_a_read_only_disk_and_keeps_what_it_acknowledged() {
    let mut plant = Plant::start_on_small_disk();
    mqtt::say(&plant.a, V5, REPORT, "1");
    plant.a.disk().fill();
    report_until_refused(&plant.a, 2);
    let full = plant.a.disk_becomes("degraded");
    assert!(full["why"].as_str().unwrap().contains("No space left on device"), "{full}");
    assert!(full["since"].as_str().unwrap().ends_with('Z'), "{full}");
    goes_on(&plant, 10_001, 2.0, 20.0);

    plant.a.disk().remount("ro");
    eventually("it says why", || {
        let disk = plant.a.disk_becomes("degraded");
        let is_it = disk["why"].as_str().unwrap().contains("Read-only file system");
        if is_it { Ok(()) } else { Err(disk.to_string()) }
    });
    goes_on(&plant, 10_002, 3.0, 30.0);

    plant.a.disk().remount("rw");
    plant.a.disk().free();
    assert_eq!(plant.a.disk_becomes("ok"), json!({ "state": "ok" }));
    assert_eq!((plant.a.logged("degraded: the disk"), plant.a.logged("takes writes again")), (1, 1));
    mqtt::say(&plant.a, V5, REPORT, "20001");
    plant.a.kill();
    plant.a.start();
    plant.a.twin_becomes(COUNT, "/reported/value", json!(20_001));
    plant.cluster.in_step("a");
    mqtt::say(&plant.a, V5, REPORT, "20002");
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(20_002));
    assert_eq!(plant.valve.value("position"), json!(30.0));
}

#[test]
fn an_edge_that_is_killed_over_a_full_disk_has_what_it_acknowledged_and_is_heard_again() {
    let mut plant = Plant::start_on_small_disk();
    mqtt::say(&plant.a, V5, REPORT, "1");
    plant.a.disk().fill();
    let acknowledged = report_until_refused(&plant.a, 2);
    goes_on(&plant, 10_001, 2.0, 20.0);
    goes_on(&plant, 10_002, 3.0, 30.0);
    plant.a.kill();
    let before = plant.valve.written().len();
    plant.a.disk().free();
    // The position is meant for five seconds.
    std::thread::sleep(std::time::Duration::from_secs(6));
    plant.a.start();
    let kept = plant.a.twin(COUNT.0, COUNT.1)["reported"]["value"].as_i64();
    assert!(kept >= Some(acknowledged), "{kept:?} is kept, {acknowledged} was acknowledged");
    plant.cluster.in_step("a");
    for count in 20_001..20_010 {
        mqtt::say(&plant.a, V5, REPORT, &count.to_string());
        plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(count));
    }
    let moved: Vec<(String, Value)> = plant.valve.written().split_off(before);
    assert!(moved.iter().all(|(register, _)| register != "position"), "{moved:?}");
}

#[test]
fn a_cloud_with_a_full_disk_takes_no_wishes_and_goes_on_serving() {
    let mut plant = Plant::start_in(Cluster::start_on_small_disk(), |edge| edge);
    let b = plant.cluster.edge("b");
    let token = plant.cluster.token();
    plant.cluster.cloud.disk().fill();
    let cloud = &plant.cluster.cloud;
    let mut applied = 0;
    let refused = eventually("a manifest is refused", || {
        applied += 1;
        let ran = run_with(cloud.command(&["apply", "-f", "-"]), &long_model(applied));
        if ran.code == Some(0) { Err(format!("{applied} were taken")) } else { Ok(ran) }
    });
    refused.refused(FAILURE, &["the disk refuses writes"]);
    cloud.disk_becomes("degraded");
    for command in [
        &["twin", "set", "water/valve", "position", "77"][..],
        &["token", "create", "--site", "plant"],
        &["delete", "device", "water/meter"],
        &["delete", "node", "b"],
    ] {
        cloud.run(command).refused(FAILURE, &["the disk refuses writes, so nothing was changed"]);
    }
    is_refused(&mqtt::publish(cloud, V5, "twin/water/valve/set/position", "77"));
    let c = plant.cluster.stranger("c");
    plant.cluster.join(&c, &token).refused(CONFLICT, &["the cloud's disk refuses writes"]);

    let there = Subscriber::start(&b, V5, REPORTED);
    mqtt::say(&plant.a, V5, REPORT, "10001");
    there.gets(REPORTED, "/value", &json!(10_001));
    cloud.twin_becomes(COUNT, "/reported/value", json!(10_001));

    plant.cluster.cloud.kill();
    plant.cluster.cloud.disk().free();
    plant.cluster.cloud.start();
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(10_001));
    assert_ne!(plant.valve.value("position"), json!(77.0));
    plant.cluster.join(&c, &token).expect(0);
    plant.cluster.cloud.say(&["twin", "set", "water/valve", "position", "55"]);
    becomes("the valve's position", &json!(55.0), || plant.valve.value("position"));
}

/// Noise over nearly all of a stopped node's store, as a dying flash chip leaves it.
fn damage(node: &Node) -> Vec<u8> {
    let store = node.data_dir().join("store.redb");
    let mut bytes = std::fs::read(&store).unwrap();
    let noise = (0..).map(|n: u32| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]);
    bytes[4096..].iter_mut().zip(noise).for_each(|(byte, noise)| *byte = noise);
    std::fs::write(&store, &bytes).unwrap();
    bytes
}

/// The names of the stores that were set aside.
fn set_aside(node: &Node) -> Vec<String> {
    let status = node.ask(&["status"]);
    let names = status["damaged_stores"].as_array().cloned().unwrap_or_default();
    names.iter().map(|name| name.as_str().unwrap().rsplit('/').next().unwrap().to_owned()).collect()
}

#[test]
fn an_edge_with_a_damaged_store_starts_anew_when_told_to_and_tells_so() {
    let mut plant = Plant::start();
    plant.cluster.cloud.say(&["twin", "set", "water/valve", "setpoint", "2.5"]);
    plant.cluster.cloud.twin_becomes(SETPOINT, "/converged", json!(true));
    mqtt::say(&plant.a, V5, REPORT, "3");
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(3));
    plant.a.kill();
    let damaged = damage(&plant.a);

    let words = ["store.redb is damaged", "what waited to go up", "twins and metadata", "--renew-store"];
    plant.a.run(&["edge"]).refused(FAILURE, &words);
    assert_eq!(std::fs::read(plant.a.data_dir().join("store.redb")).unwrap(), damaged);

    let new_stores = plant.cluster.cloud.logged("edge/a has a new store");
    plant.a.start_with(&["--renew-store"]);
    plant.cluster.in_step("a");
    assert_eq!(plant.a.logged("the store was damaged, and a new one is made"), 1);
    assert_eq!(plant.cluster.cloud.logged("edge/a has a new store"), new_stores + 1);
    assert_eq!(set_aside(&plant.a), ["store.redb.damaged-1"]);
    assert_eq!(std::fs::read(plant.a.data_dir().join("store.redb.damaged-1")).unwrap(), damaged);
    plant.a.twin_becomes(SETPOINT, "/desired", json!(2.5));
    plant.cluster.cloud.twin_becomes(SETPOINT, "/converged", json!(true));
    mqtt::say(&plant.a, V5, REPORT, "4");
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(4));

    plant.a.kill();
    plant.a.start_with(&["--renew-store"]);
    plant.a.twin_becomes(COUNT, "/reported/value", json!(4));
    assert_eq!(set_aside(&plant.a), ["store.redb.damaged-1"], "a sound store was set aside");
}

#[test]
fn an_edge_whose_store_is_gone_starts_anew_only_when_told_to_and_tells_so() {
    let mut plant = Plant::start();
    mqtt::say(&plant.a, V5, REPORT, "3");
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(3));
    plant.a.kill();
    let (store, elsewhere) = (plant.a.data_dir().join("store.redb"), plant.cluster.path("elsewhere"));
    std::fs::rename(&store, &elsewhere).unwrap();

    let words = ["store.redb is gone", "what waited to go up", "mount its volume", "--renew-store"];
    plant.a.run(&["edge"]).refused(FAILURE, &words);
    assert!(!store.exists(), "a new store was made");

    // Put back, it goes on as if nothing had been.
    let new_stores = plant.cluster.cloud.logged("edge/a has a new store");
    std::fs::rename(&elsewhere, &store).unwrap();
    plant.a.start();
    plant.cluster.in_step("a");
    assert_eq!(plant.cluster.cloud.logged("edge/a has a new store"), new_stores);

    plant.a.kill();
    std::fs::remove_file(&store).unwrap();
    plant.a.start_with(&["--renew-store"]);
    plant.cluster.in_step("a");
    assert_eq!(plant.a.logged("the store was gone, and a new one is made"), 1);
    assert_eq!(plant.cluster.cloud.logged("edge/a has a new store"), new_stores + 1);
    mqtt::say(&plant.a, V5, REPORT, "4");
    plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(4));
    assert_eq!(set_aside(&plant.a), Vec::<String>::new());
}

#[test]
fn a_configured_edge_renews_its_damaged_store_by_itself() {
    let cluster = Cluster::start();
    let mut edge = cluster.edge("a");
    let config = std::fs::read_to_string(edge.config()).unwrap() + "edge: {renew-damaged-store: true}\n";
    std::fs::write(edge.config(), config).unwrap();
    for n in 1..=2 {
        edge.kill();
        damage(&edge);
        edge.start();
        cluster.in_step("a");
        assert_eq!(set_aside(&edge).len(), n);
    }
    edge.kill();
    std::fs::write(edge.data_dir().join("store.redb"), "").unwrap();
    edge.start();
    cluster.in_step("a");
    std::fs::remove_file(edge.data_dir().join("store.redb.damaged-2")).unwrap();
    edge.kill();
    std::fs::remove_file(edge.data_dir().join("store.redb")).unwrap();
    edge.start();
    cluster.in_step("a");
    assert_eq!(set_aside(&edge), ["store.redb.damaged-1", "store.redb.damaged-3"]);
}

//! Disks that were lost, or put back as they were a while ago.

use serde_json::{Value, json};

use crate::mqtt::{self, V5};
use crate::twins::Plant;

const COUNT: (&str, &str) = ("water/meter", "count");
const POSITION: (&str, &str) = ("water/valve", "position");
const SETPOINT: (&str, &str) = ("water/valve", "setpoint");
const REPORT: &str = "twin/water/meter/report/count";

/// Exit code of a request that contradicts what is there.
const CONFLICT: i32 = 5;

/// Reports on either side of the copy: enough that the numbers given out after it were given out before.
const REPORTS: i64 = 5;

#[test]
fn an_edge_on_an_old_copy_of_its_disk_is_heard_again() {
    let mut plant = Plant::start();
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
    for count in 11..=11 + 2 * REPORTS {
        mqtt::say(&plant.a, V5, REPORT, &count.to_string());
        plant.cluster.cloud.twin_becomes(COUNT, "/reported/value", json!(count));
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

//! Lists in pages, and watches from a revision on.

use super::Door;
use super::kinds::{ALL, file};
use crate::harness::Cluster;

const DEVICES: &str = "/apis/devices.kubeedge.io/v1beta1/namespaces/default/devices";

#[test]
fn a_watch_goes_on_over_a_restart_of_the_cloud_also_with_what_was_deleted() {
    let mut cluster = Cluster::start();
    let door = Door::open(&cluster.cloud);
    door.give(&["apply"], &file());
    let second = ALL[2].2.replace("valve-1", "valve-2");
    door.give(&["apply"], &second);
    let version = |door: &Door| {
        let list: serde_json::Value = serde_json::from_str(&door.say(&["get", "--raw", DEVICES])).unwrap();
        list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
    };
    let before = version(&door);
    door.say(&["label", "device/valve-1", "tier=field"]);
    door.say(&["delete", "device/valve-2"]);
    let event = |what: &str, name: &str| (what.to_owned(), name.to_owned());
    let expected = [event("MODIFIED", "valve-1"), event("DELETED", "valve-2")];
    door.watches(DEVICES, &before, &expected);
    cluster.cloud.kill();
    cluster.cloud.start();
    // From its disk.
    door.watches(DEVICES, &before, &expected);
    // Who selects by labels hears of what comes and goes with them, and of nothing else.
    let selected = &*format!("{DEVICES}?labelSelector=tier%3Dfield");
    let now = version(&door);
    door.give(&["apply"], &second);
    door.say(&["label", "device/valve-1", "tier-"]);
    door.watches(selected, &now, &[event("DELETED", "valve-1")]);
    door.watches(DEVICES, "0", &[event("ADDED", "valve-1"), event("ADDED", "valve-2")]);
    // Another store's revision.
    door.watches(DEVICES, "999999", &[event("ERROR", "Expired")]);
}

#[test]
fn lists_come_in_pages_that_a_token_goes_on_with() {
    let cluster = Cluster::start();
    let door = Door::open(&cluster.cloud);
    door.give(&["apply"], &file());
    let more: Vec<String> = (2..8).map(|n| ALL[2].2.replace("valve-1", &format!("valve-{n}"))).collect();
    door.give(&["apply"], &more.join("---\n"));
    let all = door.say(&["get", "devices", "-o", "name"]);
    assert_eq!(all.lines().count(), 7);
    assert_eq!(door.say(&["get", "devices", "-o", "name", "--chunk-size=2"]), all);
    let page = format!("{DEVICES}?limit=3");
    let first: serde_json::Value = serde_json::from_str(&door.say(&["get", "--raw", &page])).unwrap();
    assert_eq!(first["items"].as_array().unwrap().len(), 3);
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    // It holds no more than a place: what comes meanwhile is seen, and the revision is the first page's.
    let next: serde_json::Value =
        serde_json::from_str(&door.say(&["get", "--raw", &format!("{page}&continue={token}")])).unwrap();
    assert_eq!(next["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let complaint = door.complaint(&["get", "--raw", &format!("{page}&continue=nonsense")], "");
    assert!(complaint.contains("continue: is no token"), "{complaint}");
    assert_eq!(
        door.say(&["get", "devices", "--field-selector", "metadata.name=valve-3", "-o", "name"])
            .lines()
            .count(),
        1
    );
    assert_eq!(door.say(&["delete", "devices", "--all"]).lines().count(), 7);
}

//! The same API at an edge, for its own part, with or without the cloud.

use super::Door;
use super::kinds::file;
use crate::harness::Cluster;
use crate::process::becomes;

#[test]
fn an_edge_serves_its_own_part_without_the_cloud_and_says_where_the_rest_is_written() {
    let mut cluster = Cluster::start();
    let edge = cluster.edge("a");
    let (cloud_door, door) = (Door::open(&cluster.cloud), Door::open(&edge));
    let elsewhere = file()
        + "---\n"
        + &super::kinds::ALL[2].2.replace("valve-1", "elsewhere").replace("nodeName: a", "nodeName: b");
    cloud_door.give(&["apply"], &elsewhere);
    cloud_door.say(&["label", "device/valve-1", "tier=field"]);
    let named = |kinds: &str| door.say(&["get", kinds, "-o", "name", "--ignore-not-found"]);
    becomes("the label is there", &"device.devices.kubeedge.io/valve-1".to_owned(), || {
        door.say(&["get", "devices", "-l", "tier=field", "-o", "name"])
    });
    assert_eq!(named("devices"), "device.devices.kubeedge.io/valve-1", "and no device of another edge");
    cluster.cloud.kill();
    assert_eq!(named("devicemodels"), "devicemodel.devices.kubeedge.io/valve");
    assert_eq!(named("rules,twinpolicies").lines().count(), 2);
    assert_eq!(named("hosts"), "host.kubebus.io/plc");
    assert_eq!(door.say(&["get", "site/plant", "-o", "jsonpath={.status.edges}"]), "[\"a\"]");
    assert!(door.complaint(&["get", "jointokens"], "").contains("the server doesn't have a resource type"));
    // What an edge decides itself, once it has the authority.
    edge.say(&["twin", "take", "default/valve-1", "--reason", "the cloud is away"]);
    let wish = r#"{"spec":{"properties":[{"name":"position","desired":{"value":"55"}}]}}"#;
    door.say(&["patch", "device/valve-1", "-p", wish]);
    becomes("it is in force", &"55".to_owned(), || {
        let path = r#"jsonpath={.status.twins[?(@.propertyName=="position")].observedDesired.value}"#;
        door.say(&["get", "device/valve-1", "-o", path])
    });
    let too_much = door.complaint(&["patch", "device/valve-1", "-p", &wish.replace("55", "500")], "");
    assert!(too_much.contains("desired.value") && too_much.contains("outside"), "{too_much}");
    for refused in [
        door.complaint(&["patch", "device/valve-1", "-p", r#"{"spec":{"nodeName":"b"}}"#], ""),
        door.complaint(&["label", "device/valve-1", "a=b"], ""),
    ] {
        let words = "write this at cloud/cloud, which has the authority over them";
        assert!(refused.contains("(Forbidden)") && refused.contains(words), "{refused}");
    }
}

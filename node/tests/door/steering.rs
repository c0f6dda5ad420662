//! An operator steers with a certificate of his role, and changes nothing else.

use serde_json::json;

use crate::{DEVICE, House};

const VALVE: &str = "/apis/devices.kubeedge.io/v1beta1/namespaces/water/devices/valve";

#[test]
fn an_operator_wishes_by_a_patch_and_may_change_nothing_else_of_the_device() {
    let house = House::open("steering");
    let card = house.add("olga", "operator");
    let mut client = house.cloud().client(Some(&card));
    let strategic = "Content-Type: application/strategic-merge-patch+json\r\n";
    let mut patch = |body: &serde_json::Value| {
        client.try_ask(&format!("PATCH {VALVE}"), strategic, &body.to_string()).unwrap()
    };
    let wish = json!({"name": "position", "desired": {"value": "40"}});
    let both = json!({"spec": {"nodeName": "b", "properties": [wish]}});
    let refused = patch(&both);
    let why = refused.body["message"].as_str().unwrap_or_default();
    assert!(
        refused.status == 403 && why.contains("user/olga is operator, and may not change"),
        "{refused:?}"
    );
    assert!(why.contains("spec.nodeName differs"), "{why}");
    let before = house.cluster.cloud.twin(DEVICE, "position");
    assert_eq!(before["desired"], serde_json::Value::Null);
    let done = patch(&json!({"spec": {"properties": [wish]}}));
    assert_eq!(done.status, 200, "{done:?}");
    let after = house.cluster.cloud.twin(DEVICE, "position");
    assert_eq!((&after["desired"], &after["by"]), (&json!(40.0), &json!("user/olga")));
    // The audit has both, as wishes.
    let log = house.cluster.cloud.ask(&["audit", "--who", "olga"]);
    let lines: Vec<_> =
        log.as_array().unwrap().iter().map(|line| (&line["status"], &line["detail"])).collect();
    assert_eq!(lines, [(&json!(403), &json!("position=40")), (&json!(200), &json!("position=40"))]);
}

//! Devices are steered by those whose job it is.

use super::*;
use crate::steering::Steering;

const VALVE: &str = "/apis/devices.kubeedge.io/v1beta1/namespaces/default/devices/valve";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";

fn plant() -> Desk {
    let mut desk = Desk::new();
    let model = json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": "valve"},
        "spec": {"properties": [
            {"name": "position", "type": "DOUBLE", "accessMode": "ReadWrite", "minimum": "0", "maximum": "100"},
            {"name": "mode", "type": "STRING", "accessMode": "ReadWrite"},
        ]},
    });
    desk.write(Method::Post, "/apis/devices.kubeedge.io/v1beta1/namespaces/default/devicemodels", model)
        .unwrap();
    let mut device = device();
    device["spec"]["deviceModelRef"] = json!({"name": "valve"});
    device["spec"]["protocol"] = json!({"protocolName": "app", "configData": {"password": "hunter2"}});
    device["spec"]["properties"] = json!([{"name": "position"}, {"name": "mode"}]);
    desk.write(Method::Post, DEVICES, device).unwrap();
    desk
}

fn wish(property: &str, value: &str) -> Value {
    json!({"spec": {"properties": [{"name": property, "desired": {"value": value}}]}})
}

impl Desk {
    fn patch(&mut self, role: &str, how: &str, body: Value) -> Result<Written, Refusal> {
        self.written_by(role, how, Method::Patch, VALVE, body).map(|(_, written)| written)
    }

    fn desired(&self, property: &str) -> Option<(String, String, String)> {
        let views = self.0.twins.view(&"default/valve".parse().unwrap(), NOW);
        let view = views.into_iter().find(|view| view.property == property)?;
        Some((view.desired?.to_string(), view.by?, view.version?.to_string()))
    }

    fn steer(&mut self, role: &str, method: Method, part: &str, body: Value) -> Result<Value, Refusal> {
        let request = Request {
            method,
            path: &format!("{VALVE}/{part}"),
            query: "",
            accept: "",
            content_type: MERGE,
            user_agent: "test",
        };
        let Call::Steer(call) = Call::parse(&request)? else { panic!("{part}") };
        let steering = Steering { call, body, asker: asker(role) };
        let (ApiAnswer::Steered(done), _) = self.ask(ApiRequest::Steer(Box::new(steering))) else { panic!() };
        done.map(|done| done.object)
    }
}

fn set(value: &str, by: &str, version: &str) -> Option<(String, String, String)> {
    Some((value.to_owned(), by.to_owned(), version.to_owned()))
}

#[test]
fn an_operator_may_patch_what_is_desired_and_nothing_else() {
    let mut desk = plant();
    desk.patch("operator", STRATEGIC, wish("position", "40")).unwrap();
    assert_eq!(desk.desired("position"), set("40", "user/test", "0.1"), "one wish, and his");
    let manifest = desk.0.keyspace.get("/c/resource/device/default/valve").unwrap();
    let manifest: Value = serde_json::from_slice(manifest).unwrap();
    assert_eq!(manifest["spec"]["properties"][0], json!({"name": "position"}), "it says what its file said");
    assert_eq!(manifest["spec"]["protocol"]["configData"]["password"], "hunter2");
    for (body, field) in [
        (json!({"spec": {"nodeName": "b"}}), "spec.nodeName"),
        (json!({"metadata": {"labels": {"a": "b"}}}), "metadata.labels"),
        (json!({"metadata": {"finalizers": ["a/b"]}}), "metadata.finalizers"),
        (
            json!({"spec": {"protocol": {"configData": {"password": "x"}}}}),
            "spec.protocol.configData.password",
        ),
    ] {
        let mut both = wish("position", "50");
        both["spec"].as_object_mut().unwrap().extend(body["spec"].as_object().cloned().unwrap_or_default());
        both["metadata"] = body["metadata"].clone();
        let refused = desk.patch("operator", STRATEGIC, both).unwrap_err();
        assert!(refused.code == 403 && refused.message.contains(&format!("{field} differs")), "{refused:?}");
    }
    assert_eq!(desk.desired("position"), set("40", "user/test", "0.1"), "nothing of it was taken");
    let absent = VALVE.replace("valve", "other");
    let mut other = device();
    other["metadata"]["name"] = "other".into();
    let made = desk.written_by("operator", "application/apply-patch+yaml", Method::Patch, &absent, other);
    assert_eq!(made.unwrap_err().code, 404, "an apply makes none");
}

#[test]
fn an_operators_wish_leaves_the_file_as_it_is_and_what_he_names_is_wished() {
    let mut desk = plant();
    let position = |desk: &Desk| desk.desired("position").map(|(value, ..)| value);
    desk.patch("admin", STRATEGIC, wish("position", "40")).unwrap();
    desk.patch("operator", STRATEGIC, wish("position", "55")).unwrap();
    let dry = format!("{VALVE}?dryRun=All");
    desk.written_by("operator", STRATEGIC, Method::Patch, &dry, wish("position", "60")).unwrap();
    assert_eq!(position(&desk).as_deref(), Some("55"), "that was a trial");
    // A merge patch brings the list as the manifest has it.
    let list = json!([{"name": "position", "desired": {"value": "40"}}, {"name": "mode", "desired": {"value": "auto"}}]);
    desk.patch("operator", MERGE, json!({"spec": {"properties": list}})).unwrap();
    assert_eq!((position(&desk).as_deref(), desk.desired("mode").unwrap().0.as_str()), (Some("55"), "auto"));
    desk.patch("operator", STRATEGIC, wish("position", "40")).unwrap();
    assert_eq!(
        position(&desk).as_deref(),
        Some("40"),
        "the manifest says so, and something else was in force"
    );
    desk.steer("operator", Method::Patch, "desired", json!({"spec": {"position": null}})).unwrap();
    let place = json!([{"op": "replace", "path": "/spec/properties/0/desired/value", "value": "40"}]);
    desk.patch("operator", JSON_PATCH, place).unwrap();
    assert_eq!(position(&desk).as_deref(), Some("40"), "it was taken back");
    // The file is applied again.
    desk.patch("operator", STRATEGIC, wish("position", "55")).unwrap();
    let mut again = wish("position", "40");
    again["metadata"] = json!({"labels": {"a": "b"}});
    desk.patch("admin", STRATEGIC, again).unwrap();
    assert_eq!(position(&desk).as_deref(), Some("55"), "an operator's wish stays");
    let mut more = wish("position", "60");
    more["spec"]["properties"][0]["desired"]["metadata"] = json!({"timestamp": "1"});
    let refused = desk.patch("operator", STRATEGIC, more).unwrap_err();
    assert!(refused.message.contains("desired.metadata differs"), "{refused:?}");
    let applied = desk.patch("operator", "application/apply-patch+yaml", wish("position", "60"));
    assert_eq!(applied.unwrap_err().code, 415, "he would own its fields");
}

#[test]
fn a_retry_with_an_id_and_what_was_read_before_is_answered() {
    let mut desk = plant();
    let mut read = desk.steer("app", Method::Get, "desired", Value::Null).unwrap();
    read["metadata"]["annotations"] = json!({"kubebus.io/id": "a-1"});
    read["spec"] = json!({"position": 40, "mode": "auto"});
    desk.steer("app", Method::Put, "desired", read.clone()).unwrap();
    desk.steer("app", Method::Patch, "desired", json!({"spec": {"mode": "hand"}})).unwrap();
    desk.steer("app", Method::Put, "desired", read).unwrap();
    assert_eq!(desk.desired("mode"), set("hand", "user/test", "0.2"), "the first was taken before");
    // What differed in nothing was taken, too.
    let same = json!({"metadata": {"annotations": {"kubebus.io/id": "a-2"}}, "spec": {"position": 40}});
    desk.steer("app", Method::Put, "desired", same.clone()).unwrap();
    desk.steer("app", Method::Patch, "desired", json!({"spec": {"position": 70}})).unwrap();
    desk.steer("app", Method::Put, "desired", same).unwrap();
    assert_eq!(desk.desired("position"), set("70", "user/test", "0.2"));
}

#[test]
fn a_patch_gives_away_no_secret() {
    let mut desk = plant();
    let password = "/spec/protocol/configData/password";
    let copied = json!([{"op": "add", "path": "/spec/properties/1/desired", "value": {"value": ""}},
        {"op": "copy", "from": password, "path": "/spec/properties/1/desired/value"}]);
    desk.patch("operator", JSON_PATCH, copied).unwrap();
    assert_eq!(desk.desired("mode"), set("(removed)", "user/test", "0.1"), "he copied what he sees");
    let guess = json!([{"op": "test", "path": password, "value": "hunter2"}]);
    assert!(
        desk.patch("operator", JSON_PATCH, guess.clone()).is_err(),
        "a right guess is refused as a wrong one"
    );
    desk.patch("admin", JSON_PATCH, guess).unwrap();
}

#[test]
fn a_patch_that_is_refused_as_a_wish_changes_no_manifest_either() {
    let mut desk = plant();
    let refused = desk.patch("admin", STRATEGIC, wish("position", "500")).unwrap_err();
    assert_eq!(refused.code, 422, "{refused:?}");
    let named = desk.steer("admin", Method::Get, "desired", Value::Null).unwrap();
    assert_eq!(named["spec"], json!({}));
    desk.patch("admin", STRATEGIC, wish("position", "50")).unwrap();
    assert_eq!(desk.desired("position"), set("50", "user/test", "0.1"));
}

#[test]
fn wishes_are_set_by_a_part_of_the_device_and_an_id_moves_once() {
    let mut desk = plant();
    let mut body = json!({"metadata": {"annotations": {"kubebus.io/id": "a-1"}}, "spec": {"position": 40}});
    let answer = desk.steer("app", Method::Patch, "desired", body.clone()).unwrap();
    assert_eq!(answer["spec"], json!({"position": 40.0}));
    assert_eq!(answer["status"]["properties"][1]["version"], "0.1");
    assert_eq!(answer["metadata"]["annotations"]["kubebus.io/id"], "a-1");
    desk.steer("app", Method::Patch, "desired", body.clone()).unwrap();
    assert_eq!(desk.desired("position"), set("40", "user/test", "0.1"), "the same again");
    body["spec"]["position"] = 41.into();
    assert_eq!(desk.steer("app", Method::Patch, "desired", body).unwrap_err().code, 409);
    // Without an id a merge patch wishes again, and a put what differs.
    desk.steer("app", Method::Patch, "desired", json!({"spec": {"position": 40}})).unwrap();
    assert_eq!(desk.desired("position"), set("40", "user/test", "0.2"));
    let read = desk.steer("app", Method::Get, "desired", Value::Null).unwrap();
    let mut both = read;
    both["spec"]["mode"] = "auto".into();
    desk.steer("app", Method::Put, "desired", both.clone()).unwrap();
    assert_eq!(desk.desired("position"), set("40", "user/test", "0.2"), "nobody meant to touch it");
    both["spec"]["mode"] = "hand".into();
    assert_eq!(desk.steer("app", Method::Put, "desired", both).unwrap_err().code, 409, "he read before");
    let refused =
        desk.steer("app", Method::Patch, "desired", json!({"spec": {"position": 500}})).unwrap_err();
    assert!(refused.code == 422 && refused.message.contains("position"), "{refused:?}");
    desk.steer("app", Method::Patch, "desired", json!({"spec": {"position": null}})).unwrap();
    assert_eq!(desk.desired("position"), None);
}

#[test]
fn commands_and_authority_are_parts_too_and_who_may_not_reset_a_rule_may_not_here() {
    let mut desk = plant();
    let order = json!({
        "metadata": {"name": "c-1"}, "spec": {"command": "set", "args": {"position": 7}, "ttl": "30s"},
    });
    let given = desk.steer("app", Method::Post, "commands", order.clone()).unwrap();
    assert_eq!((&given["metadata"]["name"], &given["status"]["state"]), (&json!("c-1"), &json!("accepted")));
    assert_eq!(given["status"]["by"], "user/test");
    desk.steer("app", Method::Post, "commands", order.clone()).unwrap();
    let all = desk.steer("viewer", Method::Get, "commands", Value::Null).unwrap();
    assert_eq!(all["items"].as_array().unwrap().len(), 1);
    let mut reset = order;
    reset["metadata"]["name"] = "c-2".into();
    reset["spec"]["command"] = "reset-rule".into();
    let refused = desk.steer("app", Method::Post, "commands", reset.clone()).unwrap_err();
    assert!(refused.message.contains("is app, and may not give the command reset-rule"), "{refused:?}");
    reset["spec"]["args"] = json!({"rule": "close"});
    desk.steer("operator", Method::Post, "commands", reset).unwrap();
    let held = desk.steer("operator", Method::Get, "authority", Value::Null).unwrap();
    assert_eq!(held["spec"]["holder"], "cloud");
    let taken = json!({"spec": {"holder": "cloud", "reason": "storm"}});
    let taken = desk.steer("operator", Method::Patch, "authority", taken).unwrap();
    assert_eq!((&taken["status"]["epoch"], &taken["status"]["by"]), (&json!(2), &json!("user/test")));
    let refused =
        desk.steer("operator", Method::Patch, "authority", json!({"spec": {"holder": "edge"}})).unwrap_err();
    assert!(refused.message.contains("until an edge takes it"), "{refused:?}");
}

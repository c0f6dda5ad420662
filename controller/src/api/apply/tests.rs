use serde_json::json;

use super::*;
use crate::api::{Kind, schema};

fn applied(live: Option<&Value>, config: &Value, manager: &str, force: bool) -> Result<Value, Vec<Cause>> {
    apply(schema::of(Kind::Device), live, Applied { config, manager, force, time: "t" })
}

fn device(spec: Value) -> Value {
    json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": "v"}, "spec": spec})
}

fn managers(object: &Value) -> Vec<&str> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    entries.iter().map(|entry| entry["manager"].as_str().unwrap()).collect()
}

#[test]
fn two_managers_own_different_properties_of_one_device() {
    let vendor = device(json!({"nodeName": "a", "properties": [{"name": "level", "collectCycle": 100}]}));
    let operator = device(json!({"properties": [{"name": "level", "desired": {"value": "3"}}]}));
    let one = applied(None, &vendor, "vendor", false).unwrap();
    let two = applied(Some(&one), &operator, "operator", false).unwrap();
    let both = json!({"nodeName": "a", "properties": [
        {"name": "level", "collectCycle": 100, "desired": {"value": "3"}},
    ]});
    assert_eq!(two["spec"], both);
    assert_eq!(managers(&two), ["vendor", "operator"]);
    // The operator lets go of what he alone owns; the item is still the vendor's.
    let three = applied(Some(&two), &device(json!({})), "operator", false).unwrap();
    assert_eq!(three["spec"], vendor["spec"]);
    assert_eq!(managers(&three), ["vendor"]);
    // An item that nobody owns any more is gone.
    let four = applied(Some(&three), &device(json!({"nodeName": "a"})), "vendor", false).unwrap();
    assert_eq!(four["spec"], json!({"nodeName": "a"}));
}

#[test]
fn what_another_owns_is_a_conflict_that_names_owner_and_field_unless_it_is_the_same_or_forced() {
    let wish = |value: &str| device(json!({"properties": [{"name": "level", "desired": {"value": value}}]}));
    let live = applied(None, &wish("1"), "alice", false).unwrap();
    let refused = applied(Some(&live), &wish("2"), "bob", false).unwrap_err();
    let expected = Cause {
        reason: "FieldManagerConflict",
        message: "conflict with \"alice\"".to_owned(),
        field: ".spec.properties[name=\"level\"].desired.value".to_owned(),
    };
    assert_eq!(refused, [expected]);
    let shared = applied(Some(&live), &wish("1"), "bob", false).unwrap();
    assert_eq!(managers(&shared), ["alice", "bob"]);
    let forced = applied(Some(&live), &wish("2"), "bob", true).unwrap();
    assert_eq!(forced["spec"]["properties"][0]["desired"]["value"], "2");
    // Now it is alice who is in the way.
    let back = applied(Some(&forced), &wish("1"), "alice", false).unwrap_err();
    assert_eq!(back[0].message, "conflict with \"bob\"");
}

#[test]
fn an_update_takes_the_fields_that_it_changes() {
    let live =
        applied(None, &device(json!({"nodeName": "a", "protocol": {"protocolName": "x"}})), "alice", false)
            .unwrap();
    let mut updated = live.clone();
    updated["spec"]["nodeName"] = "b".into();
    note_update(schema::of(Kind::Device), Some(&live), &mut updated, "kubectl-edit", "t");
    assert_eq!(managers(&updated), ["alice", "kubectl-edit"]);
    let refused = applied(Some(&updated), &device(json!({"nodeName": "a"})), "alice", false).unwrap_err();
    assert_eq!(refused[0].message, "conflict with \"kubectl-edit\"");
    // What an update removes, nobody owns.
    let mut emptied = updated.clone();
    emptied["spec"] = json!({});
    note_update(schema::of(Kind::Device), Some(&updated), &mut emptied, "kubectl-edit", "t");
    assert_eq!(managers(&emptied), [""; 0]);
}

#[test]
fn sets_of_fields_are_read_as_they_are_written() {
    let object = device(
        json!({"properties": [{"name": "a", "visitors": {"configData": {"x": [1, 2]}}}], "methods": []}),
    );
    let set = fields::of(schema::of(Kind::Device), &object);
    assert_eq!(fields::from_json(&fields::to_json(&set)), set);
}

fn large(properties: std::ops::Range<usize>, value: &str) -> Value {
    let property = |n: usize| json!({"name": format!("p{n:05}"), "desired": {"value": value}});
    device(json!({"properties": properties.map(property).collect::<Vec<_>>()}))
}

/// With ten times as many it takes ten times as long, which is what this is about: squares would take minutes.
#[test]
fn thousands_of_properties_are_applied_changed_and_let_go() {
    let all = applied(None, &large(0..5000, "1"), "alice", false).unwrap();
    assert_eq!(all["spec"]["properties"].as_array().unwrap().len(), 5000);
    let refused = applied(Some(&all), &large(0..5000, "2"), "bob", false).unwrap_err();
    assert_eq!(refused.len(), 5000);
    let both = applied(Some(&all), &large(2000..6000, "1"), "bob", false).unwrap();
    assert_eq!(both["spec"]["properties"].as_array().unwrap().len(), 6000);
    let less = applied(Some(&both), &large(0..10, "1"), "alice", false).unwrap();
    let left = less["spec"]["properties"].as_array().unwrap();
    assert_eq!((left.len(), &left[10]["name"]), (10 + 4000, &json!("p02000")));
    let mut updated = less.clone();
    updated["spec"]["properties"]
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .for_each(|p| p["collectCycle"] = 5.into());
    note_update(schema::of(Kind::Device), Some(&less), &mut updated, "edit", "t");
    assert_eq!(managers(&updated), ["alice", "bob", "edit"]);
}

#[test]
fn the_key_of_an_item_goes_with_the_item_alone() {
    let both =
        device(json!({"properties": [{"name": "a", "collectCycle": 1}, {"name": "b", "collectCycle": 2}]}));
    let one = applied(None, &both, "alice", false).unwrap();
    let operator = device(json!({"properties": [{"name": "a", "desired": {"value": "3"}}]}));
    let two = applied(Some(&one), &operator, "bob", false).unwrap();
    let three = applied(Some(&two), &device(json!({"nodeName": "x"})), "alice", false).unwrap();
    let expected = json!({"nodeName": "x", "properties": [{"name": "a", "desired": {"value": "3"}}]});
    assert_eq!(three["spec"], expected);
}

//! Every verb on every kind.

use serde_json::json;

use super::kinds::{ALL, file};
use super::{Door, without_ages};
use crate::harness::Cluster;
use crate::process::becomes;

#[test]
fn kubectl_does_every_verb_on_every_kind_of_manifest() {
    let cluster = Cluster::start();
    let door = Door::open(&cluster.cloud);
    for (kind, name, manifest) in ALL {
        let one = &*format!("{kind}/{name}");
        let given = |args: &[&str]| door.give(args, manifest);
        assert_eq!(given(&["create", "--dry-run=server"]), format!("{one} created (server dry run)"));
        assert_eq!(given(&["create"]), format!("{one} created"));
        let twice = door.complaint(&["create", "-f", "-"], manifest);
        assert!(twice.contains("AlreadyExists") && twice.contains("already exists"), "{twice}");
        assert_eq!(door.say(&["get", one, "-o", "name"]), one);
        assert_eq!(door.say(&["label", one, "tier=field"]), format!("{one} labeled"));
        assert_eq!(door.say(&["get", kind, "-l", "tier in (field)", "-o", "name"]), one);
        assert_eq!(door.say(&["get", kind, "-l", "tier!=field", "-o", "name"]), "");
        let note = r#"[{"op":"add","path":"/metadata/annotations","value":{"note":"x"}}]"#;
        assert_eq!(door.say(&["patch", one, "--type=json", "-p", note]), format!("{one} patched"));
        assert_eq!(
            given(&["apply", "--server-side", "--field-manager=vendor", "--force-conflicts"]),
            format!("{one} serverside-applied")
        );
        let object = door.object(&["get", one, "--show-managed-fields"]);
        assert_eq!(object["metadata"]["annotations"], json!({"note": "x"}));
        assert_eq!(object["metadata"]["labels"], json!({"tier": "field"}));
        assert_eq!(object["metadata"]["generation"], 1, "nothing of the spec has changed");
        let managers = object["metadata"]["managedFields"].as_array().unwrap();
        assert!(managers.iter().any(|entry| entry["manager"] == "vendor" && entry["operation"] == "Apply"));
        assert_eq!(given(&["replace"]), format!("{one} replaced"));
        let described = door.say(&["describe", one]);
        assert!(
            described.starts_with(&format!("Name:         {name}\nNamespace:    default\n")),
            "{described}"
        );
        let explained = door.say(&["explain", &format!("{}.spec", kind.split('.').next().unwrap())]);
        assert!(explained.contains("FIELDS:\n"), "{explained}");
    }
    let unchanged: Vec<String> =
        ALL.iter().map(|(kind, name, _)| format!("{kind}/{name} unchanged")).collect();
    door.give(&["apply"], &file());
    assert_eq!(door.give(&["apply"], &file()).lines().collect::<Vec<_>>(), unchanged);
    assert_eq!(
        without_ages(&door.say(&["get", "devices,rules"])),
        [
            "NAME NODE MODEL STATE TWIN AGE",
            "device.devices.kubeedge.io/valve-1 a valve <none> flow ?, position ?",
            "",
            "NAME OUTPUT CASES AGE",
            "rule.kubebus.io/close valve-1/position 1",
        ]
    );
    for (kind, name, _) in ALL.into_iter().rev() {
        let gone = format!("{kind} \"{name}\" deleted");
        let one = &*format!("{kind}/{name}");
        assert_eq!(door.say(&["delete", one, "--dry-run=server"]), format!("{gone} (server dry run)"));
        assert_eq!(door.say(&["delete", one]), gone);
        let missing = door.complaint(&["get", one], "");
        assert!(missing.starts_with("Error from server (NotFound)"), "{missing}");
    }
}

#[test]
fn mistakes_are_named_by_their_field_and_nothing_is_changed() {
    let cluster = Cluster::start();
    let door = Door::open(&cluster.cloud);
    door.give(&["apply"], &file());
    let device = ALL[2].2;
    let create = ["create", "-f", "-"];
    let typo = device.replace("valve-1", "valve-2").replace("protocol:", "protokol:");
    let complaint = door.complaint(&create, &typo);
    assert!(complaint.contains("strict decoding error: unknown field \"spec.protokol\""), "{complaint}");
    let warned = door.run(&["create", "--validate=warn", "--dry-run=server", "-f", "-"], &typo).expect(0);
    assert!(warned.stderr.contains("Warning: unknown field \"spec.protokol\""), "{warned:?}");
    let unknown = device.replace("valve-1", "valve-2").replace("name: flow", "name: position");
    let complaint = door.complaint(&create, &unknown);
    assert!(complaint.contains("spec.properties[1].name"), "{complaint}");
    let long = device.replace("valve-1", "valve-2").replace(
        "{protocolName: app}",
        &format!("{{protocolName: app, configData: {{note: {}}}}}", "x".repeat(300_000)),
    );
    let complaint = door.complaint(&create, &long);
    assert!(complaint.contains("bytes is over the limit of 262144"), "{complaint}");
    let complaint = door
        .complaint(&create, &long.replace("{note: ", &format!("{{more: {}, note: ", "y".repeat(800_000))));
    assert!(complaint.contains("the body is longer than 1024 KiB"), "{complaint}");
    // Two who read the same version: the second is too late.
    let read = serde_json::to_string(&door.object(&["get", "device/valve-1"])).unwrap();
    let patch = r#"{"spec":{"nodeName":"b"}}"#;
    door.say(&["patch", "device/valve-1", "--type=merge", "-p", patch]);
    let late = door.complaint(&["replace", "-f", "-"], &read);
    assert!(late.contains("(Conflict)") && late.contains("the object has been modified"), "{late}");
    let mut ahead: serde_json::Value = serde_json::from_str(&read).unwrap();
    ahead["metadata"]["resourceVersion"] = "999999".into();
    let ahead = door.complaint(&["replace", "-f", "-"], &ahead.to_string());
    assert!(
        ahead.contains("(Conflict)") && ahead.contains("resource version 999999 is not known here"),
        "{ahead}"
    );
    // Two who own the same field.
    let wish = |value: &str| {
        format!(
            "apiVersion: devices.kubeedge.io/v1beta1\nkind: Device\nmetadata: {{name: valve-1}}\n\
             spec: {{properties: [{{name: position, desired: {{value: '{value}'}}}}]}}\n"
        )
    };
    let apply = |who: &str| format!("--field-manager={who}");
    door.give(&["apply", "--server-side", &apply("alice")], &wish("1"));
    let conflict = door.complaint(&["apply", "--server-side", &apply("bob"), "-f", "-"], &wish("2"));
    let words = "conflict with \"alice\": .spec.properties[name=\"position\"].desired.value";
    assert!(conflict.contains(words), "{conflict}");
    assert_eq!(door.object(&["get", "device/valve-1"])["spec"]["properties"][0]["desired"]["value"], "1");
    // What has a finalizer stays until that is gone.
    let hold = |finalizers: &str| format!("{{\"metadata\":{{\"finalizers\":{finalizers}}}}}");
    door.say(&["patch", "rule/close", "--type=merge", "-p", &hold("[\"example.org/hold\"]")]);
    door.say(&["delete", "rule/close", "--wait=false"]);
    assert!(door.object(&["get", "rule/close"])["metadata"]["deletionTimestamp"].is_string());
    door.say(&["patch", "rule/close", "--type=merge", "-p", &hold("null")]);
    assert!(door.complaint(&["get", "rule/close"], "").contains("NotFound"));
}

#[test]
fn nodes_sites_routes_tokens_and_events_are_resources_too() {
    let cluster = Cluster::start();
    let door = Door::open(&cluster.cloud);
    let token = "apiVersion: kubebus.io/v1alpha1\nkind: JoinToken\nmetadata: {generateName: t-}\nspec: {site: plant}\n";
    let secret = door.give(&["create", "-o", "jsonpath={.status.token}"], token);
    let edge = cluster.stranger("a");
    cluster.join(&edge, &secret).expect(0);
    let mut edge = edge;
    edge.start();
    becomes("the edge is connected", &json!(true), || {
        door.object(&["get", "edgenode/a"])["status"]["connected"].clone()
    });
    assert_eq!(door.say(&["get", "jointokens", "-o", "jsonpath={.items[*].status.usedBy}"]), "[\"a\"]");
    assert_eq!(door.say(&["label", "edgenode/a", "zone=north"]), "edgenode.kubebus.io/a labeled");
    assert_eq!(door.say(&["get", "edgenodes", "-l", "zone=north", "-o", "name"]), "edgenode.kubebus.io/a");
    assert_eq!(door.say(&["get", "site/plant", "-o", "jsonpath={.status.edges}"]), "[\"a\"]");
    assert!(door.say(&["get", "routes"]).contains("edge/a"));
    let refused = door.complaint(&["annotate", "edgenode/a", "x=y"], "");
    assert!(refused.contains("metadata.annotations: Forbidden"), "{refused}");
    let refused = door.complaint(&["delete", "route", "--all"], "");
    assert!(refused.contains("MethodNotAllowed"), "{refused}");
    let described = door.say(&["describe", "edgenode/a"]);
    assert!(described.contains("Normal  Connected"), "{described}");
    assert!(door.say(&["get", "events"]).contains("edgenode/a"));
    assert_eq!(door.say(&["auth", "can-i", "delete", "devices"]), "yes");
    assert_eq!(door.say(&["auth", "can-i", "get", "/metrics"]), "yes");
    assert!(door.say(&["auth", "whoami"]).contains("user/console"));
    assert_eq!(door.say(&["delete", "edgenode/a"]), "edgenode.kubebus.io \"a\" deleted");
    assert!(door.complaint(&["get", "edgenode/a"], "").contains("NotFound"));
    assert_eq!(door.say(&["delete", "jointokens", "--all"]).lines().count(), 1);
}

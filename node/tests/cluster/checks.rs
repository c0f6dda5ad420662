//! Manifests that contradict each other: refused with file and line, and nothing is stored.

use serde_json::json;

use crate::harness::Cluster;

const USAGE: i32 = 2;

const PLANT: &str = "\
# A rule may stand before what it speaks of.
apiVersion: kubebus.io/v1alpha1
kind: Rule
metadata: {name: fill, namespace: water}
spec:
  inputs:
    level: {device: tank, property: level, maxAge: 15s}
  output: {device: valve, property: position, slot: 2, ttl: 20s}
  onUnknown: failSafe
  cases:
    - name: full
      when: {input: level, op: above, value: 5}
      then: {value: 0}
---
apiVersion: kubebus.io/v1alpha1
kind: TwinPolicy
metadata: {name: valve-position, namespace: water}
spec:
  model: valve
  property: position
  actuator: true
  failSafe: 70
---
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: tank, namespace: water}
spec:
  properties:
    - name: level
      type: DOUBLE
      minimum: '0'
      maximum: '6'
      unit: m
---
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: valve, namespace: water}
spec:
  properties:
    - {name: position, type: DOUBLE, accessMode: ReadWrite, minimum: '0', maximum: '100', unit: '%'}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: tank, namespace: water}
spec: {deviceModelRef: {name: tank}}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: valve, namespace: water}
spec: {deviceModelRef: {name: valve}}
";

/// What `kubebus apply` says of a file, without the directory in which that is.
fn refused(cluster: &Cluster, text: &str) -> String {
    let path = cluster.file("plant.yaml", text);
    let ran = cluster.cloud.run(&["apply", "-f", path.to_str().unwrap()]).expect(USAGE);
    ran.stderr.replace(path.to_str().unwrap(), "plant.yaml")
}

/// The document of that kind and name alone.
fn only(kind: &str, name: &str) -> String {
    let is_it = |document: &&str| {
        document.contains(&format!("kind: {kind}\n")) && document.contains(&format!("{{name: {name}, "))
    };
    PLANT.split("---\n").find(is_it).unwrap().to_owned()
}

#[test]
fn a_contradiction_is_refused_by_file_and_line() {
    let cluster = Cluster::start();
    for (wrong, expected) in [
        (
            PLANT.replace("value: 5}", "value: 900}"),
            "plant.yaml:12: Rule: spec.cases[0].when: 900 can never be reached: water/tank level goes from 0 to 6\n",
        ),
        (
            PLANT.replace("failSafe: 70", "failSafe: 170"),
            "plant.yaml:22: TwinPolicy: spec.failSafe: position: 170 is outside 0 to 100\n",
        ),
        (
            PLANT.replace("  failSafe: 70\n", "").replace("then: {value: 0}", "then: {value: off}"),
            "plant.yaml:8: Rule: spec.output.slot: slot 2 protects, and water/valve position has no fail-safe value: \
             state failSafe in its TwinPolicy\n\
             plant.yaml:9: Rule: spec.onUnknown: water/valve position has no fail-safe value: state failSafe in its \
             TwinPolicy\n\
             plant.yaml:13: Rule: spec.cases[0].then.value: water/valve position cannot be set to this: wrong type: \
             expected Float, got false\n",
        ),
        (
            PLANT.replace("      maximum: '6'\n", "      maximum: six\n"),
            "plant.yaml:32: DeviceModel: spec.properties[0].maximum: 'six' is no number\n",
        ),
    ] {
        assert_eq!(refused(&cluster, &wrong), expected);
        assert_eq!(cluster.cloud.ask(&["get", "rules"]), json!([]), "nothing of it was stored");
        for (kind, name) in [
            ("device", "water/tank"),
            ("device", "water/valve"),
            ("devicemodel", "water/tank"),
            ("devicemodel", "water/valve"),
            ("twinpolicy", "water/valve-position"),
        ] {
            cluster.cloud.run(&["delete", kind, name]);
        }
    }
    assert_eq!(
        cluster.apply(PLANT),
        "devicemodel water/tank created\n\
         devicemodel water/valve created\n\
         twinpolicy water/valve-position created\n\
         device water/tank created (waits: spec.nodeName names no edge)\n\
         device water/valve created (waits: spec.nodeName names no edge)\n\
         rule water/fill created (waits: spec.nodeName names no edge)"
    );
}

#[test]
fn what_would_break_a_rule_is_refused_and_names_it() {
    let cluster = Cluster::start();
    cluster.apply(PLANT);
    for (changed, expected) in [
        (
            only("DeviceModel", "tank").replace("maximum: '6'", "maximum: '4'"),
            "plant.yaml:4: DeviceModel: spec: rule water/fill would break: spec.cases[0].when: 5 can never be \
             reached: water/tank level goes from 0 to 4\n",
        ),
        (
            only("TwinPolicy", "valve-position").replace("  failSafe: 70\n", ""),
            "plant.yaml:4: TwinPolicy: spec: rule water/fill would break: spec.output.slot: slot 2 protects, and \
             water/valve position has no fail-safe value: state failSafe in its TwinPolicy\n\
             plant.yaml:4: TwinPolicy: spec: rule water/fill would break: spec.onUnknown: water/valve position has \
             no fail-safe value: state failSafe in its TwinPolicy\n",
        ),
        (
            only("Device", "tank").replace("deviceModelRef: {name: tank}", "deviceModelRef: {name: valve}"),
            "plant.yaml:4: Device: spec: rule water/fill would break: spec.inputs.level.property: water/tank has no \
             property 'level'; it has position\n",
        ),
        (
            only("Rule", "fill").replace("{name: fill,", "{name: drain,"),
            "plant.yaml:8: Rule: spec.output.slot: rule water/fill fills slot 2 of water/valve position already: \
             take another one\n",
        ),
    ] {
        assert_eq!(refused(&cluster, &changed), expected);
    }
    let unchanged = cluster.apply(PLANT);
    assert!(unchanged.lines().all(|line| line.contains(" unchanged")), "{unchanged}");
}

const ACCESS: &str = "\
apiVersion: kubebus.io/v1alpha1
kind: AccessPolicy
metadata: {name: scada}
spec:
  from: [{site: hq}]
  to:
    - site: plant
      kind: lan
  ports:
    - {protocol: tcp, port: 502}
    - {protocol: icmp, port: 502}
";

#[test]
fn an_access_policy_is_refused_by_line_and_else_kept_listed_and_deleted() {
    let cluster = Cluster::start();
    let wrong = "plant.yaml:11: AccessPolicy: spec.ports[1].protocol: only tcp and udp have ports\n";
    assert_eq!(refused(&cluster, ACCESS), wrong);
    assert_eq!(cluster.cloud.ask(&["get", "accesspolicies"]), json!([]));

    let said = cluster.apply(&ACCESS.replace("icmp, port: 502", "icmp"));
    assert_eq!(said, "accesspolicy default/scada created (nobody has joined yet as site hq, site plant)");
    let kept = cluster.cloud.ask(&["get", "accesspolicies"]);
    assert_eq!(kept[0]["spec"]["to"], json!([{ "site": "plant", "kind": "lan" }]));
    assert_eq!(cluster.cloud.say(&["delete", "accesspolicy", "scada"]), "accesspolicy default/scada deleted");
    cluster.cloud.run(&["delete", "accesspolicy", "scada"]).expect(4);
}

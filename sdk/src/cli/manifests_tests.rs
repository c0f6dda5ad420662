use device_twin::model::{Catalog, Kind};

use super::*;

const PUMPS: &str = "
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: pump, namespace: water}
spec:
  protocolConfigData: {port: 502, unit: 1}
  properties:
    - {name: speed, type: FLOAT, accessMode: ReadWrite, minimum: '0', maximum: '3000', unit: rpm,
       visitors: {configData: {register: 40, scale: 0.1}}}
    - {name: starts, type: INT, visitors: {configData: {register: 7}}}
    - {name: camera, type: STREAM}
    - {name: label, type: STRING, accessMode: ReadWrite}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: listed, namespace: water}
spec:
  deviceModelRef: {name: pump}
  protocol: {protocolName: Acme_Pump, configData: {host: 10.0.0.5, unit: 3}}
  properties:
    - {name: speed, collectCycle: 250, visitors: {configData: {register: 41}}}
    - {name: label, collectCycle: 0, visitors: {configData: text}}
    - {name: camera}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: whole, namespace: water}
spec: {deviceModelRef: {name: pump}, nodeName: a, protocol: {protocolName: acme-pump}}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: other, namespace: water}
spec: {deviceModelRef: {name: pump}, protocol: {protocolName: modbus}}
---
kind: TwinPolicy
";

fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}

fn listed(text: &str) -> Listing {
    listing(vec![("f.yaml".into(), documents(text))], &Name::new("acme-pump").unwrap())
}

/// What the node makes of the same manifests; it is another implementation of the same rules.
fn of_the_node(text: &str) -> BTreeMap<DeviceId, device_twin::model::DeviceInfo> {
    let mut catalog = Catalog::default();
    for document in documents(text) {
        let kind = match document["kind"].as_str() {
            Some("DeviceModel") => Kind::Model,
            Some("Device") => Kind::Device,
            _ => continue,
        };
        let text = |field: &str| document["metadata"][field].as_str().unwrap();
        let id = format!("{}/{}", text("namespace"), text("name")).parse().unwrap();
        catalog.put(kind, &id, Some(&serde_json::to_vec(&document).unwrap().into()));
    }
    catalog.devices().map(|(id, info)| (id.clone(), info.clone())).collect()
}

#[test]
fn a_manifest_means_what_it_means_to_the_node() {
    let found = listed(PUMPS);
    assert_eq!(found.faults, [""; 0]);
    assert_eq!(found.others, BTreeSet::from(["modbus".to_owned()]));
    let node = of_the_node(PUMPS);
    assert_eq!(found.devices.len(), 2);
    for Listed { config, .. } in found.devices {
        let info = &node[&config.device];
        assert_eq!((&config.connection, info.properties.len()), (&info.connection, config.properties.len()));
        for property in config.properties {
            let of_node = &info.properties[property.name.as_str()];
            assert_eq!(property.value_type, of_node.value_type);
            assert_eq!(property.writable, of_node.writable);
            assert_eq!(property.address, of_node.address);
            assert_eq!(u128::from(property.poll_ms), of_node.poll.as_millis());
            assert_eq!((property.minimum, property.maximum), of_node.device_range());
            assert_eq!(property.unit.as_deref(), of_node.device_unit());
        }
    }
}

#[test]
fn a_fault_names_file_device_and_field() {
    let model = &PUMPS[..PUMPS.find("---").unwrap()];
    let device = |spec: &str| {
        let head = "---\napiVersion: devices.kubeedge.io/v1beta1\nkind: Device\nmetadata: {name: p, namespace: water}";
        listed(&format!("{model}{head}\nspec: {{protocol: {{protocolName: acme-pump}}{spec}}}")).faults
    };
    for (spec, fault) in [
        ("", "f.yaml: water/p: spec.deviceModelRef: is missing: name the DeviceModel"),
        (
            ", deviceModelRef: {name: valve}",
            "f.yaml: water/p: spec.deviceModelRef: water/valve is in none of these files: give its file too",
        ),
        (
            ", deviceModelRef: {name: pump}, properties: [{name: speed}, {name: sped}]",
            "f.yaml: water/p: spec.properties[1]: 'sped' is not in the model water/pump",
        ),
        (
            ", deviceModelRef: {name: pump}, properties: [{name: speed, collectCycle: often}]",
            "f.yaml: p: spec.properties[0].collectCycle: invalid type: string \"often\", expected u64",
        ),
    ] {
        assert_eq!(device(spec), [fault]);
    }
    let twice = format!("{PUMPS}{}", &PUMPS[PUMPS.find("---").unwrap()..]);
    assert!(listed(&twice).faults.iter().all(|fault| fault.contains("two devices of this name")));
    let old = listed(&PUMPS.replace("v1beta1\nkind: DeviceModel", "v1alpha2\nkind: DeviceModel"));
    assert!(old.faults[0].contains("pump: apiVersion: 'devices.kubeedge.io/v1alpha2'"), "{:?}", old.faults);
}

#[test]
fn a_file_that_is_none_is_named() {
    let name = Name::new("acme-pump").unwrap();
    let told = read(&["/nowhere/device.yaml".into()], &name).unwrap_err().to_string();
    assert!(told.contains("/nowhere/device.yaml"), "{told}");
}

//! Stations as somebody with KubeEdge would write them, as their edge holds them.

use serde_json::json;

/// The edge that has them.
pub(crate) const NODE: &str = "edge";

pub(crate) fn device(number: usize) -> String {
    format!("station-{number:04}")
}

/// The same as somebody would apply them.
pub(crate) fn plant(devices: usize, properties: usize) -> String {
    at_edge(devices, properties).into_iter().map(|(_, document)| format!("---\n{document}\n")).collect()
}

/// Keys and JSON of a model and of `devices` devices with `properties` properties each.
pub(crate) fn at_edge(devices: usize, properties: usize) -> Vec<(String, String)> {
    let metadata = |name: &str| json!({"name": name, "namespace": "plant"});
    let property = |number: usize| {
        let access = if number.is_multiple_of(4) { "ReadWrite" } else { "ReadOnly" };
        json!({"name": format!("value-{number:02}"), "type": "DOUBLE", "accessMode": access, "minimum": "0",
               "maximum": "1000", "unit": "kPa"})
    };
    let model = json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": metadata("station"),
        "spec": {"protocol": "modbus", "properties": (0..properties).map(property).collect::<Vec<_>>()},
    });
    let mut all = vec![("/m/model/plant/station".to_owned(), model.to_string())];
    all.extend((0..devices).map(|number| {
        let name = device(number);
        let device = json!({
            "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": metadata(&name),
            "spec": {"deviceModelRef": {"name": "station"}, "nodeName": NODE,
                     "protocol": {"protocolName": "modbus", "configData": {"slaveID": number}}},
        });
        (format!("/m/device/plant/{name}"), device.to_string())
    }));
    all
}

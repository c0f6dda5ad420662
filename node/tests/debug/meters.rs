//! Meters of edge `a`, none of which can be read.

/// `water/meter`, whose mapper nobody starts.
pub(crate) fn without_mapper() -> String {
    meter("meter", "{protocolName: modbus}", "[]")
}

/// `water/nowhere`, whose host nobody knows.
pub(crate) fn of_unknown_host() -> String {
    let protocol = "{protocolName: modbus, configData: {tcp: 'plc.invalid:502', unit: 1}}";
    meter("nowhere", protocol, "[{name: count, visitors: {protocolName: modbus, configData: {holding: 1}}}]")
}

/// With its model.
fn meter(name: &str, protocol: &str, properties: &str) -> String {
    format!(
        "\
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {{name: meter, namespace: water}}
spec:
  properties:
    - {{name: count, type: INT, accessMode: ReadOnly}}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {{name: {name}, namespace: water}}
spec:
  deviceModelRef: {{name: meter}}
  nodeName: a
  protocol: {protocol}
  properties: {properties}
"
    )
}

//! One manifest of each kind, in the order in which they make sense.

/// Kind as kubectl calls it, name, and the manifest.
pub(crate) const ALL: [(&str, &str, &str); 6] = [
    (
        "devicemodel.devices.kubeedge.io",
        "valve",
        "apiVersion: devices.kubeedge.io/v1beta1\n\
         kind: DeviceModel\n\
         metadata: {name: valve}\n\
         spec:\n  properties:\n\
         \x20 - {name: position, type: DOUBLE, accessMode: ReadWrite, minimum: '0', maximum: '100'}\n\
         \x20 - {name: flow, type: INT, accessMode: ReadOnly}\n",
    ),
    (
        "twinpolicy.kubebus.io",
        "valve-position",
        "apiVersion: kubebus.io/v1alpha1\n\
         kind: TwinPolicy\n\
         metadata: {name: valve-position}\n\
         spec: {model: valve, property: position, localOverride: true}\n",
    ),
    (
        "device.devices.kubeedge.io",
        "valve-1",
        "apiVersion: devices.kubeedge.io/v1beta1\n\
         kind: Device\n\
         metadata: {name: valve-1}\n\
         spec:\n  deviceModelRef: {name: valve}\n  nodeName: a\n  protocol: {protocolName: app}\n\
         \x20 properties: [{name: position}, {name: flow}]\n",
    ),
    (
        "rule.kubebus.io",
        "close",
        "apiVersion: kubebus.io/v1alpha1\n\
         kind: Rule\n\
         metadata: {name: close}\n\
         spec:\n  inputs: {flow: {device: valve-1, property: flow, maxAge: 60s}}\n\
         \x20 output: {device: valve-1, property: position, ttl: 60s}\n  onUnknown: hold\n\
         \x20 cases: [{name: too much, when: {input: flow, op: above, value: 9}, then: {value: 0}}]\n",
    ),
    (
        "accesspolicy.kubebus.io",
        "plant-to-office",
        "apiVersion: kubebus.io/v1alpha1\n\
         kind: AccessPolicy\n\
         metadata: {name: plant-to-office}\n\
         spec: {from: [{site: plant}], to: [{site: office}]}\n",
    ),
    (
        "host.kubebus.io",
        "plc",
        "apiVersion: kubebus.io/v1alpha1\n\
         kind: Host\n\
         metadata: {name: plc}\n\
         spec: {addresses: [192.168.1.9]}\n",
    ),
];

/// All of them as one file.
pub(crate) fn file() -> String {
    ALL.map(|(_, _, manifest)| manifest).join("---\n")
}

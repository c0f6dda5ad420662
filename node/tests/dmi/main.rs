//! A KubeEdge mapper at a real edge: a gRPC client that is not ours, which names the socket's path as `:authority`.
//!
//! [`Mapper`] is `mapper.py` in the environment that `cargo xtask dmi` makes; [`beside`] has mappers of the SDK and of the
//! Python package at the same edge. The rest is the `kubebus` binary as in `tests/cluster`.
#![cfg(feature = "io")]

#[cfg(test)]
mod beside;
#[cfg(test)]
#[path = "../cluster/device.rs"]
#[expect(dead_code, reason = "shared with the target `cluster`")]
mod device;
#[cfg(test)]
#[path = "../harness/mod.rs"]
#[expect(dead_code, reason = "shared with other tests, which need more of it")]
mod harness;
#[cfg(test)]
mod mapper;

#[cfg(test)]
use harness::process;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use crate::harness::{Cluster, Node};
    use crate::mapper::Mapper;

    const MANIFESTS: &str = "\
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: valve, namespace: plant}
spec:
  protocol: Modbus_RTU
  properties:
    - {name: position, type: INT, accessMode: ReadWrite, minimum: '0', maximum: '100'}
    - {name: pressure, type: DOUBLE, accessMode: ReadOnly}
---
apiVersion: kubebus.io/v1alpha1
kind: TwinPolicy
metadata: {name: valve-position, namespace: plant}
spec: {model: valve, property: position, actuator: true}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: v1, namespace: plant}
spec:
  deviceModelRef: {name: valve}
  nodeName: a
  protocol: {protocolName: Modbus_RTU, configData: {address: 10.0.0.7, slaveID: 1}}
  properties:
    - {name: position, collectCycle: 1000, visitors: {protocolName: Modbus_RTU, configData: {offset: 2}}}
    - {name: pressure, collectCycle: 1000}
";

    /// Cloud and edge `a`, which serves DMI at `dmi.sock` in the cluster's room.
    pub(crate) struct Plant {
        pub(crate) cluster: Cluster,
        pub(crate) a: Node,
    }

    impl Plant {
        #[track_caller]
        pub(crate) fn start() -> Self {
            let cluster = Cluster::start();
            let edge = cluster.stranger("a");
            let socket = cluster.path("dmi.sock");
            let config = std::fs::read_to_string(edge.config()).unwrap();
            let section = format!("kubeedge: {{dmi-socket: {}}}\n", socket.display());
            std::fs::write(edge.config(), config + &section).unwrap();
            let a = cluster.admit(edge);
            cluster.apply(MANIFESTS);
            a.twin_becomes(("plant/v1", "position"), "/property", json!("position"));
            Self { cluster, a }
        }

        pub(crate) fn mapper(&self, authority: &str) -> Mapper {
            Mapper::start(&self.cluster.path("dmi.sock"), &self.cluster.path("mapper.sock"), authority)
        }

        fn set(&self, value: &str) {
            self.cluster.cloud.say(&["twin", "set", "plant/v1", "position", value]);
        }
    }

    #[test]
    fn a_mapper_with_a_path_for_an_authority_gets_its_devices_reports_and_is_told_a_wish() {
        let plant = Plant::start();
        for authority in ["/etc/kubeedge/dmi.sock", "%2Fetc%2Fkubeedge%2Fdmi.sock"] {
            let mapper = plant.mapper(authority);
            let given = mapper.says("given");
            let expected = json!({ "event": "given", "device": "v1", "protocol": "Modbus_RTU",
                "config": { "address": "10.0.0.7", "slaveID": 1.0 }, "properties": ["position", "pressure"] });
            assert_eq!(given, expected, "{authority}");
            let (position, wish) = if authority.starts_with('/') { (25, "40") } else { (26, "41") };
            mapper.ask(&format!("report plant v1 position {position}"));
            mapper.says("reported");
            for node in [&plant.a, &plant.cluster.cloud] {
                node.twin_becomes(("plant/v1", "position"), "/reported/value", json!(position));
            }
            mapper.ask("report plant nowhere position 1");
            assert_eq!(mapper.says("refused")["code"], "UNKNOWN");
            mapper.ask("state plant v1 unhealthy");
            mapper.says("stated");
            plant.a.twin_becomes(("plant/v1", "position"), "/state/state", json!("degraded"));
            mapper.ask("state plant v1 ok");
            assert!(mapper.written().is_empty(), "nothing was wished");
            plant.set(wish);
            let written = mapper.says("written");
            assert_eq!((&written["property"], &written["value"]), (&json!("position"), &json!(wish)));
            plant.cluster.cloud.twin_becomes(("plant/v1", "position"), "/ack/outcome", json!("succeeded"));
        }
    }

    /// Its socket is gone when the wish is made. It comes back when the wish's time is over, and hears nothing of it.
    #[test]
    fn a_stale_wish_never_reaches_a_mapper() {
        let plant = Plant::start();
        let mapper = plant.mapper("/etc/kubeedge/dmi.sock");
        mapper.says("given");
        mapper.ask("stop");
        mapper.says("stopped");
        plant.set("70");
        plant.cluster.cloud.twin_becomes(("plant/v1", "position"), "/ack/version", json!("0.1"));
        let ack = plant.cluster.cloud.twin("plant/v1", "position")["ack"]["outcome"].clone();
        assert!([json!("expired"), json!("failed"), json!("unknown")].contains(&ack), "{ack}");
        mapper.ask("serve");
        mapper.says("served");
        plant.a.twin_becomes(("plant/v1", "position"), "/state/state", json!("online"));
        std::thread::sleep(Duration::from_secs(2));
        assert!(mapper.written().is_empty(), "{:?}", mapper.written());
        plant.set("20");
        assert_eq!(mapper.says("written")["value"], "20");
    }

    /// KubeEdge's mappers register once. The edge is killed, and comes back with another device for the mapper.
    #[test]
    fn a_mapper_outlives_its_edge_without_registering_again() {
        let mut plant = Plant::start();
        let mapper = plant.mapper("%2Fetc%2Fkubeedge%2Fdmi.sock");
        mapper.says("given");
        plant.set("40");
        mapper.says("written");
        plant.a.kill();
        plant.cluster.apply(&MANIFESTS.replace("name: v1", "name: v2"));
        plant.a.start();
        let told = mapper.says_with("device", "/device", &json!("v2"));
        assert_eq!(told["how"], "registered");
        plant.a.twin_becomes(("plant/v1", "position"), "/state/state", json!("online"));
        let before = mapper.written().len();
        mapper.ask("report plant v1 position 41");
        mapper.says("reported");
        plant.a.twin_becomes(("plant/v1", "position"), "/reported/value", json!(41));
        assert_eq!(mapper.written().len(), before, "a restart moves nothing");
        plant.set("50");
        mapper.says_with("written", "/value", &json!("50"));
    }

    #[test]
    fn the_socket_is_the_owners_and_its_groups_and_goes_with_the_edge() {
        use std::os::unix::fs::PermissionsExt;
        let mut plant = Plant::start();
        let socket = plant.cluster.path("dmi.sock");
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&socket), 0o660);
        plant.a.kill();
        assert!(socket.exists(), "a killed edge leaves its socket");
        plant.a.start();
        assert_eq!(mode(&socket), 0o660);
        plant.a.terminate();
        assert!(!socket.exists());
    }
}

//! A cluster that serves the API, and cards for its users.

use std::net::SocketAddr;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use crate::client::{Card, Place};
use crate::harness::{Cluster, Node, QUICK_LINK};

pub(crate) const ROLES: [&str; 5] = ["admin", "operator", "viewer", "mapper", "app"];

/// A device that there is.
pub(crate) const DEVICE: &str = "water/valve";

const API: u16 = 21443;
const MQTTS: u16 = 21884;

const MANIFESTS: &str = "\
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: valve, namespace: water}
spec:
  protocol: virtual
  properties:
    - {name: position, type: DOUBLE, accessMode: ReadWrite, minimum: '0', maximum: '100', unit: '%'}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: valve, namespace: water}
spec:
  deviceModelRef: {name: valve}
  nodeName: a
  protocol: {protocolName: virtual, configData: {socket: /none}}
  properties:
    - {name: position, collectCycle: 1000, visitors: {protocolName: virtual, configData: {register: position}}}
";

/// A cluster whose nodes serve the API.
pub(crate) struct House {
    pub(crate) cluster: Cluster,
    authority: CertificateDer<'static>,
}

impl House {
    /// A cloud alone.
    #[track_caller]
    pub(crate) fn open(name: &str) -> Self {
        let cluster = Cluster::start_cloud(QUICK_LINK, |cloud| {
            serve(&cloud);
            cloud
        });
        cluster.apply(MANIFESTS);
        let dir = cluster.path(name);
        let (dir, who) = (dir.to_str().unwrap(), "user/nobody");
        cluster.cloud.say(&["mqtt", "certificate", who, "--out", dir]);
        let authority = cluster.path(name).join("cluster-ca.pem");
        Self { authority: CertificateDer::from_pem_file(authority).unwrap(), cluster }
    }

    /// An edge that serves the API too.
    #[track_caller]
    pub(crate) fn edge(&self, name: &str) -> Node {
        let edge = self.cluster.stranger(name);
        serve(&edge);
        self.cluster.admit(edge)
    }

    pub(crate) fn cloud(&self) -> Place {
        self.place(&self.cluster.cloud, "cloud.water.kb.internal")
    }

    pub(crate) fn place(&self, node: &Node, name: &'static str) -> Place {
        Place { address: api(node), name, authority: self.authority.clone() }
    }

    /// Lets a user in.
    #[track_caller]
    pub(crate) fn add(&self, name: &str, role: &str) -> Card {
        self.add_for(name, role, "1h")
    }

    #[track_caller]
    pub(crate) fn add_for(&self, name: &str, role: &str, lasting: &str) -> Card {
        let dir = self.cluster.path(&format!("card-{name}"));
        let out = dir.to_str().unwrap();
        self.cluster.cloud.say(&["user", "add", name, "--role", role, "--for", lasting, "--out", out]);
        Card::read(&dir, &format!("user-{name}"))
    }

    /// All that anybody could have changed, but users.
    #[track_caller]
    pub(crate) fn state(&self) -> Vec<Value> {
        let cloud = &self.cluster.cloud;
        let kinds = ["nodes", "devices", "devicemodels", "twinpolicies", "rules", "accesspolicies", "hosts"];
        let mut state: Vec<Value> = kinds.iter().map(|kind| cloud.ask(&["get", kind])).collect();
        state.extend([cloud.ask(&["token", "list"]), cloud.ask(&["wireguard", "list"])]);
        state.push(cloud.twin(DEVICE, "position")["desired"].clone());
        state
    }
}

pub(crate) fn api(node: &Node) -> SocketAddr {
    SocketAddr::new(node.mqtt().ip(), API)
}

/// MQTT with certificates.
pub(crate) fn mqtts(node: &Node) -> SocketAddr {
    SocketAddr::new(node.mqtt().ip(), MQTTS)
}

fn serve(node: &Node) {
    let text = std::fs::read_to_string(node.config()).unwrap();
    let (plain, tls) = (format!("mqtt: {{listen: '{}'", node.mqtt()), mqtts(node));
    assert!(text.contains(&plain), "{text}");
    let both = format!("{plain}, listeners: [{{address: '{tls}', tls: {{client-certificate: required}}}}]");
    let text = format!("{}api: {{listen: ['{}']}}\n", text.replace(&plain, &both), api(node));
    std::fs::write(node.config(), text).unwrap();
}

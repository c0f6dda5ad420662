//! A cloud in the open, and two edges behind NATs.

use lab::io::{Wire, enter_user_namespace};
use lab::{NatKind, PortId};
use tempfile::TempDir;

use crate::lab_node::{CLOUD, CONFIG, Node, attach, attach_behind};

/// The order of fields is that of dropping: processes, then their network, then their files.
pub(crate) struct Stage {
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) cloud: Node,
    pub(crate) wire: Wire,
    /// Of the cloud, `a` and `b`.
    pub(crate) ports: [PortId; 3],
    _room: TempDir,
}

impl Stage {
    /// Both edges have joined, each for a site of its own, and everything runs.
    pub(crate) fn build() -> Self {
        Self::build_with(CONFIG)
    }

    /// The same, with another configuration of all nodes.
    pub(crate) fn build_with(config: &str) -> Self {
        enter_user_namespace().unwrap();
        let (wire, room) = (Wire::start(7).unwrap(), tempfile::tempdir().unwrap());
        let mut cloud = Node::new("cloud", "hq", room.path());
        cloud.configure(config);
        let at_cloud = attach(&wire, &cloud.network, CLOUD, None);
        cloud.start();
        let [(a, at_a), (b, at_b)] = [("a", 21), ("b", 22)].map(|(name, last)| {
            let mut edge = Node::new("edge", name, room.path());
            edge.configure(config);
            let port = attach_behind(NatKind::PortRestricted, &wire, &edge.network, last);
            edge.join(&cloud, &format!("site-{name}"), &[]);
            (edge, port)
        });
        Self { a, b, cloud, wire, ports: [at_cloud, at_a, at_b], _room: room }
    }
}

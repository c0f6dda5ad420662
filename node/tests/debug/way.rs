//! Faults on the way between an edge behind a NAT and its cloud, on the lab's wire.

use lab::io::{Wire, enter_user_namespace};
use lab::{LinkSettings, NatKind};

use crate::Diagnosis;
use crate::lab_node::{CLOUD, Node, Ran, attach, attach_behind, eventually};

fn diagnose(node: &Node, args: &[&str]) -> Diagnosis {
    let (code, stdout) = node.command(&[&["debug", "diagnose", "-o", "json"], args].concat()).told();
    Diagnosis::read(code, &stdout)
}

fn first_becomes(node: &Node, args: &[&str], cause: &str) {
    let mut seen = serde_json::Value::Null;
    let look = || {
        let found = diagnose(node, args);
        let is_it = found.first() == cause;
        seen = found.document;
        is_it.then_some(())
    };
    eventually(&format!("{args:?}: {cause}"), look);
}

pub(crate) fn faults_on_the_way() {
    enter_user_namespace().unwrap();
    let (wire, room) = (Wire::start(7).unwrap(), tempfile::tempdir().unwrap());
    let [mut cloud, mut a, mut b] = [("cloud", "hq"), ("edge", "a"), ("edge", "b")]
        .map(|(role, name)| Node::new(role, name, room.path()));
    let hub = attach(&wire, &cloud.network, CLOUD, None);
    cloud.start();
    let line = attach_behind(NatKind::PortRestricted, &wire, &a.network, 21);
    attach_behind(NatKind::PortRestricted, &wire, &b.network, 22);
    a.join(&cloud, "plant-a", &[]);
    b.join(&cloud, "plant-b", &[]);
    first_becomes(&a, &[], "nothing");
    first_becomes(&cloud, &[], "nothing");

    // Two sites, and no policy between them.
    first_becomes(&cloud, &["--from", "a", "--to", "b", "--protocol", "icmp"], "policy-denies");
    first_becomes(&cloud, &["--from", "a", "--to", "a"], "nothing");
    first_becomes(&a, &["--to", "198.51.100.1"], "no-route");

    let narrow = |longest| LinkSettings { longest, ..LinkSettings::default() };
    wire.set_link(line, LinkSettings { no_udp: true, ..LinkSettings::default() });
    first_becomes(&a, &[], "udp-blocked");
    first_becomes(&cloud, &["a"], "edge-away");
    // As in a tunnel inside a tunnel.
    wire.set_link(line, narrow(1100));
    first_becomes(&a, &[], "mtu-black-hole");
    wire.cut(hub);
    first_becomes(&a, &[], "host-unreachable");
    wire.restore(hub);
    // Wide enough for QUIC, too narrow for what is common. A new process does not wait for its next turn to dial.
    wire.set_link(line, narrow(1300));
    a.kill();
    a.start();
    first_becomes(&a, &[], "narrow-path");
    // Asked over that very line, behind its NAT.
    first_becomes(&cloud, &["--node", "a"], "narrow-path");
    wire.set_link(line, LinkSettings::default());
    first_becomes(&a, &[], "nothing");
    wire.stop();
}

impl Ran {
    /// How it ended, and what it printed.
    fn told(self) -> (Option<i32>, String) {
        let code = (0..=10).find(|code| self.ended_with(*code));
        let stdout = code.map(|code| self.expect(code)).unwrap_or_default();
        (code, stdout)
    }
}

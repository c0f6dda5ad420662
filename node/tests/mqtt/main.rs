//! The broker as clients of other makers meet it: a real node on loopback, and against it mosquitto's tools ([`tools`]),
//! paho-mqtt for Python ([`paho`], with the scripts beside this file), and what no well-meaning client would send
//! ([`wire`], [`flows`], [`malformed`], [`hostile`]).
//!
//! `cargo xtask python` installs paho-mqtt. One script alone, or one case of it, against a running broker:
//! `<target>/python/venv/bin/python node/tests/mqtt/sessions.py HOST PORT [PART-OF-A-NAME]`.
#![cfg(feature = "io")]

#[cfg(test)]
mod flows;
#[cfg(test)]
#[path = "../harness/mod.rs"]
#[expect(dead_code, reason = "shared with the target `cluster`")]
mod harness;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod malformed;
#[cfg(test)]
mod paho;
#[cfg(test)]
mod revoked;
#[cfg(test)]
mod tools;
#[cfg(test)]
mod wire;

#[cfg(test)]
use harness::{Cluster, Node, mqtt, process};

/// No client makes the broker panic.
#[cfg(test)]
#[track_caller]
fn no_panic(node: &Node) {
    assert!(node.panics().is_empty(), "{:#?}", node.panics());
}

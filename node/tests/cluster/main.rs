//! The `kubebus` binary as its users meet it: real processes on loopback, real MQTT clients, real kills.
//!
//! [`harness`] starts the nodes and speaks to them with mosquitto's tools, [`device`] is a simulated device. The rest are
//! the tests, one file a subject. Without TUN, so that no privileges are needed; packets have tests of their
//! own in `router`.
#![cfg(feature = "io")]

#[cfg(test)]
mod access;
#[cfg(test)]
mod apps;
#[cfg(test)]
mod checks;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod device;
#[cfg(test)]
mod disks;
#[cfg(test)]
mod etcd;
#[cfg(test)]
mod external;
#[cfg(test)]
#[path = "../harness/mod.rs"]
mod harness;
#[cfg(test)]
mod joining;
#[cfg(test)]
#[path = "../kubectl/mod.rs"]
mod kubectl;
#[cfg(test)]
mod kubeedge;
#[cfg(test)]
mod mesh;
#[cfg(test)]
mod moving;
#[cfg(test)]
mod renewing;
#[cfg(test)]
#[cfg(feature = "etcd")]
mod standby;
#[cfg(test)]
mod starting;
#[cfg(test)]
mod survival;
#[cfg(test)]
mod twins;

#[cfg(test)]
use harness::{mqtt, process};

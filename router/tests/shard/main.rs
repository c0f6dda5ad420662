//! Shards against each other, and against peers that do not keep to the protocol: real UDP on the loopback.
#![cfg(feature = "io")]

#[cfg(test)]
mod cluster;
#[cfg(test)]
#[path = "../kernel/namespace.rs"]
mod namespace;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod relay;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod lans;
#[cfg(test)]
mod links;
#[cfg(test)]
mod neighbours;
#[cfg(test)]
mod packets;
#[cfg(test)]
mod spoofing;
#[cfg(test)]
mod trust;

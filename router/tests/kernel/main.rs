//! The router against a real kernel, each test in a network of its own.
#![cfg(feature = "io")]

#[cfg(test)]
mod namespace;
#[cfg(test)]
mod wire;

#[cfg(test)]
mod forwarding;
#[cfg(test)]
mod offload;
#[cfg(test)]
mod overlay;
#[cfg(test)]
mod veth;

#[cfg(test)]
mod tun;

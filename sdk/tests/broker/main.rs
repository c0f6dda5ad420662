//! The SDK against a real broker (mosquitto) and devices that count what is done to them.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

mod bench;
mod driver;
mod lifecycle;
mod support;

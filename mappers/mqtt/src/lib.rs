//! The mapper for devices that speak MQTT to some broker: the node's own or another.
//!
//! | shape | connection | property address |
//! |---|---|---|
//! | `plain` | `{"broker": "10.0.0.5:1883"}` | `{"topic": "boiler/state", "pointer": "/temp", "write": {"topic": "boiler/set"}}` |
//! | `tasmota` | `{.., "topic": "kitchen"}` | `{"pointer": "/POWER"}`, `{"pointer": "/ENERGY/Power"}` |
//! | `zigbee2mqtt` | `{.., "topic": "attic lamp"}` | `{"pointer": "/brightness"}` |
//! | `sparkplug` | `{.., "group": "plant", "node": "gw", "device": "pump"}` | `{"metric": "Motor/Speed"}` |
//!
//! Devices push; a property with a period is told its last value, with its own time. Commands are never retained and
//! carry an expiry, and a write counts as done when the device itself says so.
//!
//! Inside, decisions are pure: `board` (what one device has said), `shape` (how devices speak), `sparkplug`
//! (births, sequence numbers, deaths), `exchange` (all devices on one connection). `link` is the connection, `sharing`
//! what devices of one broker share, `session` a device's end of it.

mod board;
pub mod config;
mod exchange;
mod link;
mod session;
mod shape;
mod sharing;
mod sparkplug;

use kubebus_sdk::{Context, Error, Manifest, Mapper};

pub use crate::config::{Address, Config};
pub use crate::session::MqttSession;
use crate::shape::Voice;

/// See the crate's page.
#[derive(Debug)]
pub struct MqttMapper;

impl Mapper for MqttMapper {
    type Config = Config;
    type Address = Address;
    type Session = MqttSession;

    fn manifest() -> Manifest {
        Manifest::new("mqtt", env!("CARGO_PKG_VERSION"))
            .about("MQTT devices: plain topics, Tasmota, Zigbee2MQTT, Sparkplug B")
            .pushes()
    }

    async fn open(config: &Config, _: &Context<MqttSession>) -> Result<MqttSession, Error> {
        let (access, voice) = (config.access()?, Voice::new(config)?);
        MqttSession::open(sharing::connection(&access).await?, voice).await
    }
}

//! The mapper for Modbus devices: TCP, RTU on a serial port, and RTU over TCP.
//!
//! | connection | property address |
//! |---|---|
//! | `{"tcp": "10.0.0.5:502", "unit": 1}` | `{"holding": 40, "type": "f32", "order": "cdab"}` |
//! | `{"serial": "/dev/ttyUSB0", "baud": 19200, "unit": 3}` | `{"coil": 7}`, `{"input": 0, "bit": 3}` |
//! | KubeEdge's: `{"communicateMode": "TCP", "ip": .., "port": .., "slaveID": ..}` | `{"register": "HoldingRegister", "offset": 2, "limit": 1}` |
//!
//! [`Config`] and [`Address`] are what people write, checked. Inside, `pdu`, `frame` and `value` are pure: requests and
//! answers, their frames, registers into values. `line` asks and hears the one answer that fits, over a `port`;
//! `session` reads runs of registers and writes.
//!
//! The client is our own and not tokio-modbus's: that takes an answer of another length for an answer, panics on one in
//! debug builds, and cannot tell late answers on serial lines.

mod address;
mod config;
mod discover;
mod frame;
mod line;
mod loose;
mod pdu;
mod port;
mod serial;
mod session;
mod value;

use kubebus_sdk::{Context, Error, Found, Manifest, Mapper, Span};

pub use address::Address;
pub use config::Config;
pub use line::Line;
pub use session::Device;

/// Registers between two points that are read along: they cost 20 bytes, a request of its own costs more.
const GAP: u64 = 10;

/// See the crate's page.
#[derive(Debug)]
pub struct ModbusMapper;

impl Mapper for ModbusMapper {
    type Config = Config;
    type Address = Address;
    type Session = Device;

    fn manifest() -> Manifest {
        Manifest::new("modbus", env!("CARGO_PKG_VERSION"))
            .about("Modbus TCP, RTU, and RTU over TCP")
            .spans(pdu::LONGEST_RUN.into(), GAP)
            .discovers()
    }

    fn bus(config: &Config) -> Option<String> {
        Some(config.link.to_string())
    }

    fn span(address: &Address) -> Option<Span> {
        Some(address.span())
    }

    async fn open(config: &Config, context: &Context<Device>) -> Result<Device, Error> {
        Device::open(config, context.bus.clone()).await
    }

    async fn discover(config: &Config) -> Result<Vec<Found>, Error> {
        discover::discover(config).await
    }
}

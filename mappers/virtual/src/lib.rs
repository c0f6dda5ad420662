//! The mapper for devices that do not exist: waveforms, or a simulator behind a Unix socket.
//!
//! | connection | property address | what it is |
//! |---|---|---|
//! | `{}` | `{"waveform": "sine", "period_s": 60, "min": 0, "max": 10}` | a pure function of the time; also `ramp`, `constant` |
//! | `{"socket": "/run/water/valve.sock"}` | `{"register": "position"}` | a simulator that speaks JSON lines |
//!
//! The simulator's lines, one answer per request:
//!
//! ```text
//! > {"read":["level"]}             < {"values":{"level":3.2}}      what it does not know is left out
//! > {"write":{"position":40.0}}    < {"ok":true}                   or {"error":"why not"}
//! ```
//!
//! It is an ordinary user of the SDK and the shortest example of a mapper that can be run:
//! [`wave`] is the arithmetic, [`line`](mod@line) the socket.

pub mod line;
pub mod wave;

use std::future::Future;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use kubebus_sdk::{
    Batch, Context, Error, JsonSchema, Manifest, Mapper, Options, Point, Quality, Samples, Session, Value,
    WriteOutcome, WritePermit,
};
use serde::Deserialize;

use crate::line::Line;
use crate::wave::{Shape, Wave};

/// Runs the mapper until `stop` comes true.
pub async fn run(options: Options, stop: impl Future<Output = ()> + Send) {
    kubebus_sdk::run::<VirtualMapper>(options, stop).await;
}

/// See the crate's page.
#[derive(Debug)]
pub struct VirtualMapper;

/// How a device is reached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The simulator's Unix socket; without one the device has waveforms only.
    #[serde(default)]
    pub socket: Option<PathBuf>,
}

/// Where a property's value comes from.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars", with = "Keys")]
#[serde(try_from = "Keys")]
pub enum Address {
    Register { register: String },
    Wave(Wave),
}

/// An address as it is written: one that is none is named by the key that is wrong, which an untagged enum does not tell.
#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
#[serde(deny_unknown_fields)]
struct Keys {
    /// In a device with a socket.
    #[serde(default)]
    register: Option<String>,
    #[serde(default)]
    waveform: Option<Shape>,
    /// Length of one period in seconds; 60 if it is left out.
    #[serde(default)]
    period_s: Option<f64>,
    /// 0 if it is left out.
    #[serde(default)]
    min: Option<f64>,
    /// 1 if it is left out.
    #[serde(default)]
    max: Option<f64>,
}

impl TryFrom<Keys> for Address {
    type Error = &'static str;

    fn try_from(keys: Keys) -> Result<Self, &'static str> {
        let Keys { register, waveform, period_s, min, max } = keys;
        match (register, waveform) {
            (Some(register), None) if period_s.or(min).or(max).is_none() => Ok(Self::Register { register }),
            (None, Some(waveform)) => Ok(Self::Wave(Wave {
                waveform,
                period_s: period_s.unwrap_or(60.0),
                min: min.unwrap_or(0.0),
                max: max.unwrap_or(1.0),
            })),
            (Some(_), _) => Err("register goes alone: waveform, period_s, min and max are for a wave"),
            (None, None) => Err("register or waveform is missing"),
        }
    }
}

/// One virtual device.
#[derive(Debug)]
pub struct Simulated {
    line: Option<Line>,
}

impl Mapper for VirtualMapper {
    type Config = Config;
    type Address = Address;
    type Session = Simulated;

    fn manifest() -> Manifest {
        Manifest::new("virtual", env!("CARGO_PKG_VERSION"))
            .about("waveforms, or a simulator on a Unix socket")
    }

    async fn open(config: &Config, _: &Context<Simulated>) -> Result<Simulated, Error> {
        let line = match &config.socket {
            Some(path) => Some(Line::connect(path).await?),
            None => None,
        };
        Ok(Simulated { line })
    }
}

impl Session for Simulated {
    type Address = Address;
    type Bus = ();

    async fn read(&mut self, batch: &Batch<'_, Address>, out: &mut Samples) -> Result<(), Error> {
        let mut registers = Vec::new();
        for point in batch {
            match &point.address {
                Address::Wave(wave) => {
                    out.push(point, Value::Float(wave.at(seconds())), Quality::Uncertain, None);
                }
                Address::Register { register } => registers.push((*point, register.as_str())),
            }
        }
        self.read_registers(&registers, out).await
    }

    async fn write(
        &mut self,
        point: &Point<Address>,
        value: Value,
        permit: WritePermit,
    ) -> Result<WriteOutcome, Error> {
        let (Address::Register { register }, Some(line)) = (&point.address, &mut self.line) else {
            return Err(Error::Unsupported("a waveform cannot be written".to_owned()));
        };
        let consumed = permit.consume()?;
        line.write(register, &value).await?;
        Ok(consumed.accepted())
    }
}

impl Simulated {
    async fn read_registers(
        &mut self,
        registers: &[(&Point<Address>, &str)],
        out: &mut Samples,
    ) -> Result<(), Error> {
        if registers.is_empty() {
            return Ok(());
        }
        let Some(line) = &mut self.line else {
            for (point, register) in registers {
                let why = format!("register {register} needs a device with a socket");
                out.failed(point, Error::BadAddress { point: point.name.clone(), why });
            }
            return Ok(());
        };
        let names: Vec<_> = registers.iter().map(|(_, register)| *register).collect();
        let mut values = line.read(&names).await?;
        for (point, register) in registers {
            match values.remove(*register) {
                Some(value) => out.good(point, value),
                None => out.failed(point, Error::Device(format!("no register {register}"))),
            }
        }
        Ok(())
    }
}

/// Time for the waveforms: since 1970, so that they go on where they were after a restart.
fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_addresses_are_read_as_documented() {
        let config = |json| serde_json::from_str::<Config>(json).unwrap();
        assert_eq!(config("{}"), Config { socket: None });
        assert_eq!(config(r#"{"socket":"/run/x"}"#), Config { socket: Some("/run/x".into()) });

        let address = |json| serde_json::from_str::<Address>(json);
        let register = Address::Register { register: "level".into() };
        assert_eq!(address(r#"{"register":"level"}"#).unwrap(), register);
        let wave = Wave { waveform: Shape::Sine, period_s: 60.0, min: 0.0, max: 10.0 };
        assert_eq!(
            address(r#"{"waveform":"sine","period_s":60,"min":0,"max":10}"#).unwrap(),
            Address::Wave(wave)
        );
        for (wrong, expected) in [
            (r#"{"waveform":"square"}"#, "square"),
            (r#"{"waveform":"ramp","length_s":3}"#, "length_s"),
            (r#"{"register":"level","max":3}"#, "register goes alone"),
            ("{}", "register or waveform is missing"),
        ] {
            let error = address(wrong).unwrap_err().to_string();
            assert!(error.contains(expected), "{wrong}: {error}");
        }
    }
}

//! Write a mapper: your driver on two traits, the SDK does the rest.
//!
//! A mapper is a process of its own that connects devices of one protocol to a KubeBus node over MQTT. You write how
//! to [open](Mapper::open) a session with a device, how to [read](Session::read) a batch of points and how to
//! [write](Session::write) one. The SDK schedules and batches, reopens lost sessions with backoff, reports, marks old
//! values bad, takes new configurations without touching devices that did not change, and sees to it that a write is
//! carried out at most once and never after its time.
//!
//! A whole mapper, for a thermostat that speaks `GET` and `SET` lines over TCP:
//!
//! ```no_run
//! use kubebus_sdk::{Batch, Context, Error, JsonSchema, Manifest, Mapper, Point, Samples, Session, Value};
//! use kubebus_sdk::{WriteOutcome, WritePermit};
//! use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
//! use tokio::net::TcpStream;
//!
//! struct Thermostat;
//! struct Line(BufStream<TcpStream>);
//!
//! #[derive(serde::Deserialize, JsonSchema)]
//! #[schemars(crate = "kubebus_sdk::schemars")]
//! struct Config {
//!     address: String,
//! }
//!
//! impl Mapper for Thermostat {
//!     type Config = Config;
//!     type Address = String; // the name of a register
//!     type Session = Line;
//!     fn manifest() -> Manifest {
//!         Manifest::new("thermostat", env!("CARGO_PKG_VERSION"))
//!     }
//!     async fn open(config: &Config, _: &Context<Line>) -> Result<Line, Error> {
//!         Ok(Line(BufStream::new(TcpStream::connect(&config.address).await?)))
//!     }
//! }
//!
//! impl Session for Line {
//!     type Address = String;
//!     type Bus = ();
//!     async fn read(&mut self, batch: &Batch<'_, String>, out: &mut Samples) -> Result<(), Error> {
//!         for point in batch {
//!             match self.ask(&format!("GET {}\n", point.address)).await?.parse() {
//!                 Ok(number) => out.good(point, Value::Float(number)),
//!                 Err(_) => out.failed(point, Error::Device("not a number".into())),
//!             }
//!         }
//!         Ok(())
//!     }
//!     async fn write(&mut self, point: &Point<String>, value: Value, permit: WritePermit) -> Result<WriteOutcome, Error> {
//!         let consumed = permit.consume()?; // too late? then nothing moves
//!         self.ask(&format!("SET {} {value}\n", point.address)).await?;
//!         Ok(consumed.applied())
//!     }
//! }
//!
//! impl Line {
//!     async fn ask(&mut self, request: &str) -> Result<String, Error> {
//!         self.0.write_all(request.as_bytes()).await?;
//!         self.0.flush().await?;
//!         let mut answer = String::new();
//!         self.0.read_line(&mut answer).await?;
//!         Ok(answer.trim().to_owned())
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     kubebus_sdk::main::<Thermostat>()
//! }
//! ```
//!
//! What a mapper can rely on: its session is used by one task, one call at a time; a fault or a crash of one device's
//! driver concerns that device only; nothing is written because of a start, a reconnection or a reading. What is asked
//! of it: `read` does not write, and `write` calls [`WritePermit::consume`] right before the device hears of it.
//!
//! [`main`] is the program around it: `run`, and, without a node, `check`, `read`, `discover` and `schema`. Who brings a
//! runtime and options of his own calls [`run`] instead, and can do without the feature `cli`.
//!
//! Inside, decisions are pure and take the time as an argument: `desk` (all devices: configuration, admission of
//! writes, what is published), `device` (one device: open, read, wait), `points` (its values), `schedule`, `freshness`,
//! `scale`, `telling` (deadbands), `pushing` (subscriptions), `standing` and `health` (what people are told), `ledger`
//! (writes seen), `permit`. `io` runs them: the connection to the broker and one task per device.

mod batch;
#[cfg(feature = "cli")]
mod cli;
mod desk;
mod device;
mod error;
mod freshness;
mod health;
mod io;
mod ledger;
mod manifest;
mod mapper;
mod permit;
mod plan;
mod points;
mod pushing;
mod samples;
mod scale;
mod schedule;
mod shared;
mod sink;
mod standing;
mod telling;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(test)]
mod tests;

pub use batch::{Batch, Span, SpanLimits};
pub use bus::twin::DeviceId;
pub use bus::{Name, Quality, UnixMillis, Value, ValueType};
#[cfg(feature = "cli")]
pub use cli::{main, main_with};
pub use error::Error;
pub use io::{InvalidBroker, Options, run};
pub use manifest::{Found, FoundProperty, Manifest};
pub use mapper::{Context, Mapper, Point, Session};
pub use permit::{Consumed, WriteOutcome, WritePermit};
pub use samples::Samples;
pub use schemars::{self, JsonSchema};
pub use shared::Shared;
pub use sink::Sink;

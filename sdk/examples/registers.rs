//! A complete mapper in 150 lines: holding registers over Modbus TCP, the frames written by hand.
//!
//! Neighbouring registers are read in one request, devices behind one gateway share its connection, and whatever goes
//! wrong in the middle of a request closes it, so that no answer is ever taken for that of another request. The mapper
//! for real plants is `mappers/modbus`.
//!
//! ```text
//! connection  {"tcp": "10.0.0.5:502", "unit": 1}
//! address     {"register": 40, "format": "f32", "scale": 0.1}
//! ```

use std::time::Duration;

use kubebus_sdk::{
    Batch, Context, Error, JsonSchema, Manifest, Mapper, Point, Samples, Session, Shared, Span, Value,
    WriteOutcome, WritePermit, schemars,
};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a device may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most registers of one request (Modbus Application Protocol 1.1b3, 6.3).
const MOST_REGISTERS: u64 = 125;

pub(crate) struct Registers;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    tcp: String,
    unit: u8,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Address {
    register: u16,
    #[serde(default)]
    format: Format,
}

#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    U16,
    I16,
    F32,
}

/// One unit behind a gateway, whose connection is in `gateway` while nobody uses it.
pub(crate) struct Unit {
    gateway: Shared<TcpStream>,
    tcp: String,
    unit: u8,
    transaction: u16,
}

impl Mapper for Registers {
    type Config = Config;
    type Address = Address;
    type Session = Unit;

    fn manifest() -> Manifest {
        Manifest::new("registers", "1.0.0").about("registers over Modbus TCP").spans(MOST_REGISTERS, 8)
    }

    fn bus(config: &Config) -> Option<String> {
        Some(config.tcp.clone())
    }

    fn span(Address { register, format }: &Address) -> Option<Span> {
        Some(Span { area: 0, start: u64::from(*register), len: format.bytes() as u64 / 2 })
    }

    async fn open(Config { tcp, unit }: &Config, context: &Context<Unit>) -> Result<Unit, Error> {
        let unit = Unit { gateway: context.bus.clone(), tcp: tcp.clone(), unit: *unit, transaction: 0 };
        let connection = unit.connection().await?;
        *unit.gateway.lock().await = Some(connection);
        Ok(unit)
    }
}

impl Session for Unit {
    type Address = Address;
    type Bus = TcpStream;

    async fn read(&mut self, batch: &Batch<'_, Address>, out: &mut Samples) -> Result<(), Error> {
        let Some(run) = batch.span() else { return Ok(()) };
        let [start, count] = [run.start as u16, run.len as u16].map(u16::to_be_bytes);
        let answer = self.ask(self.connection().await?, &[&[3][..], &start, &count].concat()).await?;
        for point in batch {
            let Address { register, format } = point.address;
            let at = 1 + 2 * (u64::from(register) - run.start) as usize;
            let bytes = answer.get(at..at + format.bytes());
            out.good(point, Value::Float(format.decode(bytes.ok_or(Error::transient("a short answer"))?)));
        }
        Ok(())
    }

    async fn write(
        &mut self,
        point: &Point<Address>,
        value: Value,
        permit: WritePermit,
    ) -> Result<WriteOutcome, Error> {
        let Address { register, format } = point.address;
        let number = value.as_f64().unwrap_or(f64::NAN);
        let (register, bytes) = (register.to_be_bytes(), format.encode(number));
        let is_held = (format.decode(&bytes) - number).abs() <= 0.5_f64.max(number.abs() * 1e-6);
        if !is_held {
            return Err(Error::Unsupported(format!("{value} in this register")));
        }
        let request = match bytes.len() as u8 {
            2 => [&[6][..], &register, &bytes].concat(),
            length => [&[16][..], &register, &[0, length / 2, length], &bytes].concat(),
        };
        let connection = self.connection().await?;
        let consumed = permit.consume()?; // too late? then nothing moves
        let answer = self.ask(connection, &request).await?;
        if answer == request[1..5] { Ok(consumed.applied()) } else { Err(Error::transient("a wrong echo")) }
    }
}

impl Unit {
    async fn connection(&self) -> Result<TcpStream, Error> {
        match self.gateway.lock().await.take() {
            Some(connection) => Ok(connection),
            None => Ok(TcpStream::connect(&self.tcp).await?),
        }
    }

    /// What answers a request, after its function code. The connection goes back once its answer has come in full.
    async fn ask(&mut self, mut connection: TcpStream, request: &[u8]) -> Result<Vec<u8>, Error> {
        self.transaction = self.transaction.wrapping_add(1);
        let [id, length] = [self.transaction, request.len() as u16 + 1].map(u16::to_be_bytes);
        let frame = [&id[..], &[0, 0], &length, &[self.unit], request].concat();
        let exchange = async {
            connection.write_all(&frame).await?;
            let mut head = [0; 8];
            connection.read_exact(&mut head).await?;
            let length = usize::from(u16::from_be_bytes([head[4], head[5]])).clamp(3, 254);
            let mut rest = vec![0; length - 2];
            connection.read_exact(&mut rest).await?;
            Ok::<_, Error>((head, rest))
        };
        let (head, rest) =
            timeout(PATIENCE, exchange).await.map_err(|_| Error::Timeout(self.tcp.clone()))??;
        if head[..4] != frame[..4] || head[6] != self.unit || head[7] & 0x7f != request[0] {
            return Err(Error::transient("this is the answer to another request"));
        }
        *self.gateway.lock().await = Some(connection);
        if head[7] == request[0] { Ok(rest) } else { Err(Error::Device(format!("exception {}", rest[0]))) }
    }
}

impl Format {
    fn bytes(self) -> usize {
        if matches!(self, Self::F32) { 4 } else { 2 }
    }

    /// The number in as many bytes as it has.
    fn decode(self, bytes: &[u8]) -> f64 {
        let raw = bytes.iter().fold(0, |raw: u32, byte| raw << 8 | u32::from(*byte));
        match self {
            Self::U16 => f64::from(raw),
            Self::I16 => f64::from(raw as u16 as i16),
            Self::F32 => f64::from(f32::from_bits(raw)),
        }
    }

    fn encode(self, number: f64) -> Vec<u8> {
        match self {
            Self::U16 => (number.round() as u16).to_be_bytes().to_vec(),
            Self::I16 => (number.round() as i16).to_be_bytes().to_vec(),
            Self::F32 => (number as f32).to_be_bytes().to_vec(),
        }
    }
}

fn main() -> std::process::ExitCode {
    kubebus_sdk::main::<Registers>()
}

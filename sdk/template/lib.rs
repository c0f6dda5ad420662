//! Devices that answer lines over TCP. Replace this protocol by yours; the SDK does the rest.
//!
//! ```text
//! > GET speed          < speed 1450
//! > SET speed 1200     < speed 1200        or  ! why not
//! ```

use std::io::ErrorKind;

use kubebus_sdk::{
    Batch, Context, Error, JsonSchema, Manifest, Mapper, Point, Samples, Session, Value, ValueType,
    WriteOutcome, WritePermit, schemars,
};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Longest answer, in bytes: a device that sends more is not ours.
const LONGEST_ANSWER: u64 = 1024;

/// The protocol.
#[derive(Debug)]
pub struct __Type__;

/// A device's `spec.protocol.configData`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// `host:port`
    address: String,
}

/// A property's `visitors.configData`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// What the device calls the value.
    register: String,
}

/// A connection to one device.
#[derive(Debug)]
pub struct Line(BufReader<TcpStream>);

impl Mapper for __Type__ {
    type Config = Connection;
    type Address = Register;
    type Session = Line;

    fn manifest() -> Manifest {
        Manifest::new("__name__", env!("CARGO_PKG_VERSION")).about("lines over TCP")
    }

    async fn open(connection: &Connection, _: &Context<Line>) -> Result<Line, Error> {
        Ok(Line(BufReader::new(
            TcpStream::connect(&connection.address).await?,
        )))
    }
}

impl Session for Line {
    type Address = Register;
    type Bus = ();

    async fn read(&mut self, batch: &Batch<'_, Register>, out: &mut Samples) -> Result<(), Error> {
        for point in batch {
            match self.get(point).await {
                Ok(value) => out.good(point, value),
                // The device is there, this one value is not.
                Err(error @ (Error::Device(_) | Error::BadAddress { .. })) => {
                    out.failed(point, error)
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn write(
        &mut self,
        point: &Point<Register>,
        value: Value,
        permit: WritePermit,
    ) -> Result<WriteOutcome, Error> {
        let register = register(point)?;
        let text = value.to_string();
        if text.contains(char::is_control) {
            return Err(Error::Unsupported(
                "a text with control characters".to_owned(),
            ));
        }
        let consumed = permit.consume()?; // too late? then nothing moves
        let answer = self
            .ask(&format!("SET {register} {text}\n"), register)
            .await?;
        Ok(consumed.read_back(parsed(point, &answer)?))
    }
}

impl Line {
    async fn get(&mut self, point: &Point<Register>) -> Result<Value, Error> {
        let register = register(point)?;
        let answer = self.ask(&format!("GET {register}\n"), register).await?;
        parsed(point, &answer)
    }

    /// Whether nothing waits to be read: it would be taken for the answer to the next request.
    fn is_quiet(&self) -> bool {
        let waiting = self.0.get_ref().try_read(&mut [0]);
        self.0.buffer().is_empty()
            && waiting.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// One request and its answer. The SDK drops the session with a call that takes too long, so that a late answer is
    /// never taken for another one's.
    async fn ask(&mut self, request: &str, register: &str) -> Result<String, Error> {
        if !self.is_quiet() {
            return Err(Error::transient("the device talks unasked"));
        }
        self.0.write_all(request.as_bytes()).await?;
        let mut line = Vec::new();
        (&mut self.0)
            .take(LONGEST_ANSWER)
            .read_until(b'\n', &mut line)
            .await?;
        let line = String::from_utf8(line).map_err(Error::transient)?;
        let Some(line) = line.strip_suffix('\n') else {
            return Err(Error::transient(
                "the connection ended in the middle of an answer",
            ));
        };
        match line.trim_end().split_once(' ') {
            Some(("!", why)) => Err(Error::Device(why.to_owned())),
            Some((name, value)) if name == register => Ok(value.to_owned()),
            _ => Err(Error::transient(format!(
                "'{line}' does not answer '{}'",
                request.trim_end()
            ))),
        }
    }
}

/// The device's name for the value, which is one word.
fn register(point: &Point<Register>) -> Result<&str, Error> {
    let register = point.address.register.as_str();
    if register.is_empty() || register.contains(|c: char| c.is_whitespace() || c.is_control()) {
        let why = format!("register: '{register}' is not one word");
        return Err(Error::BadAddress {
            point: point.name.clone(),
            why,
        });
    }
    Ok(register)
}

fn parsed(point: &Point<Register>, text: &str) -> Result<Value, Error> {
    let value = match point.value_type {
        ValueType::Bool => text.parse().ok().map(Value::Bool),
        ValueType::Int => text.parse().ok().map(Value::Int),
        ValueType::Float => text.parse().ok().map(Value::Float),
        ValueType::String => Some(Value::Text(text.to_owned())),
        other => return Err(Error::Unsupported(format!("values of type {other:?}"))),
    };
    value.ok_or_else(|| Error::Device(format!("'{text}' is no {:?}", point.value_type)))
}

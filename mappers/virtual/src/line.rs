//! A simulator behind a Unix socket: one JSON line out, one in.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use kubebus_sdk::{Error, Value};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Longest answer in bytes: thousands of registers. A longer one ends the session.
const MAX_ANSWER: u64 = 64 * 1024;

/// An open line.
#[derive(Debug)]
pub struct Line(BufReader<UnixStream>);

/// What a simulator says.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Values(BTreeMap<String, Value>),
    Ok(bool),
    Error(String),
}

impl Line {
    pub async fn connect(path: &Path) -> Result<Self, Error> {
        let named = |e| Error::transient(format!("{}: {e}", path.display()));
        Ok(Self(BufReader::new(UnixStream::connect(path).await.map_err(named)?)))
    }

    /// The registers that the simulator knows, of those asked for.
    pub async fn read(&mut self, registers: &[&str]) -> Result<BTreeMap<String, Value>, Error> {
        match self.ask(&serde_json::json!({ "read": registers })).await? {
            Answer::Values(values) => Ok(values),
            Answer::Error(error) => Err(Error::Device(error)),
            answer @ Answer::Ok(_) => Err(out_of_step(&answer)),
        }
    }

    pub async fn write(&mut self, register: &str, value: &Value) -> Result<(), Error> {
        match self.ask(&serde_json::json!({ "write": { register: value } })).await? {
            Answer::Ok(true) => Ok(()),
            Answer::Error(error) => Err(Error::Device(error)),
            answer @ (Answer::Ok(false) | Answer::Values(_)) => Err(out_of_step(&answer)),
        }
    }

    async fn ask(&mut self, request: &serde_json::Value) -> Result<Answer, Error> {
        self.check_quiet()?;
        self.0.write_all(format!("{request}\n").as_bytes()).await?;
        let mut answer = String::new();
        (&mut self.0).take(MAX_ANSWER).read_line(&mut answer).await?;
        if !answer.ends_with('\n') {
            return Err(Error::transient("the simulator hung up or talks too much"));
        }
        serde_json::from_str(&answer).map_err(|e| Error::transient(format!("not understood: {e}")))
    }

    /// Answers bear no number: one that nobody waits for would be taken for the next one.
    fn check_quiet(&self) -> Result<(), Error> {
        let unread = !self.0.buffer().is_empty();
        match self.0.get_ref().try_read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && !unread => Ok(()),
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error.into()),
            Ok(0) => Err(Error::transient("the simulator hung up")),
            Ok(_) | Err(_) => Err(Error::transient("the simulator says more than it was asked")),
        }
    }
}

/// The answer to another question: the session is of no use any more.
fn out_of_step(answer: &Answer) -> Error {
    Error::transient(format!("out of step: {answer:?}"))
}

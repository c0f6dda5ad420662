//! The driver's end of the line to a device.

use std::time::Duration;

use kubebus_sdk::Error;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::device::frame;
use crate::mapper::Fault;

/// Longest answer in bytes.
const MAX_FRAME: u16 = 4096;

/// How long the device may take.
const PATIENCE: Duration = Duration::from_millis(600);

pub(crate) struct Line {
    stream: TcpStream,
    number: u16,
}

impl Line {
    pub(crate) async fn connect(address: &str) -> Result<Self, Error> {
        let stream = timeout(PATIENCE * 10, TcpStream::connect(address)).await;
        let stream = stream.map_err(|_| Error::Timeout("connect".to_owned()))??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, number: 0 })
    }

    /// One request, and the answer of its own number.
    pub(crate) async fn ask(&mut self, request: &Json, fault: Fault) -> Result<Json, Error> {
        let patience = match fault {
            Fault::Impatient => Duration::from_millis(50),
            Fault::GlobalLock | Fault::KeepsLine => Duration::from_secs(60),
            _ => PATIENCE,
        };
        let answer = timeout(patience, self.exchange(request, fault)).await;
        answer.map_err(|_| Error::Timeout("no answer".to_owned()))?
    }

    async fn exchange(&mut self, request: &Json, fault: Fault) -> Result<Json, Error> {
        self.number = self.number % u16::MAX + 1;
        let number = self.number.to_be_bytes();
        self.stream.write_all(&frame(number, request)).await?;
        if fault == Fault::Pipelines {
            sleep(Duration::from_millis(20)).await;
            self.stream.write_all(&frame([0, 0], &json!({ "list": null }))).await?;
        }
        if fault == Fault::BlocksThread && request.get("read").is_some() {
            std::thread::sleep(Duration::from_secs(5));
        }
        let (answered, answer) = self.next().await?;
        if fault == Fault::Pipelines {
            self.next().await?;
        }
        if answered != number && !matches!(fault, Fault::IgnoresNumbers | Fault::KeepsLine) {
            return Err(Error::transient("the answer to another request"));
        }
        match answer["error"].as_str() {
            Some(why) => Err(Error::Device(why.to_owned())),
            None => Ok(answer),
        }
    }

    /// The next frame: its number and its JSON.
    pub(crate) async fn next(&mut self) -> Result<([u8; 2], Json), Error> {
        let length = self.stream.read_u16().await?;
        if !(2..=MAX_FRAME).contains(&length) {
            return Err(Error::transient("no frame has this length"));
        }
        let mut frame = vec![0; usize::from(length)];
        self.stream.read_exact(&mut frame).await?;
        let json =
            serde_json::from_slice(&frame[2..]).map_err(|e| Error::transient(format!("no JSON: {e}")))?;
        Ok(([frame[0], frame[1]], json))
    }
}

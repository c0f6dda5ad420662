//! One line and the devices on it: a question, and the answer to this question.
//!
//! On TCP every request has a number of its own, whatever the connection: an answer with another number is left out, and
//! the connection ends with the first answer that does not come or does not fit. Serial frames have no number: a device that was silent once may still answer,
//! and its answer to one read looks like that to another. It is then asked to give a number back (function 8), and
//! nothing else, until it has done so: devices answer in the order in which they were asked, so what it owed has come.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use kubebus_sdk::Error;
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::{Link, Peer};
use crate::frame::{Frame, Framing, MAX_WAITING};
use crate::pdu::{Answer, Request};
use crate::port::Port;

/// Longest silence that is waited for where a device does not answer function 8.
const LONGEST_SILENCE: Duration = Duration::from_secs(5);

/// Numbers of requests, of all connections of this process: no answer of an older connection fits a new one's request.
static TRANSACTIONS: AtomicU16 = AtomicU16::new(1);

fn next_transaction() -> u16 {
    TRANSACTIONS.fetch_add(1, Ordering::Relaxed)
}

#[derive(Debug)]
pub struct Line {
    /// Its open devices hold it too.
    link: Arc<Link>,
    port: Option<Port>,
    /// What has come of the next frame.
    bytes: Vec<u8>,
    /// Units of a serial line whose answer has not come in time.
    owing: BTreeSet<u8>,
    last_byte: Instant,
}

impl Line {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self { link, port: None, bytes: Vec::new(), owing: BTreeSet::new(), last_byte: Instant::now() }
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Whether a device that is open hangs on it.
    pub(crate) fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.link) > 1
    }

    /// Everything that comes before a request: a connection, on which no answer is due.
    pub(crate) async fn prepare(&mut self, peer: Peer) -> Result<(), Error> {
        self.connect(peer).await?;
        if self.owing.contains(&peer.unit) {
            self.settle(peer).await?;
        }
        self.pause().await;
        Ok(())
    }

    /// Asks and hears the answer; the first bytes leave at once. After an error the line is in order again with the
    /// next [`prepare`](Self::prepare).
    pub(crate) async fn exchange(&mut self, peer: Peer, request: &Request) -> Result<Answer, Error> {
        let mut asking = Asking { line: self, unit: peer.unit, is_answered: false };
        let answer = timeout(peer.timeout, asking.line.converse(peer.unit, request)).await;
        asking.is_answered = matches!(answer, Ok(Ok(_)));
        drop(asking);
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.hang_up();
                Err(error)
            }
            Err(_) => {
                let Self { link, .. } = self;
                Err(Error::Timeout(format!("unit {} at {link}, {} ms", peer.unit, peer.timeout.as_millis())))
            }
        }
    }

    async fn converse(&mut self, unit: u8, request: &Request) -> Result<Answer, Error> {
        let Self { link, port: Some(port), bytes, last_byte, .. } = self else {
            return Err(Error::Bug("asked before the line was prepared".to_owned()));
        };
        let (framing, transaction) = (link.framing(), next_transaction());
        let named = |e| Error::transient(format!("{link}: {e}"));
        port.write_all(&framing.encode(transaction, unit, &request.encode())).await.map_err(named)?;
        loop {
            let malformed = |_| Error::transient(format!("{link}: what comes is no Modbus"));
            while let Some(frame) = framing.take(bytes).map_err(malformed)? {
                match fitting(&frame, transaction, unit, request) {
                    Fit::Answer(answer) => return Ok(answer),
                    Fit::Anothers => {}
                    Fit::Nobodys => return Err(out_of_step(link, unit)),
                }
            }
            if bytes.len() > MAX_WAITING {
                return Err(out_of_step(link, unit));
            }
            port.read(bytes).await.map_err(named)?;
            *last_byte = Instant::now();
        }
    }

    async fn connect(&mut self, peer: Peer) -> Result<(), Error> {
        let framing = self.link.framing();
        let is_open = self.port.as_ref().is_some_and(|port| port.collect(&mut self.bytes));
        if framing == Framing::Rtu {
            self.bytes.clear();
        }
        if is_open {
            return Ok(());
        }
        self.hang_up();
        self.port = Some(Port::open(&self.link).await?);
        if framing == Framing::Rtu {
            // What an earlier process asked may still be answered.
            self.hear_silence(peer.timeout).await?;
        }
        Ok(())
    }

    fn hang_up(&mut self) {
        self.port = None;
        self.bytes.clear();
    }

    /// The answer that comes late is not taken for that to the next request.
    fn lose(&mut self, unit: u8) {
        if self.link.framing() == Framing::Rtu {
            self.owing.insert(unit);
        }
        if !self.port.as_ref().is_some_and(Port::give_up) {
            self.hang_up();
        }
    }

    /// Hears what the device owes.
    async fn settle(&mut self, peer: Peer) -> Result<(), Error> {
        if peer.echo {
            self.pause().await;
            self.exchange(peer, &Request::Echo(next_transaction())).await.map_err(|e| no_echo(e, peer))?;
        } else {
            self.hear_silence((peer.timeout * 3).min(LONGEST_SILENCE)).await?;
        }
        self.owing.remove(&peer.unit);
        Ok(())
    }

    async fn hear_silence(&mut self, silence: Duration) -> Result<(), Error> {
        let Some(port) = &mut self.port else { return Ok(()) };
        let give_up = Instant::now() + LONGEST_SILENCE;
        while let Ok(heard) = timeout(silence, port.read(&mut self.bytes)).await {
            self.bytes.clear();
            let babble = Error::transient(format!("{}: it does not fall silent", self.link));
            if heard.is_err() || Instant::now() > give_up {
                self.hang_up();
                return Err(heard.map_or_else(Error::from, |()| babble));
            }
        }
        Ok(())
    }

    /// Between two frames on a serial line.
    async fn pause(&self) {
        if let Link::Serial { speed, .. } = &*self.link {
            sleep_until(self.last_byte + speed.pause()).await;
        }
    }
}

/// A question without its answer. A call may be dropped in the middle: what it asked must then not leave any more.
struct Asking<'a> {
    line: &'a mut Line,
    unit: u8,
    is_answered: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.line.lose(self.unit);
        }
    }
}

enum Fit {
    Answer(Answer),
    /// To an older request, or another unit's.
    Anothers,
    /// It has the number of the request, but does not answer it.
    Nobodys,
}

fn fitting(frame: &Frame, transaction: u16, unit: u8, request: &Request) -> Fit {
    match (frame.transaction, request.answer(&frame.pdu)) {
        (Some(number), _) if number != transaction => Fit::Anothers,
        (_, Some(answer)) if frame.unit == unit => Fit::Answer(answer),
        (Some(_), _) => Fit::Nobodys,
        (None, _) => Fit::Anothers,
    }
}

fn out_of_step(link: &Link, unit: u8) -> Error {
    Error::transient(format!("{link}: what came is no answer to what unit {unit} was asked"))
}

fn no_echo(error: Error, peer: Peer) -> Error {
    let Error::Timeout(what) = error else { return error };
    Error::Timeout(format!(
        "{what}; unit {} was silent before, and is not asked for values until it answers function 8 (if it never does, \
         set echo: false)",
        peer.unit
    ))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::pdu::Table;

    #[tokio::test]
    async fn a_call_that_is_dropped_hangs_up_at_once() {
        let device = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = device.local_addr().unwrap().to_string();
        let mut line = Line::new(Arc::new(Link::Tcp { address, framing: Framing::Tcp }));
        let peer = Peer { unit: 1, timeout: Duration::from_secs(60), echo: true };
        line.prepare(peer).await.unwrap();
        let (mut stream, _) = device.accept().await.unwrap();
        let request = Request::Read { table: Table::Holding, start: 0, count: 1 };
        let mut asked = [0; 12];
        tokio::select! {
            answer = line.exchange(peer, &request) => panic!("{answer:?}"),
            heard = stream.read_exact(&mut asked) => assert_eq!(heard.unwrap(), 12),
        }
        assert!(line.port.is_none());
        let end = timeout(Duration::from_secs(10), stream.read(&mut asked)).await.unwrap();
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "nothing is sent again");
    }
}

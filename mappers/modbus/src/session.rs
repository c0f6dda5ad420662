//! One device: what is read of it in as few requests as it lets us, and what is written.

use std::collections::BTreeSet;
use std::sync::Arc;

use kubebus_sdk::{Batch, Error, Point, Samples, Session, Shared, Span, Value, WriteOutcome, WritePermit};

use crate::address::Address;
use crate::config::{Config, Link, Peer};
use crate::line::Line;
use crate::pdu::{Answer, Exception, Request, Table};
use crate::value::{decode, encode};

/// Runs that a device refused as a whole; more than a device's registers make.
const MAX_REFUSED: usize = 4096;

/// A device, on a line that it may share.
#[derive(Debug)]
pub struct Device {
    bus: Shared<Line>,
    /// The line's own once it is open.
    link: Arc<Link>,
    peer: Peer,
    /// Runs that are not asked for again as one: a register between two points is none, or they are too many.
    refused: BTreeSet<Span>,
    /// The last read that the device answered.
    answered: Option<Request>,
}

type Points<'a> = Vec<&'a Point<Address>>;

impl Device {
    pub(crate) async fn open(config: &Config, bus: Shared<Line>) -> Result<Self, Error> {
        let Config { link, peer } = config.clone();
        let mut device = Self { bus, link: Arc::new(link), peer, refused: BTreeSet::new(), answered: None };
        device.link = device
            .with_line(async |line| {
                line.prepare(peer).await?;
                Ok(Arc::clone(line.link()))
            })
            .await?;
        Ok(device)
    }

    async fn with_line<T>(&self, work: impl AsyncFnOnce(&mut Line) -> Result<T, Error>) -> Result<T, Error> {
        let mut place = self.bus.lock().await;
        let line = place.get_or_insert_with(|| Line::new(Arc::clone(&self.link)));
        if *line.link() != self.link {
            if line.is_in_use() {
                return Err(Error::transient(format!(
                    "{}: another device on it has other settings for speed or framing, and devices of one line need the same",
                    self.link
                )));
            }
            *line = Line::new(Arc::clone(&self.link));
        }
        work(line).await
    }

    async fn ask(&self, request: &Request) -> Result<Answer, Error> {
        self.with_line(async |line| {
            line.prepare(self.peer).await?;
            line.exchange(self.peer, request).await
        })
        .await
    }

    /// Reads one run, or what the device lets us read of it.
    async fn read_run(&mut self, points: Points<'_>, out: &mut Samples) -> Result<(), Error> {
        let mut runs = vec![points];
        while let Some(points) = runs.pop() {
            let Some((table, span)) = run_of(&points) else { continue };
            if self.refused.contains(&span) && points.len() > 1 {
                runs.extend(halves(points));
                continue;
            }
            let request = read(table, span);
            match self.ask(&request).await? {
                Answer::Words(words) => {
                    points.iter().for_each(|point| take(point, span, &words, out));
                    self.answered = Some(request);
                }
                Answer::Refused(Exception::ADDRESS | Exception::VALUE) if points.len() > 1 => {
                    self.note_refused(span);
                    runs.extend(halves(points));
                }
                Answer::Refused(exception) => refuse(&points, exception, self.peer.unit, out)?,
                Answer::Done | Answer::Identity(_) => {
                    return Err(Error::Bug("an answer of another kind".to_owned()));
                }
            }
        }
        Ok(())
    }

    fn note_refused(&mut self, span: Span) {
        if self.refused.len() < MAX_REFUSED {
            self.refused.insert(span);
        }
    }
}

impl Session for Device {
    type Address = Address;
    type Bus = Line;

    async fn read(&mut self, batch: &Batch<'_, Address>, out: &mut Samples) -> Result<(), Error> {
        self.read_run(batch.iter().copied().collect(), out).await
    }

    async fn write(
        &mut self,
        point: &Point<Address>,
        value: Value,
        permit: WritePermit,
    ) -> Result<WriteOutcome, Error> {
        let request = encode(&point.address, point.value_type, &value).map_err(Error::Unsupported)?;
        self.with_line(async |line| {
            line.prepare(self.peer).await?;
            let consumed = permit.consume()?;
            match line.exchange(self.peer, &request).await? {
                Answer::Done => Ok(consumed.applied()),
                Answer::Refused(Exception::ACKNOWLEDGE) => Ok(consumed.accepted()),
                Answer::Refused(exception) => Err(not_written(exception, self.peer.unit)),
                Answer::Words(_) | Answer::Identity(_) => {
                    Err(Error::Bug("an answer of another kind".to_owned()))
                }
            }
        })
        .await
    }

    /// Asks again for what it has answered before: not every device knows a question of no consequence.
    async fn probe(&mut self) -> Result<(), Error> {
        let Some(request) = self.answered.clone() else {
            return self.with_line(async |line| line.prepare(self.peer).await).await;
        };
        match self.ask(&request).await? {
            Answer::Refused(exception) => unreachable(exception, self.peer.unit),
            Answer::Done | Answer::Words(_) | Answer::Identity(_) => Ok(()),
        }
    }
}

fn read(table: Table, span: Span) -> Request {
    // Addresses have checked both.
    let word = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
    Request::Read { table, start: word(span.start), count: word(span.len) }
}

/// The addresses from the first point to the last.
fn run_of(points: &[&Point<Address>]) -> Option<(Table, Span)> {
    let table = points.first()?.address.table;
    let start = points.iter().map(|point| point.address.span().start).min()?;
    let end = points.iter().map(|point| point.address.span().end()).max()?;
    Some((table, Span { area: u64::from(table.function()), start, len: end - start }))
}

/// Apart at the widest gap, where the register that is none must be; without a gap in the middle.
fn halves(mut points: Points<'_>) -> [Points<'_>; 2] {
    points.sort_by_key(|point| point.address.span());
    let (mut end, mut widest, mut at) = (0, 0, points.len() / 2);
    for (i, point) in points.iter().enumerate() {
        let span = point.address.span();
        let gap = span.start.saturating_sub(end);
        if i > 0 && gap > widest {
            (widest, at) = (gap, i);
        }
        end = end.max(span.end());
    }
    let rest = points.split_off(at);
    [rest, points]
}

/// One point's own of the words of a run.
fn take(point: &Point<Address>, run: Span, words: &[u16], out: &mut Samples) {
    let own = point.address.span();
    let from = usize::try_from(own.start - run.start).unwrap_or(usize::MAX);
    let words = words.get(from..).and_then(|words| words.get(..usize::from(point.address.len())));
    let bad = |why| Error::BadAddress { point: point.name.clone(), why };
    if let Err(why) = point.address.content(point.value_type) {
        return out.failed(point, bad(why));
    }
    match words.map(|words| decode(&point.address, point.value_type, words)) {
        Some(Ok(value)) => out.good(point, value),
        Some(Err(why)) => out.failed(point, Error::Device(why)),
        None => out.failed(point, Error::Bug("a point outside its run".to_owned())),
    }
}

/// What a refusal says about a run, or about the device.
fn refuse(
    points: &[&Point<Address>],
    exception: Exception,
    unit: u8,
    out: &mut Samples,
) -> Result<(), Error> {
    unreachable(exception, unit)?;
    for point in points {
        let error = match exception {
            Exception::FUNCTION | Exception::ADDRESS | Exception::VALUE => {
                Error::BadAddress { point: point.name.clone(), why: format!("the device says {exception}") }
            }
            _ => Error::Device(exception.to_string()),
        };
        out.failed(point, error);
    }
    Ok(())
}

/// Refusals that are not about what was asked for: nobody is there to ask, or it has no time.
fn unreachable(exception: Exception, unit: u8) -> Result<(), Error> {
    match exception {
        Exception::NO_ANSWER => Err(Error::Timeout(format!("unit {unit}: {exception}"))),
        Exception::BUSY | Exception::NO_PATH => Err(Error::transient(format!("unit {unit}: {exception}"))),
        _ => Ok(()),
    }
}

/// Only what is refused before it begins has surely moved nothing.
fn not_written(exception: Exception, unit: u8) -> Error {
    match exception {
        Exception::FUNCTION
        | Exception::ADDRESS
        | Exception::VALUE
        | Exception::BUSY
        | Exception::NO_PATH => Error::Device(exception.to_string()),
        Exception::NO_ANSWER => Error::Timeout(format!("unit {unit}: {exception}")),
        _ => Error::transient(format!("unit {unit}: {exception}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn a_line_takes_other_settings_when_nobody_uses_it() {
        let gateway = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = gateway.local_addr().unwrap().to_string();
        let config = |key: &str| -> Config {
            serde_json::from_value(json!({ key: address, "unit": 1, "timeout_ms": 10 })).unwrap()
        };
        let bus = Shared::default();
        let open = async |key: &str| Device::open(&config(key), bus.clone()).await;
        let first = open("tcp").await.unwrap();
        let second = open("tcp").await.unwrap();
        drop(first);
        assert!(matches!(open("rtu_over_tcp").await, Err(Error::Transient { .. })));
        drop(second);
        let other = open("rtu_over_tcp").await.unwrap();
        assert!(matches!(open("tcp").await, Err(Error::Transient { .. })));
        drop(other);
    }

    fn address(place: serde_json::Value) -> Address {
        serde_json::from_value(place).unwrap()
    }

    #[test]
    fn only_a_refusal_before_the_act_is_said_to_have_moved_nothing() {
        let moved_nothing = |code| matches!(not_written(Exception(code), 1), Error::Device(_));
        assert_eq!([1, 2, 3, 6, 10].map(moved_nothing), [true; 5]);
        assert_eq!([4, 8, 11, 99].map(moved_nothing), [false; 4]);
    }

    #[test]
    fn a_read_is_as_long_as_its_span() {
        let span = address(json!({"holding": 40, "type": "f32"})).span();
        assert_eq!(read(Table::Holding, span), Request::Read { table: Table::Holding, start: 40, count: 2 });
    }
}

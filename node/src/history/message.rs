//! What cloud and edge say to each other of history: minicbor on [`bus::Channel::History`].
//!
//! Times of an answer are told as differences from the one before, and numbers as short as they can be.

use bus::twin::DeviceId;
use bus::{Quality, Sample, UnixMillis};
use device_twin::PropertyId;
use device_twin::history::gaps;
use device_twin::history::overview::{Point, Span, Values};
use device_twin::history::{Answer, Cursor, Gap, Order, Overview, Query, Row, Which};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use super::{Question, Told};

/// The largest message that is read: twice the largest answer of this version.
pub(crate) const MAX_MESSAGE: usize = 64 << 10;

/// One message.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(crate) enum Message {
    /// The cloud to an edge. The answer has the same `id`.
    #[n(0)]
    Ask {
        #[n(0)]
        id: u64,
        #[n(1)]
        asked: Asked,
    },
    #[n(1)]
    Overview {
        #[n(0)]
        id: u64,
        #[n(1)]
        points: Vec<WirePoint>,
        #[n(2)]
        gaps: Vec<WireGap>,
    },
    #[n(2)]
    Rows {
        #[n(0)]
        id: u64,
        #[n(1)]
        rows: Vec<WireRow>,
        #[n(2)]
        next: Option<WireCursor>,
        #[n(3)]
        gaps: Vec<WireGap>,
    },
    #[n(3)]
    Refused {
        #[n(0)]
        id: u64,
        #[n(1)]
        why: Refusal,
    },
}

/// Why an edge has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Refusal {
    /// It answers another question.
    #[n(0)]
    Busy,
    /// One value alone is more than an answer may be.
    #[n(1)]
    TooLarge,
    /// Its recorder says so.
    #[n(2)]
    Recorder(#[n(0)] String),
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(crate) struct Asked {
    #[n(0)]
    device: String,
    /// All of the device's if there is none.
    #[n(1)]
    property: Option<String>,
    #[n(2)]
    since: UnixMillis,
    #[n(3)]
    until: UnixMillis,
    #[n(4)]
    want: Want,
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
enum Want {
    #[n(0)]
    Overview {
        #[n(0)]
        points: u16,
    },
    #[n(1)]
    Rows {
        #[n(0)]
        newest_first: bool,
        #[n(1)]
        limit: u16,
        #[n(2)]
        after: Option<WireCursor>,
    },
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(crate) struct WireCursor {
    #[n(0)]
    time: UnixMillis,
    #[n(1)]
    ordinal: u64,
    #[n(2)]
    id: String,
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(crate) struct WirePoint {
    /// Since the one before began, in milliseconds.
    #[n(0)]
    after: u64,
    #[n(1)]
    lasts: u64,
    #[n(2)]
    quality: Quality,
    #[n(3)]
    first: Option<Short>,
    /// Those that are other than the first.
    #[n(4)]
    last: Option<Short>,
    #[n(5)]
    least: Option<Short>,
    #[n(6)]
    greatest: Option<Short>,
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(crate) struct WireGap {
    #[n(0)]
    since: UnixMillis,
    #[n(1)]
    lasts: u64,
    #[n(2)]
    samples: u64,
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(crate) struct WireRow {
    /// `None`: that of the row before.
    #[n(0)]
    property: Option<String>,
    #[n(1)]
    sample: Sample,
    #[n(2)]
    stored: UnixMillis,
}

/// A number with all its digits, in four bytes where they are enough.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Short(f64);

impl<C> Encode<C> for Short {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        let short = self.0 as f32;
        if f64::from(short).to_bits() == self.0.to_bits() {
            e.f32(short)?
        } else {
            e.f64(self.0)?
        };
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Short {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        d.f64().map(Self)
    }
}

impl Message {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        // Encoding into a Vec cannot fail.
        minicbor::to_vec(self).unwrap_or_default()
    }

    /// `None` if it is none of this version, or too long.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_MESSAGE {
            return None;
        }
        decode(bytes).ok()
    }

    /// An answer of the edge that has the device.
    pub(crate) fn told(id: u64, told: &Told) -> Self {
        match told {
            Told::Overview(Overview { points, gaps }) => {
                Self::Overview { id, points: wire_points(points), gaps: wire_gaps(gaps) }
            }
            Told::Rows(Answer { rows, next, gaps }) => Self::Rows {
                id,
                rows: wire_rows(rows),
                next: next.as_ref().map(WireCursor::of),
                gaps: wire_gaps(gaps),
            },
        }
    }
}

impl Asked {
    /// `None`: no edge is asked for the history of all devices.
    pub(crate) fn of(question: &Question) -> Option<Self> {
        let device = question.device()?.to_string();
        Some(match question {
            Question::Overview(Span { id, since, until, points }) => {
                let want = Want::Overview { points: u16::try_from(*points).unwrap_or(u16::MAX) };
                Self { device, property: Some(id.property.to_string()), since: *since, until: *until, want }
            }
            Question::Rows(Query { which, since, until, order, limit, after }) => {
                let property =
                    if let Which::Property(id) = which { Some(id.property.to_string()) } else { None };
                let want = Want::Rows {
                    newest_first: *order == Order::NewestFirst,
                    limit: u16::try_from(*limit).unwrap_or(u16::MAX),
                    after: after.as_ref().map(WireCursor::of),
                };
                Self { device, property, since: *since, until: *until, want }
            }
        })
    }

    /// `None` if it makes no sense.
    pub(crate) fn question(self) -> Option<Question> {
        let Self { device, property, since, until, want } = self;
        let device: DeviceId = device.parse().ok()?;
        let id = match property {
            Some(property) => Some(PropertyId::parse(&format!("{device}/{property}"))?),
            None => None,
        };
        Some(match want {
            Want::Overview { points } => {
                Question::Overview(Span { id: id?, since, until, points: points.into() })
            }
            Want::Rows { newest_first, limit, after } => Question::Rows(Query {
                which: id.map_or(Which::Device(device), Which::Property),
                since,
                until,
                order: if newest_first { Order::NewestFirst } else { Order::OldestFirst },
                limit: limit.into(),
                after: match after {
                    Some(cursor) => Some(cursor.cursor()?),
                    None => None,
                },
            }),
        })
    }
}

impl WireCursor {
    fn of(Cursor { time, id, ordinal }: &Cursor) -> Self {
        Self { time: *time, ordinal: *ordinal, id: id.to_string() }
    }

    fn cursor(self) -> Option<Cursor> {
        let Self { time, ordinal, id } = self;
        Some(Cursor { time, ordinal, id: PropertyId::parse(&id)? })
    }
}

fn wire_points(points: &[Point]) -> Vec<WirePoint> {
    let mut before = 0;
    let wire = |Point { since, until, quality, values }: &Point| {
        let after = since.0.saturating_sub(std::mem::replace(&mut before, since.0));
        let other = |pick: fn(&Values) -> f64| {
            values.as_ref().filter(|values| pick(values) != values.first).map(|values| Short(pick(values)))
        };
        WirePoint {
            after,
            lasts: until.0.saturating_sub(since.0),
            quality: *quality,
            first: values.map(|values| Short(values.first)),
            last: other(|values| values.last),
            least: other(|values| values.least),
            greatest: other(|values| values.greatest),
        }
    };
    points.iter().map(wire).collect()
}

pub(crate) fn overview(points: Vec<WirePoint>, gaps: Vec<WireGap>) -> Overview {
    let mut since = 0_u64;
    let point = |WirePoint { after, lasts, quality, first, last, least, greatest }: WirePoint| {
        since = since.saturating_add(after);
        let values = first.map(|Short(first)| {
            let or_first = |other: Option<Short>| other.map_or(first, |Short(value)| value);
            Values { first, last: or_first(last), least: or_first(least), greatest: or_first(greatest) }
        });
        Point { since: UnixMillis(since), until: UnixMillis(since.saturating_add(lasts)), quality, values }
    };
    Overview { points: points.into_iter().map(point).collect(), gaps: read_gaps(gaps) }
}

/// A recorder whose queue stays full notes one each second: few of them are told apart.
fn wire_gaps(gaps: &[Gap]) -> Vec<WireGap> {
    let wire = |Gap { since, until, samples }: &Gap| WireGap {
        since: *since,
        lasts: until.0.saturating_sub(since.0),
        samples: *samples,
    };
    gaps::few(gaps).iter().map(wire).collect()
}

fn read_gaps(gaps: Vec<WireGap>) -> Vec<Gap> {
    let gap = |WireGap { since, lasts, samples }: WireGap| Gap {
        since,
        until: UnixMillis(since.0.saturating_add(lasts)),
        samples,
    };
    gaps.into_iter().map(gap).collect()
}

fn wire_rows(rows: &[Row]) -> Vec<WireRow> {
    let mut before: Option<&str> = None;
    let mut told = Vec::with_capacity(rows.len());
    for Row { id, sample, stored } in rows {
        let property = (before != Some(&*id.property)).then(|| id.property.to_string());
        before = Some(&id.property);
        told.push(WireRow { property, sample: sample.clone(), stored: *stored });
    }
    told
}

/// `None` if a row is of no property.
pub(crate) fn answer(
    device: &DeviceId,
    rows: Vec<WireRow>,
    next: Option<WireCursor>,
    gaps: Vec<WireGap>,
) -> Option<Answer> {
    let mut id: Option<PropertyId> = None;
    let row = |WireRow { property, sample, stored }: WireRow| {
        if let Some(property) = property {
            id = Some(PropertyId::parse(&format!("{device}/{property}"))?);
        }
        Some(Row { id: id.clone()?, sample, stored })
    };
    let rows = rows.into_iter().map(row).collect::<Option<Vec<_>>>()?;
    let next = match next {
        Some(cursor) => Some(cursor.cursor()?),
        None => None,
    };
    Some(Answer { rows, next, gaps: read_gaps(gaps) })
}

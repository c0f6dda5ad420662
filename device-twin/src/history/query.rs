//! What can be asked of the history, and what comes back: a page at a time.

use bus::twin::DeviceId;
use bus::{Sample, UnixMillis};

use crate::twin::PropertyId;

/// Most rows of one answer: some MB at most where values are numbers. More are asked for by the answer's `next`.
pub const MAX_ROWS: usize = 10_000;

/// Whose samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    Property(PropertyId),
    Device(DeviceId),
    All,
}

impl Which {
    pub fn has(&self, device: &DeviceId, property: &str) -> bool {
        match self {
            Self::Property(id) => id.device == *device && *id.property == *property,
            Self::Device(id) => id == device,
            Self::All => true,
        }
    }
}

/// Which come first, and are in the answer if not all are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    NewestFirst,
    OldestFirst,
}

/// Samples of a span of time, by the time that they say of themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    pub which: Which,
    pub since: UnixMillis,
    /// With this millisecond.
    pub until: UnixMillis,
    pub order: Order,
    /// Never more than [`MAX_ROWS`], and at least one.
    pub limit: usize,
    /// The page that begins after this; of the same query otherwise.
    pub after: Option<Cursor>,
}

/// A place in the order of all samples: by time, then property, then as they came.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    pub time: UnixMillis,
    pub id: PropertyId,
    /// How many samples of the property came before.
    pub ordinal: u64,
}

/// One sample of the history.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub id: PropertyId,
    pub sample: Sample,
    /// When the edge took it, on the edge's clock.
    pub stored: UnixMillis,
}

/// Samples of all properties that were not kept, because too many came at once or the disk did not take them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    /// When the first and the last of them came, on the edge's clock.
    pub since: UnixMillis,
    pub until: UnixMillis,
    pub samples: u64,
}

impl Gap {
    pub fn one(at: UnixMillis) -> Self {
        Self { since: at, until: at, samples: 1 }
    }

    /// One gap for both.
    pub fn merge(self, other: Self) -> Self {
        Self {
            since: self.since.min(other.since),
            until: self.until.max(other.until),
            samples: self.samples.saturating_add(other.samples),
        }
    }
}

/// A page of the history.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// In the order that was asked for.
    pub rows: Vec<Row>,
    /// There are more, after this.
    pub next: Option<Cursor>,
    /// Gaps within the time of this page.
    pub gaps: Vec<Gap>,
}

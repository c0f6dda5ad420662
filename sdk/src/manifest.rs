//! What a mapper says about itself.

use std::time::Duration;

use bus::ValueType;

use crate::SpanLimits;

/// Name, version and abilities of a mapper.
///
/// ```
/// use kubebus_sdk::Manifest;
/// let manifest = Manifest::new("modbus", env!("CARGO_PKG_VERSION")).about("Modbus TCP and RTU").spans(125, 10);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Manifest {
    /// What `spec.protocol.protocolName` of its devices says, if nothing else is said at the start.
    pub protocol: &'static str,
    pub version: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// What [`Mapper::span`](crate::Mapper::span) counts in.
    pub spans: Option<SpanLimits>,
    /// [`Session::subscribe`](crate::Session::subscribe) is written: properties without a period are pushed.
    pub pushes: bool,
    /// [`Mapper::discover`](crate::Mapper::discover) is written.
    pub discovers: bool,
    /// How long a read, probe or subscription may take.
    pub timeout: Duration,
    /// How long a device may be silent before it is probed.
    pub probe_after: Duration,
}

/// Long enough for slow field buses, short enough that a driver that hangs is seen.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Soon enough for people to see that a device is gone, seldom enough for any line.
const PROBE_AFTER: Duration = Duration::from_secs(30);

impl Manifest {
    pub const fn new(protocol: &'static str, version: &'static str) -> Self {
        let (about, spans, timeout, probe_after) = ("", None, TIMEOUT, PROBE_AFTER);
        Self { protocol, version, about, spans, pushes: false, discovers: false, timeout, probe_after }
    }

    #[must_use]
    pub const fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    /// One request reads at most `longest` addresses; a `gap` of so many between two points is read along.
    #[must_use]
    pub const fn spans(mut self, longest: u64, gap: u64) -> Self {
        self.spans = Some(SpanLimits { longest, gap });
        self
    }

    #[must_use]
    pub const fn pushes(mut self) -> Self {
        self.pushes = true;
        self
    }

    /// A read, probe or subscription is dropped, and its session with it, after this time; 10 s if nothing is said. On a bus
    /// that several devices share a dead one holds the others up so long at each try.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A device is [probed](crate::Session::probe) when nothing was heard of it for so long; 30 s if nothing is said.
    #[must_use]
    pub const fn probe_after(mut self, silence: Duration) -> Self {
        self.probe_after = silence;
        self
    }

    #[must_use]
    pub const fn discovers(mut self) -> Self {
        self.discovers = true;
        self
    }
}

/// A device that [`Mapper::discover`](crate::Mapper::discover) has found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// A name for it: lower case, digits, `-`.
    pub name: String,
    /// What it says it is, for people.
    pub about: String,
    /// Its connection settings, as [`Mapper::Config`](crate::Mapper::Config) reads them.
    pub connection: serde_json::Value,
    pub properties: Vec<FoundProperty>,
}

/// A property of a device that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundProperty {
    pub name: String,
    pub value_type: ValueType,
    pub writable: bool,
    /// As [`Mapper::Address`](crate::Mapper::Address) reads it.
    pub address: serde_json::Value,
}

//! Stream classes of the bus connection.

/// What a frame is about decides how soon it travels. One stream a class and direction; a class is also the QUIC
/// stream's priority. Highest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// Hello, clock, goodbye, revocation.
    Control = 0,
    /// Commands to devices and their results.
    Command = 1,
    /// Twins and metadata.
    State = 2,
    /// Events, alarms, app messages.
    Event = 3,
    /// Samples; the first to be dropped.
    Telemetry = 4,
    /// Files, images, snapshots.
    Bulk = 5,
}

impl Class {
    pub const ALL: [Self; 6] =
        [Self::Control, Self::Command, Self::State, Self::Event, Self::Telemetry, Self::Bulk];

    /// The class of a stream, from the byte that opens it.
    pub fn from_u8(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }

    /// QUIC stream priority: larger is sooner.
    pub fn priority(self) -> i32 {
        10 - self as i32
    }

    /// What the link does when this class's send queue is full: drop the newest frame and count it (true), or treat
    /// it as a fault of flow control above and close the link (false).
    pub fn droppable(self) -> bool {
        matches!(self, Self::Event | Self::Telemetry)
    }
}

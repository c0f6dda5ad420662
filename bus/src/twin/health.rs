//! How a mapper and its devices are, for people.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::UnixMillis;

/// `mapper/<mapper>/health`: retained. The numbers count from the start of the mapper's process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MapperHealth {
    /// By `<namespace>/<name>`.
    pub devices: BTreeMap<String, DeviceHealth>,
    /// Devices that are not listed because the list would be too long; the online ones go first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unlisted: u64,
    #[serde(flatten)]
    pub counts: MapperCounts,
}

/// What a mapper has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MapperCounts {
    /// Values that were read or pushed.
    pub reads: u64,
    /// Calls to drivers to read a batch.
    pub requests: u64,
    /// Readings left out because an earlier one took too long.
    pub missed: u64,
    /// Writes that were handed to a driver.
    pub writes: u64,
}

/// One device as its mapper sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceHealth {
    pub state: DeviceCondition,
    /// Since when it is so.
    pub since: UnixMillis,
    /// Sessions lost, or not opened, since the last value.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u64,
    /// Why it is not online.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Time of the last value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_read: Option<UnixMillis>,
}

/// Whether a device can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceCondition {
    Online,
    /// It is there, but some of its properties cannot be read.
    Degraded,
    /// No session, or none that gave a value.
    Offline,
    /// It has no properties.
    Unconfigured,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl std::ops::AddAssign for MapperCounts {
    fn add_assign(&mut self, more: Self) {
        let Self { reads, requests, missed, writes } = more;
        self.reads += reads;
        self.requests += requests;
        self.missed += missed;
        self.writes += writes;
    }
}

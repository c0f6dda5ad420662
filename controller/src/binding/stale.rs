//! What a cycle's changes concern.

use std::collections::BTreeSet;

use bus::Name;
use bus::twin::DeviceId;
use device_twin::model::Kind;

/// Rows of edges that may be others than before, each once however many changes concern it. As many as the changes
/// have to write, and few more.
#[derive(Debug, Default)]
pub(super) struct Stale {
    /// All that lies there.
    pub(super) edges: BTreeSet<Name>,
    pub(super) rows: BTreeSet<(Name, Kind, DeviceId)>,
    /// Devices that left an edge.
    pub(super) wishes: BTreeSet<(Name, DeviceId)>,
}

impl Stale {
    pub(super) fn row(&mut self, edge: &Name, kind: Kind, id: &DeviceId) {
        self.rows.insert((edge.clone(), kind, id.clone()));
    }

    pub(super) fn wishes(&mut self, edge: &Name, device: &DeviceId) {
        self.wishes.insert((edge.clone(), device.clone()));
    }
}

//! Who refers to whom, in both directions.

use std::collections::{BTreeMap, BTreeSet};

use bus::twin::DeviceId;

/// Each document's one reference of a kind, and the way back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct References<T> {
    of: BTreeMap<DeviceId, T>,
    to: BTreeMap<T, BTreeSet<DeviceId>>,
}

impl<T> Default for References<T> {
    fn default() -> Self {
        Self { of: BTreeMap::new(), to: BTreeMap::new() }
    }
}

impl<T: Ord + Clone> References<T> {
    /// `id` now refers to `target`. Says what it referred to before.
    pub(super) fn set(&mut self, id: &DeviceId, target: Option<T>) -> Option<T> {
        let before = self.of.remove(id);
        if let Some(old) = &before {
            self.unlink(old, id);
        }
        if let Some(target) = target {
            self.to.entry(target.clone()).or_default().insert(id.clone());
            self.of.insert(id.clone(), target);
        }
        before
    }

    fn unlink(&mut self, target: &T, id: &DeviceId) {
        if let Some(ids) = self.to.get_mut(target) {
            ids.remove(id);
            if ids.is_empty() {
                self.to.remove(target);
            }
        }
    }

    pub(super) fn of(&self, id: &DeviceId) -> Option<&T> {
        self.of.get(id)
    }

    /// Who refers to `target`.
    pub(super) fn to(&self, target: &T) -> impl Iterator<Item = &DeviceId> {
        self.to.get(target).into_iter().flatten()
    }
}

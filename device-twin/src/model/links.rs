//! Which documents speak of a thing: the way back of their references.

use std::collections::{BTreeMap, BTreeSet};

use bus::twin::DeviceId;

/// By what is spoken of, the documents of one kind that do.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Links(BTreeMap<DeviceId, BTreeSet<DeviceId>>);

impl Links {
    pub(super) fn link<'a>(&mut self, targets: impl IntoIterator<Item = &'a DeviceId>, from: &DeviceId) {
        for target in targets {
            self.0.entry(target.clone()).or_default().insert(from.clone());
        }
    }

    pub(super) fn unlink<'a>(&mut self, targets: impl IntoIterator<Item = &'a DeviceId>, from: &DeviceId) {
        for target in targets {
            let Some(all) = self.0.get_mut(target) else { continue };
            all.remove(from);
            if all.is_empty() {
                self.0.remove(target);
            }
        }
    }

    /// Who speaks of `target`, by name.
    pub(super) fn to(&self, target: &DeviceId) -> impl Iterator<Item = &DeviceId> {
        self.0.get(target).into_iter().flatten()
    }
}

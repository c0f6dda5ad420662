//! Who may say what is desired of a device: one authority at a time, the cloud or the device's edge.
//!
//! ```text
//!              take (policy allows localOverride): epoch + 1, odd
//!   cloud  ------------------------------------------------------->  edge
//!  (even)  <-------------------------------------------------------  (odd)
//!              hand back, `until` is over, or the cloud takes it: epoch + 1, even
//! ```
//!
//! Either side may take it while the other is away. Epochs of the two never meet, so after a partition the higher one
//! holds, and a wish under a lower one is answered `superseded`, never carried out and never lost unheard. Taking and
//! handing back move nothing: what holds stays until somebody wishes something else.

use bus::UnixMillis;
use bus::twin::DesiredVersion;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// An authority over one device, as it is stored and told. Absent: the cloud's, epoch 0.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
pub struct Authority {
    #[n(0)]
    pub epoch: u64,
    /// Who took it or handed it back.
    #[n(1)]
    pub by: String,
    /// Why, for people.
    #[n(2)]
    pub reason: String,
    /// On the clock of whoever wrote this, for display.
    #[n(3)]
    pub at: UnixMillis,
    /// When the edge hands it back by itself, on the edge's clock.
    #[n(4)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixMillis>,
}

/// Whose an epoch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Holder {
    Cloud,
    Edge,
}

impl Holder {
    pub fn of(epoch: u64) -> Self {
        if epoch.is_multiple_of(2) { Self::Cloud } else { Self::Edge }
    }

    /// The first epoch above `known` that is this side's.
    pub fn next_epoch(self, known: u64) -> u64 {
        let next = known.saturating_add(1);
        if Self::of(next) == self { next } else { next.saturating_add(1) }
    }
}

impl Authority {
    pub fn holder(&self) -> Holder {
        Holder::of(self.epoch)
    }

    /// Whether a wish of this version was made under an authority that is over.
    pub fn outranks(&self, version: DesiredVersion) -> bool {
        version.epoch < self.epoch
    }

    /// What whoever comes too late is told.
    pub fn told(&self) -> String {
        let Self { by, reason, .. } = self;
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        match self.holder() {
            Holder::Edge => format!("the edge holds the authority, taken by {by}{why}"),
            Holder::Cloud => format!("made under an authority that is over, ended by {by}{why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_of_the_two_sides_never_meet() {
        for (side, known, next) in [
            (Holder::Edge, 0, 1),
            (Holder::Edge, 1, 3),
            (Holder::Cloud, 1, 2),
            (Holder::Cloud, 2, 4),
            (Holder::Cloud, 0, 2),
        ] {
            assert_eq!(side.next_epoch(known), next, "{side:?} {known}");
            assert_eq!(Holder::of(next), side);
        }
    }

    #[test]
    fn an_authority_outranks_what_was_wished_under_those_before() {
        let taken = Authority { epoch: 3, ..Authority::default() };
        for (epoch, outranked) in [(0, true), (2, true), (3, false), (4, false)] {
            assert_eq!(taken.outranks(DesiredVersion { epoch, seq: 9 }), outranked, "{epoch}");
        }
    }
}

//! What becomes of a packet, and why one is dropped.

use bus::NodeId;
use thiserror::Error;

/// What to do with a packet. Borrows from the [`Table`](crate::Table) that decided, so that no packet costs an
/// allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'t> {
    /// Write it to our TUN.
    Local,
    /// Send it to this peer.
    Peer(&'t NodeId),
    Drop(DropReason),
}

/// Why a packet went no further; the metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum DropReason {
    /// No IP packet, or its length is a lie.
    #[error("malformed packet")]
    Malformed,
    /// Multicast and the kernel's neighbour chatter stay on their own network.
    #[error("multicast destination")]
    Multicast,
    /// Means nothing beyond one link.
    #[error("link-local address")]
    LinkLocal,
    /// Unspecified, loopback, broadcast, reserved, or multicast as a source.
    #[error("address that must not travel")]
    Martian,
    /// No prefix of the overlay holds the source.
    #[error("source outside the overlay")]
    UnknownSource,
    /// The source belongs to another node than the one that sent the packet.
    #[error("source of another node")]
    SpoofedSource,
    /// No prefix of the overlay holds the destination.
    #[error("no route to the destination")]
    NoRoute,
    /// The next hop is where the packet came from.
    #[error("would go back to where it came from")]
    Loop,
    /// An edge is no transit: a packet from a peer must be for what lies behind it.
    #[error("not for this node")]
    NotOurs,
    /// Between two sites, and no rule lets it.
    #[error("denied by policy")]
    Denied,
}

impl DropReason {
    pub const ALL: [Self; 10] = [
        Self::Malformed,
        Self::Multicast,
        Self::LinkLocal,
        Self::Martian,
        Self::UnknownSource,
        Self::SpoofedSource,
        Self::NoRoute,
        Self::Loop,
        Self::NotOurs,
        Self::Denied,
    ];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Multicast => "multicast",
            Self::LinkLocal => "link_local",
            Self::Martian => "martian",
            Self::UnknownSource => "unknown_source",
            Self::SpoofedSource => "spoofed_source",
            Self::NoRoute => "no_route",
            Self::Loop => "loop",
            Self::NotOurs => "not_ours",
            Self::Denied => "denied",
        }
    }

    /// Its place in [`Self::ALL`], for a counter per reason.
    pub fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_reason_has_its_place_and_its_own_label() {
        for (place, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), place, "{reason:?}");
        }
        let labels: BTreeSet<_> = DropReason::ALL.map(DropReason::as_str).into();
        assert_eq!(labels.len(), DropReason::ALL.len());
    }
}

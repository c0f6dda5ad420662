//! Later fragments have no ports: they pass if the first one of their packet did.
//!
//! A later fragment that overtakes the first is dropped, and its packet with it: holding fragments back until the first
//! comes would let anybody fill our memory. Senders that wait for answers send again.

use bus::Mono;

use super::flows::{bits, seconds};
use super::hash::HashKey;
use crate::Packet;

/// Packets in fragments whose first one passed. A newer one takes the place of the one that fell into its place
/// before: then the rest of that packet is dropped. A packet's fragments follow each other within milliseconds.
const SLOTS: usize = 256;

/// How long the rest may take: as Linux waits for it (`ipfrag_time`).
const LIFETIME_SECS: u32 = 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    source: u128,
    destination: u128,
    id: u32,
    protocol: u8,
}

#[derive(Debug)]
pub(super) struct Fragments {
    slots: Box<[Option<(Key, u32)>; SLOTS]>,
    hash: HashKey,
}

impl Fragments {
    pub(super) fn new(seed: [u64; 2]) -> Self {
        Self { slots: Box::new([None; SLOTS]), hash: HashKey::from_seed(seed) }
    }

    /// Forgets all: the rules have changed.
    pub(super) fn clear(&mut self) {
        self.slots.fill(None);
    }

    /// The first fragment of a packet passed.
    pub(super) fn remember(&mut self, packet: &Packet<'_>, protocol: u8, now: Mono) {
        let Some(key) = Key::of(packet, protocol) else { return };
        if let Some(slot) = self.slot(&key) {
            *slot = Some((key, seconds(now).saturating_add(LIFETIME_SECS)));
        }
    }

    /// Whether a later fragment belongs to a packet whose first one passed.
    pub(super) fn has_first_of(&mut self, packet: &Packet<'_>, protocol: u8, now: Mono) -> bool {
        let Some(key) = Key::of(packet, protocol) else { return false };
        let found = self.slot(&key).and_then(|slot| *slot);
        found.is_some_and(|(first, until)| first == key && until > seconds(now))
    }

    fn slot(&mut self, key: &Key) -> Option<&mut Option<(Key, u32)>> {
        let Key { source, destination, id, protocol } = *key;
        let [from, to] = [source, destination].map(|bits| [(bits >> 64) as u64, bits as u64]);
        let rest = u64::from(id) << 8 | u64::from(protocol);
        let hash = self.hash.hash([from[0], from[1], to[0], to[1], rest]);
        self.slots.get_mut(hash as usize % SLOTS)
    }
}

impl Key {
    fn of(packet: &Packet<'_>, protocol: u8) -> Option<Self> {
        let id = packet.fragment_id()?;
        // In IPv6 the first fragment may have further extension headers, behind which only it shows the protocol;
        // its identification counts for all protocols (RFC 8200 §4.5).
        let protocol = if packet.source().is_ipv4() { protocol } else { 0 };
        Some(Self { source: bits(packet.source()), destination: bits(packet.destination()), id, protocol })
    }
}

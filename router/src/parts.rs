//! A packet in two parts, for paths too narrow for packets that nobody may cut: inside the overlay, between two of its
//! nodes, and only until the path's MTU has been found.
//!
//! ```text
//!   packet --split--> {id, First, bytes} {id, Second, bytes} ==datagrams==> Reassembler --> packet
//! ```
//! The shard frames a part and sends both in a row; what gets lost is not asked for again, as little as a packet is.

use std::time::Duration;

use bus::Mono;
use bytes::Bytes;

/// Packets of one peer that wait for their other part. Both parts leave together: more than these are only open when
/// parts get lost, and then the oldest is the least likely to be completed. Bounds a peer to 16 datagrams of memory.
pub const MAX_UNFINISHED: usize = 16;

/// How long a part waits for its other: longer than any path reorders, even over a satellite.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Ids this far apart are of two rounds through all 65,536: a part must not meet one of the next round, which would be
/// another packet's, with no checksum between overlay and TUN to notice.
const MAX_DISTANCE: u16 = 0x4000;

/// Which part of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Half {
    First,
    Second,
}

/// The two parts of `packet`, of one length or the first a byte longer, so that UDP GSO stays engaged. None if they
/// are longer than `max_part` bytes, or one would be empty.
pub fn split(packet: &[u8], max_part: usize) -> Option<(&[u8], &[u8])> {
    let (first, second) = packet.split_at(packet.len().div_ceil(2));
    (first.len() <= max_part && !second.is_empty()).then_some((first, second))
}

/// Puts the packets of one peer together again, in whatever order their parts come.
///
/// ```
/// use bus::Mono;
/// use bytes::Bytes;
/// use router::parts::{Half, Reassembler, split};
///
/// let (first, second) = split(b"packet", 1200).unwrap();
/// let (first, second) = (Bytes::copy_from_slice(first), Bytes::copy_from_slice(second));
/// let mut reassembler = Reassembler::new();
/// assert_eq!(reassembler.handle_part(7, Half::Second, second.clone(), Mono::ZERO), None);
/// let whole = reassembler.handle_part(7, Half::First, first.clone(), Mono::ZERO);
/// assert_eq!(whole, Some((first, second)));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Reassembler {
    /// The longest waiting first.
    unfinished: Vec<Unfinished>,
    lost: u64,
}

#[derive(Debug, Clone)]
struct Unfinished {
    id: u16,
    half: Half,
    bytes: Bytes,
    since: Mono,
}

impl Unfinished {
    /// Both parts in order, if `bytes` can be the other one.
    fn joined(&self, half: Half, bytes: &Bytes) -> Option<(Bytes, Bytes)> {
        let (first, second) = match (self.half, half) {
            (Half::First, Half::Second) => (&self.bytes, bytes),
            (Half::Second, Half::First) => (bytes, &self.bytes),
            (Half::First, Half::First) | (Half::Second, Half::Second) => return None,
        };
        let is_split = first.len() == second.len() || first.len() == second.len() + 1;
        is_split.then(|| (first.clone(), second.clone()))
    }

    fn is_near(&self, id: u16) -> bool {
        let ahead = id.wrapping_sub(self.id);
        ahead.min(ahead.wrapping_neg()) < MAX_DISTANCE
    }
}

impl Reassembler {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the part `half` of the packet `id`. Returns the packet's two parts in order if that completes it.
    ///
    /// A part that comes twice changes nothing. One that does not fit the part that waits takes its place: it is of a
    /// later packet with the same id.
    pub fn handle_part(&mut self, id: u16, half: Half, bytes: Bytes, now: Mono) -> Option<(Bytes, Bytes)> {
        self.handle_timeout(now);
        self.drop_unless(|waiting| waiting.is_near(id));
        if let Some(place) = self.unfinished.iter().position(|waiting| waiting.id == id) {
            let waiting = self.unfinished.get(place)?;
            if waiting.half == half && waiting.bytes == bytes {
                return None;
            }
            let joined = waiting.joined(half, &bytes);
            self.unfinished.remove(place);
            if joined.is_some() {
                return joined;
            }
            self.lost += 1;
        } else if self.unfinished.len() >= MAX_UNFINISHED {
            self.unfinished.remove(0);
            self.lost += 1;
        }
        // A copy: what waits must not keep a whole receive buffer.
        let bytes = Bytes::copy_from_slice(&bytes);
        self.unfinished.push(Unfinished { id, half, bytes, since: now });
        None
    }

    /// Gives up on packets whose other part did not come in time.
    pub fn handle_timeout(&mut self, now: Mono) {
        self.drop_unless(|waiting| now.since(waiting.since) < PATIENCE);
    }

    /// Packets of which only one part came in time. A part that comes again after its packet was completed counts as
    /// one, too; QUIC delivers no datagram twice.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn drop_unless(&mut self, keep: impl Fn(&Unfinished) -> bool) {
        let before = self.unfinished.len();
        self.unfinished.retain(keep);
        self.lost += (before - self.unfinished.len()) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use Half::{First, Second};

    fn at(milliseconds: u64) -> Mono {
        Mono(milliseconds * 1000)
    }

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn parts_are_of_one_length_or_the_first_a_byte_longer() {
        assert_eq!(split(b"abcdef", 3), Some((&b"abc"[..], &b"def"[..])));
        assert_eq!(split(b"abcde", 3), Some((&b"abc"[..], &b"de"[..])));
        assert_eq!(split(b"abcdefg", 3), None, "too long for two");
        assert_eq!((split(b"a", 3), split(b"", 3)), (None, None));
    }

    #[test]
    fn a_part_that_comes_twice_changes_nothing() {
        let mut parts = Reassembler::new();
        assert_eq!(parts.handle_part(1, First, bytes("ab"), at(0)), None);
        assert_eq!(parts.handle_part(1, First, bytes("ab"), at(999)), None);
        assert_eq!(parts.unfinished[0].since, at(0), "its patience is not renewed");
        assert_eq!(parts.handle_part(1, Second, bytes("c"), at(999)), Some((bytes("ab"), bytes("c"))));
        assert_eq!((parts.lost(), parts.unfinished.len()), (0, 0));
    }

    #[test]
    fn half_a_packet_is_given_up_after_a_second() {
        let mut parts = Reassembler::new();
        parts.handle_part(1, First, bytes("ab"), at(0));
        parts.handle_part(2, Second, bytes("xy"), at(400));
        parts.handle_timeout(at(999));
        assert_eq!(parts.lost(), 0);
        parts.handle_timeout(at(1000));
        assert_eq!((parts.lost(), parts.unfinished.len()), (1, 1));
        assert_eq!(parts.handle_part(1, Second, bytes("cd"), at(1001)), None, "too late");
        assert_eq!(parts.handle_part(2, First, bytes("vw"), at(1399)), Some((bytes("vw"), bytes("xy"))));
    }

    #[test]
    fn when_too_many_wait_the_oldest_makes_room() {
        let mut parts = Reassembler::new();
        for id in 0..=MAX_UNFINISHED as u16 {
            parts.handle_part(id, First, bytes("ab"), at(u64::from(id)));
        }
        assert_eq!((parts.lost(), parts.unfinished.len()), (1, MAX_UNFINISHED));
        assert_eq!(parts.handle_part(1, Second, bytes("cd"), at(20)), Some((bytes("ab"), bytes("cd"))));
        assert_eq!(parts.handle_part(0, Second, bytes("cd"), at(20)), None);
    }

    #[test]
    fn a_part_does_not_meet_one_of_another_packet_with_its_id() {
        let mut parts = Reassembler::new();
        parts.handle_part(5, First, bytes("ab"), at(0));
        assert_eq!(parts.handle_part(5, First, bytes("xy"), at(1)), None, "the later packet counts");
        assert_eq!(parts.lost(), 1);
        assert_eq!(parts.handle_part(5, Second, bytes("too long"), at(1)), None);
        assert_eq!(parts.lost(), 2);
        parts.handle_part(5 + MAX_DISTANCE, First, bytes("ab"), at(2));
        assert_eq!(parts.lost(), 3, "a round of ids has gone by");
        assert_eq!(parts.handle_part(5, First, bytes("ab or so"), at(2)), None);
    }

    #[test]
    fn ids_that_wrap_around_are_near_each_other() {
        let mut parts = Reassembler::new();
        parts.handle_part(u16::MAX, First, bytes("ab"), at(0));
        parts.handle_part(3, First, bytes("cd"), at(0));
        assert!(parts.handle_part(u16::MAX, Second, bytes("ab"), at(0)).is_some());
        assert!(parts.handle_part(3, Second, bytes("cd"), at(0)).is_some());
    }

    proptest! {
        #[test]
        fn packets_whose_parts_come_near_each_other_are_put_together(
            start: u16, lengths in vec(2usize..100, 1..60),
            swaps in vec((any::<Index>(), 0usize..12), 0..40), lost in vec(any::<Index>(), 0..5),
        ) {
            let packets: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(n, len)| vec![n as u8; *len]).collect();
            let mut sent = Vec::new();
            for (n, packet) in packets.iter().enumerate() {
                let (first, second) = split(packet, 50).unwrap();
                sent.push((n, First, Bytes::copy_from_slice(first)));
                sent.push((n, Second, Bytes::copy_from_slice(second)));
            }
            for (place, distance) in swaps {
                let place = place.index(sent.len());
                let other = (place + distance).min(sent.len() - 1);
                sent.swap(place, other);
            }
            let mut missing = Vec::new();
            for index in lost.iter().take(sent.len() - 1) {
                missing.push(sent.remove(index.index(sent.len())).0);
            }
            let mut parts = Reassembler::new();
            let mut whole = Vec::new();
            for (n, half, bytes) in sent {
                let id = start.wrapping_add(n as u16);
                if let Some((first, second)) = parts.handle_part(id, half, bytes, Mono::ZERO) {
                    prop_assert_eq!([&first[..], &second].concat(), &packets[n][..]);
                    whole.push(n);
                }
                prop_assert!(parts.unfinished.len() <= MAX_UNFINISHED);
            }
            for n in 0..packets.len() {
                prop_assert!(whole.contains(&n) || missing.contains(&n) || parts.lost() > 0, "{n}");
            }
            parts.handle_timeout(Mono::ZERO + PATIENCE);
            prop_assert!(parts.unfinished.is_empty());
        }

        #[test]
        fn whatever_comes_no_more_is_kept_than_allowed(
            parts in vec((any::<u16>(), any::<bool>(), vec(any::<u8>(), 0..4), 0u64..400_000), 0..200),
        ) {
            let (mut reassembler, mut now) = (Reassembler::new(), 0);
            for (id, first, bytes, later) in parts {
                now += later;
                let half = if first { First } else { Second };
                reassembler.handle_part(id, half, bytes.into(), Mono(now));
                prop_assert!(reassembler.unfinished.len() <= MAX_UNFINISHED);
                let deadlines: Vec<_> = reassembler.unfinished.iter().map(|waiting| waiting.since).collect();
                prop_assert!(deadlines.is_sorted(), "the first to wait is the first to be given up");
            }
        }
    }
}

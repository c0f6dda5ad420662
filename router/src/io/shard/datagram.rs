//! What a datagram of the packets lane looks like.
//!
//! ```text
//!   whole   [0000 000P] packet             P: the transport's checksum covers the pseudo-header alone
//!   part    [0000 0S1-] id (2) half of a whole datagram     S: the second half
//! ```
//! Other bits are for later: a datagram that has one is dropped.

use bus::Mono;
use bytes::{BufMut, Bytes, BytesMut};

use super::link::Link;
use crate::offload::VirtioHeader;
use crate::parts::{Half, Reassembler, split};

/// The first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head(u8);

impl Head {
    pub(super) const LEN: usize = 1;

    const PARTIAL: u8 = 0b001;
    const PART: u8 = 0b010;
    const SECOND: u8 = 0b100;

    pub(super) fn of(virtio: VirtioHeader) -> Self {
        Self(if virtio.partial.is_some() { Self::PARTIAL } else { 0 })
    }

    /// An empty datagram is a whole one with nothing in it.
    pub(super) fn read(datagram: &[u8]) -> Self {
        Self(datagram.first().copied().unwrap_or_default())
    }

    fn of_part(half: Half) -> Self {
        Self(Self::PART | if half == Half::Second { Self::SECOND } else { 0 })
    }

    pub(super) fn is_partial(self) -> bool {
        self.0 & Self::PARTIAL != 0
    }

    pub(super) fn is_whole(self) -> bool {
        self.0 & !Self::PARTIAL == 0
    }

    pub(super) fn is_part(self) -> bool {
        self.0 & !Self::SECOND == Self::PART
    }

    fn half(self) -> Half {
        if self.0 & Self::SECOND == 0 { Half::First } else { Half::Second }
    }
}

/// Before the bytes of a part.
const PART_HEAD: usize = Head::LEN + 2;

/// Datagrams made at a time share memory of this size: a super-packet's. Below what the allocator maps and unmaps by itself
/// (128 KiB), which cost as much as all the rest together.
const ARENA: usize = 64 << 10;

/// Arenas that are used in turn: all that a read of the TUN brings, and as much again on its way out.
const ARENAS: usize = 8;

/// Makes datagrams.
#[derive(Debug, Default)]
pub(super) struct Maker {
    /// Each is used again when all datagrams in it have left; where one is still needed a new one takes its place.
    arenas: [BytesMut; ARENAS],
    current: usize,
    next_id: u16,
}

impl Maker {
    /// The longest packet that one datagram of `link` carries now, in bytes; `None` if it carries none at all.
    pub(super) fn room(link: &mut Link) -> Option<usize> {
        link.connection.datagrams().max_size()?.checked_sub(Head::LEN)
    }

    /// A packet given as headers and payload.
    pub(super) fn whole(&mut self, head: Head, headers: &[u8], payload: &[u8]) -> Bytes {
        self.put(&[head.0], headers, payload)
    }

    /// Two datagrams of at most `max` bytes that carry one.
    pub(super) fn in_parts(&mut self, datagram: &[u8], max: usize) -> Option<(Bytes, Bytes)> {
        let (first, second) = split(datagram, max.checked_sub(PART_HEAD)?)?;
        self.next_id = self.next_id.wrapping_add(1);
        let [high, low] = self.next_id.to_be_bytes();
        let [first, second] = [(Half::First, first), (Half::Second, second)]
            .map(|(half, bytes)| self.put(&[Head::of_part(half).0, high, low], bytes, &[]));
        Some((first, second))
    }

    fn put(&mut self, head: &[u8], headers: &[u8], payload: &[u8]) -> Bytes {
        let arena = self.arena(head.len() + headers.len() + payload.len());
        arena.put_slice(head);
        arena.put_slice(headers);
        arena.put_slice(payload);
        arena.split().freeze()
    }

    /// One with room for `len` bytes.
    fn arena(&mut self, len: usize) -> &mut BytesMut {
        if self.arenas[self.current].capacity() < len {
            self.current = (self.current + 1) % ARENAS;
            let size = len.max(ARENA);
            let arena = &mut self.arenas[self.current];
            if !arena.try_reclaim(size) {
                *arena = BytesMut::with_capacity(size);
            }
        }
        &mut self.arenas[self.current]
    }
}

/// Parts of one peer's datagrams.
#[derive(Debug, Default)]
pub(super) struct Parts(Reassembler);

impl Parts {
    /// Forgets halves whose other half did not come.
    pub(super) fn handle_timeout(&mut self, now: Mono) {
        self.0.handle_timeout(now);
    }

    /// The whole datagram, if this part completes it.
    pub(super) fn take(&mut self, part: &Bytes, now: Mono) -> Option<Bytes> {
        let [_, high, low] = *part.first_chunk::<PART_HEAD>()?;
        let id = u16::from_be_bytes([high, low]);
        let (first, second) =
            self.0.handle_part(id, Head::read(part).half(), part.slice(PART_HEAD..), now)?;
        Some([first, second].concat().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_in_two_parts_is_whole_again_and_none_is_longer_than_it_may_be() {
        let (mut maker, mut parts) = (Maker::default(), Parts::default());
        let whole = maker.whole(Head(Head::PARTIAL), &[1; 40], &[2; 1359]);
        assert_eq!((whole.len(), Head::read(&whole).is_partial()), (1400, true));
        let (first, second) = maker.in_parts(&whole, 703).unwrap();
        assert_eq!((first.len(), second.len()), (703, 703));
        assert!(
            [&first, &second].iter().all(|part| Head::read(part).is_part() && !Head::read(part).is_whole())
        );
        assert_eq!(parts.take(&second, Mono::ZERO), None);
        assert_eq!(parts.take(&first, Mono::ZERO), Some(whole.clone()));
        assert_eq!(maker.in_parts(&whole, 702), None);
        assert_eq!(parts.take(&second.slice(..2), Mono::ZERO), None, "cut off");
    }

    #[test]
    fn bits_for_later_are_neither_whole_nor_part() {
        for bits in [0b1000, 0b100, 0b11, 0b111, 0x80] {
            assert!(!Head(bits).is_whole() && !Head(bits).is_part(), "{bits:b}");
        }
    }
}

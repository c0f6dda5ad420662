//! A segment of the history: its head, and the frames around its blocks, in both directions.
//!
//! ```text
//! head  = "kbhist1\n", number u32, replaces u32, base u64, sum u32     little-endian
//! frame = length of the body (varint), sum u32, body                   the sum is over length and body
//! ```
//!
//! The sum of a frame goes on from that of the head and from the one that the frame before carries ([`Chain`]): a frame
//! behind a damaged one is still told from bytes that another file left there.

use bus::UnixMillis;

use super::sum::{Chain, sum};
use super::varint;

const MAGIC: [u8; 8] = *b"kbhist1\n";

/// Of one frame, without its length and sum: several times what a writer puts into one. A length above is none.
const MAX_BODY: usize = 256 << 10;

/// Numbers above are never reached; a head that claims one would leave no room above it.
const MAX_NUMBER: u32 = u32::MAX / 2;

/// The beginning of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Segments are numbered as they are made.
    pub(crate) number: u32,
    /// What was worth it in this segment and all before was carried over into this one or later ones; 0: none.
    pub(crate) replaces: u32,
    /// What the blocks' first times are differences from.
    pub(crate) base: UnixMillis,
}

impl Head {
    pub(crate) const LEN: usize = MAGIC.len() + 4 + 4 + 8 + 4;

    /// The bytes, and where the first frame stands.
    pub(crate) fn encode(&self) -> (Vec<u8>, Chain) {
        let Self { number, replaces, base } = *self;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&replaces.to_le_bytes());
        bytes.extend_from_slice(&base.0.to_le_bytes());
        let chain = Chain::new(&bytes);
        bytes.extend_from_slice(&sum(0, &bytes).to_le_bytes());
        (bytes, chain)
    }

    /// `None`: this is no segment, or its head is damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, Chain)> {
        let bytes: &[u8; Self::LEN] = bytes.first_chunk()?;
        let head = Self {
            number: u32::from_le_bytes(bytes[8..12].try_into().ok()?),
            replaces: u32::from_le_bytes(bytes[12..16].try_into().ok()?),
            base: UnixMillis(u64::from_le_bytes(bytes[16..24].try_into().ok()?)),
        };
        let (encoded, chain) = head.encode();
        (encoded == *bytes && head.number <= MAX_NUMBER && head.replaces < head.number)
            .then_some((head, chain))
    }
}

/// Puts a frame around `body`; with where the next one stands.
pub(crate) fn frame(body: &[u8], chain: Chain) -> (Vec<u8>, Chain) {
    let mut frame = Vec::with_capacity(body.len() + 8);
    varint::put(&mut frame, body.len() as u64);
    let sum = chain.sum(&[&frame, body]);
    frame.extend_from_slice(&sum.to_le_bytes());
    frame.extend_from_slice(body);
    (frame, chain.after(sum))
}

/// What is at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Framed<'a> {
    /// `length` counts the whole frame; behind it stands `next`.
    Whole { body: &'a [u8], length: usize, next: Chain },
    /// A frame or the place of one: its bytes are not what was written.
    Damaged { length: usize, next: Chain },
    /// There is not all of it.
    Short,
    /// No frame begins like this.
    None,
}

impl<'a> Framed<'a> {
    pub(crate) fn read(bytes: &'a [u8], chain: Chain) -> Self {
        let mut rest = bytes;
        let Some(length) = varint::take(&mut rest) else {
            return if bytes.len() < 10 { Self::Short } else { Self::None };
        };
        let body_length = match usize::try_from(length) {
            Ok(length) if (1..=MAX_BODY).contains(&length) => length,
            _ => return Self::None,
        };
        let prefix = &bytes[..bytes.len() - rest.len()];
        let Some((stored, rest)) = rest.split_first_chunk() else { return Self::Short };
        let Some(body) = rest.get(..body_length) else { return Self::Short };
        let (stored, length) = (u32::from_le_bytes(*stored), prefix.len() + 4 + body_length);
        let next = chain.after(stored);
        match chain.sum(&[prefix, body]) == stored {
            true => Self::Whole { body, length, next },
            false => Self::Damaged { length, next },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_back_and_any_changed_byte_makes_it_none() {
        let head = Head { number: 7, replaces: 3, base: UnixMillis(1_760_000_000_000) };
        let (bytes, chain) = head.encode();
        assert_eq!(Head::decode(&bytes), Some((head, chain)));
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            assert_eq!(Head::decode(&bytes), None, "byte {at}");
            assert_eq!(Head::decode(&bytes[..at]), None);
        }
        let none_above = Head { number: MAX_NUMBER + 1, ..head }.encode().0;
        assert_eq!(Head::decode(&none_above), None);
    }

    #[test]
    fn a_frame_counts_only_whole_and_where_it_was_written() {
        let [chain, other] = [b"this", b"that"].map(|file| Chain::new(file));
        let (bytes, next) = frame(b"body", chain);
        assert_eq!(Framed::read(&bytes, chain), Framed::Whole { body: b"body", length: 9, next });
        assert!(matches!(Framed::read(&bytes, other), Framed::Damaged { length: 9, .. }));
        assert_eq!(Framed::read(&bytes, next), Framed::Damaged { length: 9, next });
        let second = frame(b"more", next).0;
        let Framed::Damaged { next: after, .. } = Framed::read(&bytes, other) else { panic!() };
        assert!(matches!(Framed::read(&second, after), Framed::Damaged { .. }), "of another file");
        for end in 0..bytes.len() {
            assert_eq!(Framed::read(&bytes[..end], chain), Framed::Short);
        }
        assert_eq!(Framed::read(&[0; 20], chain), Framed::None);
        assert_eq!(Framed::read(&[0xff; 20], chain), Framed::None);
    }
}

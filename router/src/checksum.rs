//! The Internet checksum (RFC 1071): from scratch, and updated in place when a few words change (RFC 1624).
//!
//! All numbers here are ones' complement: 0x0000 and 0xffff are both zero, and carries go round to the low end. Sums
//! are of big-endian 16-bit words; a checksum is the complement of a sum. Whoever changes a packet updates its
//! checksums rather than making them anew, so that a packet that was corrupt stays so, and costs the same at any
//! length.

use std::net::IpAddr;

use crate::packet::{Fragment, ICMP, ICMPV6, Packet, TCP, UDP, Upper};

/// The sum of `bytes`; an odd last byte is padded with zero.
///
/// Words of 32 bits in the machine's byte order, added up in 64: RFC 1071 §2 (B) and (C) show that the order of
/// bytes may be set right at the end. No packet is near the 16 GiB at which the 64 bits would overflow.
pub fn sum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let number = |word: &[u8; 4]| u64::from(u32::from_ne_bytes(*word));
    fold(words.iter().map(number).sum::<u64>() + number(&last)).to_be()
}

/// The sum of two sums.
pub fn add(a: u16, b: u16) -> u16 {
    fold(u64::from(a) + u64::from(b))
}

/// The sum of the pseudo header of TCP, UDP and ICMPv6 (RFC 9293 §3.1, RFC 768, RFC 8200 §8.1). `length` is that of
/// the upper layer's header and data in bytes. Both addresses must be of one family.
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: u32) -> u16 {
    let rest = add(sum(&length.to_be_bytes()), u16::from(protocol));
    add(add(address(source), address(destination)), rest)
}

fn address(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(v4) => sum(&v4.octets()),
        IpAddr::V6(v6) => sum(&v6.octets()),
    }
}

fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// How the sum over some bytes changes when words among them are replaced: ~m + m' of RFC 1624 §3, equation 3.
///
/// One change serves every checksum that covers the words:
/// ```
/// use router::checksum::Change;
///
/// // The example of RFC 1624 §4.
/// assert_eq!(Change::of(&[0x55, 0x55], &[0x32, 0x85]).applied_to(0xdd2f), 0x0000);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change(u16);

impl Change {
    /// `old` was replaced by `new`, at an even distance from where the checksum's words begin.
    pub fn of(old: &[u8], new: &[u8]) -> Self {
        Self(add(!sum(old), sum(new)))
    }

    /// Both changes were made.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(add(self.0, other.0))
    }

    /// The same change made at an odd distance: every byte is in the other half of its word (RFC 1071 §2 (B)).
    #[must_use]
    pub fn at_odd(self) -> Self {
        Self(self.0.swap_bytes())
    }

    /// `checksum` after this change. One that was wrong stays wrong.
    pub fn applied_to(self, checksum: u16) -> u16 {
        !add(!checksum, self.0)
    }
}

/// Applies `change` to the checksum at `at`, if `bytes` reach that far. Returns how that changes the bytes' own sum.
pub(crate) fn update(bytes: &mut [u8], at: usize, change: Change) -> Change {
    let Some(field) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) else { return Change::default() };
    store(field, change.applied_to(u16::from_be_bytes(*field)))
}

fn store(field: &mut [u8; 2], checksum: u16) -> Change {
    let old = std::mem::replace(field, checksum.to_be_bytes());
    Change::of(&old, field)
}

/// Updates the upper layer's checksum of a packet, or of as much of it as `bytes` hold: `pseudo_header` and `data`
/// say what changed in what it covers. Returns how that changes the sum of `bytes`.
///
/// A UDP checksum of zero means that there is none and stays (RFC 768, RFC 6935 §5); one that becomes zero is sent as
/// 0xffff. A later fragment has no checksum: the first one's covers all of them.
pub(crate) fn update_upper(bytes: &mut [u8], upper: &Upper, pseudo_header: Change, data: Change) -> Change {
    let Some(place) = Place::of(upper) else { return Change::default() };
    let Some(field) = place.field(bytes) else { return Change::default() };
    let change = if place.counts_pseudo_header { pseudo_header.and(data) } else { data };
    let old = u16::from_be_bytes(*field);
    match (upper.protocol, old, change.applied_to(old)) {
        (UDP, 0, _) => Change::default(),
        (UDP, _, 0) => store(field, 0xffff),
        (_, _, new) => store(field, new),
    }
}

/// Writes the upper layer's checksum from scratch: for packets whose sender left it to the interface (virtio's
/// NEEDS_CSUM). Returns whether it did: it cannot for fragments, and for protocols other than TCP, UDP and ICMP.
pub fn complete(packet: &mut [u8]) -> bool {
    let Ok(parsed) = Packet::parse(packet) else { return false };
    let (source, destination, upper) = (parsed.source(), parsed.destination(), parsed.upper());
    let Some(place) = Place::of(&upper).filter(|_| upper.fragment == Fragment::Whole) else { return false };
    let Some(field) = place.field(packet) else { return false };
    *field = [0; 2];
    let data = packet.get(upper.offset..).unwrap_or_default();
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut total = sum(data);
    if place.counts_pseudo_header {
        total = add(total, pseudo_header(source, destination, upper.protocol, length));
    }
    let checksum = if upper.protocol == UDP && total == 0xffff { 0xffff } else { !total };
    place.field(packet).map(|field| store(field, checksum)).is_some()
}

/// Writes the sum over the pseudo header alone, not inverted, where the upper layer's checksum belongs: what virtio's
/// NEEDS_CSUM means, after an address has changed. Returns whether it did, for the reasons of [`complete`].
pub fn begin(packet: &mut [u8]) -> bool {
    let Ok(parsed) = Packet::parse(packet) else { return false };
    let upper = parsed.upper();
    let length = u32::try_from(packet.len().saturating_sub(upper.offset)).unwrap_or(u32::MAX);
    let sum = pseudo_header(parsed.source(), parsed.destination(), upper.protocol, length);
    let place =
        Place::of(&upper).filter(|place| place.counts_pseudo_header && upper.fragment == Fragment::Whole);
    place.and_then(|place| place.field(packet)).map(|field| *field = sum.to_be_bytes()).is_some()
}

/// Where a protocol has its checksum.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// In bytes from the packet's start.
    at: usize,
    counts_pseudo_header: bool,
}

impl Place {
    fn of(upper: &Upper) -> Option<Self> {
        let (at, counts_pseudo_header) = match upper.protocol {
            TCP => (16, true),
            UDP => (6, true),
            ICMPV6 => (2, true),
            ICMP => (2, false),
            _ => return None,
        };
        let at = upper.offset + at;
        (upper.fragment != Fragment::Later).then_some(Self { at, counts_pseudo_header })
    }

    fn field(self, bytes: &mut [u8]) -> Option<&mut [u8; 2]> {
        bytes.get_mut(self.at..)?.first_chunk_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::build::{any_packet, assert_checksums, ip, naive_sum};
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071_sums_as_printed_there() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn the_longest_packet_of_the_largest_words_does_not_overflow() {
        assert_eq!(sum(&[0xff; 65535]), naive_sum(&[0xff; 65535]));
    }

    #[test]
    fn the_pseudo_header_is_the_one_of_the_standards() {
        let v4 = [10, 0, 0, 1, 10, 0, 0, 2, 0, 17, 0, 8];
        assert_eq!(pseudo_header(ip("10.0.0.1"), ip("10.0.0.2"), 17, 8), naive_sum(&v4));
        let mut v6 = [0; 40];
        (v6[0], v6[15], v6[16], v6[31]) = (0xfd, 1, 0xfd, 2);
        (v6[33], v6[39]) = (1, 58);
        assert_eq!(pseudo_header(ip("fd00::1"), ip("fd00::2"), 58, 0x1_0000), naive_sum(&v6));
    }

    #[test]
    fn a_checksum_that_is_begun_and_summed_over_is_complete() {
        let payload = [0x12, 0x34, 0, 53, 0, 11, 0xab, 0xcd, 1, 2, 3];
        let mut packet =
            [&[0x45, 0, 0, 31, 0, 0, 0, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2][..], &payload].concat();
        assert!(begin(&mut packet));
        let finished = !sum(&packet[20..]);
        let begun = packet.clone();
        assert!(complete(&mut packet));
        assert_eq!(packet[26..28], finished.to_be_bytes());
        packet[9] = ICMP;
        assert!(!begin(&mut packet), "has no pseudo header");
        packet.clone_from(&begun);
        packet[6] = 0x20;
        assert!(!begin(&mut packet), "a fragment's is of the whole");
    }

    #[test]
    fn only_udp_writes_a_checksum_of_zero_as_all_ones() {
        let upper = |protocol| Upper {
            protocol,
            offset: 0,
            fragment: Fragment::Whole,
            ports: crate::packet::Ports::None,
        };
        let change = Change::of(&[0x55, 0x55], &[0x32, 0x85]);
        let mut udp = [0, 0, 0, 0, 0, 0, 0xdd, 0x2f];
        update_upper(&mut udp, &upper(UDP), change, Change::default());
        assert_eq!(udp[6..], [0xff, 0xff]);
        let mut none = [0; 8];
        update_upper(&mut none, &upper(UDP), change, Change::default());
        assert_eq!(none, [0; 8]);
        let mut icmp = [0, 0, 0xdd, 0x2f];
        update_upper(&mut icmp, &upper(ICMPV6), change, Change::default());
        assert_eq!(icmp[2..], [0, 0]);
    }

    proptest! {
        #[test]
        fn the_sum_is_the_naive_one_at_every_length_and_alignment(
            bytes in vec(any::<u8>(), 0..3000), skip in 0usize..9,
        ) {
            let bytes = bytes.get(skip..).unwrap_or_default();
            prop_assert_eq!(sum(bytes), naive_sum(bytes));
        }

        #[test]
        fn an_update_verifies_like_a_sum_from_scratch(
            old in vec(any::<u8>(), 2..40), new in vec(any::<u8>(), 2..40), before in 0usize..9,
            tail in vec(any::<u8>(), 0..40),
        ) {
            // The first word is not zero, as in everything that has a checksum.
            let len = old.len().min(new.len());
            let (old, new, head) = (&old[..len], &new[..len], vec![1; 2 + before]);
            let packet = |middle: &[u8]| [&head, middle, &tail].concat();
            let mut change = Change::of(old, new);
            if before % 2 == 1 {
                change = change.at_odd();
            }
            let updated = change.applied_to(!sum(&packet(old)));
            prop_assert_eq!(add(sum(&packet(new)), updated), 0xffff);
        }

        #[test]
        fn a_completed_packet_is_as_it_was_made(
            packet in any_packet(ip("10.1.0.9"), ip("10.2.0.9")), six in any_packet(ip("fd00:1::9"), ip("fd00:2::9")),
        ) {
            for packet in [packet, six] {
                let mut completed = packet.clone();
                let upper = Packet::parse(&packet).unwrap().upper();
                if let Some(field) = Place::of(&upper).and_then(|place| place.field(&mut completed)) {
                    *field = [0x12, 0x34];
                }
                if complete(&mut completed) {
                    assert_checksums(&completed);
                } else {
                    prop_assert!(upper.fragment == Fragment::Later || upper.protocol == 50);
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in vec(any::<u8>(), 0..100), version in 4u8..7) {
            if let [first, _, _, len, ..] = &mut bytes[..] {
                (*first, *len) = (version << 4 | *first & 0xf, 90);
            }
            complete(&mut bytes);
        }
    }
}

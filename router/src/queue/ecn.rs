//! Congestion said without a loss: RFC 3168, with the IPv4 header checksum kept right as RFC 1624 shows.

use crate::Packet;

/// The two bits of the traffic class (RFC 3168 §5) that say "congestion experienced".
const CE: u8 = 0b11;

/// What the queue asks of a packet that leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Send it as it is.
    Keep,
    /// CoDel would have dropped it, but its ends take a mark for a loss: [`set_congestion_experienced`], or drop it.
    CongestionExperienced,
}

/// Whether the ends of `packet` understand marks: ECT(0), ECT(1), or marked already.
pub(super) fn is_ecn_capable(packet: &Packet<'_>) -> bool {
    match packet.bytes() {
        [first, second, ..] if first >> 4 == 6 => second >> 4 & CE != 0,
        [_, second, ..] => second & CE != 0,
        _ => false,
    }
}

/// Marks an IP packet; does nothing to what is none.
pub fn set_congestion_experienced(packet: &mut [u8]) {
    match packet {
        [first, second, ..] if *first >> 4 == 6 => *second |= CE << 4,
        [first, second, _, _, _, _, _, _, _, _, high, low, ..] if *first >> 4 == 4 => {
            let before = u16::from_be_bytes([*first, *second]);
            *second |= CE;
            let after = u16::from_be_bytes([*first, *second]);
            let checksum = updated_checksum(u16::from_be_bytes([*high, *low]), before, after);
            [*high, *low] = checksum.to_be_bytes();
        }
        _ => {}
    }
}

/// HC' = ~(~HC + ~m + m') in one's complement (RFC 1624 equation 3).
fn updated_checksum(checksum: u16, before: u16, after: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::packet;
    use proptest::prelude::*;

    fn checksum(header: &[u8]) -> u16 {
        let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        !((folded & 0xffff) + (folded >> 16)) as u16
    }

    #[test]
    fn the_example_of_rfc_1624_comes_out_as_zero_and_not_as_minus_zero() {
        assert_eq!(updated_checksum(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn a_mark_is_seen_in_both_families_and_nothing_else_changes() {
        for (mut bytes, at, ect, ce) in [
            (packet("10.86.0.2", "10.86.0.3"), 1, 0b10, 0b11),
            (packet("fd00::2", "fd00::3"), 1, 0b01 << 4, 0b11 << 4),
        ] {
            assert!(!is_ecn_capable(&Packet::parse(&bytes).unwrap()));
            bytes[at] |= ect;
            assert!(is_ecn_capable(&Packet::parse(&bytes).unwrap()));
            set_congestion_experienced(&mut bytes);
            assert_eq!(bytes[at], ce);
            assert!(is_ecn_capable(&Packet::parse(&bytes).unwrap()));
        }
        let mut nothing = [0x45, 0, 0];
        set_congestion_experienced(&mut nothing);
        assert_eq!(nothing, [0x45, 0, 0]);
    }

    proptest! {
        #[test]
        fn the_checksum_after_a_mark_is_the_one_computed_anew(mut header: [u8; 20]) {
            header[0] = 0x45;
            header[10..12].fill(0);
            let before = checksum(&header).to_be_bytes();
            header[10..12].copy_from_slice(&before);
            set_congestion_experienced(&mut header);
            prop_assert_eq!(header[1] & 3, 3);
            // Zero of the whole header's sum is what receivers check (RFC 1071).
            prop_assert_eq!(checksum(&header), 0);
        }
    }
}

//! The internet checksum: from scratch (RFC 1071) and updated in place (RFC 1624).

/// Ones' complement sum of `bytes` as big-endian 16-bit words, folded; an odd last byte is padded with zero.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    fold(words.fold(0, |total, word| fold_partly(total + word)))
}

/// `checksum` after bytes with the sum `old` became bytes with the sum `new`: HC' = ~(~HC + ~m + m')
/// (RFC 1624 §3, equation 3). What was wrong before stays wrong, so a corrupt packet is not blessed.
pub(crate) fn updated(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u32::from(!checksum) + u32::from(!old) + u32::from(new))
}

fn fold_partly(total: u32) -> u32 {
    (total & 0xffff) + (total >> 16)
}

fn fold(total: u32) -> u16 {
    // Two rounds: the first can carry once more.
    fold_partly(fold_partly(total)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071_sums_as_printed_there() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624_updates_to_zero() {
        assert_eq!(updated(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn an_update_verifies_like_a_sum_from_scratch(
            tail in prop::collection::vec(any::<u8>(), 0..64), old in any::<[u8; 2]>(), new in any::<[u8; 2]>()
        ) {
            // Word 0 is not zero, as in every IPv4 header; word 1 changes; word 2 is the checksum.
            let packet = |word: [u8; 2], check: u16| {
                [&[0x45, 0x00], &word[..], &check.to_be_bytes(), &tail].concat()
            };
            let before = !sum(&packet(old, 0));
            let after = updated(before, sum(&old), sum(&new));
            prop_assert_eq!(sum(&packet(new, after)), 0xffff);
        }
    }
}

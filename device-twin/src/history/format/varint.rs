//! Numbers in as few bytes as they need: seven bits a byte, the lowest first (LEB128).

/// Bits in a byte.
const BITS: u32 = 7;
/// More bytes follow.
const MORE: u8 = 0x80;

pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= u64::from(MORE) {
        out.push(number as u8 | MORE);
        number >>= BITS;
    }
    out.push(number as u8);
}

/// Takes a number off the front; `None` if it is cut short or no number of 64 bits.
pub(super) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(BITS as usize) {
        let byte = take_byte(bytes)?;
        let bits = u64::from(byte & !MORE);
        number |= bits << shift;
        if byte < MORE {
            return (number >> shift == bits).then_some(number);
        }
    }
    None
}

pub(super) fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

/// Takes `length` bytes off the front.
pub(super) fn take_slice<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (slice, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(slice)
}

/// A number that is small if `to` is near `from`, on either side: 0, -1, 1, -2, 2 .. become 0, 1, 2, 3, 4 ..
pub(super) fn delta(from: u64, to: u64) -> u64 {
    zigzag(to.wrapping_sub(from) as i64)
}

/// Undoes [`delta`].
pub(super) fn add(from: u64, delta: u64) -> u64 {
    from.wrapping_add(unzigzag(delta) as u64)
}

pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

pub(super) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGES: [u64; 9] = [0, 1, 127, 128, 16_383, 16_384, u64::MAX >> 1, (u64::MAX >> 1) + 1, u64::MAX];

    #[test]
    fn numbers_read_back_and_take_the_fewest_bytes() {
        let lengths = EDGES.map(|number| {
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            let mut rest = &bytes[..];
            assert_eq!((take(&mut rest), rest), (Some(number), &[][..]));
            bytes.len()
        });
        assert_eq!(lengths, [1, 1, 1, 2, 2, 3, 9, 10, 10]);
    }

    #[test]
    fn what_is_cut_short_or_too_large_is_no_number() {
        assert_eq!(take(&mut &[0x80, 0x80][..]), None);
        assert_eq!(take(&mut &[0xff; 11][..]), None);
        let beyond: Vec<u8> = [[0x80; 9].as_slice(), &[2]].concat();
        assert_eq!(take(&mut &beyond[..]), None);
    }

    #[test]
    fn every_number_is_reached_from_every_other() {
        for from in EDGES {
            for to in EDGES {
                assert_eq!(add(from, delta(from, to)), to);
            }
        }
        assert_eq!([0, 1, 2, 3].map(unzigzag), [0, -1, 1, -2]);
    }
}

//! Packets longer than what carries them: cut into IP fragments where IP allows it, else carried in two [`parts`].
//!
//! IP fragments are put together by the destination itself. A packet that may not be cut (IPv4 with DF, and IPv6) is
//! answered with "too big" ([`crate::icmp`]), unless its path is so narrow that its sender would not go down to it:
//! then the overlay carries it in two parts that no host ever sees.

pub mod parts;

use thiserror::Error;

use crate::checksum;
use crate::packet::Packet;

const IPV4_HEADER: usize = 20;
const LONGEST_HEADER: usize = 60;
const LONGEST_PACKET: usize = 65535;

/// Options of IPv4 (RFC 791 §3.1): the two that are one byte long, and the flag of those that every fragment has.
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const COPIED: u8 = 0x80;

const RESERVED: u16 = 0x8000;
const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// Why a packet was not cut. Nothing of it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum Uncut {
    #[error("malformed packet")]
    Malformed,
    /// IPv4 with DF, and IPv6.
    #[error("may not be cut")]
    Unbreakable,
    #[error("the MTU leaves no room behind the header")]
    NoRoom,
}

/// Cuts an IPv4 packet into fragments of at most `mtu` bytes (RFC 791 §3.2), header included, and hands them to
/// `write` in order. One that fits is handed over as it is; a fragment is cut into smaller ones.
///
/// `scratch` is where they are made; the caller keeps it, so that no packet costs an allocation. A checksum that was
/// left to the interface must be [completed](checksum::complete) before.
pub fn cut(
    packet: &[u8],
    mtu: u16,
    scratch: &mut Vec<u8>,
    mut write: impl FnMut(&[u8]),
) -> Result<(), Uncut> {
    let mtu = usize::from(mtu);
    let parsed = Packet::parse(packet).map_err(|_| Uncut::Malformed)?;
    if packet.len() <= mtu {
        write(packet);
        return Ok(());
    }
    if parsed.is_unbreakable() {
        return Err(Uncut::Unbreakable);
    }
    let (mut header, mut rest) = header_and_data(packet).ok_or(Uncut::Malformed)?;
    let place = u16::from_be_bytes([header[6], header[7]]);
    let mut at = usize::from(place & OFFSET) * 8;
    if at + rest.len() > LONGEST_PACKET {
        return Err(Uncut::Malformed); // its end would have no offset
    }
    let room = mtu.checked_sub(header.len()).filter(|room| *room >= 8).ok_or(Uncut::NoRoom)? & !7;
    let (later, later_length) = later_header(header);
    while !rest.is_empty() {
        let longest = mtu - header.len();
        let taken = if rest.len() <= longest { rest.len() } else { room };
        let (data, behind) = rest.split_at(taken);
        let more = if behind.is_empty() { place & MORE } else { MORE };
        let offset = u16::try_from(at / 8).unwrap_or(OFFSET);
        make(scratch, header, data, place & RESERVED | more | offset);
        write(scratch);
        at += taken;
        (header, rest) = (later.get(..later_length).unwrap_or_default(), behind);
    }
    Ok(())
}

/// The header, at least the fixed one, and what follows it.
fn header_and_data(packet: &[u8]) -> Option<(&[u8], &[u8])> {
    packet
        .split_at_checked(usize::from(packet.first()? & 0x0f) * 4)
        .filter(|(header, _)| header.len() >= IPV4_HEADER)
}

/// The header of all fragments but the first, which has only the options to be copied, and its length. Options that are
/// not well-formed, and what follows them, are not.
fn later_header(header: &[u8]) -> ([u8; LONGEST_HEADER], usize) {
    let (mut later, mut length) = ([END; LONGEST_HEADER], 0);
    let mut append = |bytes: &[u8]| {
        later.iter_mut().skip(length).zip(bytes).for_each(|(to, from)| *to = *from);
        length += bytes.len();
    };
    let (fixed, mut options) = header.split_at(IPV4_HEADER);
    append(fixed);
    while let Some((option, behind)) = next_option(options) {
        if option.first().is_some_and(|kind| kind & COPIED != 0) {
            append(option);
        }
        options = behind;
    }
    (later, length.next_multiple_of(4))
}

fn next_option(options: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = match options {
        [] | [END, ..] => return None,
        [NO_OPERATION, ..] => 1,
        [_, length @ 2..=u8::MAX, ..] => usize::from(*length),
        [_, ..] => return None,
    };
    options.split_at_checked(length)
}

/// Makes one fragment: `place` is its flags and offset.
fn make(fragment: &mut Vec<u8>, header: &[u8], data: &[u8], place: u16) {
    fragment.clear();
    fragment.extend(header);
    let words = u8::try_from(header.len() / 4).unwrap_or_default();
    let total = u16::try_from(header.len() + data.len()).unwrap_or(u16::MAX);
    put(fragment, 0, [0x40 | words, header.get(1).copied().unwrap_or_default()]);
    put(fragment, 2, total.to_be_bytes());
    put(fragment, 6, place.to_be_bytes());
    put(fragment, 10, [0; 2]);
    let checksum = !checksum::sum(fragment);
    put(fragment, 10, checksum.to_be_bytes());
    fragment.extend(data);
}

fn put(bytes: &mut [u8], at: usize, word: [u8; 2]) {
    if let Some(field) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *field = word;
    }
}

#[cfg(test)]
mod tests;

//! Lowers the maximum segment size that TCP's ends announce, so that their segments fit the overlay at once: no packet
//! is lost to find its MTU, and a firewall that eats ICMP does no harm.

use crate::checksum::{self, Change};
use crate::packet::{Fragment, Packet, TCP};

/// What a segment size leaves out: both fixed headers in bytes, and no options (RFC 6691 §2).
const HEADERS_V4: u16 = 40;
const HEADERS_V6: u16 = 60;

const TCP_HEADER: usize = 20;
const SYN: u8 = 0x02;

/// Option kinds (RFC 9293 §3.1).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAX_SEGMENT_SIZE: u8 = 2;

/// Lowers the segment size in a SYN or SYN-ACK to what fits an IP packet of `mtu` bytes. Returns whether it did.
///
/// Never raised, and never added: without the option a sender takes 536 bytes (1220 over IPv6), which fit anyway.
/// Later fragments, options that are not well-formed and what follows them stay as they are.
///
/// `partial`: the checksum is left to the interface (virtio's NEEDS_CSUM), its field holds at most a sum over the
/// pseudo header, which does not count the option, and is not touched.
pub fn clamp(packet: &mut [u8], mtu: u16, partial: bool) -> bool {
    let Some((start, header_length, largest)) = syn(packet, mtu) else { return false };
    let Some(header) = packet.get_mut(start..start + header_length) else { return false };
    clamp_header(header, largest, partial)
}

/// Where the TCP header of a SYN is, how long it is, and the largest segment that it may announce.
fn syn(packet: &[u8], mtu: u16) -> Option<(usize, usize, u16)> {
    let parsed = Packet::parse(packet).ok()?;
    let upper = parsed.upper();
    if upper.protocol != TCP || upper.fragment == Fragment::Later {
        return None;
    }
    let header: &[u8; TCP_HEADER] = packet.get(upper.offset..)?.first_chunk()?;
    let (length, flags) = (usize::from(header[12] >> 4) * 4, header[13]);
    let headers = if parsed.source().is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
    (flags & SYN != 0).then_some((upper.offset, length, mtu.saturating_sub(headers)))
}

/// Walks at most 40 bytes, as a TCP header is no longer than 60. Of several sizes every one is lowered: which one
/// counts is the receiver's choice.
fn clamp_header(header: &mut [u8], largest: u16, partial: bool) -> bool {
    let (mut at, mut lowered) = (TCP_HEADER, false);
    loop {
        let length = match header.get(at..) {
            None | Some([] | [END, ..]) => return lowered,
            Some([NO_OPERATION, ..]) => 1,
            Some([MAX_SEGMENT_SIZE, 4, high, low, ..]) => {
                if u16::from_be_bytes([*high, *low]) > largest {
                    lower(header, at + 2, largest, partial);
                    lowered = true;
                }
                4
            }
            Some([_, length @ 2..=u8::MAX, ..]) => usize::from(*length),
            Some(_) => return lowered,
        };
        at += length;
    }
}

fn lower(header: &mut [u8], at: usize, to: u16, partial: bool) {
    let Some(field) = header.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>) else { return };
    let old = std::mem::replace(field, to.to_be_bytes());
    let change = Change::of(&old, field);
    if !partial {
        checksum::update(header, 16, if at.is_multiple_of(2) { change } else { change.at_odd() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::build::{
        assert_checksums, ip, tcp, udp, whole, with_fragment, with_ip_options,
    };
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn v4(flags: u8, options: &[u8]) -> Vec<u8> {
        tcp(ip("10.86.1.2"), ip("10.86.2.3"), flags, options, b"")
    }

    fn v6(flags: u8, options: &[u8]) -> Vec<u8> {
        tcp(ip("fd86:1::2"), ip("fd86:2::3"), flags, options, b"")
    }

    fn clamped(mut packet: Vec<u8>, mtu: u16) -> Vec<u8> {
        clamp(&mut packet, mtu, false);
        packet
    }

    /// 1460 bytes.
    const ETHERNET: [u8; 4] = [2, 4, 5, 180];

    #[test]
    fn a_syn_and_its_answer_announce_what_fits() {
        for flags in [SYN, SYN | 0x10, SYN | 0xc0] {
            assert_eq!(clamped(v4(flags, &ETHERNET), 1400), v4(flags, &[2, 4, 5, 80]));
            assert_eq!(clamped(v6(flags, &ETHERNET), 1400), v6(flags, &[2, 4, 5, 60]));
        }
        let with_options = |packet: &[u8]| with_ip_options(packet, &[1, 1, 1, 1]);
        let syn = with_options(&v4(SYN, &ETHERNET));
        assert_eq!(clamped(syn, 1400), with_options(&v4(SYN, &[2, 4, 5, 80])));
    }

    #[test]
    fn a_size_is_never_raised_and_never_added() {
        for packet in [v4(SYN, &ETHERNET), v6(SYN, &[2, 4, 5, 160]), v4(SYN, &[]), v4(SYN, &[1, 1, 4, 2])] {
            assert_eq!(clamped(packet.clone(), 1500), packet);
        }
        assert_eq!(clamped(v4(SYN, &[1, 1, 4, 2]), 100), v4(SYN, &[1, 1, 4, 2]));
    }

    #[test]
    fn the_option_is_found_between_others_at_any_distance() {
        let options =
            |size: [u8; 2]| [4, 2, 1, 2, 4, size[0], size[1], 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 3, 3, 7];
        assert_eq!(clamped(v4(SYN, &options([5, 180])), 1400), v4(SYN, &options([5, 80])));
        let twice = |size: [u8; 2]| [1, 2, 4, size[0], size[1], 2, 4, size[0], size[1], 0, 0, 0];
        assert_eq!(clamped(v6(SYN, &twice([5, 180])), 1400), v6(SYN, &twice([5, 60])));
    }

    #[test]
    fn malformed_options_and_those_behind_them_are_left_alone() {
        for options in [
            [3, 0, 2, 4, 5, 180, 0, 0],
            [3, 1, 2, 4, 5, 180, 0, 0],
            [3, 200, 2, 4, 5, 180, 0, 0],
            [0, 0, 2, 4, 5, 180, 0, 0],
            [2, 3, 255, 1, 1, 1, 1, 2],
            [1, 1, 1, 1, 1, 2, 4, 255],
        ] {
            assert_eq!(clamped(v4(SYN, &options), 1400), v4(SYN, &options), "{options:?}");
        }
        for words in [0, 4, 7, 15] {
            let mut header = v4(SYN, &ETHERNET)[20..].to_vec();
            header[12] = words << 4;
            let packet = whole(ip("10.86.1.2"), ip("10.86.2.3"), TCP, &header);
            assert_eq!(clamped(packet.clone(), 1400), packet, "a header of {words} words");
        }
    }

    #[test]
    fn only_the_start_of_a_connection_is_looked_at() {
        let datagram = udp(ip("10.86.1.2"), ip("10.86.2.3"), &v4(SYN, &ETHERNET)[28..]);
        let later = with_fragment(v4(SYN, &ETHERNET), 0x2001);
        for packet in [v4(0x10, &ETHERNET), v4(0x04, &ETHERNET), datagram, later] {
            assert_eq!(clamped(packet.clone(), 1400), packet);
        }
    }

    #[test]
    fn a_partial_checksum_is_left_for_the_caller_to_make() {
        let (mut packet, wanted) = (v4(SYN, &ETHERNET), v4(SYN, &[2, 4, 5, 80]));
        packet[36..38].copy_from_slice(&[0x12, 0x34]);
        assert!(clamp(&mut packet, 1400, true));
        assert_eq!(packet[36..38], [0x12, 0x34]);
        assert!(checksum::complete(&mut packet));
        assert_eq!(packet, wanted);
    }

    proptest! {
        #[test]
        fn checksums_hold_wherever_the_option_stands(
            before in 0usize..30, size: u16, mtu in 60u16.., six: bool, payload in vec(any::<u8>(), 0..40),
        ) {
            let mut options = vec![NO_OPERATION; before];
            options.extend([2, 4]);
            options.extend(size.to_be_bytes());
            options.resize(options.len().next_multiple_of(4), END);
            let (source, destination) = if six { ("fd86:1::2", "fd86:2::3") } else { ("10.0.0.1", "10.0.0.2") };
            let mut packet = tcp(ip(source), ip(destination), SYN, &options, &payload);
            let start = if six { 60 } else { 40 };
            let largest = mtu - start as u16;
            prop_assert_eq!(clamp(&mut packet, mtu, false), size > largest);
            let field = start + before + 2;
            prop_assert_eq!(u16::from_be_bytes([packet[field], packet[field + 1]]), size.min(largest));
            assert_checksums(&packet);
        }

        #[test]
        fn no_bytes_make_it_panic(
            mut header in vec(any::<u8>(), 0..70), options in vec(0u8..6, 40), mtu: u16, six: bool,
        ) {
            for (to, from) in header.iter_mut().skip(20).zip(options) { *to = from; }
            if let Some(flags) = header.get_mut(13) { *flags |= SYN; }
            let (source, destination) = if six { ("fd86:1::2", "fd86:2::3") } else { ("10.0.0.1", "10.0.0.2") };
            let mut packet = whole(ip(source), ip(destination), 50, &header);
            packet[if six { 6 } else { 9 }] = TCP;
            let before = packet.clone();
            if !clamp(&mut packet, mtu, false) {
                prop_assert_eq!(&packet, &before);
            }
            clamp(&mut header, mtu, false);
        }
    }
}

use super::*;
use crate::packet::tests::build::{ip, udp, with_fragment, with_ip_options, wrong_checksums};
use proptest::collection::vec;
use proptest::prelude::*;

fn datagram(payload: &[u8]) -> Vec<u8> {
    udp(ip("10.86.1.2"), ip("10.86.2.3"), payload)
}

fn fragments(packet: &[u8], mtu: u16) -> Result<Vec<Vec<u8>>, Uncut> {
    let mut written = Vec::new();
    cut(packet, mtu, &mut Vec::new(), |fragment| written.push(fragment.to_vec())).map(|()| written)
}

fn header_length(packet: &[u8]) -> usize {
    usize::from(packet[0] & 0xf) * 4
}

fn place(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[6], packet[7]])
}

/// As the destination does it (RFC 791 §3.2): in any order.
fn reassembled(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut sorted: Vec<_> = fragments.iter().collect();
    sorted.sort_by_key(|fragment| place(fragment) & OFFSET);
    let first = sorted[0];
    let mut data = Vec::new();
    for (n, fragment) in sorted.iter().enumerate() {
        assert!(Packet::parse(fragment).is_ok());
        assert!(!wrong_checksums(fragment).contains(&"header"));
        assert_eq!((&fragment[4..6], &fragment[8..10]), (&first[4..6], &first[8..10]), "one packet's");
        assert_eq!(usize::from(place(fragment) & OFFSET) * 8, data.len(), "no gap");
        assert_eq!(place(fragment) & MORE != 0, n + 1 < sorted.len());
        data.extend(&fragment[header_length(fragment)..]);
    }
    let mut whole = [&first[..header_length(first)], &data].concat();
    let total = u16::try_from(whole.len()).unwrap();
    whole[2..4].copy_from_slice(&total.to_be_bytes());
    with_fragment(whole, 0)
}

#[test]
fn a_packet_that_fits_is_left_whole() {
    let packet = with_fragment(datagram(&[7; 100]), 0x4000);
    assert_eq!(fragments(&packet, 128), Ok(vec![packet.clone()]));
    assert_eq!(fragments(&packet, 127), Err(Uncut::Unbreakable));
}

#[test]
fn what_may_not_or_cannot_be_cut_is_not() {
    let six = udp(ip("fd00::1"), ip("fd00::2"), &[7; 2000]);
    assert_eq!(fragments(&six, 1280), Err(Uncut::Unbreakable));
    assert_eq!(fragments(&datagram(&[7; 100]), 27), Err(Uncut::NoRoom));
    assert_eq!(fragments(&datagram(&[7; 100]), 0), Err(Uncut::NoRoom));
    assert_eq!(fragments(&[0x45; 30], 28), Err(Uncut::Malformed));
    let beyond = with_fragment(datagram(&[7; 100]), OFFSET);
    assert_eq!(fragments(&beyond, 68), Err(Uncut::Malformed));
}

#[test]
fn fragments_are_full_and_their_offsets_multiples_of_eight() {
    let cut = fragments(&datagram(&[7; 100]), 70).unwrap();
    let sizes: Vec<_> = cut.iter().map(|fragment| (fragment.len(), place(fragment))).collect();
    assert_eq!(sizes, [(68, MORE), (68, MORE | 6), (32, 12)]);
    let exact = fragments(&datagram(&[7; 90]), 70).unwrap();
    assert_eq!(exact.last().map(Vec::len), Some(70), "the last need not end at a multiple");
}

#[test]
fn later_fragments_have_the_options_to_be_copied_and_no_others() {
    // Record route (not copied), nothing, a router alert (copied), the end.
    let options = [7, 3, 4, 1, 0x94, 4, 0, 0, 0, 0, 0, 0];
    let packet = with_ip_options(&datagram(&[7; 100]), &options);
    let cut = fragments(&packet, 84).unwrap();
    assert_eq!(cut[0][20..32], options);
    for later in &cut[1..] {
        assert_eq!((header_length(later), &later[20..24]), (24, &options[4..8]));
    }
    assert_eq!(reassembled(&cut), packet);
    let malformed = with_ip_options(&datagram(&[7; 100]), &[0x94, 9, 0, 0]);
    let cut = fragments(&malformed, 84).unwrap();
    assert_eq!((header_length(&cut[0]), header_length(&cut[1])), (24, 20));
}

#[test]
fn a_fragment_that_is_cut_again_keeps_its_place_in_the_packet() {
    let packet = with_fragment(datagram(&[7; 1000]), RESERVED);
    let twice: Vec<_> =
        fragments(&packet, 500).unwrap().iter().flat_map(|once| fragments(once, 100).unwrap()).collect();
    assert!(twice.iter().all(|fragment| fragment.len() <= 100 && place(fragment) & RESERVED != 0));
    assert_eq!(reassembled(&twice), with_fragment(packet, 0));
}

proptest! {
    #[test]
    fn fragments_fit_and_make_the_packet_again(
        payload in vec(any::<u8>(), 0..3000), mtu in 68u16..1500, words in 0usize..11, id: [u8; 2],
    ) {
        let mut packet = with_ip_options(&datagram(&payload), &vec![NO_OPERATION; words * 4]);
        packet[4..6].copy_from_slice(&id);
        let packet = with_fragment(packet, 0);
        let mut cut = fragments(&packet, mtu).unwrap();
        prop_assert!(cut.iter().all(|fragment| fragment.len() <= usize::from(mtu)));
        cut.reverse();
        prop_assert_eq!(reassembled(&cut), packet);
    }

    #[test]
    fn no_bytes_make_it_panic(mut bytes in vec(any::<u8>(), 0..200), mtu in 0u16..120, words in 5u8..16) {
        let len = bytes.len() as u8;
        if let [first, _, high, low, _, _, flags, ..] = &mut bytes[..] {
            (*first, *high, *low, *flags) = (0x40 | words, 0, len, *flags & 0xbf);
        }
        if let Ok(cut) = fragments(&bytes, mtu) {
            prop_assert!(cut.iter().all(|fragment| fragment.len() <= usize::from(mtu)));
            let data = |packet: &[u8]| packet[header_length(packet)..].to_vec();
            prop_assert_eq!(cut.iter().flat_map(|fragment| data(fragment)).collect::<Vec<_>>(), data(&bytes));
        }
    }
}

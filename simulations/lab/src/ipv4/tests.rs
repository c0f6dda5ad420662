//! Any bytes are survived; a rewritten packet is the packet that its new sender would have made.

use super::*;
use crate::packets;
use proptest::prelude::*;

fn endpoint() -> impl Strategy<Value = SocketAddrV4> {
    (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddrV4::new(ip.into(), port))
}

fn parsed(bytes: &[u8]) -> Content {
    Packet::parse(&mut bytes.to_vec()).unwrap().content()
}

const A: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 2), 5000);
const B: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 10001);

fn flow(protocol: Protocol, source: SocketAddrV4, destination: SocketAddrV4) -> Flow {
    Flow { protocol, source, destination }
}

fn with_port(end: SocketAddrV4, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(*end.ip(), port)
}

#[test]
fn contents_are_told_apart() {
    let udp = packets::udp(A, B, b"hello");
    let asked = packets::echo_request(*A.ip(), *B.ip(), 77);
    let about_echo = flow(Protocol::Echo, with_port(A, 77), with_port(B, 0));
    let table = [
        (udp.clone(), Content::Flow(flow(Protocol::Udp, A, B))),
        (packets::tcp(A, B, b""), Content::Flow(flow(Protocol::Tcp, A, B))),
        (asked.clone(), Content::Flow(about_echo)),
        (packets::echo_reply(*B.ip(), *A.ip(), 77), Content::EchoReply(about_echo.reversed())),
        (packets::unreachable(*B.ip(), *A.ip(), &udp[..28]), Content::ErrorAbout(flow(Protocol::Udp, A, B))),
        (packets::unreachable(*B.ip(), *A.ip(), &asked), Content::ErrorAbout(about_echo)),
        (packets::unreachable(*B.ip(), *A.ip(), &udp[..27]), Content::Opaque),
        (packets::ip(47, *A.ip(), *B.ip(), b"gre or other"), Content::Opaque),
        (packets::ip(packets::UDP, *A.ip(), *B.ip(), b"short"), Content::Opaque),
    ];
    for (bytes, content) in table {
        assert_eq!(parsed(&bytes), content, "{bytes:02x?}");
    }
}

#[test]
fn fragments_have_no_flow() {
    for fragment in [[0x20, 0x00], [0x00, 0x01]] {
        let mut bytes = packets::udp(A, B, b"hello");
        bytes[6..8].copy_from_slice(&fragment);
        assert_eq!(parsed(&bytes), Content::Opaque);
    }
}

#[test]
fn lengths_that_contradict_each_other_are_malformed() {
    let good = packets::udp(A, B, b"hello");
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        Packet::parse(&mut bytes).map(|_| ()).unwrap_err()
    };
    assert_eq!(changed(0, 0x65), Malformed::Version);
    assert_eq!(changed(0, 0x44), Malformed::HeaderLength);
    assert_eq!(changed(0, 0x4f), Malformed::HeaderLength);
    assert_eq!(changed(3, 19), Malformed::HeaderLength);
    assert_eq!(changed(2, 1), Malformed::Short);
    assert_eq!(Packet::parse(&mut []).map(|_| ()), Err(Malformed::Short));
}

#[test]
fn a_datagram_without_a_checksum_stays_without() {
    let mut bytes = packets::udp(A, B, b"hello");
    bytes[26..28].fill(0);
    Packet::parse(&mut bytes).unwrap().rewrite(End::Source, B);
    assert_eq!(bytes[26..28], [0, 0]);
    assert!(packets::is_valid(&bytes));
}

/// RFC 768: a checksum that comes out as zero is sent as all ones.
#[test]
fn a_rewritten_checksum_of_zero_is_sent_as_all_ones() {
    let checksum = |bytes: &[u8]| [bytes[26], bytes[27]];
    let payload = (0..=u16::MAX)
        .map(u16::to_be_bytes)
        .find(|payload| checksum(&packets::udp(B, B, payload)) == [0xff, 0xff])
        .unwrap();
    let mut bytes = packets::udp(A, B, &payload);
    assert_ne!(checksum(&bytes), [0xff, 0xff]);
    Packet::parse(&mut bytes).unwrap().rewrite(End::Source, B);
    assert_eq!(checksum(&bytes), [0xff, 0xff]);
}

#[test]
fn a_corrupt_packet_is_not_blessed() {
    let mut bytes = packets::udp(A, B, b"hello");
    bytes[30] ^= 1;
    Packet::parse(&mut bytes).unwrap().rewrite(End::Source, B);
    assert!(!packets::is_valid(&bytes));
}

proptest! {
    #[test]
    fn a_rewritten_packet_is_the_one_its_new_end_would_have_made(
        a in endpoint(), b in endpoint(), new in endpoint(), payload in prop::collection::vec(any::<u8>(), 0..64)
    ) {
        for make in [packets::udp, packets::tcp] {
            let mut bytes = make(a, b, &payload);
            Packet::parse(&mut bytes).unwrap().rewrite(End::Source, new);
            prop_assert!(packets::is_valid(&bytes));
            prop_assert_eq!(parsed(&bytes), parsed(&make(new, b, &payload)));
            Packet::parse(&mut bytes).unwrap().rewrite(End::Destination, a);
            prop_assert!(packets::is_valid(&bytes));
            prop_assert_eq!(parsed(&bytes), parsed(&make(new, a, &payload)));
        }
    }

    #[test]
    fn an_echo_gets_another_id_and_stays_valid(a in endpoint(), b in endpoint(), new in endpoint()) {
        let mut asked = packets::echo_request(*a.ip(), *b.ip(), a.port());
        Packet::parse(&mut asked).unwrap().rewrite(End::Source, new);
        prop_assert!(packets::is_valid(&asked));
        prop_assert_eq!(parsed(&asked), parsed(&packets::echo_request(*new.ip(), *b.ip(), new.port())));
        let mut answer = packets::echo_reply(*b.ip(), *new.ip(), new.port());
        Packet::parse(&mut answer).unwrap().rewrite(End::Destination, a);
        prop_assert!(packets::is_valid(&answer));
        prop_assert_eq!(parsed(&answer), parsed(&packets::echo_reply(*b.ip(), *a.ip(), a.port())));
    }

    #[test]
    fn an_error_follows_the_packet_that_it_quotes(
        a in endpoint(), b in endpoint(), router in any::<[u8; 4]>(), new in endpoint(), is_tcp in any::<bool>()
    ) {
        let make = if is_tcp { packets::tcp } else { packets::udp };
        let mut bytes = packets::unreachable(router.into(), *a.ip(), &make(a, b, b"hello"));
        Packet::parse(&mut bytes).unwrap().rewrite_error(End::Destination, new);
        prop_assert!(packets::is_valid(&bytes));
        prop_assert_eq!(parsed(&bytes), parsed(&packets::unreachable(router.into(), *new.ip(), &make(new, b, b"hello"))));
        prop_assert_eq!(Packet::parse(&mut bytes).unwrap().destination(), *new.ip());
    }

    #[test]
    fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..120), to in endpoint(), shape in any::<bool>()) {
        if shape && bytes.len() >= 20 {
            // Past the header checks, so that what follows is reached.
            bytes[0] = 0x45;
            bytes[2] = 0;
            bytes[3] = bytes.len() as u8;
            bytes[6] &= 0x40;
            bytes[7] = 0;
            bytes[9] = [1, 6, 17, 2][usize::from(bytes[9] % 4)];
        }
        let Ok(mut packet) = Packet::parse(&mut bytes) else { return Ok(()) };
        for end in [End::Source, End::Destination] {
            let _ = packet.content();
            packet.rewrite(end, to);
            packet.rewrite_error(end, to);
        }
        prop_assert_eq!((packet.source(), packet.destination()), (*to.ip(), *to.ip()));
    }
}

//! What is inside an IP packet, as far as routers look: the protocol, its ports, and nothing that a later fragment
//! does not have.
//!
//! IPv6 extension headers are walked over a bounded number of times (RFC 8200 §4.1); what is not understood is a
//! protocol of its own without ports, so that no rule about ports ever matches it (Nebula #1789: a next-header that
//! the classifier did not know steered it).

use std::net::IpAddr;

/// Extension headers of one packet that are looked over. More is no packet of a friend, and has no ports here.
const MAX_EXTENSION_HEADERS: usize = 8;

/// IANA protocol numbers.
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// The upper-layer protocol of a packet and where its header begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upper {
    /// IANA's number of the protocol, or of the IPv6 header that could not be read over.
    pub protocol: u8,
    /// Where its header begins, in bytes from the packet's start. In a later fragment: where its part begins.
    pub offset: usize,
    pub fragment: Fragment,
    pub ports: Ports,
}

/// Whether a packet is a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    Whole,
    /// Has the upper-layer header.
    First,
    Later,
}

/// What tells flows between the same two hosts apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// Of TCP and UDP.
    Pair { source: u16, destination: u16 },
    /// The identifier of an ICMP echo, the same in the answer (RFC 792, RFC 4443 §4).
    Echo { id: u16 },
    /// An ICMP message about another packet, which it quotes (RFC 792, RFC 4443 §3).
    IcmpError,
    /// Another protocol, a later fragment, or a header that is not whole.
    None,
}

/// One conversation as one of its ends sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub ports: Ports,
}

impl Flow {
    /// The way of an answer.
    #[must_use]
    pub fn reversed(self) -> Self {
        let ports = match self.ports {
            Ports::Pair { source, destination } => Ports::Pair { source: destination, destination: source },
            same @ (Ports::Echo { .. } | Ports::IcmpError | Ports::None) => same,
        };
        Self { source: self.destination, destination: self.source, protocol: self.protocol, ports }
    }

    /// Where the flow belongs in a table: who does not know `seed` cannot choose it.
    pub(crate) fn seeded_hash(&self, seed: u64) -> u64 {
        let ports = match self.ports {
            Ports::Pair { source, destination } => u64::from(source) << 16 | u64::from(destination),
            Ports::Echo { id } => 1 << 32 | u64::from(id),
            Ports::IcmpError => 2 << 32,
            Ports::None => 3 << 32,
        };
        let addresses = [self.source, self.destination].map(|address| match address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        });
        let words = addresses.iter().flat_map(|bits| [*bits as u64, (*bits >> 64) as u64]);
        words.chain([u64::from(self.protocol) << 40 | ports]).fold(seed, |state, word| mix(state ^ word))
    }
}

/// SplitMix64's finaliser: each bit of the input turns half of those of the output.
fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Upper {
    /// Of a packet that an ICMP message quotes, which may be cut off anywhere behind its header. None without a whole
    /// header.
    pub fn of_quoted(bytes: &[u8]) -> Option<Self> {
        let first = *bytes.first()?;
        let header = usize::from(first & 0x0f) * 4;
        match first >> 4 {
            4 if (20..=bytes.len()).contains(&header) => Some(Self::of_v4(bytes, header)),
            6 if bytes.len() >= 40 => Some(Self::of_v6(bytes)),
            _ => None,
        }
    }

    /// Whether what is inside could not be found out: too many IPv6 extension headers, or one that is cut off.
    pub fn is_hidden(&self) -> bool {
        matches!(self.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
    }

    /// Of an IPv4 packet whose header takes `offset` bytes.
    pub(super) fn of_v4(packet: &[u8], offset: usize) -> Self {
        let byte = |at: usize| packet.get(at).copied().unwrap_or_default();
        let place = u16::from_be_bytes([byte(6), byte(7)]);
        let fragment = Fragment::of(place & 0x1fff != 0, place & 0x2000 != 0);
        Self::at(packet, byte(9), offset, fragment)
    }

    /// Of an IPv6 packet: the first header that is no extension.
    pub(super) fn of_v6(packet: &[u8]) -> Self {
        let Walk { next, offset, fragment, id: _ } = Walk::over(packet);
        Self::at(packet, next, offset, fragment)
    }

    fn at(packet: &[u8], protocol: u8, offset: usize, fragment: Fragment) -> Self {
        let ports = match fragment {
            Fragment::Whole | Fragment::First => {
                Ports::of(protocol, packet.get(offset..).unwrap_or_default())
            }
            Fragment::Later => Ports::None,
        };
        Self { protocol, offset, fragment, ports }
    }
}

/// The way over the extension headers of an IPv6 packet.
struct Walk {
    /// Of the header that it ends at.
    next: u8,
    offset: usize,
    fragment: Fragment,
    /// Of the fragment header, where there is one.
    id: Option<u32>,
}

impl Walk {
    fn over(packet: &[u8]) -> Self {
        let next = packet.get(6).copied().unwrap_or_default();
        let mut walk = Self { next, offset: 40, fragment: Fragment::Whole, id: None };
        for _ in 0..MAX_EXTENSION_HEADERS {
            let (len, fragment) = match (walk.next, packet.get(walk.offset..)) {
                (HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS, Some([_, units, _, _, ..])) => {
                    (8 + 8 * usize::from(*units), None)
                }
                (FRAGMENT, Some([_, _, high, low, a, b, c, d, ..])) => {
                    let place = u16::from_be_bytes([*high, *low]);
                    let fragment = Fragment::of(place >> 3 != 0, place & 1 != 0);
                    (8, Some((fragment, u32::from_be_bytes([*a, *b, *c, *d]))))
                }
                _ => break,
            };
            if walk.offset + len > packet.len() {
                break;
            }
            if let Some((fragment, id)) = fragment {
                (walk.fragment, walk.id) = (fragment, Some(id));
            }
            walk.next = packet.get(walk.offset).copied().unwrap_or_default();
            walk.offset += len;
            if walk.fragment == Fragment::Later {
                break;
            }
        }
        walk
    }
}

/// The identification (RFC 791 §3.1) of a packet in fragments.
pub(super) fn fragment_id_v4(packet: &[u8]) -> Option<u32> {
    let [_, _, _, _, high, low, flags, place, ..] = packet else { return None };
    let is_whole = u16::from_be_bytes([*flags, *place]) & 0x3fff == 0;
    (!is_whole).then(|| u16::from_be_bytes([*high, *low]).into())
}

/// The identification in the fragment header (RFC 8200 §4.5).
pub(super) fn fragment_id_v6(packet: &[u8]) -> Option<u32> {
    let walk = Walk::over(packet);
    walk.id.filter(|_| walk.fragment != Fragment::Whole)
}

impl Fragment {
    fn of(has_offset: bool, more: bool) -> Self {
        match (has_offset, more) {
            (true, _) => Self::Later,
            (false, true) => Self::First,
            (false, false) => Self::Whole,
        }
    }
}

impl Ports {
    fn of(protocol: u8, header: &[u8]) -> Self {
        match (protocol, header) {
            (TCP | UDP, [a, b, c, d, ..]) => {
                Self::Pair { source: u16::from_be_bytes([*a, *b]), destination: u16::from_be_bytes([*c, *d]) }
            }
            (ICMP, [0 | 8, 0, _, _, high, low, ..]) | (ICMPV6, [128 | 129, 0, _, _, high, low, ..]) => {
                Self::Echo { id: u16::from_be_bytes([*high, *low]) }
            }
            (ICMP, [3 | 4 | 5 | 11 | 12, _, _, _, _, _, _, _, ..])
            | (ICMPV6, [1..=4, _, _, _, _, _, _, _, ..]) => Self::IcmpError,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Packet;
    use crate::packet::tests::packet;
    use proptest::prelude::*;

    fn v4(protocol: u8, fragment: u16, upper: &[u8]) -> Vec<u8> {
        let mut bytes = packet("10.86.0.2", "10.86.0.3");
        bytes.truncate(20);
        bytes.extend(upper);
        let len = u16::try_from(bytes.len()).unwrap();
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        bytes[6..8].copy_from_slice(&fragment.to_be_bytes());
        bytes[9] = protocol;
        bytes
    }

    fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = packet("fd00::2", "fd00::3");
        bytes.truncate(40);
        bytes.extend(rest);
        let len = u16::try_from(rest.len()).unwrap();
        bytes[4..6].copy_from_slice(&len.to_be_bytes());
        bytes[6] = next;
        bytes
    }

    fn upper(bytes: &[u8]) -> Upper {
        Packet::parse(bytes).unwrap().upper()
    }

    const HEADER: [u8; 8] = [0x13, 0x88, 0, 53, 0, 8, 0, 0];
    const PORTS: Ports = Ports::Pair { source: 5000, destination: 53 };

    #[test]
    fn ports_are_read_where_they_are() {
        for (bytes, want) in [
            (
                v4(UDP, 0, &HEADER),
                Upper { protocol: UDP, offset: 20, fragment: Fragment::Whole, ports: PORTS },
            ),
            (v6(TCP, &HEADER), Upper { protocol: TCP, offset: 40, fragment: Fragment::Whole, ports: PORTS }),
            (
                v4(UDP, 0x2000, &HEADER),
                Upper { protocol: UDP, offset: 20, fragment: Fragment::First, ports: PORTS },
            ),
            (
                v4(UDP, 0x2001, &HEADER),
                Upper { protocol: UDP, offset: 20, fragment: Fragment::Later, ports: Ports::None },
            ),
            (
                v4(UDP, 0, &HEADER[..3]),
                Upper { protocol: UDP, offset: 20, fragment: Fragment::Whole, ports: Ports::None },
            ),
            (
                v4(50, 0, &HEADER),
                Upper { protocol: 50, offset: 20, fragment: Fragment::Whole, ports: Ports::None },
            ),
        ] {
            assert_eq!(upper(&bytes), want);
        }
    }

    #[test]
    fn echoes_and_errors_of_icmp_are_told_apart() {
        for (protocol, header, want) in [
            (ICMP, [8, 0, 0, 0, 1, 2, 0, 9], Ports::Echo { id: 0x102 }),
            (ICMP, [0, 0, 0, 0, 1, 2, 0, 9], Ports::Echo { id: 0x102 }),
            (ICMP, [3, 4, 0, 0, 0, 0, 5, 0], Ports::IcmpError),
            (ICMP, [13, 0, 0, 0, 1, 2, 0, 9], Ports::None),
            (ICMPV6, [128, 0, 0, 0, 1, 2, 0, 9], Ports::Echo { id: 0x102 }),
            (ICMPV6, [2, 0, 0, 0, 0, 0, 5, 0], Ports::IcmpError),
            (ICMPV6, [135, 0, 0, 0, 1, 2, 0, 9], Ports::None),
        ] {
            assert_eq!(upper(&v4(protocol, 0, &header)).ports, want, "{protocol} {header:?}");
        }
    }

    #[test]
    fn extension_headers_are_walked_over_but_not_for_ever() {
        let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
        let two = [&options(DESTINATION_OPTIONS)[..], &options(UDP), &HEADER].concat();
        assert_eq!(
            upper(&v6(HOP_BY_HOP, &two)),
            Upper { protocol: UDP, offset: 56, fragment: Fragment::Whole, ports: PORTS }
        );
        let mut many: Vec<u8> =
            (0..MAX_EXTENSION_HEADERS).flat_map(|_| options(DESTINATION_OPTIONS)).collect();
        many.extend(options(UDP));
        many.extend(HEADER);
        let hidden = upper(&v6(DESTINATION_OPTIONS, &many));
        assert_eq!((hidden.protocol, hidden.ports), (DESTINATION_OPTIONS, Ports::None));
        assert!(hidden.is_hidden() && !upper(&v6(HOP_BY_HOP, &two)).is_hidden());
        let cut = upper(&v6(HOP_BY_HOP, &[UDP, 200, 0, 0, 0, 0, 0, 0]));
        assert_eq!((cut.protocol, cut.ports), (HOP_BY_HOP, Ports::None), "longer than the packet");
        let first = [&[UDP, 0, 0, 1, 0, 0, 0, 7][..], &HEADER].concat();
        assert_eq!(
            (upper(&v6(FRAGMENT, &first)).fragment, upper(&v6(FRAGMENT, &first)).ports),
            (Fragment::First, PORTS)
        );
        let later = [&[UDP, 0, 0, 9, 0, 0, 0, 7][..], &HEADER].concat();
        assert_eq!(
            upper(&v6(FRAGMENT, &later)),
            Upper { protocol: UDP, offset: 48, fragment: Fragment::Later, ports: Ports::None }
        );
    }

    #[test]
    fn fragments_of_one_packet_have_one_id_and_a_whole_one_has_none() {
        let id = |bytes: &[u8]| Packet::parse(bytes).unwrap().fragment_id();
        let v4 = |place| {
            let mut bytes = v4(UDP, place, &HEADER);
            bytes[4..6].copy_from_slice(&[3, 9]);
            bytes
        };
        assert_eq!(
            [0x2000, 0x2001, 0x0001, 0x4000, 0].map(|place| id(&v4(place))),
            [Some(0x309), Some(0x309), Some(0x309), None, None]
        );
        let fragment = |place: u8| v6(FRAGMENT, &[&[UDP, 0, 0, place, 1, 2, 3, 4][..], &HEADER].concat());
        assert_eq!(
            [1, 9, 8, 0].map(|place| id(&fragment(place))),
            [Some(0x0102_0304), Some(0x0102_0304), Some(0x0102_0304), None]
        );
        assert_eq!(id(&v6(UDP, &HEADER)), None);
    }

    #[test]
    fn an_answers_flow_is_the_reverse() {
        let asked = Flow {
            source: "10.0.0.1".parse().unwrap(),
            destination: "10.0.0.2".parse().unwrap(),
            protocol: TCP,
            ports: Ports::Pair { source: 1, destination: 2 },
        };
        let answered = asked.reversed();
        assert_eq!(
            (answered.source, answered.ports),
            (asked.destination, Ports::Pair { source: 2, destination: 1 })
        );
        assert_eq!(answered.reversed(), asked);
    }

    #[test]
    fn a_quoted_packet_is_read_though_it_is_cut_off() {
        for (whole, header) in [(v4(UDP, 0, &HEADER), 20), (v6(UDP, &HEADER), 40)] {
            for len in 0..=whole.len() {
                let quoted = Upper::of_quoted(&whole[..len]);
                assert_eq!(quoted.map(|upper| upper.offset), (len >= header).then_some(header));
            }
            assert_eq!(Upper::of_quoted(&whole).unwrap(), upper(&whole));
        }
        assert_eq!(Upper::of_quoted(&[0x44; 60]), None, "a header shorter than the fixed one");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(next in any::<u8>(), rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(upper(&v6(next, &rest)).offset <= 40 + rest.len());
            prop_assert!(upper(&v4(next, 0, &rest)).offset <= 20 + rest.len());
        }
    }
}

//! A checked look at an IP packet: who sent it, where it goes, and that it is as long as it says.
//!
//! [`Packet::parse`] reads only the fixed header (RFC 791 §3.1, RFC 8200 §3), so its cost does not depend on what a
//! peer puts behind it. What is inside is [`Packet::upper`]'s to say.

mod upper;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

pub use self::upper::{Flow, Fragment, ICMP, ICMPV6, Ports, TCP, UDP, Upper};

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// What comes before the packet that an ICMP error quotes (RFC 792, RFC 4443 §3).
const ICMP_HEADER: usize = 8;

/// Why bytes are no IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum InvalidPacket {
    #[error("neither IPv4 nor IPv6")]
    Version,
    #[error("shorter than its header")]
    Truncated,
    /// Trailing bytes count too: nobody behind the router would see them.
    #[error("not as long as its header says")]
    Length,
}

/// An IP packet whose header was checked once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    source: IpAddr,
    destination: IpAddr,
}

impl<'a> Packet<'a> {
    /// Checks the header of `bytes`, which must be one whole packet.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, InvalidPacket> {
        match bytes.first().map(|b| b >> 4) {
            Some(4) => Self::parse_v4(bytes),
            Some(6) => Self::parse_v6(bytes),
            Some(_) => Err(InvalidPacket::Version),
            None => Err(InvalidPacket::Truncated),
        }
    }

    fn parse_v4(bytes: &'a [u8]) -> Result<Self, InvalidPacket> {
        let header: &[u8; IPV4_HEADER] = bytes.first_chunk().ok_or(InvalidPacket::Truncated)?;
        let [first, _, total_high, total_low, ..] = header;
        let header_length = usize::from(first & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([*total_high, *total_low]));
        if header_length < IPV4_HEADER || total < header_length || total != bytes.len() {
            return Err(InvalidPacket::Length);
        }
        let (source, destination) = addresses_v4(header);
        Ok(Self { bytes, source, destination })
    }

    fn parse_v6(bytes: &'a [u8]) -> Result<Self, InvalidPacket> {
        let header: &[u8; IPV6_HEADER] = bytes.first_chunk().ok_or(InvalidPacket::Truncated)?;
        let [_, _, _, _, payload_high, payload_low, ..] = header;
        let payload = usize::from(u16::from_be_bytes([*payload_high, *payload_low]));
        if IPV6_HEADER + payload != bytes.len() {
            return Err(InvalidPacket::Length);
        }
        let (source, destination) = addresses_v6(header);
        Ok(Self { bytes, source, destination })
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn source(&self) -> IpAddr {
        self.source
    }

    pub fn destination(&self) -> IpAddr {
        self.destination
    }

    /// The upper-layer protocol and its ports.
    pub fn upper(&self) -> Upper {
        match self.source {
            IpAddr::V4(_) => Upper::of_v4(self.bytes, usize::from(self.byte(0) & 0x0f) * 4),
            IpAddr::V6(_) => Upper::of_v6(self.bytes),
        }
    }

    /// The conversation that it belongs to.
    pub fn flow(&self) -> Flow {
        self.flow_of(&self.upper())
    }

    /// The same, where [`Self::upper`] is known already.
    pub fn flow_of(&self, upper: &Upper) -> Flow {
        let Upper { protocol, ports, .. } = *upper;
        Flow { source: self.source, destination: self.destination, protocol, ports }
    }

    /// What the fragments of one packet have in common beside its addresses and protocol. `None`: it is whole.
    pub fn fragment_id(&self) -> Option<u32> {
        match self.source {
            IpAddr::V4(_) => upper::fragment_id_v4(self.bytes),
            IpAddr::V6(_) => upper::fragment_id_v6(self.bytes),
        }
    }

    /// The conversation of the packet that this ICMP error quotes. It is cut: only what is looked at must be there.
    pub fn quoted(&self, upper: &Upper) -> Option<Flow> {
        let bytes = self.bytes.get(upper.offset + ICMP_HEADER..)?;
        let (source, destination) = match self.source {
            IpAddr::V4(_) if bytes.first()? >> 4 == 4 => addresses_v4(bytes.first_chunk()?),
            IpAddr::V6(_) if bytes.first()? >> 4 == 6 => addresses_v6(bytes.first_chunk()?),
            IpAddr::V4(_) | IpAddr::V6(_) => return None,
        };
        Some(Packet { bytes, source, destination }.flow())
    }

    /// The differentiated services code point (RFC 2474 §3): 0 to 63.
    pub fn dscp(&self) -> u8 {
        match self.source {
            IpAddr::V4(_) => self.byte(1) >> 2,
            IpAddr::V6(_) => (self.byte(0) << 4 | self.byte(1) >> 4) >> 2,
        }
    }

    /// Whether no router may cut it into fragments: IPv4 with DF set (RFC 791 §3.1), and IPv6 always.
    pub fn is_unbreakable(&self) -> bool {
        self.source.is_ipv6() || self.byte(6) & 0x40 != 0
    }

    /// Whether it begins a TCP connection in either direction (SYN, RFC 9293 §3.1).
    pub fn is_tcp_syn(&self) -> bool {
        let upper = self.upper();
        upper.protocol == TCP && upper.fragment != Fragment::Later && self.byte(upper.offset + 13) & 0x02 != 0
    }

    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or_default()
    }
}

fn addresses_v4(header: &[u8; IPV4_HEADER]) -> (IpAddr, IpAddr) {
    let [_, _, _, _, _, _, _, _, _, _, _, _, a, b, c, d, e, f, g, h] = *header;
    (Ipv4Addr::new(a, b, c, d).into(), Ipv4Addr::new(e, f, g, h).into())
}

fn addresses_v6(header: &[u8; IPV6_HEADER]) -> (IpAddr, IpAddr) {
    let [_, _, _, _, _, _, _, _, addresses @ ..] = header;
    let (source, destination) = u128_pair(addresses);
    (Ipv6Addr::from_bits(source).into(), Ipv6Addr::from_bits(destination).into())
}

fn u128_pair(addresses: &[u8; 32]) -> (u128, u128) {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte));
    let (source, destination) = addresses.split_at(16);
    (number(source), number(destination))
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) mod build;

    use super::*;
    use proptest::prelude::*;

    /// A minimal packet of the addresses' family; both must be of one family.
    pub(crate) fn packet(source: &str, destination: &str) -> Vec<u8> {
        build(source.parse().unwrap(), destination.parse().unwrap(), &[0; 8])
    }

    fn build(source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let total = u16::try_from(IPV4_HEADER + payload.len()).unwrap().to_be_bytes();
                let start = [0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 17, 0, 0];
                [&start, &source.octets()[..], &destination.octets(), payload].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
                let start = [0x60, 0, 0, 0, length[0], length[1], 17, 64];
                [&start, &source.octets()[..], &destination.octets(), payload].concat()
            }
            pair => panic!("two families in one packet: {pair:?}"),
        }
    }

    #[test]
    fn a_packet_must_be_as_long_as_it_says() {
        for whole in [packet("10.86.0.2", "10.86.0.3"), packet("fd00::2", "fd00::3")] {
            assert!(Packet::parse(&whole).is_ok());
            for cut in 0..whole.len() {
                assert!(Packet::parse(&whole[..cut]).is_err(), "{cut} bytes of {}", whole.len());
            }
            let trailing = [&whole[..], &[0]].concat();
            assert_eq!(Packet::parse(&trailing), Err(InvalidPacket::Length));
        }
    }

    #[test]
    fn a_header_shorter_than_the_fixed_one_is_refused() {
        let mut bytes = packet("10.86.0.2", "10.86.0.3");
        bytes[0] = 0x44;
        assert_eq!(Packet::parse(&bytes), Err(InvalidPacket::Length));
        bytes[0] = 0x55;
        assert_eq!(Packet::parse(&bytes), Err(InvalidPacket::Version));
        assert_eq!(Packet::parse(&[]), Err(InvalidPacket::Truncated));
    }

    #[test]
    fn code_point_and_breakability_are_read_in_both_families() {
        let (mut v4, mut v6) = (packet("10.86.0.2", "10.86.0.3"), packet("fd00::2", "fd00::3"));
        (v4[1], v4[6]) = (46 << 2 | 3, 0);
        (v6[0], v6[1]) = (0x60 | 46 >> 2, (46 & 3) << 6 | 0x3f);
        let (v4, v6) = (Packet::parse(&v4).unwrap(), Packet::parse(&v6).unwrap());
        assert_eq!((v4.dscp(), v6.dscp()), (46, 46));
        assert_eq!((v4.is_unbreakable(), v6.is_unbreakable()), (false, true));
    }

    #[test]
    fn options_must_fit_into_the_packet() {
        let mut bytes = packet("10.86.0.2", "10.86.0.3");
        bytes[0] = 0x47;
        assert!(Packet::parse(&bytes).is_ok());
        bytes[0] = 0x48;
        assert_eq!(Packet::parse(&bytes), Err(InvalidPacket::Length));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(packet) = Packet::parse(&bytes) {
                prop_assert_eq!(packet.bytes(), &bytes[..]);
            }
        }

        #[test]
        fn what_was_built_is_read_back(
            v6 in any::<bool>(), a in any::<u128>(), b in any::<u128>(),
            payload in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let address = |bits: u128| -> IpAddr {
                if v6 { Ipv6Addr::from_bits(bits).into() } else { Ipv4Addr::from_bits(bits as u32).into() }
            };
            let bytes = build(address(a), address(b), &payload);
            let packet = Packet::parse(&bytes).unwrap();
            prop_assert_eq!((packet.source(), packet.destination()), (address(a), address(b)));
        }
    }
}

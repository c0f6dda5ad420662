//! A network behind an edge, as a token may grant it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use minicbor::{Decode, Encode};
use thiserror::Error;

/// A network prefix that may lie behind an edge: no host bits, no default route, nothing that every host has
/// itself (loopback, link-local, multicast).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lan(IpNet);

/// Why a prefix is no [`Lan`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidLan {
    #[error("'{0}' is no network; write for instance 192.168.10.0/24")]
    Syntax(String),
    #[error("{given} has host bits; write {meant}")]
    HostBits { given: IpNet, meant: IpNet },
    #[error("{0} is too wide for a LAN; name the networks behind the edge")]
    TooWide(IpNet),
    #[error("{given} overlaps {reserved}, which every host has itself")]
    Reserved { given: IpNet, reserved: IpNet },
}

/// Wider than 10.0.0.0/8 or a provider's /32 there is no private network.
const WIDEST_V4: u8 = 8;
const WIDEST_V6: u8 = 32;

const RESERVED: [IpNet; 8] = [
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(0, 0, 0, 0)), 8),
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 3),
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 0)), 32),
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0)), 96),
];

impl Lan {
    pub fn new(net: IpNet) -> Result<Self, InvalidLan> {
        if net != net.trunc() {
            return Err(InvalidLan::HostBits { given: net, meant: net.trunc() });
        }
        let widest = if net.network().is_ipv4() { WIDEST_V4 } else { WIDEST_V6 };
        if net.prefix_len() < widest {
            return Err(InvalidLan::TooWide(net));
        }
        match RESERVED.into_iter().find(|reserved| overlap(reserved, &net)) {
            Some(reserved) => Err(InvalidLan::Reserved { given: net, reserved }),
            None => Ok(Self(net)),
        }
    }

    pub fn net(self) -> IpNet {
        self.0
    }
}

/// Whether two prefixes share an address: one then contains the other.
pub(crate) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

impl FromStr for Lan {
    type Err = InvalidLan;
    fn from_str(text: &str) -> Result<Self, InvalidLan> {
        let net = text.parse().map_err(|_| InvalidLan::Syntax(text.chars().take(80).collect()))?;
        Self::new(net)
    }
}

impl fmt::Display for Lan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Lan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl<C> Encode<C> for Lan {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&self.0.to_string())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Lan {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.str()?.parse().map_err(minicbor::decode::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_networks_that_can_lie_behind_an_edge_are_lans() {
        for good in ["192.168.10.0/24", "10.0.0.0/8", "172.16.5.4/32", "fd12:3456::/32", "2001:db8::/48"] {
            assert_eq!(good.parse::<Lan>().unwrap().to_string(), good);
        }
        for (bad, message) in [
            ("lan", "'lan' is no network; write for instance 192.168.10.0/24"),
            ("192.168.10.5/24", "192.168.10.5/24 has host bits; write 192.168.10.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0 is too wide for a LAN; name the networks behind the edge"),
            ("::/0", "::/0 is too wide for a LAN; name the networks behind the edge"),
            ("127.0.1.0/24", "127.0.1.0/24 overlaps 127.0.0.0/8, which every host has itself"),
            ("224.0.0.0/8", "224.0.0.0/8 overlaps 224.0.0.0/3, which every host has itself"),
            ("fe80::/64", "fe80::/64 overlaps fe80::/10, which every host has itself"),
        ] {
            assert_eq!(bad.parse::<Lan>().unwrap_err().to_string(), message);
        }
    }
}

//! Names that are addresses: `20.65.86.10.in-addr.arpa` (RFC 1035 §3.5) and `..ip6.arpa` (RFC 3596 §2.5).

use std::net::IpAddr;

use ipnet::IpNet;

/// A name below `in-addr.arpa` or `ip6.arpa`.
#[derive(Debug, PartialEq)]
pub(super) struct Reversed {
    is_v4: bool,
    /// From the left of the address: octets of IPv4, half octets of IPv6.
    digits: Vec<u8>,
    /// Whether something stands before them that no address has.
    has_more: bool,
}

impl Reversed {
    /// `labels` in lower case, from the left. `None`: another name.
    pub(super) fn read(labels: &[String]) -> Option<Self> {
        let (rest, is_v4) = match labels {
            [rest @ .., zone, arpa] if zone == "in-addr" && arpa == "arpa" => (rest, true),
            [rest @ .., zone, arpa] if zone == "ip6" && arpa == "arpa" => (rest, false),
            _ => return None,
        };
        let wanted = if is_v4 { 4 } else { 32 };
        let digits: Vec<u8> = rest.iter().rev().map_while(|label| digit(label, is_v4)).take(wanted).collect();
        Some(Self { is_v4, has_more: digits.len() < rest.len(), digits })
    }

    /// The address, if it is the name of a whole one.
    pub(super) fn address(&self) -> Option<IpAddr> {
        let whole = !self.has_more && self.digits.len() == if self.is_v4 { 4 } else { 32 };
        whole.then(|| self.start())
    }

    /// The zone of `pool` that the name is in, and whether it is that zone's own name. Zones end where labels do: a pool
    /// that is wider than that has several.
    pub(super) fn zone_in(&self, pool: IpNet) -> Option<(String, bool)> {
        let bits = if self.is_v4 { 8 } else { 4 };
        let kept = usize::from(pool.prefix_len().div_ceil(bits));
        let zone = Self { is_v4: self.is_v4, digits: self.digits.get(..kept)?.to_vec(), has_more: false };
        let is_in = pool.addr().is_ipv4() == self.is_v4 && pool.contains(&zone.start());
        is_in.then(|| (zone.to_string(), !self.has_more && self.digits.len() == kept))
    }

    /// Whether no address goes on like that.
    pub(super) fn has_more(&self) -> bool {
        self.has_more
    }

    /// The first address that begins so.
    fn start(&self) -> IpAddr {
        let digit = |place: usize| self.digits.get(place).copied().unwrap_or_default();
        if self.is_v4 {
            return IpAddr::from([0, 1, 2, 3].map(digit));
        }
        let bits = (0..32).fold(0, |bits: u128, place| bits << 4 | u128::from(digit(place)));
        IpAddr::V6(bits.into())
    }
}

impl std::fmt::Display for Reversed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for digit in self.digits.iter().rev() {
            if self.is_v4 { write!(f, "{digit}.")? } else { write!(f, "{digit:x}.")? }
        }
        f.write_str(if self.is_v4 { "in-addr.arpa" } else { "ip6.arpa" })
    }
}

/// Written in the one way that addresses are: no signs, no zeros before it.
fn digit(label: &str, is_v4: bool) -> Option<u8> {
    let (number, shown) = if is_v4 {
        let number = label.parse().ok()?;
        (number, format!("{number}"))
    } else {
        let number = u8::from_str_radix(label, 16).ok()?;
        (number, format!("{number:x}"))
    };
    (shown == label && (is_v4 || number < 16)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(name: &str) -> Option<Reversed> {
        Reversed::read(&name.split('.').map(str::to_owned).collect::<Vec<_>>())
    }

    fn zone(name: &str, pool: &str) -> Option<(String, bool)> {
        read(name)?.zone_in(pool.parse().unwrap())
    }

    #[test]
    fn zones_end_where_labels_do() {
        let pool = "10.86.0.0/16";
        let in_zone = |is_apex| Some(("86.10.in-addr.arpa".to_owned(), is_apex));
        assert_eq!(zone("86.10.in-addr.arpa", pool), in_zone(true));
        assert_eq!(zone("7.0.86.10.in-addr.arpa", pool), in_zone(false));
        assert_eq!(zone("x.86.10.in-addr.arpa", pool), in_zone(false));
        for other in
            ["10.in-addr.arpa", "7.0.87.10.in-addr.arpa", "in-addr.arpa", "arpa", "086.10.in-addr.arpa"]
        {
            assert_eq!(zone(other, pool), None, "{other}");
        }
        assert_eq!(
            zone("7.0.82.10.in-addr.arpa", "10.80.0.0/12"),
            Some(("82.10.in-addr.arpa".into(), false))
        );
        assert_eq!(zone("8.d.f.ip6.arpa", "fd8a::/10"), Some(("8.d.f.ip6.arpa".into(), true)));
        assert_eq!(zone("1.0.in-addr.arpa", "::/8"), None, "the other family");
    }

    #[test]
    fn only_whole_addresses_are_addresses() {
        for no in [
            "0.86.10.in-addr.arpa",
            "1.2.3.4.5.in-addr.arpa",
            "256.0.0.10.in-addr.arpa",
            "+1.0.0.10.in-addr.arpa",
        ] {
            assert_eq!(read(no).unwrap().address(), None, "{no}");
        }
        assert!(read("1.2.3.4.5.in-addr.arpa").unwrap().has_more());
        assert!(!read("0.86.10.in-addr.arpa").unwrap().has_more());
        assert_eq!(read("water.kb.internal"), None);
    }

    proptest! {
        #[test]
        fn each_address_is_read_from_its_name(v4 in any::<u32>(), v6 in any::<u128>()) {
            for address in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
                let digits = match address {
                    IpAddr::V4(v4) => v4.octets().to_vec(),
                    IpAddr::V6(v6) => v6.octets().iter().flat_map(|octet| [octet >> 4, octet & 15]).collect(),
                };
                let name = Reversed { is_v4: address.is_ipv4(), digits, has_more: false }.to_string();
                prop_assert_eq!(read(&name).unwrap().address(), Some(address));
            }
        }
    }
}

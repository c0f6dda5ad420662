//! The address plan: which addresses a slot of the cluster's pool stands for. Arithmetic only.
//!
//! ```text
//! pool v4 10.86.0.0/16      lower half  10.86.0.<slot>                 the nodes, /32 each
//!                           of it: 2nd eighth   10.86.32.0/19          WireGuard clients, /32 each
//!                           of it: 2nd quarter  10.86.64.0/18          virtual prefixes of LANs (`clash`)
//!                           upper half  10.86.<128 + slot - 1>.0/24    their containers
//! pool v6 fdxx:xxxx:xxxx/48 subnet 0    <pool>::<slot>                 the nodes, /128 each
//!                                       <pool>::1:<place>              WireGuard clients, /128 each
//!                           others      <pool>:<slot>::/64             their containers
//!                           last quarter  <pool>:c000::/50             virtual prefixes of LANs
//! ```
//! Slot 1 is the cloud's, so the default pool serves 127 edges: the upper half has 128 /24s. A pool that is one bit
//! wider serves twice as many: /15 255 edges, /12 2047, /8 32767. When all slots are held the next join is refused
//! and says so; a cloud that is started with a wider pool containing the old one keeps all leases as they are.

use std::net::{Ipv4Addr, Ipv6Addr};

use bus::token::CaHash;
use bus::{Lease, Name};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::lan::{InvalidLan, Lan};

/// One place in the pool; the cloud takes the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(u32);

/// The pools of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    v4: Ipv4Net,
    v6: Ipv6Net,
}

/// Why a prefix cannot be the overlay's pool.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidPool {
    #[error("pool {0} must be a /8 to a /22; the default is 10.86.0.0/16")]
    Length(Ipv4Net),
    #[error("pool {given} cannot be used")]
    Net { given: Ipv4Net, source: InvalidLan },
}

impl Plan {
    pub const DEFAULT_POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 86, 0, 0), 16);

    /// The IPv4 pool as configured; the IPv6 pool follows from the cluster's name and authority (RFC 4193 §3.2.1:
    /// 40 bits that no other network has by chance).
    pub fn new(v4: Ipv4Net, cluster: &Name, ca: &CaHash) -> Result<Self, InvalidPool> {
        if !(8..=22).contains(&v4.prefix_len()) {
            return Err(InvalidPool::Length(v4));
        }
        Lan::new(v4.into()).map_err(|source| InvalidPool::Net { given: v4, source })?;
        Ok(Self { v4, v6: unique_local(cluster, ca) })
    }

    pub fn v4(&self) -> Ipv4Net {
        self.v4
    }

    pub fn v6(&self) -> Ipv6Net {
        self.v6
    }

    pub fn pools(&self) -> [IpNet; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// What LANs of `lan`'s family are known by if they clash: parts of the pool where no slot lies, as nodes take less
    /// than the first quarter of the IPv4 pool, and there are at most 2^15 slots. The pool clashes with no LAN, and every
    /// edge sends it into the overlay already.
    pub fn virtual_pool(&self, lan: IpNet) -> IpNet {
        match lan {
            IpNet::V4(_) => {
                let length = self.v4.prefix_len() + 2;
                let base = self.v4.network().to_bits() + (1 << (32 - length));
                Ipv4Net::new_assert(Ipv4Addr::from_bits(base), length).into()
            }
            IpNet::V6(_) => {
                let base = self.v6.network().to_bits() | (0xc000 << 64);
                Ipv6Net::new_assert(Ipv6Addr::from_bits(base), self.v6.prefix_len() + 2).into()
            }
        }
    }

    /// How many edges the pool serves.
    pub fn edges(&self) -> u32 {
        self.last_slot() - 1
    }

    pub fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (1..=self.last_slot()).map(Slot)
    }

    fn last_slot(&self) -> u32 {
        1 << (23 - self.v4.prefix_len())
    }

    pub fn lease(&self, slot: Slot) -> Lease {
        let base = self.v4.network().to_bits();
        let upper = base + (1 << (31 - self.v4.prefix_len()));
        let base6 = self.v6.network().to_bits();
        let slot6 = u128::from(slot.0);
        Lease {
            v4: Ipv4Addr::from_bits(base + slot.0),
            v6: Ipv6Addr::from_bits(base6 | slot6),
            container_v4: Ipv4Net::new_assert(Ipv4Addr::from_bits(upper + ((slot.0 - 1) << 8)), 24),
            container_v6: Ipv6Net::new_assert(Ipv6Addr::from_bits(base6 | (slot6 << 64)), 64),
            pool_v4: self.v4,
            pool_v6: self.v6,
        }
    }
}

/// The addresses of a WireGuard client: no containers are behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddresses {
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

impl Plan {
    /// All that the pool has for WireGuard clients: half as many as it has addresses for nodes, and out of their way, as
    /// there are fewer slots than that.
    pub fn clients(&self) -> impl Iterator<Item = ClientAddresses> + use<> {
        let first_v4 = self.v4.network().to_bits() + (1 << (29 - self.v4.prefix_len()));
        let first_v6 = self.v6.network().to_bits() | (1 << 32);
        (1..1u32 << (29 - self.v4.prefix_len())).map(move |place| ClientAddresses {
            v4: Ipv4Addr::from_bits(first_v4 + place),
            v6: Ipv6Addr::from_bits(first_v6 | u128::from(place)),
        })
    }
}

fn unique_local(cluster: &Name, ca: &CaHash) -> Ipv6Net {
    let hash = Sha256::new().chain_update(cluster.as_str()).chain_update([0]).chain_update(ca.0).finalize();
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&hash[..5]);
    Ipv6Net::new_assert(octets.into(), 48)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(pool: &str) -> Plan {
        let ca = CaHash::of_der(b"ca");
        Plan::new(pool.parse().unwrap(), &Name::new("water").unwrap(), &ca).unwrap()
    }

    #[test]
    fn the_first_slots_of_the_default_pool_are_as_documented() {
        let plan = plan("10.86.0.0/16");
        let v6 = plan.v6().network().to_string();
        let v6 = v6.strip_suffix("::").unwrap();
        let shown: Vec<String> = plan
            .slots()
            .take(2)
            .map(|slot| plan.lease(slot))
            .map(|l| format!("{} {} {} {}", l.v4, l.container_v4, l.v6, l.container_v6))
            .collect();
        assert_eq!(
            shown,
            [
                format!("10.86.0.1 10.86.128.0/24 {v6}::1 {v6}:1::/64"),
                format!("10.86.0.2 10.86.129.0/24 {v6}::2 {v6}:2::/64"),
            ]
        );
        let last = plan.lease(plan.slots().last().unwrap());
        assert_eq!(last.container_v4.to_string(), "10.86.255.0/24");
    }

    #[test]
    fn wireguard_clients_have_a_part_of_the_pool_where_no_slot_and_no_virtual_prefix_lies() {
        for pool in ["10.86.0.0/16", "10.86.0.0/22", "10.0.0.0/8"] {
            let plan = plan(pool);
            let last_slot = plan.lease(plan.slots().last().unwrap());
            let (first, last) = (plan.clients().next().unwrap(), plan.clients().last().unwrap());
            let virtual_pool = plan.virtual_pool(plan.v4().into());
            assert!(last_slot.v4 < first.v4 && first.v4 < last.v4, "{pool}");
            assert!(std::net::IpAddr::V4(last.v4) < virtual_pool.network(), "{pool}");
            assert!(last_slot.v6 < first.v6 && plan.v6().contains(&last.v6), "{pool}");
            let wide = plan.virtual_pool(plan.v6().into());
            assert!(!wide.contains(&std::net::IpAddr::V6(last.v6)), "{pool}");
        }
        let plan = plan("10.86.0.0/16");
        assert_eq!(plan.clients().next().unwrap().v4.to_string(), "10.86.32.1");
        assert_eq!(plan.clients().count(), 8191);
    }

    #[test]
    fn a_wider_pool_serves_more_edges() {
        let edges = |pool| plan(pool).edges();
        assert_eq!(
            ["10.86.0.0/22", "10.86.0.0/16", "10.86.0.0/15", "10.80.0.0/12", "10.0.0.0/8"].map(edges),
            [1, 127, 255, 2047, 32767]
        );
    }

    #[test]
    fn the_ipv6_pool_is_unique_local_and_belongs_to_name_and_authority() {
        let of = |name: &str, ca: &[u8]| unique_local(&Name::new(name).unwrap(), &CaHash::of_der(ca));
        assert_eq!(of("water", b"ca"), of("water", b"ca"));
        assert_ne!(of("water", b"ca"), of("gas", b"ca"));
        assert_ne!(of("water", b"ca"), of("water", b"other"));
        assert_eq!(of("water", b"ca").network().octets()[0], 0xfd);
    }

    #[test]
    fn a_pool_that_cannot_be_used_says_why() {
        let new = |pool: &str| {
            Plan::new(pool.parse().unwrap(), &Name::new("water").unwrap(), &CaHash::of_der(b"ca"))
                .map_err(|e| e.to_string())
        };
        for bad in ["10.86.0.0/23", "0.0.0.0/0", "10.86.0.0/24"] {
            let expected = format!("pool {bad} must be a /8 to a /22; the default is 10.86.0.0/16");
            assert_eq!(new(bad), Err(expected));
        }
        assert_eq!(new("10.86.1.0/16"), Err("pool 10.86.1.0/16 cannot be used".to_owned()));
        assert_eq!(new("127.0.0.0/16"), Err("pool 127.0.0.0/16 cannot be used".to_owned()));
    }

    proptest! {
        #[test]
        fn slots_share_nothing_and_lie_in_the_pool(length in 8u8..=22, a in 0usize..40_000, b in 0usize..40_000) {
            let plan = plan(&format!("{}", Ipv4Net::new(Ipv4Addr::new(10, 86, 0, 0), length).unwrap().trunc()));
            let slots: Vec<Slot> = plan.slots().collect();
            let (a, b) = (slots[a % slots.len()], slots[b % slots.len()]);
            let (la, lb) = (plan.lease(a), plan.lease(b));
            prop_assert!(plan.v4().contains(&la.v4) && plan.v4().contains(&la.container_v4));
            prop_assert!(plan.v6().contains(&la.v6) && plan.v6().contains(&la.container_v6));
            prop_assert!(!la.container_v4.contains(&lb.v4) && !la.container_v6.contains(&lb.v6));
            for held in [IpNet::V4(la.v4.into()), la.container_v4.into(), IpNet::V6(la.v6.into()), la.container_v6.into()] {
                let known_as = plan.virtual_pool(held);
                prop_assert!(!crate::lan::overlap(&known_as, &held), "{known_as} {held}");
                prop_assert!(plan.pools().iter().any(|pool| pool.contains(&known_as)));
            }
            prop_assert_eq!(a == b, la.v4 == lb.v4);
            prop_assert_eq!(a == b, la.v6 == lb.v6);
            prop_assert_eq!(a == b, la.container_v4 == lb.container_v4);
            prop_assert_eq!(a == b, la.container_v6 == lb.container_v6);
        }
    }
}

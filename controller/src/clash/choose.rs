//! Which virtual prefix is next.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::lan::overlap;

/// The first prefix of `pool` as long as `real` that overlaps neither with one of `taken` nor with `real` itself:
/// the virtual prefix of a site whose range clashes. The same question has the same answer on every node.
///
/// None if the pool is full, shorter than `real`, or of the other family.
pub(super) fn choose_virtual(real: IpNet, taken: &[IpNet], pool: IpNet) -> Option<IpNet> {
    let mut address = pool.network();
    // Each step leaves one taken prefix behind for good, so that even a full /8 is searched quickly.
    for _ in 0..taken.len() + 2 {
        let candidate = IpNet::new(address, real.prefix_len()).ok().filter(|wanted| pool.contains(wanted))?;
        let mut in_the_way = taken.iter().copied().chain([real]).filter(|taken| overlap(taken, &candidate));
        let Some(taken) = in_the_way.next() else { return Some(candidate) };
        address = following(taken.broadcast().max(candidate.broadcast()))?;
    }
    None
}

fn following(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_free_prefix_is_chosen() {
        let (real, pool) = (net("192.168.1.0/24"), net("10.86.0.0/16"));
        let chosen = |taken: &[&str]| {
            let taken: Vec<_> = taken.iter().map(|prefix| net(prefix)).collect();
            choose_virtual(real, &taken, pool).map(|prefix| prefix.to_string())
        };
        assert_eq!(chosen(&[]).as_deref(), Some("10.86.0.0/24"));
        assert_eq!(chosen(&["10.86.1.0/24", "10.86.0.7/32"]).as_deref(), Some("10.86.2.0/24"));
        assert_eq!(chosen(&["10.86.0.0/17", "10.86.3.0/24", "fd00::/8"]).as_deref(), Some("10.86.128.0/24"));
        assert_eq!(chosen(&["10.86.0.0/17", "10.86.128.0/17"]), None, "full");
        assert_eq!(chosen(&["10.0.0.0/8"]), None);
        assert_eq!(choose_virtual(net("10.0.0.0/8"), &[], pool), None, "longer than the pool");
        assert_eq!(choose_virtual(net("fd00::/64"), &[], pool), None, "another family");
        assert_eq!(choose_virtual(pool, &[], pool), None, "the clashing range itself");
        let last = net("255.255.255.0/24");
        assert_eq!(choose_virtual(real, &[last], last), None, "nothing follows the last address");
        assert_eq!(
            choose_virtual(net("fd00::/64"), &[net("fd86::/64")], net("fd86::/48")),
            Some(net("fd86:0:0:1::/64"))
        );
    }

    proptest! {
        #[test]
        fn what_is_chosen_is_free_of_the_pool_and_the_first(
            length in 17u8..28, taken in vec((0u32..0x10000, 17u8..33), 0..40),
        ) {
            let (pool, real) = (net("10.86.0.0/16"), IpNet::new("192.168.0.0".parse().unwrap(), length).unwrap());
            let taken: Vec<_> = taken.into_iter().map(|(host, length)| {
                IpNet::new(IpAddr::V4((0x0a56_0000 | host).into()), length).unwrap()
            }).collect();
            let first = pool.subnets(length).unwrap().find(|wanted| !taken.iter().any(|taken| overlap(taken, wanted)));
            prop_assert_eq!(choose_virtual(real, &taken, pool), first);
        }
    }
}

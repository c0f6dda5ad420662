//! From where an edge may be dialled, and until when: it has no open port for others.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// After a knock: longer than a dial may take.
const EXPECTED_FOR: Duration = Duration::from_secs(15);

/// Addresses at a time: those of all the neighbours that an edge may have.
const MAX_GUESTS: usize = 64;

/// Addresses, not ports: a symmetric NAT dials from another port than the hub sees.
#[derive(Debug, Default)]
pub(super) struct Guests(BTreeMap<IpAddr, Instant>);

impl Guests {
    pub(super) fn expect(&mut self, address: IpAddr, now: Instant) {
        self.0.retain(|_, until| *until > now);
        if self.0.len() < MAX_GUESTS || self.0.contains_key(&address) {
            self.0.insert(address, now + EXPECTED_FOR);
        }
    }

    pub(super) fn is_expected(&self, address: IpAddr, now: Instant) -> bool {
        self.0.get(&address).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_expected_for_a_while_and_there_are_so_many() {
        let (now, mut guests) = (Instant::now(), Guests::default());
        let address = |number: u32| IpAddr::V4(number.into());
        guests.expect(address(1), now);
        assert!(guests.is_expected(address(1), now) && !guests.is_expected(address(2), now));
        assert!(!guests.is_expected(address(1), now + EXPECTED_FOR));
        for number in 0..200 {
            guests.expect(address(number), now);
        }
        assert_eq!(guests.0.len(), MAX_GUESTS);
        guests.expect(address(300), now + EXPECTED_FOR);
        assert_eq!(guests.0.len(), 1);
    }
}

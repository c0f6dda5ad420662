//! Room for those of whom nothing is known yet.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many at a time, of which so many from one place.
#[derive(Debug, Clone)]
pub(super) struct Hall {
    slots: Arc<Semaphore>,
    of_one: usize,
    /// At most one for each slot that is taken.
    places: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    hall: Hall,
    place: IpAddr,
    _slot: OwnedSemaphorePermit,
}

impl Hall {
    pub(super) fn new(slots: usize, of_one: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(slots)), of_one, places: Arc::default() }
    }

    /// `None`: there is no room.
    pub(super) fn enter(&self, from: IpAddr) -> Option<Slot> {
        let place = place_of(from);
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok()?;
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = places.entry(place).or_default();
        if *taken >= self.of_one {
            return None;
        }
        *taken += 1;
        Some(Slot { hall: self.clone(), place, _slot: slot })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut places = self.hall.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = places.get_mut(&self.place) {
            *taken -= 1;
            if *taken == 0 {
                places.remove(&self.place);
            }
        }
    }
}

/// A machine has a whole IPv6 network to take addresses from: the /64 counts as one.
fn place_of(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_cannot_fill_the_hall_and_what_is_left_is_free_again() {
        let hall = Hall::new(3, 2);
        let enter = |text: &str| hall.enter(text.parse().unwrap());
        let first = enter("2001:db8::1").unwrap();
        let _second = enter("2001:db8::2").unwrap();
        assert!(enter("2001:db8::3").is_none());
        let _other = enter("203.0.113.1").unwrap();
        assert!(enter("203.0.113.2").is_none(), "full");
        drop(first);
        assert!(enter("2001:db8::3").is_some());
    }
}

//! One call at a time on each bus.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Mutex as Turn;

use crate::shared::Shared;

/// What one or more devices hang on.
pub(super) struct Bus<T> {
    /// First come, first served.
    turn: Arc<Turn<()>>,
    pub(super) shared: Shared<T>,
}

impl<T> Bus<T> {
    /// Waits until nobody else is calling on this bus.
    pub(super) async fn turn(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }
}

impl<T> Default for Bus<T> {
    fn default() -> Self {
        Self { turn: Arc::default(), shared: Shared::default() }
    }
}

/// The buses of one mapper, by what [`Mapper::bus`](crate::Mapper::bus) calls them. A bus, with the connection that its
/// devices share, goes with the last of them.
pub(super) struct Buses<T>(Arc<Mutex<BTreeMap<String, Weak<Bus<T>>>>>);

impl<T> Buses<T> {
    pub(super) fn get(&self, name: Option<String>) -> Arc<Bus<T>> {
        let Some(name) = name else { return Arc::default() };
        let mut buses = self.buses();
        buses.retain(|_, bus| bus.strong_count() > 0);
        if let Some(bus) = buses.get(&name).and_then(Weak::upgrade) {
            return bus;
        }
        let bus = Arc::default();
        buses.insert(name, Arc::downgrade(&bus));
        bus
    }

    fn buses(&self) -> MutexGuard<'_, BTreeMap<String, Weak<Bus<T>>>> {
        // A map is whole between any two calls, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Buses<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Buses<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_one_bus_share_it_and_others_do_not() {
        let buses = Buses::<u8>::default();
        let line = |name: &str| buses.get(Some(name.to_owned()));
        let (a, b, other) = (line("/dev/ttyS0"), line("/dev/ttyS0"), line("/dev/ttyS1"));
        assert!(Arc::ptr_eq(&a, &b) && !Arc::ptr_eq(&a, &other));
        assert!(!Arc::ptr_eq(&buses.get(None), &buses.get(None)), "without a name each has its own");
        let weak = Arc::downgrade(&a);
        drop((a, b));
        assert!(weak.upgrade().is_none(), "it goes with its last device");
        drop(line("/dev/ttyS1"));
        assert_eq!(buses.buses().len(), 1);
    }
}

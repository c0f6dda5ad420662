//! How much of something that is scarce one client may have.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bus::NodeId;

/// So much for each. What is taken is bounded by whoever gives it out: so is the table.
#[derive(Debug, Clone)]
pub(super) struct Shares {
    of_one: usize,
    taken: Arc<Mutex<BTreeMap<NodeId, usize>>>,
}

/// One part, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    shares: Shares,
    who: NodeId,
}

impl Shares {
    pub(super) fn new(of_one: usize) -> Self {
        Self { of_one, taken: Arc::default() }
    }

    /// `None`: he has all that is for one.
    pub(super) fn take(&self, who: &NodeId) -> Option<Share> {
        let mut all = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = all.get(who).copied().unwrap_or_default();
        if taken >= self.of_one {
            return None;
        }
        all.insert(who.clone(), taken + 1);
        Some(Share { shares: self.clone(), who: who.clone() })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = self.shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(&self.who) {
            Some(taken) if *taken > 1 => *taken -= 1,
            _ => drop(all.remove(&self.who)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_his_share_and_leaves_nothing_behind() {
        let (alice, bob): (NodeId, NodeId) = ("user/alice".parse().unwrap(), "user/bob".parse().unwrap());
        let shares = Shares::new(2);
        let first = shares.take(&alice).unwrap();
        let second = shares.take(&alice).unwrap();
        assert!(shares.take(&alice).is_none());
        let bobs = shares.take(&bob).unwrap();
        drop(first);
        assert!(shares.take(&alice).is_some());
        drop((second, bobs));
        assert!(shares.taken.lock().unwrap().is_empty());
    }
}

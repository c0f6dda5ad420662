//! By which certificates of the cluster clients are known.

use std::collections::{BTreeMap, BTreeSet};

use bus::{KeyHash, NodeId};

/// Which certificates of a client count, by their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    Only(BTreeSet<KeyHash>),
    AllBut(BTreeSet<KeyHash>),
}

impl Keys {
    pub fn has(&self, key: &KeyHash) -> bool {
        match self {
            Self::Only(keys) => keys.contains(key),
            Self::AllBut(keys) => !keys.contains(key),
        }
    }
}

/// Those of whom the node has something to say. Of all others each certificate of the cluster counts.
pub type ClientKeys = BTreeMap<NodeId, Keys>;

//! What is said about ways past the hub, and about which of several hubs leads: minicbor on [`crate::Channel::Path`].
//!
//! ```text
//!   edge a                       hub                       edge b
//!     | -- Here, Wish(b) -------> | <------- Here, Wish(a) -- |
//!     | <-- Meet(b, dials) ------ | ------ Meet(a, waits) --> |
//!     | <=========== a packets lane of their own ===========> |
//!     | <-- Upstream -------- on a bus lane ----- Upstream -> |
//! ```
//!
//! A hub may be one of several replicas, of which one leads. Then it speaks first on a bus lane, and the other side
//! answers only one that leads:
//!
//! ```text
//!   edge                  replica that waits
//!     | <-- Standby ------- |
//!     |                     | its turn has come
//!     | <-- Leads(term) --- |
//!     | --- hello, .. ----> | ordinary talk from here on
//! ```

use std::net::SocketAddr;

use minicbor::{Decode, Encode};

use crate::{KeyHash, NodeId};

/// Addresses that one edge is told of another, at most: more are cut off.
pub const MAX_ADDRESSES: usize = 4;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum PathMessage {
    /// An edge to its hub: where it is on its own network.
    #[n(0)]
    Here {
        #[n(0)]
        addresses: Vec<SocketAddr>,
    },
    /// An edge to its hub: packets go to and fro between it and that node.
    #[n(1)]
    Wish {
        #[n(0)]
        peer: NodeId,
    },
    /// A hub to each of two edges that wish for each other.
    #[n(2)]
    Meet {
        #[n(0)]
        peer: NodeId,
        /// That the peer must prove.
        #[n(1)]
        key: KeyHash,
        /// Where it may be, best first.
        #[n(2)]
        addresses: Vec<SocketAddr>,
        /// Whether this side dials; the other only lets its NAT know whom to let in.
        #[n(3)]
        dials: bool,
    },
    /// An edge to another: whether its hub is within its reach.
    #[n(3)]
    Upstream {
        #[n(0)]
        connected: bool,
    },
    /// A hub that waits for its turn.
    #[n(4)]
    Standby,
    /// A hub whose turn it is. Of two that say so the one with the higher term is right.
    #[n(5)]
    Leads {
        #[n(0)]
        term: u64,
    },
}

impl PathMessage {
    pub fn to_bytes(&self) -> Vec<u8> {
        // Encoding into a Vec cannot fail: the writer is infallible and no type of ours refuses.
        minicbor::to_vec(self).unwrap_or_default()
    }

    /// `None` if it is none of ours.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        minicbor::decode(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Name;
    use proptest::prelude::*;

    #[test]
    fn messages_survive_the_wire() {
        let peer = NodeId::edge(Name::new("b").unwrap());
        let addresses = vec!["192.0.2.1:4000".parse().unwrap(), "[2001:db8::1]:4000".parse().unwrap()];
        for message in [
            PathMessage::Here { addresses: addresses.clone() },
            PathMessage::Wish { peer: peer.clone() },
            PathMessage::Meet { peer, key: KeyHash::of_spki(b"key"), addresses, dials: true },
            PathMessage::Upstream { connected: false },
            PathMessage::Standby,
            PathMessage::Leads { term: u64::MAX },
        ] {
            assert_eq!(PathMessage::from_bytes(&message.to_bytes()), Some(message));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = PathMessage::from_bytes(&bytes);
        }
    }
}

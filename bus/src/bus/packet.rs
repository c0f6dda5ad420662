//! What two buses say to each other: minicbor on [`crate::Channel::Bus`].

use minicbor::{Decode, Encode};

use crate::{Filter, Message, UnixMillis};

/// Bit of [`Packet::Hello`]: frames of [`crate::Channel::Health`].
pub(super) const TAKES_HEALTH: u8 = 1;

/// The same for [`crate::Channel::Checkup`].
pub(super) const TAKES_CHECKUPS: u8 = 8;
/// Frames of [`crate::Channel::History`].
pub(super) const TAKES_HISTORY: u8 = 4;

/// What this version takes.
pub(super) const TAKES: u8 = TAKES_HEALTH | TAKES_HISTORY | TAKES_CHECKUPS;

#[derive(Debug, Encode, Decode)]
pub(super) enum Packet {
    #[n(0)]
    Hello {
        #[n(0)]
        version: u16,
        /// What else the sender takes, as bits; unknown ones are ignored. Versions before this field say nothing, and
        /// skip it.
        #[n(1)]
        #[cbor(default)]
        takes: u8,
    },
    #[n(1)]
    Goodbye,
    #[n(2)]
    ClockAsk {
        #[n(0)]
        asked_at: u64,
    },
    #[n(3)]
    ClockTell {
        #[n(0)]
        asked_at: u64,
        #[n(1)]
        wall: UnixMillis,
    },
    #[n(4)]
    Interest {
        #[n(0)]
        add: Vec<Filter>,
        #[n(1)]
        remove: Vec<Filter>,
    },
    #[n(5)]
    Publish {
        #[n(0)]
        message: Message,
        /// On the sender's clock.
        #[n(1)]
        sent: UnixMillis,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it was before peers said what else they take.
    #[derive(Debug, PartialEq, Eq, Encode, Decode)]
    enum Before {
        #[n(0)]
        Hello {
            #[n(0)]
            version: u16,
        },
    }

    #[test]
    fn hellos_of_both_versions_are_understood_by_both() {
        let before = minicbor::to_vec(Before::Hello { version: 1 }).unwrap();
        assert!(matches!(minicbor::decode(&before), Ok(Packet::Hello { version: 1, takes: 0 })));
        let now = minicbor::to_vec(Packet::Hello { version: 1, takes: TAKES }).unwrap();
        assert_eq!(minicbor::decode::<Before>(&now).unwrap(), Before::Hello { version: 1 });
    }
}

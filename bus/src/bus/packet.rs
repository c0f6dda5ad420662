//! What two buses say to each other: minicbor on [`crate::Channel::Bus`].

use minicbor::{Decode, Encode};

use crate::{Filter, Message, UnixMillis};

#[derive(Debug, Encode, Decode)]
pub(super) enum Packet {
    #[n(0)]
    Hello {
        #[n(0)]
        version: u16,
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

//! Packets that wait for one peer's link, so that on a thin one somebody who asks is not behind somebody who copies.
//!
//! ```text
//!              enqueue                              dequeue
//!   packet ---> class ---> flow's sub-queue ---> classes' turns ---> shaper ---> link
//!               (DSCP,     (FQ-CoDel)            (deficit round       ^            |
//!                size)                            robin)              | rate       | acknowledgements
//!                                                                  estimator <-----+
//! ```
//! A queue helps only where it is the narrowest place. So what leaves is held to a little less than what the link
//! carries: [`RateEstimator`] finds that rate out, or the administrator says it. On a fast link nothing is held.
//!
//! Reading order: [`Class`] (who goes first), [`Queue`] (whose turn it is), [`Shaper`], [`RateEstimator`], and
//! [`Scheduler`], which is all that a shard has for one peer.

mod class;
mod classes;
mod codel;
mod ecn;
mod estimator;
mod flows;
mod rate;
mod scheduler;
mod shaper;
#[cfg(test)]
mod simulation;
mod slab;
mod stats;
#[cfg(test)]
mod testing;

pub use self::class::{Class, SMALL};
pub use self::classes::{Dropped, Queue};
pub use self::codel::{Aim, LEAST_INTERVAL, LEAST_TARGET, LONGEST_INTERVAL};
pub use self::ecn::{Mark, set_congestion_experienced};
pub use self::estimator::{LEAST_RATE, PathSample, RateEstimator, Sending, UNLIMITED_AT};
pub use self::rate::BitRate;
pub use self::scheduler::{LinkRate, Scheduler};
pub use self::shaper::{Shaper, Wait};
pub use self::stats::{ClassStats, Stats};

/// What a packet has around it on the wire, in bytes: IPv4 20, UDP 8, QUIC's short header 1 + 8 + 2 and tag 16
/// (RFC 9000 §17.3), the DATAGRAM frame's head 3 (RFC 9221). Small ones that share a QUIC packet cost less; to count
/// them as alone errs on the slow side.
pub const OVERHEAD: u64 = 58;

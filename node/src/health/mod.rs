//! How nodes are, and how their cloud knows.
//!
//! ```text
//!   shell -- Measured --> Monitor -- Condition --> Teller ====Report====> Ledger     (at the edge | at the cloud)
//!                                                         <====Ack=======
//!                                         Fleet <-- views of one's own condition and of the ledger's
//! ```
//! [`monitor`] asks the shell for figures every ten seconds and turns totals into rates ([`links`]); [`teller`] tells
//! the cloud, thinly ([`report`]); [`ledger`] is what the cloud has heard; [`fleet`] is what people and programs see,
//! with what is wrong and what to do about it ([`trouble`]), [`part`] which of them are asked for. [`series`] is the one
//! table of metrics, and [`prometheus`] and [`otlp`] are the formats in which others read it.
//!
//! What it costs: a quiet edge tells its cloud some 45 bytes every half minute, a busy one or one that changes every
//! ten seconds, at most [`report::MAX_REPORT`] each time. Nothing is queued: what happens between two reports is only
//! seen in the totals of the next, and of more than [`links::MAX_LINKS`] links those with the least traffic are left out.
//! The cloud keeps under 2 KiB an edge, in memory alone: after its restart it waits for the next report.

pub mod fleet;
pub mod ledger;
pub mod links;
pub mod monitor;
pub mod otlp;
pub mod part;
pub mod prometheus;
pub mod report;
pub mod series;
pub mod teller;
pub mod trouble;

pub use self::fleet::{Facts, Fleet, Presence};
pub use self::ledger::Ledger;
pub use self::links::MeasuredLink;
pub use self::monitor::{Measured, Monitor};
pub use self::part::Part;
pub use self::report::Condition;
pub use self::series::{Series, Values};
pub use self::teller::Teller;
pub use self::trouble::{Trouble, TroubleKind};

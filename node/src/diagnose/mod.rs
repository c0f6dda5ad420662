//! What is wrong with a node, a link or a device, and what to do: facts in, findings out.
//!
//! Gathering is the shell's (`node/src/io/debug`): it asks the node's own console, looks at the machine, and knocks at the
//! cloud's door; the other end of a link is asked too ([`crate::checkup`]). Here it is only decided. [`diagnose`] is one ordered list of rules: whoever is nearer to the root of
//! things comes first, so the first finding is the culprit and what follows may be its consequence.

pub mod check;
mod facts;
mod fault;
mod finding;
pub mod redact;
mod rules;
pub mod tar;
#[cfg(test)]
mod tests;

pub use self::facts::{
    Broker, Certificate, Clash, Device, Disk, Endpoint, Facts, Host, Identity, Link, Lookup, Node, Peer,
    Reach, Role, Taken, Udp, Upstream,
};
pub use self::fault::{Failure, Failures, LinkFault};
pub use self::finding::{Cause, Certainty, Finding};
pub use self::rules::{End, diagnose, ends};

//! Commands: do this now, or not at all.
//!
//! A command has an id, which is carried out at most once, and an expiry, without which it is refused. It changes
//! properties through slot 12 of the arbiter, all of them or none.
//!
//! ```text
//!  at the edge                                          at the cloud
//!                   clock not known yet                  Accepted --> (the edge's word)
//!  Received ------------------------------> Received        |
//!     | not valid, or a precondition does not hold          | deadline over, the edge was never there: Expired
//!     |---------------------------------> Rejected          | deadline over, no word: shown as unconfirmed;
//!     | too old, or age unknown                             |   the edge's word still counts when it comes
//!     |---------------------------------> Expired           v
//!     | device offline: Failed; held by a stronger slot: Superseded; given before the disk's present life: Unknown
//!     v                                                  Ended(outcome)
//!  Executing --(each write's end)--> Succeeded | Failed | Rejected | Expired | Superseded | Unknown
//! ```
//!
//! The expiry is looked at three times: when the cloud hands the command out, when the edge decides on it, and in the
//! mapper right before the device hears of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bus::twin::{DeviceId, Outcome};
use bus::{UnixMillis, Value};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::condition::{Condition, MAX_CONDITIONS};
use crate::reply::ReplyTo;
use crate::twin::{Expiry, parse_device};

/// The longest that a command may be good for: beyond it the world has changed, and a desired value says it better.
pub const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

/// Commands of one device that are on their way at a time; one more is refused. People and controllers wait for one
/// before they send the next.
pub const MAX_OPEN: usize = 64;

/// Ended commands that the cloud keeps of one device, so that people see what became of them; the oldest whose time is
/// over go.
pub const MAX_ENDED: usize = 64;

/// Commands that the cloud remembers of one device while their time lasts, so that an id that comes again is known: some
/// 17 a second for a minute. One more is refused.
pub const MAX_REMEMBERED: usize = 1024;

/// Longest id, in bytes.
const MAX_ID: usize = 64;

/// Clocks of one site agree better than this.
const CLOCKS_DIFFER: Duration = Duration::from_secs(5);

/// Properties of one command.
const MAX_ARGS: usize = 100;

/// Names a command: 1 to 64 of letters, digits, `-`, `_` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommandId(String);

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is no id of a command: use 1 to {MAX_ID} letters, digits, '-', '_' and '.'")]
pub struct InvalidId(String);

impl CommandId {
    pub fn new(text: &str) -> Result<Self, InvalidId> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let valid = (1..=MAX_ID).contains(&text.len()) && text.bytes().all(good);
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidId(text.chars().take(80).collect())) }
    }
}

impl std::str::FromStr for CommandId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::new(text)
    }
}

impl TryFrom<String> for CommandId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::new(&text)
    }
}

impl From<CommandId> for String {
    fn from(id: CommandId) -> Self {
        id.0
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What somebody orders, as it travels in JSON: body of `twin/<ns>/<device>/command/<name>` and of the admin request.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    /// Absent: the node gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<CommandId>,
    /// By property.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, Value>,
    /// How long the command is good for. Over MQTT 5.0 the message's own expiry will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// When it was sent, on a clock that sender and node share: from then on it is good for its time, wherever it waited.
    /// Absent: from its arrival.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<UnixMillis>,
    /// How long its values hold their slot; absent: as long as a desired value of the property is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_ms: Option<u64>,
    /// All of them must hold when it is carried out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Condition>,
    /// By the message's own properties.
    #[serde(skip)]
    pub reply: Option<ReplyTo>,
}

impl Order {
    /// With the message's own expiry, if the order states none.
    pub fn expiring(self, expiry: Option<Expiry>) -> Self {
        let ttl_ms = self.ttl_ms.or_else(|| expiry.map(|Expiry(left)| crate::twin::millis(left)));
        Self { ttl_ms, ..self }
    }

    pub(crate) fn replying(self, reply: Option<ReplyTo>) -> Self {
        Self { reply, ..self }
    }
}

/// Names a command in a store: `<namespace>/<device>/<id>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CommandPlace {
    pub(crate) device: DeviceId,
    pub(crate) id: CommandId,
}

impl CommandPlace {
    pub(crate) fn new(device: &DeviceId, id: &CommandId) -> Self {
        Self { device: device.clone(), id: id.clone() }
    }

    /// From the end of a key; `None` if it names no command.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (device, id) = text.rsplit_once('/')?;
        Some(Self { device: parse_device(device)?, id: CommandId::new(id).ok()? })
    }
}

impl fmt::Display for CommandPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.device, self.id)
    }
}

/// A command, as the cloud keeps it and its edge gets it (JSON).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    pub id: CommandId,
    pub name: String,
    pub args: BTreeMap<String, Value>,
    /// On the cloud's clock; for a command given at the edge, on the edge's.
    pub issued: UnixMillis,
    pub ttl_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Condition>,
    /// Who ordered it, for people.
    pub by: String,
    /// Who wants to be told its end: at the node that was given the command, and nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<ReplyTo>,
}

/// Why an order is no command.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidOrder {
    #[error(
        "a command needs an expiry (ttlMs, or the message expiry of MQTT 5.0): without one it might act at any later time"
    )]
    NoExpiry,
    #[error("a command is good for at most {} s", MAX_TTL.as_secs())]
    TooLong,
    #[error(
        "it says that it was sent {} s from now: set the clocks of its sender and of this node, or leave out when it was sent",
        .0.as_secs()
    )]
    FromTheFuture(Duration),
    #[error("more than {MAX_ARGS} properties")]
    TooManyArgs,
    #[error("more than {MAX_CONDITIONS} conditions")]
    TooManyConditions,
    #[error("command '{0}' names no property: give args")]
    NoArgs(String),
}

/// The command that sets any writable properties; others are the methods of the device's manifest.
pub const SET: &str = "set";
/// The command that lets a latched rule or interlock go: `{"rule": "<name>"}`.
pub const RESET_RULE: &str = "reset-rule";

impl Command {
    /// `order` as a command named `name`, issued when it was sent, and now if it does not say; `fallback` if the order
    /// names no id.
    pub fn new(
        name: &str,
        order: Order,
        fallback: CommandId,
        by: &str,
        now: UnixMillis,
    ) -> Result<Self, InvalidOrder> {
        let Order { id, args, ttl_ms, sent, hold_ms, when, reply } = order;
        // Of a node whose clock was set back, or of a sender whose clock is ahead: its age cannot be told.
        let ahead = sent.map(|sent| sent.since(now)).filter(|ahead| *ahead > CLOCKS_DIFFER);
        if let Some(ahead) = ahead {
            return Err(InvalidOrder::FromTheFuture(ahead));
        }
        let issued = sent.unwrap_or(now).min(now);
        let ttl_ms = ttl_ms.filter(|ttl| *ttl > 0).ok_or(InvalidOrder::NoExpiry)?;
        if Duration::from_millis(ttl_ms) > MAX_TTL {
            return Err(InvalidOrder::TooLong);
        }
        if args.is_empty() {
            return Err(InvalidOrder::NoArgs(name.chars().take(80).collect()));
        }
        if args.len() > MAX_ARGS {
            return Err(InvalidOrder::TooManyArgs);
        }
        if when.len() > MAX_CONDITIONS {
            return Err(InvalidOrder::TooManyConditions);
        }
        let id = id.unwrap_or(fallback);
        Ok(Self { id, name: name.to_owned(), args, issued, ttl_ms, hold_ms, when, by: by.to_owned(), reply })
    }

    pub fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms)
    }

    /// Whether this orders the same as `other`, whenever it was ordered.
    pub fn is_same_order(&self, other: &Self) -> bool {
        let Self { id, name, args, issued: _, ttl_ms, hold_ms, when, by: _, reply: _ } = self;
        (id, name, args, ttl_ms, hold_ms, when)
            == (&other.id, &other.name, &other.args, &other.ttl_ms, &other.hold_ms, &other.when)
    }
}

/// How far an edge is with a command; persisted before anything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Progress {
    /// It waits for the cloud's clock, without which its age cannot be told.
    #[n(0)]
    Received,
    #[n(1)]
    Executing,
    #[n(2)]
    Ended(#[n(0)] Outcome),
}

/// What an edge keeps, and tells the cloud, of a command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Account {
    #[n(0)]
    pub progress: Progress,
    #[n(1)]
    pub detail: String,
    /// On the edge's clock, for display.
    #[n(2)]
    pub at: UnixMillis,
}

/// Where the cloud stands with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Stored; it goes to its edge.
    Accepted,
    /// The edge has decided to carry it out.
    Executing,
    /// Its time is over and the edge has not said what became of it: it may have been done.
    Unconfirmed,
    Ended,
}

/// A command as people are shown it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CommandView {
    /// `<namespace>/<name>`.
    pub device: String,
    #[serde(flatten)]
    pub command: Command,
    pub state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Of the ends of a command's writes the one that tells most about what can have gone wrong.
pub fn worst(ends: impl IntoIterator<Item = Outcome>) -> Outcome {
    const ORDER: [Outcome; 6] = [
        Outcome::Succeeded,
        Outcome::Superseded,
        Outcome::Expired,
        Outcome::Rejected,
        Outcome::Failed,
        Outcome::Unknown,
    ];
    let rank = |outcome: &Outcome| ORDER.iter().position(|known| known == outcome);
    ends.into_iter().max_by_key(rank).unwrap_or(Outcome::Succeeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> CommandId {
        CommandId::new(text).unwrap()
    }

    fn order(json: &str) -> Order {
        serde_json::from_str(json).unwrap()
    }

    fn command(json: &str) -> Result<Command, InvalidOrder> {
        Command::new(SET, order(json), id("given"), "ann", UnixMillis(5))
    }

    #[test]
    fn an_order_that_says_when_it_was_sent_is_as_old_as_that() {
        let sent = |at| format!(r#"{{"args":{{"p":1}},"ttlMs":5,"sent":{at}}}"#);
        let issued =
            |json: &str| Command::new(SET, order(json), id("given"), "ann", UnixMillis(5)).unwrap().issued;
        assert_eq!(issued(&sent(3)), UnixMillis(3));
        assert_eq!(issued(&sent(9)), UnixMillis(5), "a clock that is a little ahead");
        assert_eq!(command(&sent(9000)), Err(InvalidOrder::FromTheFuture(Duration::from_millis(8995))));
        assert_eq!(issued(r#"{"args":{"p":1},"ttlMs":5}"#), UnixMillis(5));
    }

    #[test]
    fn an_order_without_an_expiry_is_refused() {
        assert_eq!(command(r#"{"args":{"p":1}}"#), Err(InvalidOrder::NoExpiry));
        assert_eq!(command(r#"{"args":{"p":1},"ttlMs":0}"#), Err(InvalidOrder::NoExpiry));
        assert_eq!(command(r#"{"args":{"p":1},"ttlMs":86400001}"#), Err(InvalidOrder::TooLong));
        assert_eq!(command(r#"{"ttlMs":5}"#), Err(InvalidOrder::NoArgs("set".to_owned())));
        let taken = command(r#"{"args":{"p":1},"ttlMs":5}"#).unwrap();
        assert_eq!((taken.ttl(), taken.id), (Duration::from_millis(5), id("given")));
    }

    #[test]
    fn the_same_order_at_another_time_is_the_same_and_another_value_is_not() {
        let one = command(r#"{"id":"x","args":{"p":1},"ttlMs":5}"#).unwrap();
        let again = Command { issued: UnixMillis(9), ..one.clone() };
        assert!(one.is_same_order(&again));
        let other = command(r#"{"id":"x","args":{"p":2},"ttlMs":5}"#).unwrap();
        assert!(!one.is_same_order(&other));
    }

    #[test]
    fn ids_are_short_and_plain() {
        for bad in ["", "a b", "a/b", &"x".repeat(65)] {
            assert!(CommandId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_worst_end_counts() {
        use Outcome::{Failed, Succeeded, Superseded, Unknown};
        assert_eq!(worst([Succeeded, Succeeded]), Succeeded);
        assert_eq!(worst([Superseded, Succeeded]), Superseded);
        assert_eq!(worst([Failed, Unknown, Succeeded]), Unknown);
    }
}

//! Persist, then speak: outputs wait for the writes they depend on.
//!
//! Cores write into the keyspace and speak freely; the journal keeps the order. After each handled input the node
//! closes the cycle: the cycle's writes become one commit, and whatever was said in it, or later, waits until that
//! commit is durable. Nothing that a crash could undo has been said to anybody.
//!
//! A disk that refuses writes must not stop a site. While it does, words go out at once, a *promise* is taken back, and
//! what was written waits in memory as one commit:
//!
//! ```text
//!             handle_degraded
//!   Keeping ------------------> Degraded {waiting}
//!      ^                            |
//!      +------ handle_persisted ----+  the disk takes writes again: what waits goes out as one commit
//! ```

mod fold;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, UNIX_EPOCH};

use bus::{Now, UnixMillis};
use metadata::{Commit, Durability, Keyspace, Revision};
use serde_json::json;

use fold::Fold;

/// Outputs held back, or commits under way, for one slow disk before the driver stops taking inputs. At 200 messages a
/// second that is twenty seconds of a stuck disk; beyond it MQTT clients and links feel back-pressure, and nothing is
/// dropped. A disk that refuses holds nothing back.
pub const MAX_HELD: usize = 4096;

/// What comes out, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Ready<O> {
    Persist(Commit),
    Output(O),
}

/// Something said in a cycle.
#[derive(Debug, PartialEq, Eq)]
pub enum Said<O> {
    /// Stays true if a crash makes the writes before it undone, or can be taken back.
    Word(O),
    /// That what was written before it lasts. While the disk refuses, `otherwise` is said instead, or nothing.
    Promise { promise: O, otherwise: Option<O> },
}

impl<O> Said<O> {
    fn kept(self) -> O {
        match self {
            Self::Word(output) | Self::Promise { promise: output, .. } => output,
        }
    }

    fn unkept(self) -> Option<O> {
        match self {
            Self::Word(output) => Some(output),
            Self::Promise { otherwise, .. } => otherwise,
        }
    }
}

/// What was said in the present cycle.
#[derive(Debug)]
pub struct Speech<O>(Vec<Said<O>>);

impl<O> Default for Speech<O> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<O> Speech<O> {
    pub fn push_back(&mut self, word: O) {
        self.0.push(Said::Word(word));
    }

    pub fn promise(&mut self, promise: O, otherwise: Option<O>) {
        self.0.push(Said::Promise { promise, otherwise });
    }

    /// Leaves no room behind: at its start a node says thousands of things in one cycle, and never again.
    pub fn drain(&mut self) -> impl Iterator<Item = Said<O>> + use<O> {
        std::mem::take(&mut self.0).into_iter()
    }
}

impl<O> Extend<O> for Speech<O> {
    fn extend<I: IntoIterator<Item = O>>(&mut self, words: I) {
        self.0.extend(words.into_iter().map(Said::Word));
    }
}

/// Since when the disk refuses writes, and what waits for it.
#[derive(Debug)]
struct Degraded {
    since: UnixMillis,
    why: String,
    /// Bounded by the size of the keyspace, however long this lasts.
    waiting: Fold,
}

/// Outputs that there is always room for: more than most cycles say.
const ROOM_KEPT: usize = 64;

#[derive(Debug)]
pub struct Journal<O> {
    commits: VecDeque<Commit>,
    /// Revisions that are sealed and not durable yet.
    underway: VecDeque<Revision>,
    held: VecDeque<(Revision, Said<O>)>,
    /// The last one that something said may rest on.
    rests_on: Revision,
    durable: Revision,
    degraded: Option<Degraded>,
}

impl<O> Journal<O> {
    /// `loaded` is the revision that the store already holds.
    pub fn new(loaded: Revision) -> Self {
        Self {
            commits: VecDeque::new(),
            underway: VecDeque::new(),
            held: VecDeque::new(),
            rests_on: loaded,
            durable: loaded,
            degraded: None,
        }
    }

    /// Ends a cycle, in which `said` was said.
    pub fn close_cycle(&mut self, keyspace: &mut Keyspace, said: impl IntoIterator<Item = Said<O>>) {
        match &mut self.degraded {
            None => {
                if let Some(commit) = keyspace.seal() {
                    self.hand_out(commit);
                }
            }
            Some(degraded) => {
                if let Some((revision, durability)) = degraded.waiting.seal(keyspace) {
                    note(&mut self.rests_on, revision, durability);
                }
            }
        }
        for said in said {
            self.hold(self.rests_on, said);
        }
    }

    fn hold(&mut self, rests_on: Revision, said: Said<O>) {
        if self.degraded.is_none() || rests_on <= self.durable {
            self.held.push_back((rests_on, said));
        } else if let Some(output) = said.unkept() {
            self.held.push_back((Revision::ZERO, Said::Word(output)));
        }
    }

    /// Everything up to `revision` survives a crash now, and so the disk takes writes. True if it had refused them.
    pub fn handle_persisted(&mut self, revision: Revision) -> bool {
        self.durable = self.durable.max(revision);
        while self.underway.front().is_some_and(|sealed| *sealed <= revision) {
            self.underway.pop_front();
        }
        let refused = self.degraded.is_some();
        self.hand_out_waiting();
        refused
    }

    /// The disk refuses writes, or takes too long: says what was held back for it, without the promises. True if this
    /// was not known already.
    pub fn handle_degraded(&mut self, why: String, now: Now) -> bool {
        if let Some(degraded) = &mut self.degraded {
            degraded.why = why;
            return false;
        }
        self.degraded = Some(Degraded { since: now.wall, why, waiting: Fold::default() });
        for (rests_on, said) in std::mem::take(&mut self.held) {
            self.hold(rests_on, said);
        }
        true
    }

    /// The node stops: a disk that refused gets one more chance.
    pub fn handle_stop(&mut self) {
        self.hand_out_waiting();
    }

    fn hand_out_waiting(&mut self) {
        let waiting = self.degraded.take().and_then(|degraded| degraded.waiting.into_commit());
        if let Some(commit) = waiting {
            self.hand_out(commit);
        }
    }

    fn hand_out(&mut self, commit: Commit) {
        note(&mut self.rests_on, commit.revision, commit.durability());
        self.underway.push_back(commit.revision);
        self.commits.push_back(commit);
    }

    pub fn poll(&mut self) -> Option<Ready<O>> {
        if let Some(commit) = self.commits.pop_front() {
            return Some(Ready::Persist(commit));
        }
        let Some((revision, _)) = self.held.front() else {
            self.held.shrink_to(ROOM_KEPT);
            return None;
        };
        if *revision > self.durable {
            return None;
        }
        self.held.pop_front().map(|(_, said)| Ready::Output(said.kept()))
    }

    /// Whether the driver may hand in more.
    pub fn is_full(&self) -> bool {
        self.degraded.is_none() && (self.held.len() >= MAX_HELD || self.underway.len() >= MAX_HELD)
    }

    /// What survives a crash.
    pub fn durable(&self) -> Revision {
        self.durable
    }

    /// Why nothing can be promised at present.
    pub fn degraded(&self) -> Option<&str> {
        self.degraded.as_ref().map(|degraded| degraded.why.as_str())
    }

    /// For `kubebus status`.
    pub fn status(&self) -> serde_json::Value {
        let Some(Degraded { since, why, .. }) = &self.degraded else { return json!({ "state": "ok" }) };
        let since = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(since.0));
        json!({ "state": "degraded", "since": since.to_string(), "why": why })
    }
}

/// What is lazy may be forgotten: nothing said rests on it.
fn note(rests_on: &mut Revision, revision: Revision, durability: Durability) {
    if durability > Durability::Lazy {
        *rests_on = revision;
    }
}

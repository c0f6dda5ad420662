//! When a node asks for its next certificate, and what becomes of it.
//!
//! ```text
//!                due, and the cloud can be asked                 Renewed: the shell has stored it
//!    Resting ----------------------------------------> Asking ------------------------------------> Resting
//!       ^                                                |
//!       +---- Failed: a wait that grows, or the asked ---+
//! ```
//! 1. A certificate is due when a third of its validity is left, and up to a twelfth before that: each node at its own
//!    time, so that a fleet which joined on one day does not ask on one day.
//! 2. While it holds, an edge asks only over a standing link's cloud. Once it is over, or the cloud said so, no link can
//!    stand, and it asks whenever its wait ends.
//! 3. The cloud's time counts where it is known.
//! 4. A cloud that has never heard of our newest key, since it was restored from a backup, may know the one before: after
//!    two refusals in a row the other one is shown.

use std::collections::VecDeque;
use std::time::Duration;

use bus::backoff::Jitter;
use bus::{Backoff, Mono, NodeKind, Now, RENEWABLE_FOR, UnixMillis};
use serde_json::{Value, json};

/// The first wait's bound after a failure.
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// The longest wait's bound: there is a month for it, and an edge that comes back late is to be back within minutes.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The longest time without a look at the clock: clocks are set.
const LOOK: Duration = Duration::from_secs(3600);

/// A due edge that finds its cloud again waits for up to this long, or a twentieth of the validity if that is less: the
/// rest of a fleet is back too.
const AFTER_LINK: Duration = Duration::from_secs(600);

/// While a certificate holds, failures are trouble once they have gone on for this long: a cloud may be busy.
const TROUBLE: Duration = Duration::from_secs(3600);

/// One refusal may come of a link that was made just before the last renewal.
const TURNED_AWAY: u32 = 2;

/// From when to when a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certificate {
    pub not_before: UnixMillis,
    pub not_after: UnixMillis,
}

impl Certificate {
    fn validity(&self) -> Duration {
        self.not_after.since(self.not_before)
    }

    fn is_over(&self, wall: UnixMillis) -> bool {
        wall > self.not_after
    }
}

/// What the shell says of certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// It is shown in links that begin from now on: the first since the start, or the other one that was wished for.
    Shown(Certificate),
    /// The one that was asked for: it is stored, and shown in links that begin from now on.
    Renewed(Certificate),
    /// A renewal failed; the cloud may have said how long to stay away.
    Failed { why: String, verdict: Verdict, retry_after: Duration },
    /// The cloud took no link since our certificate is over by its clock.
    Over,
    /// The cloud closed a link, as it does not know our key.
    TurnedAway,
}

/// What a failed renewal says of who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Open,
    /// The cloud does not know the key.
    Unknown,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Ask for the next certificate.
    Renew,
    /// Show the certificate before this one, if there is one, or go back to it.
    ShowOther,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Resting { until: Mono },
    Asking,
}

/// Tries that failed in a row.
#[derive(Debug)]
struct Failing {
    since: UnixMillis,
    last: UnixMillis,
    why: String,
}

/// Of one node.
#[derive(Debug)]
pub struct Renewal {
    me: NodeKind,
    jitter: Jitter,
    backoff: Backoff,
    certificate: Option<Certificate>,
    due: UnixMillis,
    state: State,
    /// Until then a failure keeps this node from asking.
    stays_away: Mono,
    is_connected: bool,
    /// In the cloud's eyes.
    is_over: bool,
    turned_away: u32,
    failed: u64,
    failing: Option<Failing>,
    wishes: VecDeque<Wish>,
}

impl Renewal {
    /// `seed` differs from node to node. Nothing happens before the first [`News::Shown`].
    pub fn new(me: NodeKind, seed: u64) -> Self {
        Self {
            me,
            jitter: Jitter::new(seed),
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT, seed.rotate_left(32)),
            certificate: None,
            due: UnixMillis(u64::MAX),
            state: State::Resting { until: Mono(u64::MAX) },
            stays_away: Mono(0),
            is_connected: false,
            is_over: false,
            turned_away: 0,
            failed: 0,
            failing: None,
            wishes: VecDeque::new(),
        }
    }

    /// Whether links are to be made anew: the certificate is a new one. `now.wall` is the cloud's time where that is
    /// known.
    pub fn handle(&mut self, news: News, now: Now) -> bool {
        match news {
            News::Shown(certificate) => {
                // Whoever is turned away by both of its certificates goes on waiting longer each time.
                if self.show(certificate).is_none() {
                    self.state = State::Resting { until: now.mono };
                    self.look(now);
                }
            }
            News::Renewed(certificate) => {
                self.show(certificate);
                self.failing = None;
                self.rest(now);
                return true;
            }
            News::Failed { why, verdict, retry_after } => {
                self.failed += 1;
                let since = self.failing.take().map_or(now.wall, |failing| failing.since);
                self.failing = Some(Failing { since, last: now.wall, why });
                self.stays_away = now.mono + (retry_after + self.backoff.next_wait());
                self.state = State::Resting { until: self.stays_away };
                if verdict == Verdict::Unknown {
                    self.handle_turned_away();
                }
            }
            News::Over => {
                if !std::mem::replace(&mut self.is_over, true) {
                    self.look_now(now);
                }
            }
            News::TurnedAway => self.handle_turned_away(),
        }
        false
    }

    /// The certificate before.
    fn show(&mut self, certificate: Certificate) -> Option<Certificate> {
        let validity = certificate.validity();
        let left = validity / 3 + self.jitter.up_to(validity / 12);
        self.due = UnixMillis(certificate.not_after.0.saturating_sub(left.as_millis() as u64));
        self.is_over = false;
        self.certificate.replace(certificate)
    }

    /// After a renewal. By a clock that is wrong even a new certificate may be due, and is not asked for in a circle.
    fn rest(&mut self, now: Now) {
        if self.due <= now.wall {
            self.stays_away = now.mono + self.backoff.next_wait();
            self.state = State::Resting { until: self.stays_away };
        } else {
            self.backoff.reset();
            self.state = State::Resting { until: now.mono };
            self.look(now);
        }
    }

    /// The link to the cloud stands, or is gone.
    pub fn handle_link(&mut self, is_connected: bool, now: Now) {
        self.is_connected = is_connected;
        if !is_connected {
            return;
        }
        self.turned_away = 0;
        self.is_over = false;
        if self.due > now.wall {
            self.failing = None;
        } else if let (Some(certificate), State::Resting { .. }) = (self.certificate, self.state) {
            let wait = self.jitter.up_to(AFTER_LINK.min(certificate.validity() / 20));
            self.state = State::Resting { until: self.stays_away.max(now.mono + wait) };
        }
    }

    fn handle_turned_away(&mut self) {
        self.turned_away += 1;
        if self.turned_away >= TURNED_AWAY && self.me == NodeKind::Edge {
            self.turned_away = 0;
            self.wishes.push_back(Wish::ShowOther);
        }
    }

    pub fn handle_timeout(&mut self, now: Now) {
        if matches!(self.state, State::Resting { until } if until <= now.mono) {
            self.look(now);
        }
    }

    fn look_now(&mut self, now: Now) {
        if matches!(self.state, State::Resting { .. }) && self.stays_away <= now.mono {
            self.look(now);
        }
    }

    fn look(&mut self, now: Now) {
        let Some(certificate) = self.certificate else { return };
        let can_ask = self.me == NodeKind::Cloud || self.is_connected;
        let is_over = self.is_over || certificate.is_over(now.wall);
        if is_over || (self.due <= now.wall && can_ask) {
            self.state = State::Asking;
            return self.wishes.push_back(Wish::Renew);
        }
        let next = if self.due > now.wall { self.due } else { certificate.not_after };
        // A millisecond more: it is over after its end.
        let wait = next.since(now.wall) + Duration::from_millis(1);
        self.state = State::Resting { until: now.mono + wait.min(LOOK) };
    }

    pub fn poll_output(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        let State::Resting { until } = self.state else { return None };
        self.certificate.is_some().then_some((until, "look at the certificate"))
    }

    /// When the certificate ends.
    pub fn until(&self) -> Option<UnixMillis> {
        self.certificate.map(|certificate| certificate.not_after)
    }

    /// Renewals that failed since the start.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// For people.
    pub fn status(&self, wall: UnixMillis) -> Value {
        let Some(certificate) = self.certificate else { return Value::Null };
        let over_for = wall.since(certificate.not_after);
        let state = match self.state {
            _ if self.me == NodeKind::Edge && over_for > RENEWABLE_FOR => {
                "too old to be renewed: join again, then restart it"
            }
            State::Asking => "is being renewed",
            State::Resting { .. } if self.failing.is_some() => "cannot be renewed so far",
            State::Resting { .. } if self.is_over || !over_for.is_zero() => {
                "expired, and waits for the cloud"
            }
            State::Resting { .. } => "renews itself",
        };
        let failure = self.failing.as_ref().map(|failing| {
            let is_urgent = certificate.is_over(wall) || wall.since(failing.since) >= TROUBLE;
            let is_trouble = self.due <= wall && is_urgent;
            json!({ "why": failing.why, "time": failing.last, "since": failing.since, "is_trouble": is_trouble })
        });
        json!({
            "until": certificate.not_after,
            "renewed_from": self.due,
            "state": state,
            "failed": self.failed,
            "last_failure": failure,
        })
    }
}

#[cfg(test)]
mod tests;

//! What is common to all clients of the broker: their sessions, subscriptions, and what is retained.
//!
//! A session begins with a clean start, or because there was none, and ends with its connection or, if it is *kept*,
//! when its client was away for longer than its expiry:
//!
//! ```text
//!            handle_open                    handle_left, expiry > 0
//!   (none) --------------> Here(connection) -----------------------> Away(until) --handle_timeout--> (ended)
//!                            |     ^                                   |
//!                            |     +-----------handle_open-------------+   clean start ends it, and begins another
//!                            +--handle_left, expiry 0--> (ended)
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bus::{Filter, Mono, Now, UnixMillis};
use mqtt_protocol_core::mqtt::packet::RetainHandling;

use super::access::Who;
use super::policy;
use super::retained::Retained;
use super::row::{self, Kept, Owed, Row, SessionRow};
use super::subscriptions::{Match, Subscription, Subscriptions, Wanted};
use super::{ConnId, Delivery, Message, Route, SessionId};

/// Sessions that outlive their connection. When full, the one whose client was away the longest ends; if all are here,
/// a new one is refused.
pub const MAX_KEPT_SESSIONS: usize = 1024;

/// What the hub wants done, in this order.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// A client may go on.
    Opened(Opened),
    /// There are too many sessions that would be kept.
    Full { conn: ConnId },
    /// Close this connection: its client has come back on another one, which waits until this one has left.
    TakeOver { old: ConnId },
    /// One live message.
    Deliver { to: SessionId, delivery: Delivery },
    /// What was retained, to a new subscription.
    Replay { to: SessionId, deliveries: Vec<Delivery> },
    /// The node is to store this before the input is answered.
    Keep(Row),
    /// A session is over: what it is owed goes.
    Ended { session: SessionId },
    /// A will whose time has come.
    Publish { message: Message, route: Route, client: String, who: Who },
    /// What other sites or the node say under this filter is wanted (no more).
    Interest { filter: Filter, wanted: bool },
}

/// How long a session outlives its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// Not at all.
    AtOnce,
    Seconds(u32),
    Never,
}

impl Expiry {
    /// MQTT 5.0 §3.1.2.11.2: 0xFFFFFFFF is never.
    pub fn of(seconds: u32) -> Self {
        match seconds {
            0 => Self::AtOnce,
            u32::MAX => Self::Never,
            seconds => Self::Seconds(seconds),
        }
    }

    fn seconds(self) -> Option<u32> {
        match self {
            Self::AtOnce => Some(0),
            Self::Seconds(seconds) => Some(seconds),
            Self::Never => None,
        }
    }

    fn end(self, since: Mono) -> Option<Mono> {
        self.seconds().map(|seconds| since + Duration::from_secs(seconds.into()))
    }
}

/// A client that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    pub conn: ConnId,
    /// What it calls itself.
    pub name: String,
    /// What its session goes by: nobody takes over another's.
    pub client: String,
    pub who: Who,
    /// What was before is to be forgotten.
    pub clean: bool,
    pub expiry: Expiry,
}

/// Its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    pub conn: ConnId,
    pub session: SessionId,
    pub kept: bool,
    /// It was there before.
    pub present: bool,
    /// The client's QoS 2 messages that must not be taken twice.
    pub received: BTreeSet<u16>,
    /// Filters that it is subscribed to.
    pub filters: BTreeSet<Wanted>,
}

/// How a client left.
#[derive(Debug, Default)]
pub struct Left {
    /// What it said at last of its session's expiry (MQTT 5.0 §3.14.2.2.2).
    pub expiry: Option<Expiry>,
    /// The client's QoS 2 messages until their PUBREL; `None`: as they were when it came.
    pub received: Option<BTreeSet<u16>>,
    /// Those that were not taken in the end.
    pub not_taken: BTreeSet<u16>,
    /// A will that waits, and how long (§3.1.3.2.2).
    pub will: Option<(Duration, Message, Route)>,
}

/// A client's wish to subscribe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    pub wanted: Wanted,
    pub how: Subscription,
    pub retained: RetainHandling,
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sessions, whether their client is here or not.
    pub sessions: u64,
    pub clients: u64,
    pub filters: u64,
    pub retained: u64,
    pub retained_bytes: u64,
    /// Messages not retained because the store was full.
    pub retained_refused: u64,
}

#[derive(Debug)]
struct Session {
    client: String,
    who: Who,
    /// It began with an expiry, and the node knows it until it ends.
    kept: bool,
    expiry: Expiry,
    conn: Option<ConnId>,
    away_since: Option<UnixMillis>,
    received: BTreeSet<u16>,
    /// What happens next while the client is away.
    due: Option<Mono>,
    ends: Option<Mono>,
    will: Option<(Mono, Message, Route)>,
}

impl Session {
    fn next_due(&self) -> Option<Mono> {
        let will = self.will.as_ref().map(|(at, ..)| *at);
        will.into_iter().chain(self.ends).min()
    }
}

/// The hub of one broker.
#[derive(Debug, Default)]
pub struct Hub {
    names: BTreeMap<String, SessionId>,
    sessions: BTreeMap<SessionId, Session>,
    connections: BTreeMap<ConnId, SessionId>,
    /// Clients that wait until an older connection of theirs has left, by name.
    arriving: BTreeMap<String, Open>,
    last_session: u64,
    timers: BTreeSet<(Mono, SessionId)>,
    table: Subscriptions,
    retained: Retained,
    retained_refused: u64,
    outputs: VecDeque<Output>,
}

impl Hub {
    /// What the node kept, in the order of its keys. Returns what the sessions are owed.
    pub fn load<'a>(
        &mut self,
        rows: impl Iterator<Item = (&'a str, &'a [u8])>,
        now: Now,
    ) -> Vec<(SessionId, Owed)> {
        let (mut owed, mut received) = (Vec::new(), Vec::new());
        for kept in rows.filter_map(|(key, value)| Kept::read(key, value, now)) {
            // Numbers of sessions of which something is left are not given again.
            self.last_session = self.last_session.max(kept.session().map_or(0, |id| id.0));
            match kept {
                Kept::Session(id, row) => self.restore(id, row, now),
                Kept::Received(id, packet) => received.push((id, packet)),
                Kept::Owed(id, message) => owed.push((id, message)),
                Kept::Retained(message) => self.restore_retained(&message, now),
            }
        }
        for (id, packet) in received {
            match self.sessions.get_mut(&id) {
                Some(session) => drop(session.received.insert(packet)),
                None => self.outputs.push_back(Output::Keep(row::received_gone(id, packet))),
            }
        }
        let (owed, orphans): (Vec<_>, Vec<_>) =
            owed.into_iter().partition(|(id, _)| self.sessions.contains_key(id));
        let gone = orphans.iter().map(|(id, owed)| Output::Keep(Owed::gone(*id, owed.number)));
        self.outputs.extend(gone);
        owed
    }

    fn restore_retained(&mut self, message: &Message, now: Now) {
        if message.is_expired(now.mono) || self.retained.store(message, now.mono).is_err() {
            self.outputs.push_back(Output::Keep(row::retained_gone(&message.topic)));
        }
    }

    pub fn session_of(&self, conn: ConnId) -> Option<SessionId> {
        self.connections.get(&conn).copied()
    }

    /// A client that was here when the node ended is away since now.
    fn restore(&mut self, id: SessionId, row: SessionRow, now: Now) {
        let expiry = row.expiry_s.map_or(Expiry::Never, Expiry::of);
        let since = row.away_since.unwrap_or(now.wall);
        let gone_for = now.wall.since(since);
        let ends = expiry
            .seconds()
            .map(|seconds| now.mono + Duration::from_secs(seconds.into()).saturating_sub(gone_for));
        self.last_session = self.last_session.max(id.0);
        self.names.insert(row.client.clone(), id);
        let session = Session {
            client: row.client.clone(),
            // Nothing is said in its name before it is back.
            who: Who::Anonymous,
            kept: true,
            expiry,
            conn: None,
            away_since: Some(since),
            received: BTreeSet::new(),
            due: None,
            ends,
            will: None,
        };
        self.sessions.insert(id, session);
        self.reschedule(id);
        let was_here = row.away_since.is_none();
        for (wanted, how) in row.into_subscriptions() {
            self.enter(id, wanted, how);
        }
        if was_here {
            self.keep(id);
        }
    }

    /// The sessions that there are; each is owed something, and has a queue.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.keys().copied()
    }

    pub fn stats(&self) -> Stats {
        Stats {
            sessions: self.sessions.len() as u64,
            clients: self.connections.len() as u64,
            filters: self.table.count() as u64,
            retained: self.retained.len() as u64,
            retained_bytes: self.retained.bytes() as u64,
            retained_refused: self.retained_refused,
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<Mono> {
        self.timers.first().map(|(at, _)| *at)
    }

    fn reschedule(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let due = session.next_due();
        if let Some(old) = std::mem::replace(&mut session.due, due) {
            self.timers.remove(&(old, id));
        }
        self.timers.extend(due.map(|at| (at, id)));
    }

    /// A client was let in. Its session opens when an older connection of the same client has left.
    pub fn handle_open(&mut self, open: Open) {
        let old = self.names.get(&open.client).and_then(|id| self.sessions.get(id)?.conn);
        let Some(old) = old else { return self.admit(open) };
        self.outputs.push_back(Output::TakeOver { old });
        if let Some(older) = self.arriving.insert(open.client.clone(), open) {
            self.outputs.push_back(Output::TakeOver { old: older.conn });
        }
    }

    fn admit(&mut self, open: Open) {
        let there = self.names.get(&open.client).copied();
        match there {
            Some(id) if !open.clean => self.resume(id, &open),
            Some(id) => {
                self.end(id);
                self.begin(open);
            }
            None => self.begin(open),
        }
    }

    fn resume(&mut self, id: SessionId, open: &Open) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.conn = Some(open.conn);
        session.who = open.who.clone();
        session.expiry = open.expiry;
        session.away_since = None;
        session.ends = None;
        // The client is back before it counted as gone.
        session.will = None;
        let received = session.received.clone();
        let kept = session.kept;
        self.connections.insert(open.conn, id);
        self.reschedule(id);
        self.keep(id);
        let filters = self.table.of(id).map(|(wanted, _)| wanted.clone()).collect();
        let (conn, session) = (open.conn, id);
        self.outputs.push_back(Output::Opened(Opened {
            conn,
            session,
            kept,
            present: true,
            received,
            filters,
        }));
    }

    fn begin(&mut self, open: Open) {
        let Open { conn, name: _, client, who, clean: _, expiry } = open;
        let kept = expiry != Expiry::AtOnce;
        if kept && !self.has_room() {
            return self.outputs.push_back(Output::Full { conn });
        }
        self.last_session += 1;
        let id = SessionId(self.last_session);
        self.names.insert(client.clone(), id);
        self.connections.insert(conn, id);
        let session = Session {
            client,
            who,
            kept,
            expiry,
            conn: Some(conn),
            away_since: None,
            received: BTreeSet::new(),
            due: None,
            ends: None,
            will: None,
        };
        self.sessions.insert(id, session);
        self.keep(id);
        let (session, received, filters) = (id, BTreeSet::new(), BTreeSet::new());
        self.outputs.push_back(Output::Opened(Opened {
            conn,
            session,
            kept,
            present: false,
            received,
            filters,
        }));
    }

    fn has_room(&mut self) -> bool {
        let kept = self.sessions.iter().filter(|(_, session)| session.kept);
        if kept.clone().count() < MAX_KEPT_SESSIONS {
            return true;
        }
        let longest = kept.filter(|(_, session)| session.conn.is_none());
        let longest = longest.min_by_key(|(_, session)| session.away_since).map(|(id, _)| *id);
        if let Some(id) = longest {
            self.end(id);
        }
        longest.is_some()
    }

    /// What the node is to know of a session that is kept.
    fn keep(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id).filter(|session| session.kept) else { return };
        let Session { client, expiry, away_since, .. } = session;
        let row = SessionRow::new(client, expiry.seconds(), *away_since, self.table.of(id)).row(id);
        self.outputs.push_back(Output::Keep(row));
    }

    /// A connection is over. Its will, if it does not wait, came before.
    pub fn handle_left(&mut self, conn: ConnId, left: Left, now: Now) {
        let Left { expiry, received, not_taken, will } = left;
        if let Some(id) = self.connections.remove(&conn) {
            let gone = not_taken.into_iter().map(|packet| Output::Keep(row::received_gone(id, packet)));
            self.outputs.extend(gone);
            self.go_away(id, expiry, received, will, now);
        }
        self.let_next_in(conn);
    }

    fn go_away(
        &mut self,
        id: SessionId,
        expiry: Option<Expiry>,
        received: Option<BTreeSet<u16>>,
        will: Option<(Duration, Message, Route)>,
        now: Now,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.conn = None;
        session.received = received.unwrap_or_else(|| std::mem::take(&mut session.received));
        session.expiry = expiry.unwrap_or(session.expiry);
        session.will = will.map(|(delay, message, route)| (now.mono + delay, message, route));
        if session.expiry == Expiry::AtOnce {
            return self.end(id);
        }
        session.away_since = Some(now.wall);
        session.ends = session.expiry.end(now.mono);
        self.reschedule(id);
        self.keep(id);
    }

    /// Whoever waited for this connection to be over, or waited itself and gave up.
    fn let_next_in(&mut self, conn: ConnId) {
        let gave_up = self.arriving.iter().find(|(_, open)| open.conn == conn).map(|(name, _)| name.clone());
        if let Some(name) = gave_up {
            self.arriving.remove(&name);
        }
        let is_free = |name: &String| {
            self.names.get(name).and_then(|id| self.sessions.get(id)).is_none_or(|s| s.conn.is_none())
        };
        let next = self.arriving.keys().find(|name| is_free(name)).cloned();
        if let Some(open) = next.and_then(|name| self.arriving.remove(&name)) {
            self.admit(open);
        }
    }

    /// The session is over: a will that waited is told, subscriptions and rows go.
    fn end(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        if let Some(due) = session.due {
            self.timers.remove(&(due, id));
        }
        self.names.remove(&session.client);
        for packet in &session.received {
            self.outputs.push_back(Output::Keep(row::received_gone(id, *packet)));
        }
        if let Some((_, message, route)) = session.will {
            let (client, who) = (session.client.clone(), session.who.clone());
            self.outputs.push_back(Output::Publish { message, route, client, who });
        }
        for filter in self.table.remove_session(id) {
            self.lose_interest(filter);
        }
        if session.kept {
            self.outputs.push_back(Output::Keep(row::session_gone(id)));
        }
        self.outputs.push_back(Output::Ended { session: id });
    }

    fn lose_interest(&mut self, filter: Filter) {
        if policy::concerns_node(&filter) {
            self.outputs.push_back(Output::Interest { filter, wanted: false });
        }
    }

    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now.mono
        {
            let Some(session) = self.sessions.get_mut(&id) else { return };
            if session.ends.is_some_and(|ends| ends <= now.mono) {
                self.end(id);
                continue;
            }
            if let Some((_, message, route)) = session.will.take_if(|(at, ..)| *at <= now.mono) {
                let (client, who) = (session.client.clone(), session.who.clone());
                self.outputs.push_back(Output::Publish { message, route, client, who });
            }
            self.reschedule(id);
        }
    }

    /// A client or the node published.
    pub fn handle_publish(&mut self, message: Message, now: Now) {
        if message.is_expired(now.mono) {
            return;
        }
        let message = Arc::new(message);
        if message.retain {
            self.retain(&message, now);
        }
        let Self { table, sessions, .. } = self;
        let is_here = |id: SessionId| sessions.get(&id).is_some_and(|session| session.conn.is_some());
        for found in table.matching(&message.topic, message.from, is_here) {
            let Match { session, qos, as_published, identifiers } = found;
            let delivery = Delivery {
                message: Arc::clone(&message),
                qos: qos.min(message.qos),
                retain: message.retain && as_published,
                subscriptions: identifiers,
            };
            self.outputs.push_back(Output::Deliver { to: session, delivery });
        }
    }

    /// What the node says itself it says again after a restart, and mappers their state; what else a client retained, here
    /// or at another site, the node keeps.
    fn retain(&mut self, message: &Message, now: Now) {
        let is_theirs = message.topic.as_str().starts_with("mesh/");
        let is_kept = is_theirs || message.from.is_some() && !message.topic.as_str().starts_with("mapper/");
        match self.retained.store(message, now.mono) {
            Ok(()) if is_kept => {
                self.outputs.push_back(Output::Keep(row::retained(message, now)));
            }
            Ok(()) => {}
            Err(_) => self.retained_refused += 1,
        }
        let forgotten = self.retained.take_forgotten().into_iter();
        self.outputs.extend(forgotten.map(|topic| Output::Keep(row::retained_gone(&topic))));
    }

    pub fn handle_subscribe(&mut self, id: SessionId, wishes: Vec<Wish>, now: Now) {
        if !self.sessions.contains_key(&id) {
            return;
        }
        for wish in wishes {
            self.subscribe(id, wish, now);
        }
        self.keep(id);
    }

    fn subscribe(&mut self, id: SessionId, wish: Wish, now: Now) {
        let Wish { wanted, how, retained } = wish;
        let is_shared = wanted.group.is_some();
        let filter = wanted.filter.clone();
        let replaced = self.enter(id, wanted, how);
        let replay = match retained {
            // MQTT 5.0 §4.8.2: nothing retained for a group.
            _ if is_shared => false,
            RetainHandling::SendRetained => true,
            RetainHandling::SendRetainedIfNotExists => !replaced,
            RetainHandling::DoNotSendRetained => false,
        };
        if replay {
            self.replay(id, &filter, how, now.mono);
        }
    }

    /// Whether it replaced one.
    fn enter(&mut self, id: SessionId, wanted: Wanted, how: Subscription) -> bool {
        let filter = wanted.filter.clone();
        let done = self.table.subscribe(id, wanted, how);
        if done.first_of_filter && policy::concerns_node(&filter) {
            self.outputs.push_back(Output::Interest { filter, wanted: true });
        }
        done.replaced
    }

    fn replay(&mut self, to: SessionId, filter: &Filter, how: Subscription, now: Mono) {
        let Subscription { qos, identifier, .. } = how;
        let deliveries: Vec<Delivery> = self
            .retained
            .matching(filter, now)
            .map(|message| Delivery {
                qos: qos.min(message.qos),
                message,
                retain: true,
                subscriptions: identifier.into_iter().collect(),
            })
            .collect();
        if !deliveries.is_empty() {
            self.outputs.push_back(Output::Replay { to, deliveries });
        }
    }

    pub fn handle_unsubscribe(&mut self, id: SessionId, all: &[Wanted]) {
        for wanted in all {
            if let Some(filter) = self.table.unsubscribe(id, wanted) {
                self.lose_interest(filter);
            }
        }
        self.keep(id);
    }

    /// Whether there are sessions that may be owed something which the node has to store first.
    pub fn has_kept(&self) -> bool {
        self.sessions.iter().any(|(id, session)| session.kept && self.table.of(*id).next().is_some())
    }
}

#[cfg(test)]
mod tests;

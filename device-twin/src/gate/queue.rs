//! What one session is owed: messages that wait to be sent, and messages that its client has not acknowledged.
//!
//! A session that outlives its connection is *kept*: the node stores its messages at QoS 1 and 2 before anybody is told
//! that they are safe, so such a message is *held* first.
//!
//! ```text
//!   push --> Held --release--> Ready --next--> sent --finished--> gone
//!                                ^               |
//!                                +----resume-----+   with DUP, under its old packet number
//!                                                |
//!                             received (PUBREC)  +--> Released --finished (PUBCOMP)--> gone
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bus::{Mono, Now};

use super::retained::MAX_RETAINED;
use super::row::{Owed, Row};
use super::{Delivery, Qos, SessionId};

/// Messages that wait for one client: some seconds of a busy site. When full, a QoS 0 message is dropped and counted;
/// for a QoS 1 or 2 message a client whose session is not kept is disconnected: it subscribes again and gets what is
/// retained.
pub const MAX_QUEUED: usize = 4096;

/// Bytes of messages that wait for one client; as above when full.
pub const MAX_QUEUED_BYTES: usize = 8 << 20;

/// Messages at QoS 1 and 2 that one kept session is owed: a shift's alarms, or 100 s of 200 messages a second. When
/// full, the oldest is dropped and counted.
pub const MAX_KEPT: usize = 20_000;

/// Bytes of messages that one kept session is owed; as above when full.
pub const MAX_KEPT_BYTES: usize = 8 << 20;

/// Bytes that all kept sessions together are owed, in what an edge of 64 MB can spare; as above when full.
pub const MAX_KEPT_BYTES_IN_ALL: usize = 16 << 20;

/// What each kept session may be owed whatever others are: an absent client with a full queue costs nobody else.
const SHARE: usize = 64 << 10;

/// A client that has acknowledged nothing for so long is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a message costs beside its topic and payload, here and in the node's store, measured over a million of 64 bytes.
const OVERHEAD: usize = 256;

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Pushed {
    Queued,
    /// It is held until [`Queue::release`]; these rows must be stored before.
    Held {
        number: u64,
        rows: Vec<Row>,
    },
    Dropped,
    /// The client must go.
    Overflow,
}

/// A message that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    pub delivery: Delivery,
    /// `None`: any number will do.
    pub packet: Option<u16>,
    /// It may have been sent before.
    pub again: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Held,
    Ready,
    Again,
    Released,
}

#[derive(Debug)]
struct Item {
    number: u64,
    packet: Option<u16>,
    delivery: Delivery,
    state: State,
    /// There is a row of it.
    stored: bool,
}

impl Item {
    fn size(&self) -> usize {
        self.delivery.message.size() + OVERHEAD
    }

    fn outgoing(&self) -> Outgoing {
        Outgoing { delivery: self.delivery.clone(), packet: self.packet, again: self.state == State::Again }
    }
}

/// One session's queue.
#[derive(Debug)]
pub struct Queue {
    session: SessionId,
    /// Bytes that all kept sessions are owed.
    kept_in_all: Option<Arc<AtomicUsize>>,
    waiting: VecDeque<Item>,
    /// Sent and not acknowledged, of a kept session.
    sent: BTreeMap<u64, Item>,
    /// Packet numbers in use, of a kept session.
    packets: BTreeMap<u16, u64>,
    last_number: u64,
    last_packet: u16,
    bytes: usize,
    /// When the client last acknowledged something, or came.
    moved: Mono,
    /// Rows that are not needed any more.
    rows: Vec<Row>,
    dropped: u64,
    expired: u64,
}

impl Drop for Queue {
    fn drop(&mut self) {
        if let Some(all) = &self.kept_in_all {
            all.fetch_sub(self.bytes, Relaxed);
        }
    }
}

impl Queue {
    /// `kept_in_all`: where all kept sessions count their bytes; `None` for a session that is not kept.
    pub fn new(session: SessionId, kept_in_all: Option<Arc<AtomicUsize>>) -> Self {
        Self {
            session,
            kept_in_all,
            waiting: VecDeque::new(),
            sent: BTreeMap::new(),
            packets: BTreeMap::new(),
            last_number: 0,
            last_packet: 0,
            bytes: 0,
            moved: Mono::ZERO,
            rows: Vec::new(),
            dropped: 0,
            expired: 0,
        }
    }

    pub fn is_kept(&self) -> bool {
        self.kept_in_all.is_some()
    }

    /// Messages that were dropped because there were too many, and that expired here, since this was last asked.
    pub fn take_losses(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.dropped), std::mem::take(&mut self.expired))
    }

    /// Rows that may go.
    pub fn take_rows(&mut self) -> Vec<Row> {
        std::mem::take(&mut self.rows)
    }

    /// What was owed when the node ended: it may have been sent.
    pub fn restore(&mut self, owed: Owed) {
        let Owed { number, packet, released, delivery } = owed;
        let state = if released { State::Released } else { State::Again };
        self.last_number = self.last_number.max(number);
        self.last_packet = packet;
        self.enter(Item { number, packet: Some(packet), delivery, state, stored: true });
    }

    fn enter(&mut self, item: Item) {
        self.count(item.size(), true);
        if let Some(packet) = item.packet {
            self.packets.insert(packet, item.number);
        }
        match item.state {
            State::Released => drop(self.sent.insert(item.number, item)),
            State::Held | State::Ready | State::Again => self.waiting.push_back(item),
        }
    }

    fn count(&mut self, size: usize, more: bool) {
        self.bytes = if more { self.bytes + size } else { self.bytes - size };
        match (&self.kept_in_all, more) {
            (Some(all), true) => drop(all.fetch_add(size, Relaxed)),
            (Some(all), false) => drop(all.fetch_sub(size, Relaxed)),
            (None, _) => {}
        }
    }

    /// A live message. `is_here`: the client is connected.
    pub fn push(&mut self, delivery: Delivery, is_here: bool, now: Now) -> Pushed {
        match delivery.qos {
            Qos::AtMostOnce if !is_here || self.is_full() => Pushed::Dropped,
            Qos::AtMostOnce => self.queue(delivery, None),
            Qos::AtLeastOnce | Qos::ExactlyOnce if self.is_kept() => self.hold(delivery, now),
            Qos::AtLeastOnce | Qos::ExactlyOnce if self.is_full() => Pushed::Overflow,
            Qos::AtLeastOnce | Qos::ExactlyOnce => self.queue(delivery, None),
        }
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_QUEUED || self.bytes >= MAX_QUEUED_BYTES
    }

    fn queue(&mut self, delivery: Delivery, packet: Option<u16>) -> Pushed {
        self.last_number += 1;
        let number = self.last_number;
        self.enter(Item { number, packet, delivery, state: State::Ready, stored: false });
        Pushed::Queued
    }

    fn hold(&mut self, delivery: Delivery, now: Now) -> Pushed {
        let mut rows = self.make_room();
        let Some(packet) = self.next_packet() else { return Pushed::Dropped };
        self.last_number += 1;
        let owed = Owed { number: self.last_number, packet, released: false, delivery };
        rows.push(owed.row(self.session, now));
        let Owed { number, packet, released: _, delivery } = owed;
        self.enter(Item { number, packet: Some(packet), delivery, state: State::Held, stored: true });
        Pushed::Held { number, rows }
    }

    /// The rows of what had to go.
    fn make_room(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        while self.is_overfull()
            && let Some(oldest) = self.waiting.iter().position(|item| item.packet.is_some())
            && let Some(item) = self.waiting.remove(oldest)
        {
            self.dropped += 1;
            rows.extend(self.bury(&item));
        }
        rows
    }

    fn is_overfull(&self) -> bool {
        let all = self.kept_in_all.as_ref().map_or(0, |all| all.load(Relaxed));
        let is_one_too_many = all >= MAX_KEPT_BYTES_IN_ALL && self.bytes >= SHARE;
        self.packets.len() >= MAX_KEPT || self.bytes >= MAX_KEPT_BYTES || is_one_too_many
    }

    /// Whether a kept session is owed half of what it may be, and its client is at work on it: time to let it catch up.
    pub fn is_crowded(&self, now: Mono) -> bool {
        let half = self.packets.len() >= MAX_KEPT / 2 || self.bytes >= MAX_KEPT_BYTES / 2;
        self.is_kept() && half && now.since(self.moved) < PATIENCE
    }

    /// Counts it off; the row that goes with it.
    fn bury(&mut self, item: &Item) -> Option<Row> {
        self.count(item.size(), false);
        if let Some(packet) = item.packet {
            self.packets.remove(&packet);
        }
        item.stored.then(|| Owed::gone(self.session, item.number))
    }

    /// The next number that is free, going round: one that was just given back is not given out at once.
    fn next_packet(&mut self) -> Option<u16> {
        for _ in 0..=self.packets.len() {
            self.last_packet = self.last_packet.checked_add(1).unwrap_or(1);
            if !self.packets.contains_key(&self.last_packet) {
                return Some(self.last_packet);
            }
        }
        None
    }

    /// What is retained, to a new subscription: all of it, as long as one whole store's worth is not exceeded.
    pub fn replay(&mut self, deliveries: Vec<Delivery>) -> Pushed {
        if self.waiting.len() + deliveries.len() > MAX_RETAINED {
            return Pushed::Overflow;
        }
        for delivery in deliveries {
            let numbered = self.is_kept() && delivery.qos != Qos::AtMostOnce;
            let packet = if numbered { self.next_packet() } else { None };
            self.queue(delivery, packet);
        }
        Pushed::Queued
    }

    /// The row of this message is safe, or the disk refuses and the node goes on in memory.
    pub fn release(&mut self, number: u64) {
        let at = self.waiting.binary_search_by_key(&number, |item| item.number);
        if let Some(item) = at.ok().and_then(|at| self.waiting.get_mut(at))
            && item.state == State::Held
        {
            item.state = State::Ready;
        }
    }

    /// The node did not take the message: nobody is to hear it.
    pub fn discard(&mut self, number: u64) {
        let at = self.waiting.binary_search_by_key(&number, |item| item.number);
        if let Some(item) = at.ok().and_then(|at| self.waiting.remove(at)) {
            let row = self.bury(&item);
            self.rows.extend(row);
        }
    }

    /// The next thing to send.
    pub fn next(&mut self, now: Mono) -> Option<Outgoing> {
        loop {
            let item = self.waiting.pop_front_if(|item| item.state != State::Held)?;
            // Of a QoS 2 message that may have been sent the client may be in the middle: it goes on, expired or not.
            let may_go = item.state == State::Ready || item.delivery.qos == Qos::AtLeastOnce;
            if may_go && item.delivery.message.is_expired(now) {
                self.expired += 1;
                let row = self.bury(&item);
                self.rows.extend(row);
                continue;
            }
            let outgoing = item.outgoing();
            if item.packet.is_some() {
                self.sent.insert(item.number, item);
            } else {
                self.bury(&item);
            }
            return Some(outgoing);
        }
    }

    /// The client acknowledged it for good, or cannot take it.
    pub fn finished(&mut self, packet: u16, now: Mono) {
        self.moved = now;
        if let Some(item) = self.packets.get(&packet).and_then(|number| self.sent.remove(number)) {
            let row = self.bury(&item);
            self.rows.extend(row);
        }
    }

    /// The client has a QoS 2 message. The row, if any, must be stored before it is told PUBREL.
    pub fn received(&mut self, packet: u16, now: Now) -> Option<Row> {
        let number = *self.packets.get(&packet)?;
        let item = self.sent.get_mut(&number)?;
        item.state = State::Released;
        let owed = Owed { number, packet, released: true, delivery: item.delivery.clone() };
        item.stored.then(|| owed.row(self.session, now))
    }

    /// The client is back: what it has not acknowledged goes first, in its old order (MQTT 5.0 §4.4). Returns the packets
    /// that it said it has and was perhaps not told to forget.
    pub fn resume(&mut self, now: Mono) -> Vec<u16> {
        self.moved = now;
        let (released, unacknowledged): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.sent).into_iter().partition(|(_, item)| item.state == State::Released);
        for (_, item) in unacknowledged.into_iter().rev() {
            self.waiting.push_front(Item { state: State::Again, ..item });
        }
        self.sent = released;
        self.sent.values().filter_map(|item| item.packet).collect()
    }

    /// Nothing is owed any more.
    pub fn clear(&mut self) {
        let sent = std::mem::take(&mut self.sent).into_values();
        let all: Vec<Item> = sent.chain(std::mem::take(&mut self.waiting)).collect();
        for item in all {
            let row = self.bury(&item);
            self.rows.extend(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use bus::{Topic, UnixMillis};
    use bytes::Bytes;

    use super::*;
    use crate::gate::Message;
    use crate::gate::row::Kept;

    const NOW: Now = Now { mono: Mono(0), wall: UnixMillis(0) };

    fn delivery(payload: &str, qos: Qos, expires: Option<Mono>) -> Delivery {
        let message = Message {
            topic: Topic::new("t").unwrap(),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            qos,
            retain: false,
            expires,
            properties: vec![],
            from: None,
        };
        Delivery { message: Arc::new(message), qos, retain: false, subscriptions: vec![] }
    }

    fn one(payload: &str) -> Delivery {
        delivery(payload, Qos::AtLeastOnce, None)
    }

    fn kept() -> Queue {
        Queue::new(SessionId(1), Some(Arc::default()))
    }

    fn push_kept(queue: &mut Queue, delivery: Delivery) -> u64 {
        let Pushed::Held { number, .. } = queue.push(delivery, false, NOW) else { panic!() };
        number
    }

    /// What comes out, as text: `payload#packet`, with `+` if it may have been sent before.
    fn drain(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.next(Mono(0)))
            .map(|Outgoing { delivery, packet, again }| {
                let payload = std::str::from_utf8(&delivery.message.payload).unwrap();
                let again = if again { "+" } else { "" };
                format!("{payload}#{}{again}", packet.unwrap_or_default())
            })
            .collect()
    }

    #[test]
    fn a_message_to_a_kept_session_waits_until_it_is_stored() {
        let mut queue = kept();
        let (a, b) = (push_kept(&mut queue, one("a")), push_kept(&mut queue, one("b")));
        queue.release(b);
        assert_eq!(drain(&mut queue), [""; 0]);
        queue.release(a);
        assert_eq!(drain(&mut queue), ["a#1", "b#2"]);
    }

    #[test]
    fn what_was_not_acknowledged_comes_again_first_and_under_its_old_number() {
        let mut queue = kept();
        for payload in ["a", "b", "c"] {
            let number = push_kept(&mut queue, delivery(payload, Qos::ExactlyOnce, None));
            queue.release(number);
        }
        assert_eq!(drain(&mut queue), ["a#1", "b#2", "c#3"]);
        queue.finished(1, Mono(0));
        let row = queue.received(3, NOW).unwrap();
        assert!(matches!(
            Kept::read(row.key.as_str(), &row.value.unwrap(), NOW),
            Some(Kept::Owed(_, Owed { number: 3, packet: 3, released: true, .. }))
        ));
        let number = push_kept(&mut queue, one("d"));
        queue.release(number);
        assert_eq!(queue.resume(Mono(0)), [3]);
        assert_eq!(drain(&mut queue), ["b#2+", "d#4"]);
        [2, 3, 4].into_iter().for_each(|packet| queue.finished(packet, Mono(0)));
        let gone = queue.take_rows();
        assert_eq!((gone.len(), queue.bytes), (4, 0));
        assert!(gone.iter().all(|row| row.value.is_none()));
    }

    #[test]
    fn a_queue_is_the_same_after_a_restart() {
        let mut queue = kept();
        let mut rows = Vec::new();
        for payload in ["a", "b"] {
            let Pushed::Held { number, rows: put } = queue.push(one(payload), true, NOW) else { panic!() };
            queue.release(number);
            rows.extend(put);
        }
        let mut after = kept();
        for row in rows {
            let Some(Kept::Owed(_, owed)) = Kept::read(row.key.as_str(), &row.value.unwrap(), NOW) else {
                panic!()
            };
            after.restore(owed);
        }
        let number = push_kept(&mut after, one("c"));
        after.release(number);
        assert_eq!(drain(&mut after), ["a#1+", "b#2+", "c#3"]);
    }

    #[test]
    fn a_full_kept_session_drops_its_oldest_and_counts_it() {
        let mut queue = kept();
        for n in 0..=MAX_KEPT {
            let number = push_kept(&mut queue, one(&n.to_string()));
            queue.release(number);
        }
        assert_eq!(queue.take_losses(), (1, 0));
        assert!(matches!(queue.next(Mono(0)), Some(Outgoing { packet: Some(2), .. })));
    }

    #[test]
    fn who_is_not_kept_and_too_slow_must_go_but_for_qos_0() {
        let mut queue = Queue::new(SessionId(1), None);
        for _ in 0..MAX_QUEUED {
            assert_eq!(queue.push(one("x"), true, NOW), Pushed::Queued);
        }
        assert_eq!(queue.push(one("x"), true, NOW), Pushed::Overflow);
        assert_eq!(queue.push(delivery("x", Qos::AtMostOnce, None), true, NOW), Pushed::Dropped);
    }

    #[test]
    fn an_absent_client_misses_qos_0() {
        assert_eq!(kept().push(delivery("x", Qos::AtMostOnce, None), false, NOW), Pushed::Dropped);
    }

    #[test]
    fn what_expires_in_the_queue_is_not_sent_and_its_row_goes() {
        let mut queue = kept();
        for expires in [Mono(5), Mono(9)] {
            let number = push_kept(&mut queue, delivery("x", Qos::AtLeastOnce, Some(expires)));
            queue.release(number);
        }
        assert!(matches!(queue.next(Mono(5)), Some(Outgoing { packet: Some(2), .. })));
        assert_eq!((queue.take_losses(), queue.take_rows().len()), ((0, 1), 1));
    }

    #[test]
    fn packet_numbers_in_use_are_passed_over() {
        let mut queue = kept();
        queue.last_packet = u16::MAX - 1;
        let numbers = ["a", "b", "c"].map(|payload| push_kept(&mut queue, one(payload)));
        numbers.into_iter().for_each(|number| queue.release(number));
        assert_eq!(drain(&mut queue), ["a#65535", "b#1", "c#2"]);
        queue.last_packet = u16::MAX - 1;
        queue.finished(1, Mono(0));
        let numbers = ["d", "e"].map(|payload| push_kept(&mut queue, one(payload)));
        numbers.into_iter().for_each(|number| queue.release(number));
        assert_eq!(drain(&mut queue), ["d#1", "e#3"]);
    }

    #[test]
    fn the_bytes_of_all_kept_sessions_are_counted_together() {
        let all = Arc::new(AtomicUsize::new(0));
        let mut a = Queue::new(SessionId(1), Some(Arc::clone(&all)));
        let mut b = Queue::new(SessionId(2), Some(Arc::clone(&all)));
        push_kept(&mut a, one("a"));
        push_kept(&mut b, one("b"));
        assert_eq!(all.load(Relaxed), 2 * (2 + OVERHEAD));
        drop(a);
        b.clear();
        assert_eq!((all.load(Relaxed), b.take_rows().len()), (0, 1));
    }
}

//! What the cloud remembers of one edge's outbox: up to which entry of each lane it has stored, so that each entry is
//! taken exactly once. Kept in the keyspace under `/sync/in/<edge>`, in the same commit as what was taken.
//!
//! A disk that was copied numbers other entries as the original did, and they would be taken for repeated ones. So each
//! hello is answered with a receipt, and the next one must show it.

use bus::Name;
use bus::twin::Incarnation;
use minicbor::{Decode, Encode};

use crate::key::Key;
use crate::keyspace::Keyspace;
use crate::sync::{Body, Entry, Hello, Lane, Misbehaviour, PerLane, Receipt, encode};

/// Incarnations remembered, the present one first: two disks that take turns under one name (a cloned card) each find
/// their position again.
const MAX_LIVES: usize = 4;

#[derive(Debug, Clone, Encode, Decode)]
struct Life {
    #[n(0)]
    incarnation: Incarnation,
    /// The last entry stored, by lane.
    #[n(1)]
    stored: PerLane,
    /// Of the last welcome.
    #[n(2)]
    receipt: Receipt,
    /// What the hello before that welcome showed; `None` once an entry was stored since.
    #[n(3)]
    shown: Option<Receipt>,
}

impl Life {
    /// Whether this hello comes from the disk that sent all that is stored. In this order:
    /// 1. more is stored than it may have sent: no;
    /// 2. it shows the last receipt: yes;
    /// 3. it shows the one before, and nothing was stored since: yes, its welcome got lost;
    /// 4. else no.
    fn is_of(&self, hello: &Hello) -> bool {
        let is_ahead = self.stored.exceeds(&hello.sent);
        !is_ahead && (hello.receipt == self.receipt || self.shown == Some(hello.receipt))
    }
}

/// How an edge came to an incarnation other than its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Never seen before: a new node, or its disk was wiped or replaced.
    NewDisk,
    /// It was told to take one: its disk is an old copy or a clone's, or this cloud was put back to a backup.
    Renewed,
    /// Seen before the last one: two disks take turns under one name.
    Returned,
}

/// A disk other than the last one was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// The last one's incarnation.
    pub(crate) was: Option<Incarnation>,
    pub(crate) cause: Cause,
}

/// A hello whose disk may not go on under its incarnation, and what another one of its would come of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    incarnation: Incarnation,
    cause: Cause,
}

/// One edge's inbox, while it is connected.
#[derive(Debug, Clone)]
pub(crate) struct Inbox {
    key: Key,
    present: Life,
    earlier: Vec<Life>,
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// These are new.
    Taken(Vec<Entry>),
    /// Something before it is missing; nothing was taken.
    Gap,
}

fn key(edge: &Name) -> String {
    format!("/sync/in/{edge}")
}

impl Inbox {
    /// Whether the edge was ever welcomed.
    pub(crate) fn is_known(edge: &Name, ks: &Keyspace) -> bool {
        ks.get(&key(edge)).is_some()
    }

    /// The inbox for the disk that said this hello, welcomed with the receipt `fresh`. `refused` is what it said before
    /// on this link.
    pub(crate) fn open(
        edge: &Name,
        hello: &Hello,
        refused: Option<Refused>,
        fresh: Receipt,
        ks: &mut Keyspace,
    ) -> Result<(Self, Option<Arrival>), Refused> {
        let key = Key::literal(&key(edge));
        let mut earlier: Vec<Life> =
            ks.get(key.as_str()).and_then(|bytes| minicbor::decode(bytes).ok()).unwrap_or_default();
        let was = earlier.first().map(|life| life.incarnation);
        let (cause, stored) = admit(&mut earlier, hello, refused)?;
        earlier.truncate(MAX_LIVES - 1);
        let incarnation = hello.incarnation;
        let present = Life { incarnation, stored, receipt: fresh, shown: Some(hello.receipt) };
        let inbox = Self { key, present, earlier };
        inbox.save(ks);
        let is_other = was != Some(incarnation);
        Ok((inbox, is_other.then_some(Arrival { was, cause })))
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.present.incarnation
    }

    pub(crate) fn stored(&self, lane: Lane) -> u64 {
        self.present.stored[lane]
    }

    /// Whether this cloud once said that it has stored more of the disk that says `hello`: it was put back to a copy of
    /// its own since, and knows nothing of that.
    pub(crate) fn has_forgotten(&self, hello: &Hello) -> bool {
        hello.stored.exceeds(&self.present.stored)
    }

    /// Takes what is new of a message.
    pub(crate) fn receive(
        &mut self,
        lane: Lane,
        after: Option<u64>,
        entries: Vec<Entry>,
        ks: &mut Keyspace,
    ) -> Result<Received, Misbehaviour> {
        check(after, &entries)?;
        let stored = self.stored(lane);
        if after.is_some_and(|after| after > stored) {
            return Ok(Received::Gap);
        }
        let taken: Vec<Entry> =
            entries.into_iter().filter(|entry| entry.seq > stored).map(|entry| clip(entry, stored)).collect();
        if let Some(last) = taken.last() {
            self.present.stored[lane] = last.seq;
            self.present.shown = None;
            self.save(ks);
        }
        Ok(Received::Taken(taken))
    }

    fn save(&self, ks: &mut Keyspace) {
        let lives: Vec<&Life> = std::iter::once(&self.present).chain(&self.earlier).collect();
        ks.put(self.key.clone(), encode(&lives));
    }
}

/// Takes the life that says `hello` out of `lives`: how it came here, and what of it is stored. In this order:
/// 1. a life that we know: if it is the disk that we know by it;
/// 2. one that shows a receipt, which we gave and forgot, or gave before we were put back to a backup: refused;
/// 3. one that was drawn at our request: yes;
/// 4. else if lives were never forgotten. One of those might have come back, from before its first welcome.
fn admit(
    lives: &mut Vec<Life>,
    hello: &Hello,
    refused: Option<Refused>,
) -> Result<(Cause, PerLane), Refused> {
    let incarnation = hello.incarnation;
    if let Some(at) = lives.iter().position(|life| life.incarnation == incarnation) {
        let is_of = lives[at].is_of(hello);
        let copy = Refused { incarnation, cause: Cause::Renewed };
        return if is_of { Ok((Cause::Returned, lives.remove(at).stored)) } else { Err(copy) };
    }
    if hello.receipt != Receipt::NONE {
        return Err(Refused { incarnation, cause: Cause::Renewed });
    }
    match refused {
        Some(refused) if refused.incarnation != incarnation => Ok((refused.cause, PerLane::default())),
        Some(_) | None if lives.len() < MAX_LIVES => Ok((Cause::NewDisk, PerLane::default())),
        Some(_) | None => Err(Refused { incarnation, cause: Cause::NewDisk }),
    }
}

/// Numbers must grow, or "stored up to" means nothing.
fn check(after: Option<u64>, entries: &[Entry]) -> Result<(), Misbehaviour> {
    let mut last = after.unwrap_or(0);
    for Entry { seq, body } in entries {
        let sound = match body {
            Body::Data { .. } => true,
            Body::Gap { from } => *from > last && from <= seq,
        };
        if *seq <= last || !sound {
            return Err(Misbehaviour::Malformed);
        }
        last = *seq;
    }
    Ok(())
}

/// What is stored already is not missing, though the edge did not get to know that it arrived.
fn clip(entry: Entry, stored: u64) -> Entry {
    match entry.body {
        Body::Gap { from } => Entry { body: Body::Gap { from: from.max(stored + 1) }, ..entry },
        Body::Data { .. } => entry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Position;

    fn data(seq: u64) -> Entry {
        Entry { seq, body: Body::Data { key: "k".into(), payload: "v".into() } }
    }

    fn gap(from: u64, seq: u64) -> Entry {
        Entry { seq, body: Body::Gap { from } }
    }

    fn hello(incarnation: u64, receipt: u64, sent: u64) -> Hello {
        let (incarnation, receipt) = (Incarnation(incarnation), Receipt(receipt));
        Hello {
            incarnation,
            applied: Position::default(),
            session: 1,
            receipt,
            sent: [sent; 3].into(),
            epoch: 1,
            stored: PerLane::default(),
        }
    }

    /// `fresh` is the receipt that it is welcomed with.
    fn greet(ks: &mut Keyspace, hello: &Hello, fresh: u64) -> Result<(Inbox, Option<Arrival>), Refused> {
        Inbox::open(&Name::new("a").unwrap(), hello, None, Receipt(fresh), ks)
    }

    fn other(was: Option<u64>, cause: Cause) -> Option<Arrival> {
        Some(Arrival { was: was.map(Incarnation), cause })
    }

    fn open(ks: &mut Keyspace, incarnation: u64) -> Inbox {
        greet(ks, &hello(incarnation, 0, 0), 1).unwrap().0
    }

    #[test]
    fn an_entry_is_taken_once() {
        let mut ks = Keyspace::new();
        let mut inbox = open(&mut ks, 1);
        let mut receive =
            |after, entries: &[Entry]| inbox.receive(Lane::Event, after, entries.to_vec(), &mut ks);
        assert_eq!(receive(None, &[data(1), data(2)]), Ok(Received::Taken(vec![data(1), data(2)])));
        assert_eq!(receive(None, &[data(1), data(2), data(4)]), Ok(Received::Taken(vec![data(4)])));
        assert_eq!(receive(Some(5), &[data(6)]), Ok(Received::Gap));
        assert_eq!(receive(Some(4), &[data(6)]), Ok(Received::Taken(vec![data(6)])));
        assert_eq!(receive(Some(2), &[data(3)]), Ok(Received::Taken(vec![])));
        let (inbox, arrival) = greet(&mut ks, &hello(1, 1, 6), 2).unwrap();
        assert_eq!((inbox.stored(Lane::Event), inbox.stored(Lane::State), arrival), (6, 0, None));
    }

    #[test]
    fn numbers_that_do_not_grow_are_malformed() {
        let mut ks = Keyspace::new();
        let mut inbox = open(&mut ks, 1);
        for (after, entries) in [
            (None, vec![data(2), data(2)]),
            (Some(3), vec![data(3)]),
            (None, vec![data(0)]),
            (None, vec![gap(3, 2)]),
            (None, vec![data(3), gap(2, 5)]),
        ] {
            assert_eq!(inbox.receive(Lane::State, after, entries, &mut ks), Err(Misbehaviour::Malformed));
        }
    }

    #[test]
    fn a_gap_does_not_claim_what_is_stored() {
        let mut ks = Keyspace::new();
        let mut inbox = open(&mut ks, 1);
        inbox.receive(Lane::Telemetry, None, vec![data(1), data(2)], &mut ks).unwrap();
        let taken = inbox.receive(Lane::Telemetry, None, vec![gap(1, 4), data(5)], &mut ks);
        assert_eq!(taken, Ok(Received::Taken(vec![gap(3, 4), data(5)])));
    }

    #[test]
    fn a_new_incarnation_starts_afresh_and_an_old_one_where_it_was() {
        let mut ks = Keyspace::new();
        let (mut inbox, arrival) = greet(&mut ks, &hello(1, 0, 0), 1).unwrap();
        assert_eq!(arrival, other(None, Cause::NewDisk));
        inbox.receive(Lane::State, None, vec![data(9)], &mut ks).unwrap();
        let (inbox, arrival) = greet(&mut ks, &hello(2, 0, 0), 2).unwrap();
        assert_eq!(inbox.stored(Lane::State), 0);
        assert_eq!(arrival, other(Some(1), Cause::NewDisk));
        let (inbox, arrival) = greet(&mut ks, &hello(1, 1, 9), 3).unwrap();
        assert_eq!(inbox.stored(Lane::State), 9);
        assert_eq!(arrival, other(Some(2), Cause::Returned));
    }

    #[test]
    fn the_last_receipt_is_good_and_the_one_before_until_an_entry_is_stored() {
        let mut ks = Keyspace::new();
        let is_good = |ks: &mut Keyspace, shown, fresh| greet(ks, &hello(1, shown, 0), fresh).is_ok();
        assert!(is_good(&mut ks, 0, 1) && is_good(&mut ks, 0, 2), "the first welcome got lost");
        assert!(!is_good(&mut ks, 1, 9), "it was replaced before anybody showed it");
        assert!(is_good(&mut ks, 2, 3) && is_good(&mut ks, 2, 4) && is_good(&mut ks, 4, 5));
        assert!(!is_good(&mut ks, 0, 9) && !is_good(&mut ks, 2, 9) && !is_good(&mut ks, 77, 9));
        let (mut inbox, _) = greet(&mut ks, &hello(1, 5, 0), 6).unwrap();
        inbox.receive(Lane::Event, None, vec![data(1)], &mut ks).unwrap();
        assert!(greet(&mut ks, &hello(1, 5, 1), 9).is_err(), "something came since");
        assert!(greet(&mut ks, &hello(1, 6, 1), 7).is_ok());
    }

    #[test]
    fn a_disk_that_never_said_what_is_stored_is_refused_though_its_receipt_is_the_last() {
        let mut ks = Keyspace::new();
        let mut inbox = open(&mut ks, 1);
        inbox.receive(Lane::Event, None, vec![data(5)], &mut ks).unwrap();
        assert!(greet(&mut ks, &hello(1, 1, 4), 2).is_err());
        assert!(greet(&mut ks, &hello(1, 1, 5), 2).is_ok());
    }

    #[test]
    fn whoever_shows_a_receipt_that_nobody_remembers_is_refused() {
        let mut ks = Keyspace::new();
        let refused = greet(&mut ks, &hello(1, 1, 0), 2).unwrap_err();
        assert_eq!(refused, Refused { incarnation: Incarnation(1), cause: Cause::Renewed });
    }

    #[test]
    fn once_lives_are_forgotten_an_unknown_one_must_be_drawn_anew() {
        let mut ks = Keyspace::new();
        let edge = Name::new("a").unwrap();
        for incarnation in 1..=MAX_LIVES as u64 {
            open(&mut ks, incarnation);
        }
        let unknown = hello(5, 0, 0);
        let refused = greet(&mut ks, &unknown, 2).unwrap_err();
        assert_eq!(refused, Refused { incarnation: Incarnation(5), cause: Cause::NewDisk });
        let again = Inbox::open(&edge, &unknown, Some(refused), Receipt(2), &mut ks);
        assert_eq!(again.unwrap_err(), refused, "said before it heard the answer");
        let drawn = Inbox::open(&edge, &hello(6, 0, 0), Some(refused), Receipt(2), &mut ks).unwrap();
        assert_eq!(drawn.1, other(Some(4), Cause::NewDisk));
        assert!(greet(&mut ks, &hello(1, 1, 0), 3).is_err(), "the oldest was forgotten for it");
        assert!(greet(&mut ks, &hello(2, 1, 0), 3).is_ok());
    }
}

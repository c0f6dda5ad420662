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
use crate::sync::{Body, Entry, Hello, Lane, Misbehaviour, Receipt, encode};

/// Incarnations remembered, the present one first: two disks that take turns under one name (a cloned card) each find
/// their position again.
const MAX_LIVES: usize = 4;

#[derive(Debug, Clone, Encode, Decode)]
struct Life {
    #[n(0)]
    incarnation: Incarnation,
    /// The last entry stored, by lane.
    #[n(1)]
    stored: [u64; 3],
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
        let is_ahead = self.stored.iter().zip(hello.sent).any(|(stored, sent)| *stored > sent);
        !is_ahead && (hello.receipt == self.receipt || self.shown == Some(hello.receipt))
    }
}

/// Whose hello was answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The disk seen last.
    Same,
    /// Another one than `was`; `known` if from before that.
    Other { was: Option<Incarnation>, known: bool },
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

impl Inbox {
    /// The inbox for the disk that said this hello, welcomed with the receipt `fresh`; `None` if it may not go on under
    /// its incarnation.
    pub(crate) fn open(
        edge: &Name,
        hello: &Hello,
        fresh: Receipt,
        ks: &mut Keyspace,
    ) -> Option<(Self, Arrival)> {
        let key = Key::literal(&format!("/sync/in/{edge}"));
        let mut lives: Vec<Life> =
            ks.get(key.as_str()).and_then(|bytes| minicbor::decode(bytes).ok()).unwrap_or_default();
        let was = lives.first().map(|life| life.incarnation);
        let found = lives.iter().position(|life| life.incarnation == hello.incarnation);
        let (known, stored) = match found.map(|at| lives.remove(at)) {
            Some(life) if life.is_of(hello) => (true, life.stored),
            None if hello.receipt == Receipt::NONE => (false, [0; 3]),
            Some(_) | None => return None,
        };
        lives.truncate(MAX_LIVES - 1);
        let shown = Some(hello.receipt);
        let present = Life { incarnation: hello.incarnation, stored, receipt: fresh, shown };
        let inbox = Self { key, present, earlier: lives };
        inbox.save(ks);
        let is_same = was == Some(hello.incarnation);
        Some((inbox, if is_same { Arrival::Same } else { Arrival::Other { was, known } }))
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.present.incarnation
    }

    pub(crate) fn stored(&self, lane: Lane) -> u64 {
        self.present.stored[lane as usize]
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
            self.present.stored[lane as usize] = last.seq;
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
        Hello { incarnation, applied: Position::default(), session: 1, receipt, sent: [sent; 3], epoch: 1 }
    }

    /// `fresh` is the receipt that it is welcomed with.
    fn greet(ks: &mut Keyspace, hello: &Hello, fresh: u64) -> Option<(Inbox, Arrival)> {
        Inbox::open(&Name::new("a").unwrap(), hello, Receipt(fresh), ks)
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
        assert_eq!((inbox.stored(Lane::Event), inbox.stored(Lane::State), arrival), (6, 0, Arrival::Same));
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
        assert_eq!(arrival, Arrival::Other { was: None, known: false });
        inbox.receive(Lane::State, None, vec![data(9)], &mut ks).unwrap();
        let (inbox, arrival) = greet(&mut ks, &hello(2, 0, 0), 2).unwrap();
        assert_eq!(inbox.stored(Lane::State), 0);
        assert_eq!(arrival, Arrival::Other { was: Some(Incarnation(1)), known: false });
        let (inbox, arrival) = greet(&mut ks, &hello(1, 1, 9), 3).unwrap();
        assert_eq!(inbox.stored(Lane::State), 9);
        assert_eq!(arrival, Arrival::Other { was: Some(Incarnation(2)), known: true });
    }

    #[test]
    fn the_last_receipt_is_good_and_the_one_before_until_an_entry_is_stored() {
        let mut ks = Keyspace::new();
        let is_good = |ks: &mut Keyspace, shown, fresh| greet(ks, &hello(1, shown, 0), fresh).is_some();
        assert!(is_good(&mut ks, 0, 1) && is_good(&mut ks, 0, 2), "the first welcome got lost");
        assert!(!is_good(&mut ks, 1, 9), "it was replaced before anybody showed it");
        assert!(is_good(&mut ks, 2, 3) && is_good(&mut ks, 2, 4) && is_good(&mut ks, 4, 5));
        assert!(!is_good(&mut ks, 0, 9) && !is_good(&mut ks, 2, 9) && !is_good(&mut ks, 77, 9));
        let (mut inbox, _) = greet(&mut ks, &hello(1, 5, 0), 6).unwrap();
        inbox.receive(Lane::Event, None, vec![data(1)], &mut ks).unwrap();
        assert!(greet(&mut ks, &hello(1, 5, 1), 9).is_none(), "something came since");
        assert!(greet(&mut ks, &hello(1, 6, 1), 7).is_some());
    }

    #[test]
    fn a_disk_that_never_said_what_is_stored_is_refused_though_its_receipt_is_the_last() {
        let mut ks = Keyspace::new();
        let mut inbox = open(&mut ks, 1);
        inbox.receive(Lane::Event, None, vec![data(5)], &mut ks).unwrap();
        assert!(greet(&mut ks, &hello(1, 1, 4), 2).is_none());
        assert!(greet(&mut ks, &hello(1, 1, 5), 2).is_some());
    }

    #[test]
    fn whoever_shows_a_receipt_that_nobody_remembers_is_refused() {
        let mut ks = Keyspace::new();
        for incarnation in 1..=MAX_LIVES as u64 + 1 {
            open(&mut ks, incarnation);
        }
        assert!(greet(&mut ks, &hello(1, 1, 0), 2).is_none());
        assert!(greet(&mut ks, &hello(2, 1, 0), 2).is_some());
    }
}

//! What the cloud remembers of one edge's outbox: up to which entry of each lane it has stored, so that each entry is
//! taken exactly once. Kept in the keyspace under `/sync/in/<edge>`, in the same commit as what was taken.

use bus::Name;
use bus::twin::Incarnation;
use minicbor::{Decode, Encode};

use crate::key::Key;
use crate::keyspace::Keyspace;
use crate::sync::{Body, Entry, Lane, Misbehaviour, encode};

/// Incarnations remembered, the present one first: two disks that take turns under one name (a cloned card) each find
/// their position again.
const MAX_LIVES: usize = 4;

#[derive(Debug, Encode, Decode)]
struct Life {
    #[n(0)]
    incarnation: Incarnation,
    /// The last entry stored, by lane.
    #[n(1)]
    stored: [u64; 3],
}

/// One edge's inbox, while it is connected.
#[derive(Debug)]
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
    /// The inbox of `edge` in this incarnation. If it is not the one seen last, that one (if any) is returned too, and
    /// this one is remembered.
    pub(crate) fn open(
        edge: &Name,
        incarnation: Incarnation,
        ks: &mut Keyspace,
    ) -> (Self, Option<Option<Incarnation>>) {
        let key = Key::literal(&format!("/sync/in/{edge}"));
        let mut lives: Vec<Life> =
            ks.get(key.as_str()).and_then(|bytes| minicbor::decode(bytes).ok()).unwrap_or_default();
        let last = lives.first().map(|life| life.incarnation);
        let known = lives.iter().position(|life| life.incarnation == incarnation);
        let present = known.map_or(Life { incarnation, stored: [0; 3] }, |at| lives.remove(at));
        lives.truncate(MAX_LIVES - 1);
        let inbox = Self { key, present, earlier: lives };
        if last == Some(incarnation) {
            return (inbox, None);
        }
        inbox.save(ks);
        (inbox, Some(last))
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.present.incarnation
    }

    pub(crate) fn stored(&self, lane: Lane) -> u64 {
        self.present.stored[lane as usize]
    }

    /// Whether more is stored than the edge says it ever numbered: it runs on an old copy of its disk.
    pub(crate) fn is_ahead_of(&self, numbered: [u64; 3]) -> bool {
        self.present.stored.iter().zip(numbered).any(|(stored, numbered)| *stored > numbered)
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

    fn data(seq: u64) -> Entry {
        Entry { seq, body: Body::Data { key: "k".into(), payload: "v".into() } }
    }

    fn gap(from: u64, seq: u64) -> Entry {
        Entry { seq, body: Body::Gap { from } }
    }

    fn open(ks: &mut Keyspace, incarnation: u64) -> (Inbox, Option<Option<Incarnation>>) {
        Inbox::open(&Name::new("a").unwrap(), Incarnation(incarnation), ks)
    }

    #[test]
    fn an_entry_is_taken_once() {
        let mut ks = Keyspace::new();
        let (mut inbox, _) = open(&mut ks, 1);
        let mut receive =
            |after, entries: &[Entry]| inbox.receive(Lane::Event, after, entries.to_vec(), &mut ks);
        assert_eq!(receive(None, &[data(1), data(2)]), Ok(Received::Taken(vec![data(1), data(2)])));
        assert_eq!(receive(None, &[data(1), data(2), data(4)]), Ok(Received::Taken(vec![data(4)])));
        assert_eq!(receive(Some(5), &[data(6)]), Ok(Received::Gap));
        assert_eq!(receive(Some(4), &[data(6)]), Ok(Received::Taken(vec![data(6)])));
        assert_eq!(receive(Some(2), &[data(3)]), Ok(Received::Taken(vec![])));
        let (inbox, announced) = open(&mut ks, 1);
        assert_eq!((inbox.stored(Lane::Event), inbox.stored(Lane::State), announced), (6, 0, None));
    }

    #[test]
    fn numbers_that_do_not_grow_are_malformed() {
        let mut ks = Keyspace::new();
        let (mut inbox, _) = open(&mut ks, 1);
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
        let (mut inbox, _) = open(&mut ks, 1);
        inbox.receive(Lane::Telemetry, None, vec![data(1), data(2)], &mut ks).unwrap();
        let taken = inbox.receive(Lane::Telemetry, None, vec![gap(1, 4), data(5)], &mut ks);
        assert_eq!(taken, Ok(Received::Taken(vec![gap(3, 4), data(5)])));
    }

    #[test]
    fn a_new_incarnation_starts_afresh_and_an_old_one_where_it_was() {
        let mut ks = Keyspace::new();
        let (mut inbox, announced) = open(&mut ks, 1);
        assert_eq!(announced, Some(None));
        inbox.receive(Lane::State, None, vec![data(9)], &mut ks).unwrap();
        let (inbox, announced) = open(&mut ks, 2);
        assert_eq!((inbox.stored(Lane::State), announced), (0, Some(Some(Incarnation(1)))));
        let (inbox, announced) = open(&mut ks, 1);
        assert_eq!((inbox.stored(Lane::State), announced), (9, Some(Some(Incarnation(2)))));
    }
}

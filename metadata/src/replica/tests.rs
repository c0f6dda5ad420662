use proptest::prelude::*;

use super::*;
use crate::key::Revision;
use crate::sync::{Lane, Packed};

fn now(seconds: u64) -> Now {
    Now { mono: Mono(seconds * 1_000_000), wall: bus::UnixMillis(0) }
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn at(revision: u64) -> Position {
    let term = if revision == 0 { 0 } else { 5 };
    Position { term, revision: Revision(revision) }
}

const RECEIPT: Receipt = Receipt(77);

struct Edge {
    ks: Keyspace,
    replica: Replica,
    session: u32,
}

impl Edge {
    /// An edge that said hello.
    fn greeting() -> Self {
        let mut ks = Keyspace::new();
        let replica = Replica::load(&mut ks, 1);
        let mut edge = Self { ks, replica, session: 0 };
        edge.replica.handle_link_up(&edge.ks, now(0));
        edge.hello();
        edge
    }

    /// An edge that is welcome.
    fn linked() -> Self {
        let mut edge = Self::greeting();
        assert_eq!(edge.welcome(RECEIPT, 1), []);
        edge
    }

    /// The hello that it just said, and nothing else.
    fn hello(&mut self) -> Hello {
        let said = self.said();
        let [ToCloud::Hello(hello)] = &said[..] else { panic!("no hello but {said:?}") };
        self.session = hello.session;
        hello.clone()
    }

    fn welcome(&mut self, receipt: Receipt, epoch: u64) -> Vec<ReplicaOutput> {
        let session = self.session;
        self.hear_bytes(&encode(&ToEdge::Welcome { session, receipt, epoch, term: 5 }))
    }

    fn relink(&mut self) -> Hello {
        self.replica.handle_link_up(&self.ks, now(2));
        self.hello()
    }

    fn part(&self, batch: u32, part: u32, base: Option<Position>, end: Option<Position>) -> Part {
        let advance = end.map(|end| end.revision.0.saturating_sub(base.map_or(0, |base| base.revision.0)));
        let base = Some(base.map_or(Base::Nothing, Base::At));
        let (session, changes) = (self.session, changes([]));
        Part { session, batch, part, changes, advance, base, mends: None, digest: None }
    }

    fn hear(&mut self, part: Part) -> Vec<ReplicaOutput> {
        self.hear_bytes(&encode(&ToEdge::Part(part)))
    }

    fn hear_bytes(&mut self, bytes: &[u8]) -> Vec<ReplicaOutput> {
        self.replica.handle_frame(bytes, &mut self.ks, now(1));
        std::iter::from_fn(|| self.replica.poll_output()).collect()
    }

    fn said(&mut self) -> Vec<ToCloud> {
        std::iter::from_fn(|| self.replica.poll_output())
            .map(|output| {
                let ReplicaOutput::Send { payload, .. } = output else { panic!("{output:?}") };
                minicbor::decode(&payload).unwrap()
            })
            .collect()
    }

    fn send(&self, message: ToCloud) -> ReplicaOutput {
        ReplicaOutput::Send { class: Class::State, payload: encode(&message) }
    }

    fn ack(&self, batch: u32, part: u32) -> ReplicaOutput {
        self.send(ToCloud::Ack { batch, part, session: self.session })
    }
}

fn put(name: &str, value: &'static str) -> Change {
    Change { name: name.into(), value: Some(value.into()) }
}

fn delete(name: &str) -> Change {
    Change { name: name.into(), value: None }
}

fn changes<const N: usize>(changes: [Change; N]) -> Packed {
    Packed::pack(&changes)
}

#[test]
fn an_incarnation_is_drawn_once_for_a_disk() {
    let mut ks = Keyspace::new();
    let first = Replica::load(&mut ks, 1).incarnation();
    assert_eq!(Replica::load(&mut ks, 2).incarnation(), first);
    assert_ne!(Replica::load(&mut Keyspace::new(), 2).incarnation(), first);
}

#[test]
fn a_snapshot_in_parts_is_applied_at_its_end_and_removes_what_it_does_not_name() {
    let mut edge = Edge::linked();
    edge.ks.put(key("/m/old"), "1".into());
    edge.ks.put(key("/m/same"), "1".into());
    edge.ks.seal();
    let first = Part { changes: changes([put("same", "1"), put("new", "1")]), ..edge.part(0, 0, None, None) };
    assert_eq!(edge.hear(first), [edge.ack(0, 0)]);
    assert_eq!(edge.ks.seal(), None);
    let last = Part { changes: changes([delete("new")]), ..edge.part(0, 1, None, Some(at(9))) };
    let changed = ReplicaOutput::Changed(vec![key("/m/old")]);
    assert_eq!(edge.hear(last), [ReplicaOutput::Resynced, changed, edge.ack(0, 1)]);
    assert_eq!(edge.ks.range("/m/").count(), 1);
    assert_eq!(edge.replica.applied(), at(9));
}

#[test]
fn a_batch_is_applied_once_and_acked_as_often_as_it_comes() {
    let mut edge = Edge::linked();
    edge.hear(edge.part(0, 0, None, Some(at(3))));
    let batch = Part { changes: changes([put("x", "1")]), ..edge.part(1, 0, Some(at(3)), Some(at(7))) };
    let changed = ReplicaOutput::Changed(vec![key("/m/x")]);
    assert_eq!(edge.hear(batch.clone()), [changed, edge.ack(1, 0)]);
    assert_eq!(edge.hear(batch), [edge.ack(1, 0)]);
}

#[test]
fn a_batch_without_a_base_follows_the_one_before_it_in_number() {
    let mut edge = Edge::linked();
    let follows =
        |edge: &Edge, batch| Part { base: None, advance: Some(2), ..edge.part(batch, 0, None, None) };
    let nack =
        |edge: &Edge, batch, applied| edge.send(ToCloud::Nack { batch, applied, session: edge.session });
    assert_eq!(edge.hear(follows(&edge, 0)), [nack(&edge, 0, at(0))]);
    edge.hear(edge.part(1, 0, None, Some(at(3))));
    assert_eq!(edge.hear(follows(&edge, 2)), [edge.ack(2, 0)]);
    assert_eq!(edge.replica.applied(), at(5));
    assert_eq!(edge.hear(follows(&edge, 4)), [nack(&edge, 4, at(5))]);
}

#[test]
fn what_does_not_follow_is_nacked_and_changes_nothing() {
    let mut edge = Edge::linked();
    edge.hear(edge.part(0, 0, None, Some(at(3))));
    edge.ks.seal();
    let other_term = Position { term: 6, revision: Revision(3) };
    let gaps = [
        edge.part(2, 0, Some(at(5)), Some(at(7))),
        edge.part(3, 1, Some(at(3)), Some(at(7))),
        edge.part(4, 0, Some(other_term), Some(at(7))),
    ];
    for gap in gaps {
        let nack = ToCloud::Nack { batch: gap.batch, applied: at(3), session: edge.session };
        let nack = edge.send(nack);
        assert_eq!(edge.hear(gap), [nack]);
    }
    assert_eq!(edge.ks.seal(), None);
}

#[test]
fn a_part_missing_in_the_middle_drops_what_was_staged() {
    let mut edge = Edge::linked();
    edge.hear(edge.part(0, 0, None, None));
    let nack = ToCloud::Nack { batch: 0, applied: Position::default(), session: edge.session };
    let nack = edge.send(nack);
    assert_eq!(edge.hear(edge.part(0, 2, None, Some(at(3)))), std::slice::from_ref(&nack));
    assert_eq!(edge.hear(edge.part(0, 1, None, Some(at(3)))), [nack]);
}

#[test]
fn words_of_another_session_are_ignored() {
    let mut edge = Edge::linked();
    let stale = Part { session: edge.session.wrapping_add(1), ..edge.part(0, 0, None, Some(at(3))) };
    assert_eq!(edge.hear(stale), []);
    assert_eq!(edge.replica.applied(), Position::default());
    edge.replica.push(Class::Event, "a", "1".into(), &mut edge.ks, now(0)).unwrap();
    edge.said();
    let stale = ToEdge::UpAck { lane: Lane::Event, seq: 1, session: edge.session.wrapping_add(1) };
    assert_eq!(edge.hear_bytes(&encode(&stale)), []);
    assert_eq!(edge.replica.outbox_len(), 1);
}

#[test]
fn a_batch_beyond_all_bounds_ends_the_link() {
    let mut edge = Edge::linked();
    let value = Bytes::from(vec![0; crate::MAX_VALUE_LEN]);
    for part in 0..32 {
        let put = Change { name: part.to_string(), value: Some(value.clone()) };
        let outputs = edge.hear(Part { changes: changes([put]), ..edge.part(0, part, None, None) });
        if part < 31 {
            assert_eq!(outputs, [edge.ack(0, part)]);
        } else {
            assert_eq!(outputs, [ReplicaOutput::Misbehaved(Misbehaviour::BatchTooLarge)]);
        }
    }
}

#[test]
fn a_name_that_is_no_key_ends_the_link_and_nothing_of_it_is_applied() {
    let mut edge = Edge::linked();
    edge.ks.seal();
    let changes = changes([put("good", "1"), put("ü", "1")]);
    let outputs = edge.hear(Part { changes, ..edge.part(0, 0, None, Some(at(3))) });
    assert_eq!(outputs, [ReplicaOutput::Misbehaved(Misbehaviour::Malformed)]);
    assert_eq!(edge.ks.seal(), None);
}

#[test]
fn hello_is_said_again_until_it_is_answered() {
    let mut edge = Edge::greeting();
    assert_eq!(edge.replica.poll_timeout().unwrap().0, now(30).mono);
    edge.replica.handle_timeout(&edge.ks, now(30));
    let stale = edge.session;
    assert_ne!(edge.hello().session, stale);
    assert_eq!(edge.hear(edge.part(0, 0, None, Some(at(1)))), [], "its welcome got lost");
    assert_eq!((edge.replica.applied(), edge.replica.poll_timeout().unwrap().0), (at(0), now(60).mono));
    edge.welcome(RECEIPT, 1);
    assert_eq!(edge.replica.poll_timeout(), None);
}

#[test]
fn entries_are_sent_when_the_edge_is_welcome_and_with_the_receipt_on_its_disk() {
    let mut edge = Edge::greeting();
    edge.replica.push(Class::Event, "a", "1".into(), &mut edge.ks, now(0)).unwrap();
    assert_eq!(edge.said(), []);
    let outputs = edge.welcome(RECEIPT, 1);
    assert!(matches!(&outputs[..], [ReplicaOutput::Send { .. }]));
    assert_eq!(Replica::load(&mut edge.ks.clone(), 2).receipt, RECEIPT);
    edge.replica.push(Class::Event, "a", "2".into(), &mut edge.ks, now(0)).unwrap();
    edge.said();
    edge.replica.handle_link_down();
    edge.replica.push(Class::Event, "a", "3".into(), &mut edge.ks, now(0)).unwrap();
    let hello = edge.relink();
    assert_eq!((hello.receipt, hello.sent), (RECEIPT, [0, 2, 0].into()), "the third was not sent");
}

#[test]
fn what_was_numbered_before_a_start_may_have_been_sent() {
    let mut edge = Edge::linked();
    edge.replica.push(Class::Event, "a", "1".into(), &mut edge.ks, now(0)).unwrap();
    edge.replica = Replica::load(&mut edge.ks, 2);
    edge.replica.push(Class::Event, "a", "2".into(), &mut edge.ks, now(0)).unwrap();
    assert_eq!(edge.relink().sent, [0, 1, 0].into());
}

#[test]
fn what_was_numbered_without_a_link_was_not_sent_however_often_the_edge_starts() {
    let mut edge = Edge::linked();
    edge.replica.push(Class::Event, "a", "1".into(), &mut edge.ks, now(0)).unwrap();
    edge.said();
    edge.replica.handle_link_down();
    for seed in 2..5 {
        edge.replica.push(Class::Event, "a", "2".into(), &mut edge.ks, now(0)).unwrap();
        edge.replica = Replica::load(&mut edge.ks, seed);
    }
    assert_eq!(edge.relink().sent, [0, 1, 0].into());
    edge.welcome(Receipt(78), 1);
    edge.said();
    assert_eq!(
        Replica::load(&mut edge.ks, 9).sent,
        [0, 4, 0].into(),
        "any of them may have been sent by now"
    );
}

#[test]
fn a_disk_that_must_renew_takes_another_incarnation_and_shows_no_receipt() {
    let mut edge = Edge::linked();
    let before = edge.relink();
    edge.hear_bytes(&encode(&ToEdge::Renew { session: before.session.wrapping_add(1) }));
    assert_eq!(edge.replica.incarnation(), before.incarnation);
    edge.replica.handle_frame(&encode(&ToEdge::Renew { session: before.session }), &mut edge.ks, now(2));
    let after = edge.hello();
    assert_ne!((after.incarnation, after.session), (before.incarnation, before.session));
    assert_eq!((before.receipt, after.receipt), (RECEIPT, Receipt::NONE));
    let loaded = Replica::load(&mut edge.ks, 3);
    assert_eq!((loaded.incarnation, loaded.receipt), (after.incarnation, Receipt::NONE));
}

#[test]
fn a_cloud_of_a_lower_epoch_than_was_followed_is_refused() {
    let mut edge = Edge::greeting();
    edge.welcome(RECEIPT, 3);
    assert_eq!(edge.relink().epoch, 3);
    assert_eq!(edge.welcome(Receipt(78), 2), [ReplicaOutput::Outdated { epoch: 2, followed: 3 }]);
    assert_eq!(edge.hear(edge.part(0, 0, None, Some(at(1)))), []);
    assert_eq!((edge.relink().receipt, edge.replica.applied()), (RECEIPT, at(0)));
    assert_eq!(edge.welcome(Receipt(78), 4), []);
    assert_eq!(edge.relink().epoch, 4);
}

#[test]
fn an_entry_that_is_not_acknowledged_is_said_again() {
    let mut edge = Edge::linked();
    edge.hear(edge.part(0, 0, None, Some(at(1))));
    edge.replica.push(Class::Event, "a", "1".into(), &mut edge.ks, now(10)).unwrap();
    let said = edge.said();
    assert_eq!(edge.replica.poll_timeout().unwrap().0, now(40).mono);
    edge.replica.handle_timeout(&edge.ks, now(40));
    assert_eq!(edge.said(), said);
    edge.hear_bytes(&encode(&ToEdge::UpAck { lane: Lane::Event, seq: 1, session: edge.session }));
    assert_eq!((edge.replica.poll_timeout(), edge.replica.outbox_len()), (None, 0));
}

proptest! {
    #[test]
    fn no_bytes_of_a_cloud_panic(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..8)) {
        let mut edge = Edge::linked();
        for frame in frames {
            edge.replica.handle_frame(&frame, &mut edge.ks, now(1));
        }
    }

    /// Well-formed nonsense: whatever the parts say, a batch is applied whole or not at all.
    #[test]
    fn no_order_of_parts_applies_half_a_batch(parts in prop::collection::vec((0u32..3, 0u32..3, 0u64..3, any::<bool>()), 1..30)) {
        let mut edge = Edge::linked();
        for (batch, part, base, ends) in parts {
            let name = format!("{batch}-{part}");
            let end = ends.then(|| at(u64::from(batch) + 1));
            let base = (base > 0).then(|| at(base));
            let outputs = edge.hear(Part { changes: changes([put(&name, "1")]), ..edge.part(batch, part, base, end) });
            let applied = outputs.iter().any(|o| matches!(o, ReplicaOutput::Changed(_)));
            prop_assert!(!applied || ends);
            if applied {
                for before in 0..part {
                    let name = format!("/m/{batch}-{before}");
                    prop_assert!(edge.ks.get(&name).is_some(), "{} is missing", name);
                }
            }
        }
    }
}

use proptest::prelude::*;

use super::*;
use crate::sync::{Change, Packed, Part};

fn now(seconds: u64) -> Now {
    Now { mono: Mono(seconds * 1_000_000), wall: bus::UnixMillis(0) }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn put(ks: &mut Keyspace, at: &str, value: impl Into<Bytes>) {
    ks.put(Key::new(at).unwrap(), value.into());
}

/// A feed whose term is sealed.
fn cloud() -> (Keyspace, Feed) {
    let mut ks = Keyspace::new();
    let feed = Feed::load(&mut ks, 7);
    ks.seal();
    (ks, feed)
}

fn put_of(name: &str, value: impl Into<Bytes>) -> Change {
    Change { name: name.into(), value: Some(value.into()) }
}

/// In session 9, of the first incarnation.
fn hello(applied: Position, receipt: Receipt) -> Hello {
    Hello {
        incarnation: Incarnation(1),
        applied,
        session: 9,
        receipt,
        sent: [0; 3].into(),
        epoch: 1,
        stored: [0; 3].into(),
    }
}

fn position(revision: u64) -> Position {
    Position { term: 7, revision: Revision(revision) }
}

fn outputs(feed: &mut Feed) -> Vec<FeedOutput> {
    std::iter::from_fn(|| feed.poll_output()).collect()
}

/// What was sent to `edge`; other outputs must not be there.
fn sent(feed: &mut Feed, to: &Name) -> Vec<ToEdge> {
    outputs(feed)
        .into_iter()
        .map(|output| {
            let FeedOutput::Send { edge, payload, .. } = output else { panic!("{output:?}") };
            assert_eq!(edge, *to);
            minicbor::decode(&payload).unwrap()
        })
        .collect()
}

fn hear(feed: &mut Feed, ks: &mut Keyspace, edge: &Name, message: &ToCloud) {
    feed.handle_frame(edge, &encode(message), ks, now(1));
}

/// An edge that is up and has the snapshot; returns its receipt.
fn join(feed: &mut Feed, ks: &mut Keyspace, edge: &Name) -> Receipt {
    feed.handle_edge_up(edge, now(0));
    hear(feed, ks, edge, &ToCloud::Hello(hello(Position::default(), Receipt::NONE)));
    let said = outputs(feed).into_iter().filter_map(|output| {
        let FeedOutput::Send { payload, .. } = output else { return None };
        minicbor::decode::<ToEdge>(&payload).ok()
    });
    let said: Vec<ToEdge> = said.collect();
    let [ToEdge::Welcome { receipt, epoch: 1, .. }, .., ToEdge::Part(Part { batch, part, .. })] = &said[..]
    else {
        panic!("no welcome and snapshot: {said:?}")
    };
    hear(feed, ks, edge, &ToCloud::Ack { batch: *batch, part: *part, session: 9 });
    ks.seal();
    feed.handle_commit(ks, now(1));
    *receipt
}

#[test]
fn a_change_goes_to_the_edge_it_concerns_and_to_no_other() {
    let (mut ks, mut feed) = cloud();
    let (a, b) = (name("a"), name("b"));
    join(&mut feed, &mut ks, &a);
    join(&mut feed, &mut ks, &b);
    let base = position(ks.revision().0 - 1);
    put(&mut ks, "/e/b/lease", "1");
    ks.seal();
    feed.handle_commit(&ks, now(2));
    let part = Part {
        session: 9,
        batch: 2,
        part: 0,
        changes: Packed::pack(&[put_of("lease", "1")]),
        advance: Some(ks.revision().0 - base.revision.0),
        base: None,
        mends: None,
        digest: None,
    };
    assert_eq!(sent(&mut feed, &b), [ToEdge::Part(part)]);
    let in_step: Vec<bool> = feed.edges(&ks).map(|(_, in_step)| in_step).collect();
    assert_eq!(in_step, [true, false]);
    let behind = [&a, &b, &name("stranger")].map(|edge| feed.behind(edge, 10, &ks));
    assert_eq!(behind, [Some(0), Some(1), None]);
}

#[test]
fn what_changes_while_the_window_is_full_is_folded() {
    let (mut ks, mut feed) = cloud();
    let edge = name("a");
    join(&mut feed, &mut ks, &edge);
    for n in 0..50u8 {
        put(&mut ks, "/e/a/x", vec![n]);
        ks.seal();
        feed.handle_commit(&ks, now(2));
    }
    let parts = sent(&mut feed, &edge);
    assert_eq!(parts.len(), 8);
    let Some(ToEdge::Part(last)) = parts.last() else { panic!("no part") };
    hear(&mut feed, &mut ks, &edge, &ToCloud::Ack { batch: last.batch, part: 0, session: 9 });
    let [ToEdge::Part(folded)] = &sent(&mut feed, &edge)[..] else { panic!("not one batch") };
    assert_eq!((folded.batch, folded.base, folded.advance), (last.batch + 1, None, Some(42)));
    assert_eq!(folded.changes.unpack().unwrap(), [put_of("x", vec![49])]);
}

#[test]
fn what_is_not_sealed_is_not_sent() {
    let (mut ks, mut feed) = cloud();
    let edge = name("a");
    join(&mut feed, &mut ks, &edge);
    outputs(&mut feed);
    put(&mut ks, "/e/a/x", "1");
    ks.seal();
    put(&mut ks, "/e/a/x", "2");
    put(&mut ks, "/e/a/y", "2");
    feed.handle_commit(&ks, now(2));
    let [ToEdge::Part(part)] = &sent(&mut feed, &edge)[..] else { panic!("not one part") };
    assert_eq!(part.changes.unpack().unwrap(), [put_of("x", "1")]);
}

#[test]
fn nacks_of_all_that_was_under_way_are_answered_once() {
    let (mut ks, mut feed) = cloud();
    let edge = name("a");
    join(&mut feed, &mut ks, &edge);
    outputs(&mut feed);
    let applied = position(ks.revision().0 - 1);
    for n in 0..3u8 {
        put(&mut ks, "/e/a/x", vec![n]);
        ks.seal();
        feed.handle_commit(&ks, now(2));
    }
    for part in sent(&mut feed, &edge) {
        let ToEdge::Part(Part { batch, .. }) = part else { panic!("{part:?}") };
        hear(&mut feed, &mut ks, &edge, &ToCloud::Nack { batch, applied, session: 9 });
    }
    let [ToEdge::Part(part)] = &sent(&mut feed, &edge)[..] else { panic!("not one part") };
    assert_eq!(
        (part.base, part.advance),
        (Some(Base::At(applied)), Some(ks.revision().0 - applied.revision.0))
    );
    assert_eq!(feed.stats().nacks, 1);
}

#[test]
fn words_before_hello_or_of_another_session_are_ignored() {
    let (mut ks, mut feed) = cloud();
    let edge = name("a");
    feed.handle_edge_up(&edge, now(0));
    for early in [
        ToCloud::Ack { batch: 0, part: 0, session: 9 },
        ToCloud::Nack { batch: 0, applied: position(0), session: 9 },
        ToCloud::Up { lane: Lane::Event, after: None, entries: vec![], session: 9 },
    ] {
        hear(&mut feed, &mut ks, &edge, &early);
    }
    assert_eq!(outputs(&mut feed), []);
    join(&mut feed, &mut ks, &edge);
    outputs(&mut feed);
    hear(&mut feed, &mut ks, &edge, &ToCloud::Ack { batch: 77, part: 0, session: 8 });
    hear(&mut feed, &mut ks, &edge, &ToCloud::Nack { batch: 77, applied: position(0), session: 8 });
    assert_eq!(outputs(&mut feed), []);
}

#[test]
fn a_hello_that_comes_twice_or_was_overtaken_is_ignored() {
    let (mut ks, mut feed) = cloud();
    let edge = name("a");
    join(&mut feed, &mut ks, &edge);
    outputs(&mut feed);
    for session in [9, 8, 9_u32.wrapping_sub(1 << 31)] {
        let late = Hello { session, ..hello(position(0), Receipt::NONE) };
        hear(&mut feed, &mut ks, &edge, &ToCloud::Hello(late));
        assert_eq!(outputs(&mut feed), [], "session {session}");
    }
    assert_eq!(feed.edges(&ks).count(), 1);
}

#[test]
fn an_edge_that_misbehaves_is_named_and_forgotten() {
    let (mut ks, mut feed) = cloud();
    let edge = name("a");
    for (frame, what) in [
        (Bytes::from_static(b"\xff\x00"), Misbehaviour::Malformed),
        (
            encode(&ToCloud::Nack { batch: 40, applied: Position::default(), session: 9 }),
            Misbehaviour::AnsweredUnsent,
        ),
        (
            encode(&ToCloud::Differs { batch: 40, sums: Digest::of(std::iter::empty()), session: 9 }),
            Misbehaviour::AnsweredUnsent,
        ),
        (encode(&ToCloud::Ack { batch: 40, part: 0, session: 9 }), Misbehaviour::AnsweredUnsent),
    ] {
        join(&mut feed, &mut ks, &edge);
        outputs(&mut feed);
        feed.handle_frame(&edge, &frame, &mut ks, now(2));
        assert_eq!(outputs(&mut feed), [FeedOutput::Misbehaved { edge: edge.clone(), what }]);
        assert_eq!((feed.edges(&ks).count(), feed.poll_timeout()), (0, None));
    }
}

#[test]
fn an_entry_is_handed_out_with_its_incarnation_and_acked() {
    let (mut ks, mut feed) = cloud();
    let edge = name("a");
    join(&mut feed, &mut ks, &edge);
    outputs(&mut feed);
    let entries = vec![
        Entry { seq: 4, body: Body::Gap { from: 2 } },
        Entry { seq: 5, body: Body::Data { key: "k".into(), payload: "v".into() } },
    ];
    let message = ToCloud::Up { lane: Lane::Telemetry, after: None, entries, session: 9 };
    let payload = encode(&ToEdge::UpAck { lane: Lane::Telemetry, seq: 5, session: 9 });
    let ack = FeedOutput::Send { edge: edge.clone(), class: Class::State, payload, tells: Tells::Stored };
    let incarnation = Incarnation(1);
    let entry = UpEntry { seq: 5, lane: Lane::Telemetry, key: "k".into(), payload: "v".into() };
    let gap = FeedOutput::Gap { edge: edge.clone(), incarnation, class: Class::Telemetry, from: 2, to: 4 };
    let up = FeedOutput::Up { edge: edge.clone(), incarnation, entry };
    hear(&mut feed, &mut ks, &edge, &message);
    assert_eq!(outputs(&mut feed), [gap, up, ack.clone()]);
    hear(&mut feed, &mut ks, &edge, &message);
    assert_eq!(outputs(&mut feed), [ack]);
}

#[test]
fn what_was_left_out_while_the_disk_refused_is_said_when_it_is_back() {
    let (mut ks, mut feed) = cloud();
    let edge = name("a");
    join(&mut feed, &mut ks, &edge);
    let entries = vec![Entry { seq: 5, body: Body::Data { key: "k".into(), payload: "v".into() } }];
    hear(&mut feed, &mut ks, &edge, &ToCloud::Up { lane: Lane::State, after: None, entries, session: 9 });
    put(&mut ks, "/e/a/x", "1");
    ks.seal();
    feed.handle_commit(&ks, now(2));
    outputs(&mut feed);
    feed.handle_disk_back(&ks, now(3));
    let said = sent(&mut feed, &edge);
    let stored = ToEdge::UpAck { lane: Lane::State, seq: 5, session: 9 };
    let is_part = |part: &Part| part.changes == Packed::pack(&[put_of("x", "1")]);
    assert!(matches!(&said[..], [ack, ToEdge::Part(part)] if *ack == stored && is_part(part)), "{said:?}");
}

#[test]
fn another_disk_is_announced_and_not_believed() {
    let (mut ks, mut feed) = cloud();
    let edge = name("a");
    join(&mut feed, &mut ks, &edge);
    outputs(&mut feed);
    let applied = position(ks.revision().0);
    let other = Hello { incarnation: Incarnation(2), session: 10, ..hello(applied, Receipt::NONE) };
    hear(&mut feed, &mut ks, &edge, &ToCloud::Hello(other));
    assert_eq!(feed.poll_output(), Some(announced(&edge, 1, 2, Cause::NewDisk)));
    let [ToEdge::Welcome { .. }, ToEdge::Part(part)] = &sent(&mut feed, &edge)[..] else { panic!("no part") };
    assert_eq!(part.base, Some(Base::Nothing));
}

#[test]
fn a_cloud_that_has_forgotten_what_it_stored_begins_anew_with_the_edge() {
    let (mut ks, mut feed) = cloud();
    let edge = name("a");
    let receipt = join(&mut feed, &mut ks, &edge);
    let here = position(ks.revision().0);
    // Its disk is that of before the edge's entry 5, and the edge's position is the same.
    for (session, stored, begins_anew) in [(10, 0, false), (11, 5, true)] {
        let again =
            Hello { session, sent: [0, 5, 0].into(), stored: [0, stored, 0].into(), ..hello(here, receipt) };
        hear(&mut feed, &mut ks, &edge, &ToCloud::Hello(again));
        let said = sent(&mut feed, &edge);
        let base = said.iter().find_map(|m| if let ToEdge::Part(part) = m { part.base } else { None });
        assert_eq!(base == Some(Base::Nothing), begins_anew, "{said:?}");
    }
}

fn announced(edge: &Name, was: u64, is: u64, cause: Cause) -> FeedOutput {
    let edge = edge.clone();
    FeedOutput::NewIncarnation { edge, was: Some(Incarnation(was)), is: Incarnation(is), cause }
}

#[test]
fn an_old_copy_of_a_disk_is_told_to_take_a_new_incarnation_and_is_no_new_disk_then() {
    let (mut ks, mut feed) = cloud();
    let edge = name("a");
    let receipt = join(&mut feed, &mut ks, &edge);
    let entries = vec![Entry { seq: 5, body: Body::Data { key: "k".into(), payload: "v".into() } }];
    hear(&mut feed, &mut ks, &edge, &ToCloud::Up { lane: Lane::Event, after: None, entries, session: 9 });
    outputs(&mut feed);
    let here = position(ks.revision().0);
    let copy = Hello { session: 10, sent: [0, 4, 0].into(), ..hello(here, receipt) };
    hear(&mut feed, &mut ks, &edge, &ToCloud::Hello(copy.clone()));
    assert_eq!(sent(&mut feed, &edge), [ToEdge::Renew { session: 10 }]);
    let renewed = Hello { incarnation: Incarnation(2), session: 11, receipt: Receipt::NONE, ..copy };
    hear(&mut feed, &mut ks, &edge, &ToCloud::Hello(renewed));
    assert_eq!(feed.poll_output(), Some(announced(&edge, 1, 2, Cause::Renewed)));
    assert!(matches!(&sent(&mut feed, &edge)[..], [ToEdge::Welcome { .. }, ToEdge::Part(_)]));
    let original = Hello { session: 12, sent: [0, 5, 0].into(), ..hello(here, receipt) };
    hear(&mut feed, &mut ks, &edge, &ToCloud::Hello(original));
    assert_eq!(feed.poll_output(), Some(announced(&edge, 2, 1, Cause::Returned)));
    assert_eq!(feed.stats().renewals, 1);
}

#[test]
fn an_edge_that_followed_a_later_cloud_is_not_served() {
    let (mut ks, mut feed) = cloud();
    let edge = name("a");
    let receipt = join(&mut feed, &mut ks, &edge);
    outputs(&mut feed);
    let here = position(ks.revision().0);
    epoch::set(&mut ks, 2);
    for (epoch, session) in [(1, 10), (2, 11)] {
        hear(&mut feed, &mut ks, &edge, &ToCloud::Hello(Hello { session, epoch, ..hello(here, receipt) }));
        assert!(matches!(sent(&mut feed, &edge)[0], ToEdge::Welcome { epoch: 2, .. }));
    }
    let later = Hello { session: 12, epoch: 3, ..hello(here, receipt) };
    hear(&mut feed, &mut ks, &edge, &ToCloud::Hello(later));
    assert_eq!(outputs(&mut feed), [FeedOutput::Superseded { edge: edge.clone(), epoch: 3 }]);
    assert_eq!((feed.edges(&ks).count(), feed.poll_timeout()), (0, None));
}

#[test]
fn an_edge_in_step_gets_a_bookmark_for_its_hello() {
    let (mut ks, mut feed) = cloud();
    let edge = name("a");
    let receipt = join(&mut feed, &mut ks, &edge);
    outputs(&mut feed);
    let here = position(ks.revision().0);
    feed.handle_edge_up(&edge, now(3));
    hear(&mut feed, &mut ks, &edge, &ToCloud::Hello(hello(here, receipt)));
    let [ToEdge::Welcome { .. }, ToEdge::Part(part)] = &sent(&mut feed, &edge)[..] else { panic!("no part") };
    assert_eq!((part.base, part.advance), (Some(Base::At(here)), Some(0)));
    assert_eq!(part.changes, Packed::pack(&[]));
    assert!(part.digest.is_some());
}

#[test]
fn a_value_too_large_to_send_is_named_and_left_out() {
    let (mut ks, mut feed) = cloud();
    let edge = name("a");
    join(&mut feed, &mut ks, &edge);
    outputs(&mut feed);
    put(&mut ks, "/e/a/big", vec![0; crate::MAX_VALUE_LEN + 1]);
    put(&mut ks, "/e/a/max", vec![0; crate::MAX_VALUE_LEN]);
    ks.seal();
    feed.handle_commit(&ks, now(2));
    let key = Key::new("/e/a/big").unwrap();
    assert_eq!(feed.poll_output(), Some(FeedOutput::Oversized { edge: edge.clone(), key }));
    let [ToEdge::Part(part)] = &sent(&mut feed, &edge)[..] else { panic!("not one part") };
    let changes = part.changes.unpack().unwrap();
    let names: Vec<(&str, bool)> = changes.iter().map(|c| (&c.name[..], c.value.is_some())).collect();
    assert_eq!(names, [("big", false), ("max", true)]);
}

#[test]
fn many_edges_are_served_in_turns() {
    let (mut ks, mut feed) = cloud();
    let edges: Vec<Name> = (0..TURNS_PER_CYCLE + 44).map(|n| name(&format!("e{n}"))).collect();
    for edge in &edges {
        join(&mut feed, &mut ks, edge);
    }
    outputs(&mut feed);
    put(&mut ks, "/all/x", "1");
    ks.seal();
    feed.handle_commit(&ks, now(2));
    assert_eq!(outputs(&mut feed).len(), TURNS_PER_CYCLE);
    assert_eq!(feed.poll_timeout(), Some((Mono::ZERO, "edges wait for their turn")));
    feed.handle_timeout(&ks, now(2));
    assert_eq!(outputs(&mut feed).len(), 44);
    assert_eq!(feed.poll_timeout().unwrap().1, "look after an edge");
}

#[test]
fn without_an_ack_the_cursor_goes_back_to_where_the_edge_was() {
    let (mut ks, mut feed) = cloud();
    let edge = name("a");
    join(&mut feed, &mut ks, &edge);
    outputs(&mut feed);
    put(&mut ks, "/e/a/x", "1");
    ks.seal();
    feed.handle_commit(&ks, now(2));
    let [ToEdge::Part(first)] = &sent(&mut feed, &edge)[..] else { panic!("not one part") };
    feed.handle_timeout(&ks, now(31));
    assert_eq!(outputs(&mut feed), []);
    feed.handle_timeout(&ks, now(32));
    let [ToEdge::Part(again)] = &sent(&mut feed, &edge)[..] else { panic!("not one part") };
    let stood = position(ks.revision().0 - first.advance.unwrap());
    assert_eq!((again.base, &again.changes), (Some(Base::At(stood)), &first.changes));
    assert_ne!(again.batch, first.batch);
    assert_eq!(feed.stats().stalls, 1);
}

#[test]
fn compaction_in_the_middle_of_a_batch_starts_a_snapshot() {
    let (mut ks, mut feed) = cloud();
    let edge = name("a");
    join(&mut feed, &mut ks, &edge);
    outputs(&mut feed);
    for n in 0..20 {
        put(&mut ks, &format!("/e/a/k{n:02}"), noise(n, 6000));
        ks.seal();
    }
    feed.handle_commit(&ks, now(2));
    let parts = sent(&mut feed, &edge);
    let Some(ToEdge::Part(last)) = parts.last() else { panic!("no part") };
    assert_eq!(last.advance, None, "the window closed within the batch");
    ks.delete(&Key::new("/e/a/k00").unwrap());
    ks.seal();
    let deleted = ks.revision();
    put(&mut ks, "/c/x", "1");
    ks.seal();
    ks.compact(Revision(deleted.0 + 1));
    ks.seal();
    hear(&mut feed, &mut ks, &edge, &ToCloud::Ack { batch: last.batch, part: last.part, session: 9 });
    let ToEdge::Part(next) = &sent(&mut feed, &edge)[0] else { panic!("no part") };
    assert_eq!((next.base, next.part, next.batch), (Some(Base::Nothing), 0, last.batch + 1));
}

/// Does not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut jitter = Jitter::new(seed);
    (0..len).map(|_| jitter.next_u64() as u8).collect()
}

proptest! {
    #[test]
    fn no_bytes_of_an_edge_panic(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..8)) {
        let (mut ks, mut feed) = cloud();
        let edge = name("a");
        join(&mut feed, &mut ks, &edge);
        for frame in frames {
            feed.handle_frame(&edge, &frame, &mut ks, now(1));
        }
    }
}

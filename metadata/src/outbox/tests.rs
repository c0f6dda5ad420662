use super::*;

fn push(outbox: &mut Outbox, ks: &mut Keyspace, class: Class, key: &str, payload: &str) {
    outbox.push(class, key, Bytes::copy_from_slice(payload.as_bytes()), ks).unwrap();
}

fn empty() -> (Keyspace, Outbox) {
    let mut ks = Keyspace::new();
    let outbox = Outbox::load(&mut ks);
    (ks, outbox)
}

fn data(seq: u64, key: &str, payload: &str) -> Entry {
    Entry { seq, body: Body::Data { key: key.into(), payload: Bytes::copy_from_slice(payload.as_bytes()) } }
}

fn up(lane: Lane, after: Option<u64>, entries: Vec<Entry>) -> Option<ToCloud> {
    Some(ToCloud::Up { lane, after, entries, session: 3 })
}

fn restarted(ks: &mut Keyspace) -> (Keyspace, Outbox) {
    ks.seal();
    let mut ks = Keyspace::load(ks.rows());
    let outbox = Outbox::load(&mut ks);
    (ks, outbox)
}

#[test]
fn state_keeps_the_latest_of_a_key_and_events_are_all_kept() {
    let (mut ks, mut outbox) = empty();
    for payload in ["1", "2"] {
        for class in [Class::State, Class::Event] {
            push(&mut outbox, &mut ks, class, "a", payload);
        }
    }
    push(&mut outbox, &mut ks, Class::State, "b", "1");
    assert_eq!(outbox.len(), 4);
    let state = vec![data(2, "a", "2"), data(3, "b", "1")];
    assert_eq!(outbox.next_message(3, &ks), up(Lane::State, None, state));
    assert_eq!(
        outbox.next_message(3, &ks),
        up(Lane::Event, None, vec![data(1, "a", "1"), data(2, "a", "2")])
    );
    assert_eq!(outbox.next_message(3, &ks), None);
}

#[test]
fn what_replaces_an_entry_under_way_goes_after_it() {
    let (mut ks, mut outbox) = empty();
    push(&mut outbox, &mut ks, Class::State, "a", "1");
    outbox.next_message(3, &ks);
    push(&mut outbox, &mut ks, Class::State, "a", "2");
    assert_eq!(outbox.next_message(3, &ks), up(Lane::State, Some(1), vec![data(2, "a", "2")]));
    outbox.handle_ack(Lane::State, 1, &mut ks).unwrap();
    assert_eq!(outbox.len(), 1);
    outbox.handle_ack(Lane::State, 2, &mut ks).unwrap();
    assert_eq!((outbox.len(), outbox.has_unacked(), ks.range("/o/").count()), (0, false, 0));
}

#[test]
fn a_restart_sends_from_the_first_and_uses_no_number_twice() {
    let (mut ks, mut outbox) = empty();
    push(&mut outbox, &mut ks, Class::Event, "a", "1");
    push(&mut outbox, &mut ks, Class::Event, "a", "2");
    outbox.next_message(3, &ks);
    outbox.handle_ack(Lane::Event, 1, &mut ks).unwrap();
    let (mut ks, mut outbox) = restarted(&mut ks);
    assert_eq!(outbox.next_message(3, &ks), up(Lane::Event, None, vec![data(2, "a", "2")]));
    outbox.handle_ack(Lane::Event, 2, &mut ks).unwrap();
    let (mut ks, mut outbox) = restarted(&mut ks);
    push(&mut outbox, &mut ks, Class::Event, "a", "3");
    let Some(ToCloud::Up { entries, .. }) = outbox.next_message(3, &ks) else { panic!("nothing to send") };
    assert!(entries[0].seq > 2, "{entries:?}");
}

#[test]
fn samples_that_a_store_lost_are_named_and_their_numbers_are_not_used_again() {
    let (mut ks, mut outbox) = empty();
    let pushed = |outbox: &mut Outbox, ks: &mut Keyspace, count| {
        (0..count).for_each(|_| push(outbox, ks, Class::Bulk, "a", "1"));
    };
    pushed(&mut outbox, &mut ks, 6);
    for lost in [3, 4, 6] {
        ks.delete(&row_key(Lane::Telemetry, lost));
    }
    let (mut ks, mut outbox) = restarted(&mut ks);
    pushed(&mut outbox, &mut ks, 1);
    let (ks, mut outbox) = restarted(&mut ks);
    let gap = Entry { seq: 4, body: Body::Gap { from: 3 } };
    let entries = vec![data(1, "a", "1"), data(2, "a", "1"), gap, data(5, "a", "1"), data(1025, "a", "1")];
    assert_eq!(outbox.next_message(3, &ks), up(Lane::Telemetry, None, entries));
}

#[test]
fn a_full_lane_refuses_and_keeps_what_it_accepted() {
    let (mut ks, mut outbox) = empty();
    let big = Bytes::from(vec![0; MAX_VALUE_LEN]);
    for class in [Class::State, Class::Event] {
        let mut accepted = 0;
        while outbox.push(class, &format!("k{accepted}"), big.clone(), &mut ks).is_ok() {
            accepted += 1;
        }
        assert_eq!(accepted, MAX_LANE_BYTES / (MAX_VALUE_LEN + ENTRY_BYTES));
        assert_eq!(outbox.push(class, "other", big.clone(), &mut ks), Err(PushError::Full));
    }
    // A known key's state replaces, whatever the fill.
    assert_eq!(outbox.push(Class::State, "k0", big, &mut ks), Ok(()));
    let gap_of_the_events = 1;
    assert_eq!(outbox.len(), 2 * (MAX_LANE_BYTES / (MAX_VALUE_LEN + ENTRY_BYTES)) + gap_of_the_events);
    assert!(!outbox.has_room());
}

fn sent(outbox: &mut Outbox, ks: &Keyspace) -> Vec<Entry> {
    let messages = std::iter::from_fn(|| outbox.next_message(3, ks));
    messages.flat_map(|m| if let ToCloud::Up { entries, .. } = m { entries } else { vec![] }).collect()
}

/// Sends and acknowledges everything.
fn drain(outbox: &mut Outbox, ks: &mut Keyspace) -> Vec<Entry> {
    let mut all = Vec::new();
    loop {
        let entries = sent(outbox, ks);
        let Some(last) = entries.last() else { return all };
        outbox.handle_ack(Lane::Event, last.seq, ks).unwrap();
        all.extend(entries);
    }
}

#[test]
fn events_without_room_are_named_by_one_gap_that_grows() {
    let (mut ks, mut outbox) = empty();
    let fill = MAX_EVENT_ENTRIES as u64;
    for _ in 0..fill {
        push(&mut outbox, &mut ks, Class::Event, "a", "");
    }
    for _ in 0..3 {
        assert_eq!(outbox.push(Class::Event, "late", Bytes::new(), &mut ks), Err(PushError::Full));
    }
    let (mut ks, mut outbox) = restarted(&mut ks);
    assert_eq!(outbox.push(Class::Event, "late", Bytes::new(), &mut ks), Err(PushError::Full));
    assert_eq!((outbox.len(), outbox.has_room()), (fill as usize + 1, false));
    let entries = drain(&mut outbox, &mut ks);
    let gap = Entry { seq: fill + 4, body: Body::Gap { from: fill + 1 } };
    assert_eq!((entries.len() as u64, entries.last()), (fill + 1, Some(&gap)));
    assert!(outbox.has_room());
    push(&mut outbox, &mut ks, Class::Event, "a", "room again");
    assert_eq!(drain(&mut outbox, &mut ks), [data(fill + 5, "a", "room again")]);
}

#[test]
fn a_gap_that_grows_under_way_names_what_is_new_only() {
    let (mut ks, mut outbox) = empty();
    for _ in 0..MAX_EVENT_ENTRIES {
        push(&mut outbox, &mut ks, Class::Event, "a", "");
    }
    let fill = MAX_EVENT_ENTRIES as u64;
    assert!(outbox.push(Class::Event, "late", Bytes::new(), &mut ks).is_err());
    outbox.queues[Lane::Event as usize].sent = Some(fill - 1);
    let gap = Entry { seq: fill + 1, body: Body::Gap { from: fill + 1 } };
    assert_eq!(sent(&mut outbox, &ks), [data(fill, "a", ""), gap]);
    assert!(outbox.push(Class::Event, "late", Bytes::new(), &mut ks).is_err());
    assert_eq!(sent(&mut outbox, &ks), [Entry { seq: fill + 2, body: Body::Gap { from: fill + 2 } }]);
}

#[test]
fn entries_are_bounded_by_number_too() {
    let (mut ks, mut outbox) = empty();
    for _ in 0..MAX_EVENT_ENTRIES {
        push(&mut outbox, &mut ks, Class::Event, "a", "");
    }
    assert_eq!(outbox.push(Class::Event, "a", Bytes::new(), &mut ks), Err(PushError::Full));
}

#[test]
fn what_is_too_large_for_a_frame_is_refused() {
    let (mut ks, mut outbox) = empty();
    let too_large = Bytes::from(vec![0; MAX_VALUE_LEN + 1]);
    let refused = outbox.push(Class::State, "a", too_large, &mut ks);
    assert_eq!(refused, Err(PushError::TooLarge(MAX_VALUE_LEN + 1)));
    let refused = outbox.push(Class::State, &"k".repeat(MAX_KEY_LEN + 1), Bytes::new(), &mut ks);
    assert_eq!(refused, Err(PushError::KeyTooLong(MAX_KEY_LEN + 1)));
}

#[test]
fn the_oldest_telemetry_gives_way_to_one_gap_that_names_it() {
    let (mut ks, mut outbox) = empty();
    for n in 0..MAX_TELEMETRY_ENTRIES + 10 {
        push(&mut outbox, &mut ks, Class::Telemetry, "a", &n.to_string());
    }
    assert_eq!(outbox.len(), MAX_TELEMETRY_ENTRIES);
    let Some(ToCloud::Up { entries, .. }) = outbox.next_message(3, &ks) else { panic!("nothing to send") };
    // One of the places is the gap's own.
    assert_eq!(entries[0], Entry { seq: 11, body: Body::Gap { from: 1 } });
    assert_eq!(entries[1], data(12, "a", "11"));
    let (mut ks, mut outbox) = restarted(&mut ks);
    push(&mut outbox, &mut ks, Class::Telemetry, "a", "x");
    let Some(ToCloud::Up { entries, .. }) = outbox.next_message(3, &ks) else { panic!("nothing to send") };
    assert_eq!(entries[0], Entry { seq: 12, body: Body::Gap { from: 1 } });
}

#[test]
fn telemetry_is_bounded_by_bytes_too() {
    let (mut ks, mut outbox) = empty();
    let big = Bytes::from(vec![0; MAX_VALUE_LEN]);
    for _ in 0..20 {
        outbox.push(Class::Telemetry, "a", big.clone(), &mut ks).unwrap();
    }
    let Some(ToCloud::Up { entries, .. }) = outbox.next_message(3, &ks) else { panic!("nothing to send") };
    assert_eq!(entries, [Entry { seq: 13, body: Body::Gap { from: 1 } }]);
    assert_eq!(outbox.len(), 8);
}

#[test]
fn lanes_take_turns_within_one_window() {
    let (mut ks, mut outbox) = empty();
    for n in 0..40 {
        for class in [Class::State, Class::Event, Class::Telemetry] {
            push(&mut outbox, &mut ks, class, &format!("k{n}"), &"x".repeat(1000));
        }
    }
    let mut order = Vec::new();
    while let Some(ToCloud::Up { lane, entries, .. }) = outbox.next_message(3, &ks) {
        order.push((lane, entries.len()));
    }
    let round = [(Lane::State, 7), (Lane::Event, 7), (Lane::Telemetry, 7)];
    assert_eq!(order, [&round[..], &round[..2]].concat());
    outbox.handle_ack(Lane::State, 7, &mut ks).unwrap();
    let Some(ToCloud::Up { lane, .. }) = outbox.next_message(3, &ks) else {
        panic!("the window is open again")
    };
    assert_eq!(lane, Lane::Telemetry);
}

#[test]
fn an_ack_of_what_was_never_numbered_is_misbehaviour() {
    let (mut ks, mut outbox) = empty();
    push(&mut outbox, &mut ks, Class::Event, "a", "1");
    assert_eq!(outbox.handle_ack(Lane::Event, 2, &mut ks), Err(Misbehaviour::AnsweredUnsent));
    assert_eq!(outbox.handle_ack(Lane::Event, u64::MAX, &mut ks), Err(Misbehaviour::AnsweredUnsent));
    assert_eq!(outbox.len(), 1);
}

use super::*;

fn event(about: &str, reason: &'static str, message: &str, at: u64) -> Event {
    Event {
        kind: Kind::EdgeNode,
        about: Id::from(about),
        severity: Severity::Normal,
        reason,
        subject: None,
        message: message.to_owned(),
        at: UnixMillis(at * 1000),
        count: 1,
    }
}

fn say(events: impl IntoIterator<Item = Event>, layout: Layout, ks: &mut Keyspace) {
    for event in events {
        record(layout, event, ks);
        ks.seal();
    }
}

#[test]
fn the_same_again_counts_up_and_says_when_it_was_last() {
    let mut ks = Keyspace::new();
    let events = [("Connected", 1), ("Disconnected", 2), ("Connected", 3), ("Connected", 9)];
    say(events.map(|(reason, at)| event("a", reason, "its link", at)), Layout::Cloud, &mut ks);
    let shown: Vec<Value> = list(Layout::Cloud, &ks).iter().map(|kept| kept.object(&ks)).collect();
    let times = |event: &Value| {
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        (text("reason"), event["count"].clone(), text("firstTimestamp"), text("lastTimestamp"))
    };
    let expected = [
        (
            "Disconnected".to_owned(),
            json!(1),
            "1970-01-01T00:00:02Z".to_owned(),
            "1970-01-01T00:00:02Z".to_owned(),
        ),
        (
            "Connected".to_owned(),
            json!(3),
            "1970-01-01T00:00:01Z".to_owned(),
            "1970-01-01T00:00:09Z".to_owned(),
        ),
    ];
    assert_eq!(shown.iter().map(times).collect::<Vec<_>>(), expected);
}

#[test]
fn one_that_says_another_text_each_time_pushes_out_its_own() {
    let mut ks = Keyspace::new();
    say([event("quiet", "Connected", "its link stands", 0)], Layout::Edge, &mut ks);
    let chatter = (0..100).map(|at| event("loud", "LanPending", &format!("number {at}"), at));
    say(chatter, Layout::Edge, &mut ks);
    let kept = list(Layout::Edge, &ks);
    assert_eq!(kept.len(), 1 + MAX_OF_ONE);
    assert_eq!((&*kept[0].about, &*kept[MAX_OF_ONE].message), ("quiet", "number 99"));
}

#[test]
fn of_all_those_go_that_were_said_the_longest_ago() {
    let mut ks = Keyspace::new();
    let more = MAX_EVENTS + 300;
    let each = (0..more).map(|at| event(&format!("e{at}"), "Connected", "its link stands", at as u64));
    say(each, Layout::Edge, &mut ks);
    let kept = list(Layout::Edge, &ks);
    assert!((MAX_EVENTS..MAX_EVENTS + 200).contains(&kept.len()), "{}", kept.len());
    let first = more - kept.len();
    assert!(kept.iter().enumerate().all(|(at, event)| event.about == format!("e{}", first + at)));
}

#[test]
fn of_one_subject_there_is_one_event_with_the_last_message() {
    let mut ks = Keyspace::new();
    let late = |message, count| {
        let subject = Some("position".to_owned());
        Event { kind: Kind::Device, subject, count, ..event("plant/valve", "Expired", message, 1) }
    };
    say([late("3h old", 2), late("4h old", 5)], Layout::Edge, &mut ks);
    let kept = list(Layout::Edge, &ks);
    assert_eq!((kept.len(), kept[0].count, kept[0].message.as_str()), (1, 7, "4h old"));
}

#[test]
fn an_event_names_the_uid_by_which_kubectl_finds_it() {
    let mut ks = Keyspace::new();
    let late = Event { kind: Kind::Device, ..event("plant/valve", "Expired", "late", 1) };
    say([late], Layout::Cloud, &mut ks);
    let involved = |ks: &Keyspace| list(Layout::Cloud, ks)[0].object(ks)["involvedObject"].clone();
    assert_eq!(involved(&ks)["uid"], uid(&["devices", "plant/valve"]));
    ks.put(own_key("/c/meta/devices/plant/valve"), Bytes::from_static(br#"{"uid":"u"}"#));
    assert_eq!(involved(&ks)["uid"], "u");
}

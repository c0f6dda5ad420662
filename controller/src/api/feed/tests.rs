use serde_json::json;

use super::super::call::{Form, Include, Listing};
use super::super::index::Seen;
use super::super::watch::Watcher;
use super::super::{Content, Layout};
use super::*;

fn device(n: usize, at: u64, label: &str) -> Changed {
    let manifest = json!({ "metadata": { "labels": { "tier": label } }, "spec": { "nodeName": "a" } });
    let content = Content::Manifest {
        json: manifest.to_string().into(),
        meta: None,
        twins: Vec::new(),
        placement: None,
        layout: Layout::Cloud,
    };
    let item = Item { id: Id::from(&*format!("plant/d{n}")), revision: Revision(at), content };
    Changed::Live { item, seen: Seen { newest: Revision(at), created: Revision(1) } }
}

fn changes(revision: u64, changes: Vec<Changed>) -> Changes {
    Changes { revision: Revision(revision), changes, more: false }
}

fn watcher(from: u64, selector: &str, look: Look) -> Watcher {
    let of = Listing {
        namespace: None,
        selectors: Selectors::parse(selector, "").unwrap(),
        limit: None,
        proceed: None,
        version: Some(Revision(from)),
    };
    Watcher::new(Kind::Device, of, look)
}

/// The names of what is told, up to where the feed is.
fn told(watcher: &mut Watcher, feed: &mut Feed, now: u64) -> Vec<String> {
    let mut names = Vec::new();
    while let Next::Segment(segment) = feed.next(watcher.cursor()) {
        let lines = watcher.handle_changes(&segment, UnixMillis(now));
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let event: Value = serde_json::from_slice(line).unwrap();
            let object = if event["object"]["kind"] == "Table" {
                &event["object"]["rows"][0]["object"]
            } else {
                &event["object"]
            };
            names.push(object["metadata"]["name"].as_str().unwrap().to_owned());
        }
    }
    names
}

const WHOLE: Look = Look { form: Form::Object, veil: None };

#[test]
fn what_a_hundred_watch_is_rendered_once_for_each_look() {
    static RENDERED: AtomicUsize = AtomicUsize::new(0);
    fn veil(_: &mut Value) {
        RENDERED.fetch_add(1, Relaxed);
    }
    let mut feed = Feed::new(Layout::Cloud, Kind::Device, Revision(5));
    feed.handle_changes(changes(8, vec![device(1, 6, "x"), device(2, 7, "y"), device(3, 8, "x")]));
    let veiled = |form| Look { form, veil: Some(veil) };
    for _ in 0..100 {
        assert_eq!(told(&mut watcher(5, "", veiled(Form::Object)), &mut feed, 0), ["d1", "d2", "d3"]);
    }
    assert_eq!(RENDERED.load(Relaxed), 3);
    for _ in 0..100 {
        let mut selective = watcher(5, "tier=x", veiled(Form::Object));
        let listed = changes(5, vec![device(1, 5, "y"), device(2, 5, "y"), device(3, 5, "x")]);
        selective.handle_known(&Segment::of_changes(Kind::Device, Revision(0), listed));
        assert_eq!(told(&mut selective, &mut feed, 0), ["d1", "d3"]);
        assert_eq!(told(&mut watcher(5, "", WHOLE), &mut feed, 0), ["d1", "d2", "d3"]);
    }
    assert_eq!(RENDERED.load(Relaxed), 3);
    // A table says ages: it is rendered anew as time goes by.
    for now in [1000, 1999, 2000] {
        let look = veiled(Form::Table(Include::Metadata));
        assert_eq!(told(&mut watcher(5, "", look), &mut feed, now), ["d1", "d2", "d3"]);
    }
    assert_eq!(RENDERED.load(Relaxed), 9);
}

#[test]
fn a_watcher_takes_what_is_newer_than_its_cursor_and_asks_itself_when_it_is_behind() {
    let mut feed = Feed::new(Layout::Cloud, Kind::Device, Revision(5));
    feed.handle_changes(changes(8, vec![device(1, 6, "x"), device(2, 8, "x")]));
    feed.handle_changes(changes(9, vec![device(3, 9, "x")]));
    assert_eq!(told(&mut watcher(6, "", WHOLE), &mut feed, 0), ["d2", "d3"]);
    assert_eq!(told(&mut watcher(8, "", WHOLE), &mut feed, 0), ["d3"]);
    assert!(matches!(feed.next(Revision(9)), Next::Nothing));
    assert!(matches!(feed.next(Revision(12)), Next::Nothing), "it asked for itself");
    assert!(matches!(feed.next(Revision(4)), Next::Behind));
}

#[test]
fn a_feed_keeps_so_much_and_no_more() {
    let mut feed = Feed::new(Layout::Cloud, Kind::Device, Revision(0));
    for at in 1..=20 {
        let many = (0..MAX_KEPT / 10).map(|n| device(n, at, "x")).collect();
        feed.handle_changes(changes(at, many));
    }
    assert_eq!((feed.kept, feed.segments.len()), (MAX_KEPT, 10));
    assert!(matches!(feed.next(Revision(9)), Next::Behind));
    assert!(matches!(feed.next(Revision(10)), Next::Segment(_)));
    // Nothing that is durable is new: there is no segment for that.
    feed.handle_changes(changes(20, vec![device(1, 21, "x")]));
    assert_eq!(feed.segments.len(), 10);
    feed.handle_expired(Revision(30));
    assert!(matches!(feed.next(Revision(20)), Next::Behind));
    assert!(matches!(feed.next(Revision(30)), Next::Nothing));
}

#[test]
fn fat_objects_go_by_their_bytes_and_by_what_was_rendered_of_them() {
    let fat = |at| {
        let Changed::Live { mut item, seen } = device(1, at, "x") else { unreachable!() };
        let Content::Manifest { json, .. } = &mut item.content else { unreachable!() };
        let manifest = json!({ "metadata": {}, "spec": { "nodeName": "a", "long": "x".repeat(250 << 10) } });
        *json = manifest.to_string().into();
        Changed::Live { item, seen }
    };
    let mut feed = Feed::new(Layout::Edge, Kind::Device, Revision(0));
    let held = |feed: &Feed| feed.segments.iter().map(|segment| segment.len_in_bytes()).sum::<usize>();
    for at in 1..=100 {
        feed.handle_changes(changes(at, vec![fat(at)]));
    }
    assert!(held(&feed) <= max_bytes(Layout::Edge) && feed.segments.len() > 10, "{}", held(&feed));
    let from = feed.segments[0].after.0;
    for form in [Form::Object, Form::Table(Include::Object)] {
        let oldest = feed.segments[0].after.0;
        let behind = told(&mut watcher(oldest, "", Look { form, veil: None }), &mut feed, 0);
        assert!(!behind.is_empty());
    }
    assert!(matches!(feed.next(Revision(99)), Next::Segment(_)));
    assert!(held(&feed) <= max_bytes(Layout::Edge), "{}", held(&feed));
    assert!(matches!(feed.next(Revision(from)), Next::Behind), "they made place for what was rendered");
}

#[test]
fn a_segment_that_is_prepared_is_rendered_no_more() {
    let mut feed = Feed::new(Layout::Cloud, Kind::Device, Revision(5));
    feed.handle_changes(changes(7, vec![device(1, 6, "x"), device(2, 7, "y")]));
    let Next::Segment(segment) = feed.next(Revision(5)) else { panic!("there is one") };
    let selectors = Selectors::parse("tier=x", "").unwrap();
    let now = UnixMillis(0);
    assert!(!segment.is_prepared(&selectors, &WHOLE, now));
    segment.prepare(&selectors, &WHOLE, now);
    assert!(segment.is_prepared(&selectors, &WHOLE, now));
    assert!(!segment.is_prepared(&Selectors::default(), &WHOLE, now), "the other one is not selected here");
}

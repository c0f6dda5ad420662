use metadata::Row;
use serde_json::json;

use super::*;

fn put(ks: &mut Keyspace, key: &str, value: &str) {
    ks.put(own_key(key), Bytes::copy_from_slice(value.as_bytes()));
}

fn seal(index: &mut Index, ks: &mut Keyspace) {
    index.before_seal(ks);
    if ks.seal().is_some() {
        index.after_seal(ks);
    }
}

fn shown(index: &Index, kind: Kind, after: u64) -> Vec<String> {
    let one = |change: Change| match change {
        Change::Live { id, seen } => format!("{id} at {} since {}", seen.newest, seen.created),
        Change::Gone { id, at } => format!("{id} gone at {at}"),
    };
    index.changes(kind, Revision(after)).map(one).collect()
}

const VALVE: &str = "/c/resource/device/plant/valve";

#[test]
fn an_object_is_as_new_as_any_of_its_rows() {
    let mut ks = Keyspace::new();
    let mut index = Index::load(Layout::Cloud, &ks);
    put(&mut ks, VALVE, "{}");
    seal(&mut index, &mut ks);
    put(&mut ks, "/c/reported/plant/valve/flow", "1");
    put(&mut ks, "/c/reported/plant/unknown/flow", "1");
    seal(&mut index, &mut ks);
    assert_eq!(shown(&index, Kind::Device, 0), ["plant/valve at 2 since 1"]);
    put(&mut ks, "/e/a/desired/plant/valve/flow", "2");
    put(&mut ks, "/c/meta/devices/plant/valve", "{}");
    seal(&mut index, &mut ks);
    assert_eq!(shown(&index, Kind::Device, 2), ["plant/valve at 3 since 1"]);
    assert_eq!(shown(&index, Kind::Device, 3), [""; 0]);
    assert_eq!(index.moved(Revision(2), &ks)[Kind::Device.index()], 2, "what is durable");
    assert_eq!(index.moved(Revision(9), &ks)[Kind::Rule.index()], 0);
}

#[test]
fn what_is_gone_is_known_after_a_restart_and_told_before_what_comes_again() {
    let mut ks = Keyspace::new();
    let mut index = Index::load(Layout::Cloud, &ks);
    put(&mut ks, VALVE, r#"{"spec":{"nodeName":"a"}}"#);
    seal(&mut index, &mut ks);
    ks.delete(&own_key(VALVE));
    seal(&mut index, &mut ks);
    put(&mut ks, VALVE, "{}");
    seal(&mut index, &mut ks);
    let changes = ["plant/valve gone at 2", "plant/valve at 3 since 3"];
    assert_eq!(shown(&index, Kind::Device, 1), changes);
    let rows: Vec<Row> = ks.rows().collect();
    let ks = Keyspace::load(rows);
    let index = Index::load(Layout::Cloud, &ks);
    assert_eq!(shown(&index, Kind::Device, 1), ["plant/valve gone at 2", "plant/valve at 3 since 0"]);
    let last = index.last_words(Kind::Device, &Id::from("plant/valve"), &ks).unwrap();
    let last: serde_json::Value = serde_json::from_slice(last).unwrap();
    assert_eq!(last["spec"]["nodeName"], "a");
}

#[test]
fn more_deletions_than_are_remembered_make_an_older_watch_begin_anew() {
    let mut ks = Keyspace::new();
    let mut index = Index::load(Layout::Cloud, &ks);
    let keys: Vec<String> = (0..MAX_GONE + 3).map(|n| format!("{VALVE}-{n}")).collect();
    keys.iter().for_each(|key| put(&mut ks, key, "{}"));
    seal(&mut index, &mut ks);
    for key in &keys {
        ks.delete(&own_key(key));
        seal(&mut index, &mut ks);
    }
    // Dropped with the next write.
    put(&mut ks, VALVE, "{}");
    seal(&mut index, &mut ks);
    for index in [index, Index::load(Layout::Cloud, &Keyspace::load(ks.rows()))] {
        assert!(!index.is_complete_after(Kind::Device, Revision(3)), "gone at 2, 3 and 4 is forgotten");
        assert!(index.is_complete_after(Kind::Device, Revision(4)));
        assert_eq!(index.changes(Kind::Device, Revision(4)).count(), MAX_GONE + 1);
    }
    assert_eq!(ks.range("/c/gone/").count(), MAX_GONE);
}

#[test]
fn an_event_that_went_to_make_room_is_remembered_by_nobody() {
    let mut ks = Keyspace::new();
    let mut index = Index::load(Layout::Cloud, &ks);
    put(&mut ks, "/c/event/default/a.1", r#"{"about":"a"}"#);
    seal(&mut index, &mut ks);
    ks.delete(&own_key("/c/event/default/a.1"));
    seal(&mut index, &mut ks);
    assert_eq!(ks.range("/c/gone/").count(), 0);
    assert_eq!(shown(&index, Kind::Event, 0), [""; 0]);
}

#[test]
fn a_burst_of_deletions_of_one_kind_ends_no_watch_of_another() {
    let mut ks = Keyspace::new();
    let mut index = Index::load(Layout::Cloud, &ks);
    let rule = "/c/resource/rule/plant/close";
    put(&mut ks, rule, "{}");
    seal(&mut index, &mut ks);
    ks.delete(&own_key(rule));
    seal(&mut index, &mut ks);
    let keys: Vec<String> = (0..2 * MAX_GONE).map(|n| format!("{VALVE}-{n}")).collect();
    keys.iter().for_each(|key| put(&mut ks, key, "{}"));
    seal(&mut index, &mut ks);
    keys.iter().for_each(|key| ks.delete(&own_key(key)));
    seal(&mut index, &mut ks);
    put(&mut ks, VALVE, "{}");
    seal(&mut index, &mut ks);
    for index in [index, Index::load(Layout::Cloud, &Keyspace::load(ks.rows()))] {
        assert!(!index.is_complete_after(Kind::Device, Revision(3)));
        assert!(index.is_complete_after(Kind::Rule, Revision(1)));
        assert_eq!(shown(&index, Kind::Rule, 1), ["plant/close gone at 2"]);
    }
}

#[test]
fn of_long_objects_the_kind_that_has_most_of_them_forgets() {
    let mut ks = Keyspace::new();
    let mut index = Index::load(Layout::Cloud, &ks);
    let rule = "/c/resource/rule/plant/close";
    let long = json!({ "spec": { "text": "x".repeat(MAX_GONE_LEN / 2) } }).to_string();
    let keys: Vec<String> = (0..MAX_GONE_BYTES / MAX_GONE_LEN * 3).map(|n| format!("{VALVE}-{n}")).collect();
    keys.iter().map(String::as_str).chain([rule]).for_each(|key| put(&mut ks, key, &long));
    seal(&mut index, &mut ks);
    keys.iter().map(String::as_str).chain([rule]).for_each(|key| ks.delete(&own_key(key)));
    seal(&mut index, &mut ks);
    put(&mut ks, VALVE, "{}");
    seal(&mut index, &mut ks);
    assert!(!index.is_complete_after(Kind::Device, Revision(1)));
    assert!(index.is_complete_after(Kind::Rule, Revision(1)));
    let kept: usize = ks.range("/c/gone/").map(|(_, bytes)| bytes.len()).sum();
    assert!((MAX_GONE_BYTES / 2..=MAX_GONE_BYTES).contains(&kept), "{kept}");
}

#[test]
fn the_mark_of_a_store_from_before_holds_for_all_kinds() {
    let mut ks = Keyspace::new();
    ks.put(own_key("/c/gone-before"), Bytes::copy_from_slice(&7u64.to_be_bytes()));
    ks.put(own_key("/c/gone-before/devices"), Bytes::copy_from_slice(&9u64.to_be_bytes()));
    ks.put(own_key("/c/gone-before/rules"), Bytes::from_static(b"damaged"));
    ks.seal();
    let index = Index::load(Layout::Cloud, &ks);
    let first = |kind: Kind| (0u64..).find(|at| index.is_complete_after(kind, Revision(*at)));
    // Of the damaged one, what the store is at: revision 1.
    assert_eq!([Kind::Device, Kind::Route, Kind::Rule].map(first), [Some(9), Some(7), Some(7)]);
}

#[test]
fn a_site_is_who_is_in_it_however_they_come_and_go() {
    let mut ks = Keyspace::new();
    let mut index = Index::load(Layout::Cloud, &ks);
    let name = |text: &str| bus::Name::new(text).unwrap();
    let node = |text: &str| bus::NodeId::edge(name(text));
    let edges = |index: &Index, ks: &Keyspace, site: &str| {
        let made = index.made(Kind::Site, &Id::from(site), ks)?;
        Some(made["status"]["edges"].to_string())
    };
    for edge in ["a", "b", "c"] {
        crate::site::put(&node(edge), &name("plant"), &mut ks);
    }
    seal(&mut index, &mut ks);
    assert_eq!(edges(&index, &ks, "plant").as_deref(), Some(r#"["a","b","c"]"#));
    crate::site::put(&node("b"), &name("office"), &mut ks);
    crate::site::remove(&node("c"), &mut ks);
    seal(&mut index, &mut ks);
    for index in [&index, &Index::load(Layout::Cloud, &ks)] {
        assert_eq!(edges(index, &ks, "plant").as_deref(), Some(r#"["a"]"#));
        assert_eq!(edges(index, &ks, "office").as_deref(), Some(r#"["b"]"#));
    }
    crate::site::remove(&node("a"), &mut ks);
    seal(&mut index, &mut ks);
    assert_eq!(edges(&index, &ks, "plant"), None);
    assert_eq!(shown(&index, Kind::Site, 2), ["plant gone at 3"]);
    assert_eq!(index.len(Kind::Site), 1);
}

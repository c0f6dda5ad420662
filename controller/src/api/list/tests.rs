use bytes::Bytes;
use metadata::Keyspace;

use super::super::index::Index;
use super::super::read::{Found, plain};
use super::super::selector::Selectors;
use super::super::{Layout, look::Look};
use super::*;
use crate::record::own_key;

/// Devices in two namespaces, of which each hundredth is marked.
fn store(count: usize) -> (Keyspace, Index) {
    let mut ks = Keyspace::new();
    for n in 0..count {
        let labels = if n % 100 == 50 { json!({ "marked": "yes" }) } else { json!({}) };
        let manifest =
            json!({ "metadata": { "labels": labels }, "spec": { "nodeName": format!("e{}", n % 3) } });
        let key = format!("/c/resource/device/{}/d{n:05}", if n % 2 == 0 { "even" } else { "odd" });
        ks.put(own_key(&key), Bytes::from(manifest.to_string()));
    }
    ks.seal();
    let index = Index::load(Layout::Cloud, &ks);
    (ks, index)
}

/// One answer, and how many turns of the owner loop it took.
fn list((ks, index): &(Keyspace, Index), of: Listing) -> (Value, usize) {
    let source = plain(index, ks, ks.revision());
    let mut lister = Lister::new(Kind::Device, of, Look::whole(Form::Object), UnixMillis(0));
    let (mut bytes, mut turns) = (Vec::new(), 0);
    while !lister.is_done() {
        let Found::Page(page) = source.read(&lister.wants()) else { panic!("a page") };
        assert!(page.items.len() <= PAGE);
        bytes.extend(lister.handle_page(page).write());
        turns += 1;
    }
    (serde_json::from_slice(&bytes).unwrap(), turns)
}

fn listing(labels: &str, fields: &str, limit: Option<usize>) -> Listing {
    let selectors = Selectors::parse(labels, fields).unwrap();
    Listing { namespace: None, selectors, limit, proceed: None, version: None }
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap().iter();
    items.map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

/// All pages of a list, as a client follows them: their lengths, all names, and the turns of all.
fn followed(store: &(Keyspace, Index), of: &Listing) -> (Vec<usize>, Vec<String>, usize) {
    let (mut lengths, mut all, mut turns, mut proceed) = (Vec::new(), Vec::new(), 0, None);
    loop {
        let (page, took) = list(store, Listing { proceed, ..of.clone() });
        lengths.push(names(&page).len());
        all.extend(names(&page).into_iter().map(str::to_owned));
        turns += took;
        let Some(token) = page["metadata"]["continue"].as_str() else { return (lengths, all, turns) };
        let (revision, after) = token.split_once(':').unwrap();
        proceed = Some(Continue { revision: Revision(revision.parse().unwrap()), after: Id::from(after) });
    }
}

#[test]
fn a_short_list_of_what_is_rare_takes_whole_pages_of_the_owner_loop() {
    let store = store(1000);
    let (lengths, all, turns) = followed(&store, &listing("marked=yes", "", Some(3)));
    assert_eq!(lengths, [3, 3, 3, 1]);
    assert_eq!(all, (0..10).map(|n| format!("d{:05}", 100 * n + 50)).collect::<Vec<_>>());
    assert!(turns <= 1000 / PAGE + lengths.len(), "{turns}");
    assert_eq!(
        list(&store, listing("marked=yes", "", Some(10))).0["metadata"].get("remainingItemCount"),
        None
    );
}

#[test]
fn pages_go_on_where_the_last_one_ended_and_count_what_remains() {
    let store = store(1000);
    let first = list(&store, listing("", "", Some(400))).0;
    assert_eq!(first["metadata"]["remainingItemCount"], 600);
    let (lengths, all, _) = followed(&store, &listing("", "", Some(400)));
    assert_eq!(lengths, [400, 400, 200]);
    let whole = list(&store, listing("", "", None)).0;
    assert_eq!(all, names(&whole));
    assert_eq!((all.len(), whole["metadata"].get("continue")), (1000, None));
    // Full with the last one: there is nothing to go on with.
    let exact = list(&store, listing("", "", Some(1000))).0;
    assert_eq!((names(&exact).len(), exact["metadata"].get("continue")), (1000, None));
    let odd = Listing { namespace: Some("odd".to_owned()), ..listing("", "", Some(450)) };
    assert_eq!(list(&store, odd.clone()).0["metadata"]["remainingItemCount"], 50);
    assert_eq!(followed(&store, &odd).0, [450, 50]);
}

#[test]
fn who_asks_for_one_by_its_name_is_handed_out_no_other() {
    let store = store(1000);
    let of = listing("", "metadata.name=d00501", None);
    let wants = Lister::new(Kind::Device, of.clone(), Look::whole(Form::Object), UnixMillis(0)).wants();
    let Found::Page(page) = plain(&store.1, &store.0, store.0.revision()).read(&wants) else { panic!() };
    assert_eq!((page.items.len(), page.next), (1, None));
    assert_eq!(names(&list(&store, of).0), ["d00501"]);
    let by_node = list(&store, listing("", "spec.nodeName=e1", None)).0;
    assert_eq!(names(&by_node).len(), 333);
    let elsewhere = list(&store, listing("", "metadata.namespace=even,metadata.name!=d00000", None)).0;
    assert_eq!(names(&elsewhere).len(), 499);
}

#[test]
fn a_list_as_new_as_a_version_that_was_never_given_out_is_refused_as_kubernetes_does() {
    let (ks, index) = store(3);
    let source = plain(&index, &ks, ks.revision());
    let check = |version: u64| {
        let of = Listing { version: Some(Revision(version)), ..listing("", "", None) };
        let lister = Lister::new(Kind::Device, of, Look::whole(Form::Object), UnixMillis(0));
        let Found::Page(page) = source.read(&lister.wants()) else { panic!("a page") };
        lister.check(&page)
    };
    assert_eq!(check(ks.revision().0), Ok(()));
    let refused = check(ks.revision().0 + 1).unwrap_err();
    assert_eq!((refused.code, refused.causes[0].reason), (504, "ResourceVersionTooLarge"));
}

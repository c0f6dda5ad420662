use serde_json::json;

use super::super::call::{Form, Options};
use super::super::selector::Selectors;
use super::super::size;
use super::*;

const AT: Moment = Moment { now: UnixMillis(1_000), revision: Revision(7) };

fn write(verb: Verb, patch: Option<PatchType>) -> Write {
    Write {
        kind: Kind::Device,
        namespace: Some("plant".to_owned()),
        name: (verb != Verb::Create).then(|| "valve".to_owned()),
        verb,
        patch,
        options: Options { manager: "test".to_owned(), ..Options::default() },
        selectors: Selectors::default(),
        form: Form::Object,
    }
}

fn body() -> Value {
    json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": "valve"}, "spec": {"nodeName": "a"}})
}

fn valve() -> Id {
    Id::from("plant/valve")
}

fn stored(draft: Draft) -> Value {
    let Draft::Store { object, .. } = draft else { panic!("{draft:?}") };
    object
}

fn current() -> Current {
    let made = draft(&write(Verb::Create, None), &valve(), &body(), None, AT).unwrap();
    Current { object: stored(made), written: Revision(7), newest: Revision(20) }
}

#[test]
fn a_created_object_has_what_the_server_alone_says() {
    let metadata = current().object["metadata"].clone();
    assert_eq!(metadata["namespace"], "plant");
    assert_eq!(metadata["generation"], 1);
    assert_eq!(metadata["creationTimestamp"], "1970-01-01T00:00:01Z");
    assert_eq!(metadata["managedFields"][0]["manager"], "test");
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    let again = draft(&write(Verb::Create, None), &valve(), &body(), Some(&current()), AT).unwrap_err();
    assert_eq!(again.to_string(), "devices.devices.kubeedge.io \"valve\" already exists");
}

#[test]
fn an_update_that_saw_an_older_manifest_is_a_conflict_and_one_that_saw_a_newer_twin_is_none() {
    let with_version = |version: &str| {
        let mut body = body();
        body["spec"]["nodeName"] = "b".into();
        body["metadata"]["resourceVersion"] = version.into();
        draft(&write(Verb::Update, None), &valve(), &body, Some(&current()), AT)
    };
    assert_eq!(with_version("6").unwrap_err().reason, "Conflict");
    for version in ["", "7", "9"] {
        let updated = stored(with_version(version).unwrap());
        assert_eq!(updated["metadata"]["generation"], 2, "{version}");
        assert_eq!(updated["metadata"]["uid"], current().object["metadata"]["uid"]);
    }
}

#[test]
fn nothing_new_is_no_write_and_a_label_is_no_new_generation() {
    let same = draft(&write(Verb::Update, None), &valve(), &body(), Some(&current()), AT);
    assert_eq!(same, Ok(Draft::Unchanged { warnings: Vec::new() }));
    let label = json!({"metadata": {"labels": {"tier": "field"}}});
    let labelled = draft(&write(Verb::Patch, Some(PatchType::Merge)), &valve(), &label, Some(&current()), AT);
    assert_eq!(stored(labelled.unwrap())["metadata"]["generation"], 1);
}

#[test]
fn finalizers_keep_an_object_until_they_are_gone() {
    let patch = |body: Value, current: &Current| {
        draft(&write(Verb::Patch, Some(PatchType::Merge)), &valve(), &body, Some(current), AT).unwrap()
    };
    let held = stored(patch(json!({"metadata": {"finalizers": ["a.b/c"]}}), &current()));
    let held = Current { object: held, written: Revision(8), newest: Revision(20) };
    let going = stored(draft(&write(Verb::Delete, None), &valve(), &Value::Null, Some(&held), AT).unwrap());
    assert_eq!(going["metadata"]["deletionTimestamp"], "1970-01-01T00:00:01Z");
    let going = Current { object: going, written: Revision(9), newest: Revision(20) };
    assert!(matches!(patch(json!({"metadata": {"labels": {"a": "b"}}}), &going), Draft::Store { .. }));
    assert!(matches!(
        patch(json!({"metadata": {"finalizers": null}}), &going),
        Draft::Remove { last: Some(_) }
    ));
    let plain = draft(&write(Verb::Delete, None), &valve(), &Value::Null, Some(&current()), AT);
    assert_eq!(plain, Ok(Draft::Remove { last: None }));
}

#[test]
fn what_is_wrong_is_named_by_its_field() {
    let refused = |verb, patch, body: Value| {
        let current = (verb != Verb::Create).then(current);
        let write = Write {
            options: Options { validation: Validation::Strict, ..Options::default() },
            ..write(verb, patch)
        };
        draft(&write, &valve(), &body, current.as_ref(), AT).unwrap_err()
    };
    let mut typo = body();
    typo["spec"]["properties"] = json!([{"name": "x", "visitor": {}}]);
    assert_eq!(
        refused(Verb::Create, None, typo).message,
        "strict decoding error: unknown field \"spec.properties[0].visitor\""
    );
    let renamed = refused(Verb::Patch, Some(PatchType::Merge), json!({"metadata": {"name": "other"}}));
    assert_eq!(renamed.causes[0].field, "metadata.name");
    let label = refused(Verb::Patch, Some(PatchType::Merge), json!({"metadata": {"labels": {"a b": "c"}}}));
    assert_eq!((label.code, label.causes[0].field.as_str()), (422, "metadata.labels"));
    let elsewhere = json!({"preconditions": {"uid": "other"}});
    assert_eq!(refused(Verb::Delete, None, elsewhere).reason, "Conflict");
    let kind = json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Rule"});
    assert_eq!(
        refused(Verb::Create, None, kind).message,
        "the kind in the data (Rule) does not match the expected kind (Device)"
    );
}

#[test]
fn names_are_made_where_only_a_beginning_is_given() {
    let mut body = body();
    body["metadata"] = json!({"generateName": "valve-"});
    let id = id_of(&write(Verb::Create, None), &body, AT).unwrap();
    assert!(id.as_str().starts_with("plant/valve-") && id.name().len() == 11, "{id}");
    body["metadata"] = json!({});
    assert_eq!(id_of(&write(Verb::Create, None), &body, AT).unwrap_err().causes[0].field, "metadata.name");
    body["metadata"] = json!({"name": "valve", "namespace": "other"});
    assert_eq!(id_of(&write(Verb::Create, None), &body, AT).unwrap_err().code, 400);
}

#[test]
fn a_version_that_this_store_has_not_had_is_a_conflict() {
    let update = |version: &str| {
        let mut body = body();
        body["metadata"]["resourceVersion"] = version.into();
        draft(&write(Verb::Update, None), &valve(), &body, Some(&current()), AT).map(drop)
    };
    let refused = |version| update(version).unwrap_err();
    assert_eq!((refused("6").code, refused("21").code), (409, 409));
    assert!(refused("21").message.contains("resource version 21 is not known here, where 20 is the newest"));
    // What mappers said since the manifest was written is in the versions that clients see.
    assert_eq!((update("7"), update("20")), (Ok(()), Ok(())));
    let condition = json!({"preconditions": {"resourceVersion": "21"}});
    let delete = draft(&write(Verb::Delete, None), &valve(), &condition, Some(&current()), AT);
    assert_eq!(delete.unwrap_err().code, 409);
}

#[test]
fn what_is_too_long_is_told_so_before_it_is_looked_at() {
    let mut long = body();
    long["status"] = "x".repeat(2 * MAX_OBJECT_LEN).into();
    assert_eq!(
        size::fitting(long.clone()).unwrap(),
        body(),
        "what a client sends back of a status does not count"
    );
    long["spec"]["more"] = "x".repeat(MAX_OBJECT_LEN).into();
    let refused = size::fitting(long).unwrap_err();
    assert_eq!((refused.code, refused.reason), (413, "RequestEntityTooLarge"));
    assert!(refused.message.contains("over the limit of 524288"), "{refused}");
    // A patch that makes it too long.
    let patch = json!({"spec": {"more": "x".repeat(MAX_OBJECT_LEN)}});
    let patched = draft(&write(Verb::Patch, Some(PatchType::Merge)), &valve(), &patch, Some(&current()), AT)
        .unwrap_err();
    assert_eq!(patched.code, 413);
}

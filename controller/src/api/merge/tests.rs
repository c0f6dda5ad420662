use serde_json::json;

use super::*;
use crate::api::{Kind, schema};

#[test]
fn json_patches_do_all_or_nothing() {
    let target = json!({"a": {"b": [1, 2]}, "c/d": 1});
    let patch = json!([
        {"op": "test", "path": "/a/b/0", "value": 1},
        {"op": "add", "path": "/a/b/1", "value": 9},
        {"op": "add", "path": "/a/b/-", "value": 3},
        {"op": "remove", "path": "/a/b/0"},
        {"op": "replace", "path": "/c~1d", "value": {"e": null}},
        {"op": "copy", "from": "/a/b/0", "path": "/f"},
        {"op": "move", "from": "/f", "path": "/g"},
    ]);
    let expected = json!({"a": {"b": [9, 2, 3]}, "c/d": {"e": null}, "g": 9});
    assert_eq!(json_patch(&target, &patch), Ok(expected));
    for (operation, why) in [
        (
            json!({"op": "test", "path": "/a/b/0", "value": 2}),
            "operation 0, test /a/b/0: the value there is another one",
        ),
        (json!({"op": "remove", "path": "/x"}), "operation 0, remove /x: there is nothing at that path"),
        (
            json!({"op": "add", "path": "/a/b/7", "value": 2}),
            "operation 0, add /a/b/7: is behind the end of the list",
        ),
        (
            json!({"op": "add", "path": "/x/y", "value": 2}),
            "operation 0, add /x/y: there is nothing above that path",
        ),
        (
            json!({"op": "move", "from": "/a", "path": "/a/b"}),
            "operation 0, move /a/b: a value cannot be moved into itself",
        ),
    ] {
        assert_eq!(json_patch(&target, &json!([operation])).unwrap_err().to_string(), why);
    }
    assert!(json_patch(&target, &json!([{"op": "burn", "path": "/a"}])).is_err());
}

/// RFC 7396, appendix A.
#[test]
fn merge_patches_are_those_of_the_rfc() {
    for (target, patch, expected) in [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
    ] {
        assert_eq!(merge_patch(&target, &patch), Ok(expected));
    }
    assert_eq!(merge_patch(&json!({}), &json!([1])), Err(PatchError::NoObject));
}

#[test]
fn strategic_patches_merge_lists_by_their_keys() {
    let device = json!({"spec": {"properties": [
        {"name": "level", "visitors": {"configData": {"register": 1}}}, {"name": "flow"},
    ]}});
    let patch = json!({"spec": {"properties": [
        {"name": "level", "desired": {"value": "3"}}, {"name": "flow", "$patch": "delete"}, {"name": "mode"},
        {"name": "never", "$patch": "delete"},
    ], "$setElementOrder/properties": [{"name": "level"}]}});
    let expected = json!({"spec": {"properties": [
        {"name": "level", "visitors": {"configData": {"register": 1}}, "desired": {"value": "3"}}, {"name": "mode"},
    ]}});
    assert_eq!(strategic(schema::of(Kind::Device), &device, &patch), Ok(expected));
}

#[test]
fn a_patch_that_doubles_a_document_again_and_again_is_refused() {
    let double = |n: u32| json!({"op": "copy", "from": "", "path": format!("/again-{n}")});
    let patch: Vec<Value> = (0..64).map(double).collect();
    let refused = json_patch(&json!({"a": 1, "b": "some text"}), &Value::Array(patch)).unwrap_err();
    assert!(
        refused.to_string().ends_with("the patch moves and copies more than a manifest can hold"),
        "{refused}"
    );
}

#[test]
fn a_patch_that_nests_a_document_deeper_and_deeper_is_refused() {
    let wrap = [
        json!({"op": "add", "path": "/b", "value": {}}),
        json!({"op": "move", "from": "/a", "path": "/b/a"}),
    ];
    let back = json!({"op": "move", "from": "/b", "path": "/a"});
    let deeper = |times: usize| {
        let each = wrap.iter().chain([&back]);
        Value::Array(each.cycle().take(3 * times).cloned().collect())
    };
    let target = json!({"a": 1});
    let refused = json_patch(&target, &deeper(300)).unwrap_err().to_string();
    assert!(refused.ends_with("the object would be nested too deep"), "{refused}");
    assert!(json_patch(&target, &deeper(60)).is_ok());
}

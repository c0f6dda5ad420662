//! Where in a JSON document something is.

use std::borrow::Cow;
use std::fmt;

use kubebus_sdk::JsonSchema;
use kubebus_sdk::schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use thiserror::Error;

/// Longest pointer, in bytes; it comes from a manifest.
const MAX_LEN: usize = 512;

/// A place in a JSON document: a JSON pointer (RFC 6901: `/sensors/0/temp`), or its short form with dots
/// (`sensors.0.temp`). An empty one is the whole document.
///
/// ```
/// use mapper_payload::Pointer;
/// let json = serde_json::json!({"sensors": [{"temp": 21.5}]});
/// for pointer in ["/sensors/0/temp", "sensors.0.temp"] {
///     let pointer: Pointer = pointer.parse().unwrap();
///     assert_eq!(pointer.find(&json), Some(&serde_json::json!(21.5)));
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pointer(Vec<String>);

/// Why a text is no pointer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadPointer {
    #[error("a pointer has at most {MAX_LEN} bytes")]
    TooLong,
    #[error("after '~' comes 0 (a '~') or 1 (a '/'): RFC 6901 section 3")]
    Escape,
    #[error("'{0}' has an empty part: write a.b.c or /a/b/c")]
    EmptyPart(String),
}

impl Pointer {
    pub fn find<'j>(&self, json: &'j Json) -> Option<&'j Json> {
        self.0.iter().try_fold(json, |json, part| match json {
            Json::Object(fields) => fields.get(part),
            Json::Array(items) => items.get(index(part)?),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
        })
    }

    /// The first part: the field of the document that it goes through.
    pub fn first(&self) -> Option<&str> {
        self.0.first().map(String::as_str)
    }

    /// The last part: the name of the field itself.
    pub fn last(&self) -> Option<&str> {
        self.0.last().map(String::as_str)
    }

    /// The smallest document of objects in which `inner` is at this place.
    pub fn around(&self, inner: Json) -> Json {
        let wrap = |inner, part: &String| Json::Object([(part.clone(), inner)].into_iter().collect());
        self.0.iter().rev().fold(inner, wrap)
    }
}

/// RFC 6901 §4: digits without leading zeros.
fn index(part: &str) -> Option<usize> {
    let plain = part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
    if plain { part.parse().ok() } else { None }
}

fn unescape(part: &str) -> Result<String, BadPointer> {
    let mut pieces = part.split('~');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        match piece.as_bytes().first() {
            Some(b'0') => out.push('~'),
            Some(b'1') => out.push('/'),
            Some(_) | None => return Err(BadPointer::Escape),
        }
        out.push_str(&piece[1..]);
    }
    Ok(out)
}

impl std::str::FromStr for Pointer {
    type Err = BadPointer;

    fn from_str(text: &str) -> Result<Self, BadPointer> {
        if text.len() > MAX_LEN {
            return Err(BadPointer::TooLong);
        }
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        if let Some(rest) = text.strip_prefix('/') {
            return rest.split('/').map(unescape).collect::<Result<_, _>>().map(Self);
        }
        if text.split('.').any(str::is_empty) {
            return Err(BadPointer::EmptyPart(text.to_owned()));
        }
        Ok(Self(text.split('.').map(str::to_owned).collect()))
    }
}

impl TryFrom<String> for Pointer {
    type Error = BadPointer;

    fn try_from(text: String) -> Result<Self, BadPointer> {
        text.parse()
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| write!(f, "/{}", part.replace('~', "~0").replace('/', "~1")))
    }
}

impl From<Pointer> for String {
    fn from(pointer: Pointer) -> Self {
        pointer.to_string()
    }
}

impl JsonSchema for Pointer {
    fn schema_name() -> Cow<'static, str> {
        "Pointer".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": MAX_LEN,
            "description": "A place in a JSON document: /sensors/0/temp (RFC 6901) or sensors.0.temp",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn find<'j>(pointer: &str, json: &'j Json) -> Option<&'j Json> {
        pointer.parse::<Pointer>().unwrap().find(json)
    }

    #[test]
    fn the_examples_of_rfc_6901_section_5_hold() {
        let document = json!({
            "foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, "k\"l": 6, " ": 7,
            "m~n": 8
        });
        let table = [
            ("", document.clone()),
            ("/foo", json!(["bar", "baz"])),
            ("/foo/0", json!("bar")),
            ("/", json!(0)),
            ("/a~1b", json!(1)),
            ("/c%d", json!(2)),
            ("/e^f", json!(3)),
            ("/g|h", json!(4)),
            ("/i\\j", json!(5)),
            ("/k\"l", json!(6)),
            ("/ ", json!(7)),
            ("/m~0n", json!(8)),
        ];
        for (pointer, expected) in table {
            assert_eq!(find(pointer, &document), Some(&expected), "{pointer}");
        }
        for nowhere in ["/foo/00", "/foo/-", "/foo/2", "/foo/bar", "/nothing", "/foo/0/x"] {
            assert_eq!(find(nowhere, &document), None, "{nowhere}");
        }
    }

    #[test]
    fn what_is_no_pointer_says_why() {
        let table = [
            ("/a~2", BadPointer::Escape),
            ("/a~", BadPointer::Escape),
            ("a..b", BadPointer::EmptyPart("a..b".into())),
        ];
        for (text, why) in table {
            assert_eq!(text.parse::<Pointer>(), Err(why), "{text}");
        }
        assert_eq!("x".repeat(600).parse::<Pointer>(), Err(BadPointer::TooLong));
    }

    #[test]
    fn a_document_is_made_around_a_value() {
        let pointer: Pointer = "color.x".parse().unwrap();
        assert_eq!(pointer.around(json!(0.3)), json!({"color": {"x": 0.3}}));
        assert_eq!((pointer.first(), pointer.last()), (Some("color"), Some("x")));
    }

    proptest! {
        #[test]
        fn a_pointer_reads_back_and_finds_what_is_around(
            parts in proptest::collection::vec("[a-z~/.é]{1,6}", 0..5),
        ) {
            let pointer = Pointer(parts);
            prop_assert_eq!(&pointer.to_string().parse::<Pointer>().unwrap(), &pointer);
            let document = pointer.around(json!(7));
            prop_assert_eq!(pointer.find(&document), Some(&json!(7)));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            drop(text.parse::<Pointer>());
        }
    }
}

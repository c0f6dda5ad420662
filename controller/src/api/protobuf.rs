//! The one message that kubectl sends as protobuf and not as JSON: `kubectl auth can-i`.
//!
//! `k8s\0`, then `runtime.Unknown` (field 2: the object), then `authorization.v1.SelfSubjectAccessReview` (Kubernetes
//! `staging/src/k8s.io/api/authorization/v1/generated.proto`).

use serde_json::{Map, Value, json};

const MAGIC: &[u8] = b"k8s\0";

/// The review as JSON; `None` if it is no such message.
pub fn access_review(body: &[u8]) -> Option<Value> {
    let object = field(body.strip_prefix(MAGIC)?, 2)?;
    let spec = field(object, 2)?;
    if let Some(attributes) = field(spec, 1) {
        let names = ["namespace", "verb", "group", "version", "resource", "subresource", "name"];
        return Some(json!({ "spec": { "resourceAttributes": texts(attributes, &names) } }));
    }
    let attributes = field(spec, 2)?;
    Some(json!({ "spec": { "nonResourceAttributes": texts(attributes, &["path", "verb"]) } }))
}

/// Fields 1, 2, .. that are there, by name.
fn texts(message: &[u8], names: &[&str]) -> Value {
    let text =
        |number: usize| field(message, number as u64).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let found =
        names.iter().enumerate().filter_map(|(at, name)| Some(((*name).to_owned(), text(at + 1)?.into())));
    Value::Object(found.collect::<Map<String, Value>>())
}

/// The first length-delimited field of this number.
fn field(mut message: &[u8], wanted: u64) -> Option<&[u8]> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => drop(varint(&mut message)?),
            1 => message = message.get(8..)?,
            5 => message = message.get(4..)?,
            2 => {
                let len = usize::try_from(varint(&mut message)?).ok()?;
                let (value, rest) = message.split_at_checked(len)?;
                if tag >> 3 == wanted {
                    return Some(value);
                }
                message = rest;
            }
            _ => return None,
        }
    }
    None
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubectl_asks_about_itself_is_read() {
        // kubectl 1.32: auth can-i delete devices.
        let mut spec = vec![0x12, 6];
        spec.extend(b"delete");
        spec.extend([0x2a, 7]);
        spec.extend(b"devices");
        let wrap = |number: u8, inner: &[u8]| {
            let mut outer = vec![number << 3 | 2, u8::try_from(inner.len()).unwrap()];
            outer.extend(inner);
            outer
        };
        let unknown = wrap(2, &wrap(2, &wrap(1, &spec)));
        let body = [MAGIC, &wrap(1, b"type"), &unknown].concat();
        let read = json!({"spec": {"resourceAttributes": {"verb": "delete", "resource": "devices"}}});
        assert_eq!(access_review(&body), Some(read));
        for cut in 0..body.len() {
            assert_eq!(access_review(&body[..cut]), None, "{cut}");
        }
    }
}

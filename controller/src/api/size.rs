//! How long objects may be. What is longer is refused before anybody looks at it for long.

use serde_json::Value;

use super::Refusal;
use crate::resource::MAX_MANIFEST_LEN;

/// An object with its metadata: two rows, each of which is as long as a manifest at most.
pub(super) const MAX_OBJECT_LEN: usize = 2 * MAX_MANIFEST_LEN;

/// What a client sent, if it can be an object of ours. What it sends back of a status counts for nothing and goes here.
///
/// # Errors
/// `413`.
pub fn fitting(mut body: Value) -> Result<Value, Refusal> {
    if let Some(fields) = body.as_object_mut() {
        fields.remove("status");
    }
    check_len("the body", len(&body), MAX_OBJECT_LEN)?;
    Ok(body)
}

/// Refuses what is too long to be stored.
pub fn check_len(what: &str, len: usize, limit: usize) -> Result<(), Refusal> {
    if len <= limit {
        return Ok(());
    }
    Err(Refusal::too_large(format!(
        "{what} of {len} bytes is over the limit of {limit}: split it, or leave out what no device needs"
    )))
}

/// In bytes, as JSON.
pub(super) fn len(value: &Value) -> usize {
    struct Counted(usize);
    impl std::io::Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counted = Counted(0);
    // Nothing is refused by who only counts.
    serde_json::to_writer(&mut counted, value).map_or(usize::MAX, |()| counted.0)
}

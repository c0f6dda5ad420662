//! When a device says that it measured.

use std::time::{Duration, UNIX_EPOCH};

use kubebus_sdk::UnixMillis;
use serde_json::Value as Json;

/// Numbers below are seconds since 1970, above milliseconds: as milliseconds it is a day in 1973, as seconds the year 5138.
const SECONDS_BELOW: f64 = 1e11;

/// A time as devices write it: seconds or milliseconds since 1970, or RFC 3339 in UTC. `None` for anything else: a
/// local time without its zone tells nothing.
pub(crate) fn time_of(json: &Json) -> Option<UnixMillis> {
    match json {
        Json::Number(number) => from_number(number.as_f64()?),
        Json::String(text) => {
            let time = humantime::parse_rfc3339(text.trim()).ok()?;
            millis(time.duration_since(UNIX_EPOCH).ok()?)
        }
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

fn from_number(number: f64) -> Option<UnixMillis> {
    let millis = if number < SECONDS_BELOW { number * 1000.0 } else { number };
    // Beyond that a number is no time, and the cast would not be exact.
    (millis > 0.0 && millis < 1e15).then_some(UnixMillis(millis as u64))
}

fn millis(since: Duration) -> Option<UnixMillis> {
    u64::try_from(since.as_millis()).ok().map(UnixMillis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_are_read_as_devices_write_them() {
        let noon = Some(UnixMillis(1_709_208_000_000));
        for json in [
            json!(1_709_208_000),
            json!(1_709_208_000_000_u64),
            json!("2024-02-29T12:00:00Z"),
            json!("2024-02-29T12:00:00.000Z"),
        ] {
            assert_eq!(time_of(&json), noon, "{json}");
        }
        for none in [json!("2024-02-29T12:00:00"), json!(-5), json!(0), json!(1e300), json!(null), json!("x")]
        {
            assert_eq!(time_of(&none), None, "{none}");
        }
    }
}

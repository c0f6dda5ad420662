//! The devices as a line protocol: one JSON object in, one out. Whoever owns a socket feeds it.
//!
//! | in | out |
//! |---|---|
//! | `{"read":["level","outflow"]}` | `{"values":{"level":2.5,"outflow":41.0}}`; a register that the device lacks, or does not answer for, is left out |
//! | `{"write":{"position":40.0}}` | `{"ok":true}`, or `{"error":".."}` and nothing moved |

use serde_json::{Map, Value, json};

use crate::{Device, Register, RegisterError, Utility};

/// Longest line that is looked at, in bytes; a longer one is refused unread.
pub const MAX_LINE: usize = 4096;

/// Answers one line (without its newline) for one device; the answer has no newline either. Whatever the line says, the
/// device's watchdog has heard somebody.
///
/// ```
/// # use water::{Device, Utility, UtilityConfig};
/// let mut utility = Utility::new(UtilityConfig::default(), 7);
/// let answer = water::handle_line(&mut utility, Device::Valve, r#"{"write":{"position":140}}"#);
/// assert_eq!(answer, r#"{"error":"140 is outside 0 to 100"}"#);
/// ```
pub fn handle_line(utility: &mut Utility, device: Device, line: &str) -> String {
    utility.heard(device);
    let answer =
        if line.len() > MAX_LINE { Err("line too long".to_owned()) } else { answer(utility, device, line) };
    answer.unwrap_or_else(|error| json!({ "error": error })).to_string()
}

fn answer(utility: &mut Utility, device: Device, line: &str) -> Result<Value, String> {
    if !utility.has(device) {
        return Err(RegisterError::NoDevice(device).to_string());
    }
    let request: Map<String, Value> = serde_json::from_str(line).map_err(|e| e.to_string())?;
    match (request.get("read"), request.get("write")) {
        (Some(Value::Array(names)), None) => Ok(read(utility, device, names)),
        (None, Some(Value::Object(values))) => write(utility, device, values),
        _ => Err(r#"expected {"read":[..]} or {"write":{..}}"#.to_owned()),
    }
}

fn read(utility: &Utility, device: Device, names: &[Value]) -> Value {
    let known = names.iter().filter_map(Value::as_str).filter_map(|name| {
        let register: Register = name.parse().ok()?;
        Some((name.to_owned(), json!(utility.read(device, register).ok()?)))
    });
    json!({ "values": known.collect::<Map<_, _>>() })
}

/// All or nothing: every value is tried on a copy first.
fn write(utility: &mut Utility, device: Device, values: &Map<String, Value>) -> Result<Value, String> {
    let mut tried = utility.clone();
    for (name, value) in values {
        let number = value.as_f64().ok_or_else(|| format!("{name} needs a number"))?;
        let written: Result<(), RegisterError> =
            name.parse().and_then(|register| tried.write(device, register, number));
        written.map_err(|e| e.to_string())?;
    }
    *utility = tried;
    Ok(json!({ "ok": true }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UtilityConfig;

    fn utility() -> Utility {
        Utility::new(UtilityConfig::default(), 1)
    }

    #[test]
    fn lines_are_answered() {
        let mut u = utility();
        let table = [
            (Device::Valve, r#"{"write":{"position":40.0}}"#, r#"{"ok":true}"#),
            (
                Device::Valve,
                r#"{"read":["setpoint","position","nonsense"]}"#,
                r#"{"values":{"position":75.0,"setpoint":4.0}}"#,
            ),
            (Device::Tank, r#"{"read":["position"]}"#, r#"{"values":{}}"#),
            (Device::Tank, r#"{"write":{"position":1}}"#, r#"{"error":"tank has no register position"}"#),
            (Device::Tank, r#"{"write":{"level":1}}"#, r#"{"error":"level cannot be written"}"#),
            (Device::Valve, r#"{"write":{"position":"open"}}"#, r#"{"error":"position needs a number"}"#),
            (Device::Valve, r#"{"write":{"flux":1}}"#, r#"{"error":"no register \"flux\""}"#),
            (
                Device::Valve,
                r#"{"read":["position"],"write":{}}"#,
                r#"{"error":"expected {\"read\":[..]} or {\"write\":{..}}"}"#,
            ),
        ];
        for (device, line, expected) in table {
            assert_eq!(handle_line(&mut u, device, line), expected, "{line}");
        }
        assert!(handle_line(&mut u, Device::Tank, "{").starts_with(r#"{"error":"#));
        assert_eq!(
            handle_line(&mut u, Device::Tank, &"x".repeat(MAX_LINE + 1)),
            r#"{"error":"line too long"}"#
        );
    }

    #[test]
    fn a_write_with_one_bad_value_moves_nothing() {
        let mut u = utility();
        let before = u.snapshot();
        handle_line(&mut u, Device::Valve, r#"{"write":{"position":10,"setpoint":99}}"#);
        assert_eq!(u.snapshot(), before);
        assert_eq!(u.commands().count(), 0);
    }
}

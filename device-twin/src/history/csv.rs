//! The history as comma-separated values (RFC 4180), for spreadsheets.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use bus::{Quality, UnixMillis, Value};

use super::query::Row;

/// The first line.
pub const HEADER: &str = "time,device,property,value,quality\r\n";

/// Appends a line for each row, without the header.
pub fn write(rows: &[Row], out: &mut String) {
    for Row { id, sample, stored: _ } in rows {
        out.push_str(&rfc3339(sample.time));
        let _ = write!(out, ",{},", id.device);
        field(&id.property, out);
        out.push(',');
        field(&text(&sample.value), out);
        out.push(',');
        out.push_str(quality(sample.quality));
        out.push_str("\r\n");
    }
}

/// A time for people: RFC 3339 in UTC with milliseconds. The form ends with the year 9999, and so do later times.
pub fn rfc3339(time: UnixMillis) -> String {
    const LAST: u64 = 253_402_300_799_999;
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(time.0.min(LAST))).to_string()
}

fn quality(quality: Quality) -> &'static str {
    match quality {
        Quality::Bad => "bad",
        Quality::Uncertain => "uncertain",
        Quality::Good => "good",
    }
}

/// A float in the fewest digits that read back the same, a struct as JSON.
fn text(value: &Value) -> String {
    match value {
        Value::Bool(flag) => flag.to_string(),
        Value::Int(int) => int.to_string(),
        Value::Float(float) => format!("{float:?}"),
        Value::Text(text) => text.clone(),
        Value::Struct(_) => serde_json::to_string(value).unwrap_or_default(),
    }
}

/// Quoted where it must be (RFC 4180 §2, 5 to 7).
fn field(text: &str, out: &mut String) {
    if !text.contains(['"', ',', '\r', '\n']) {
        return out.push_str(text);
    }
    out.push('"');
    out.push_str(&text.replace('"', "\"\""));
    out.push('"');
}

#[cfg(test)]
mod tests {
    use bus::Sample;

    use super::*;
    use crate::twin::PropertyId;

    fn row(property: &str, time: u64, value: Value, quality: Quality) -> Row {
        let id = PropertyId::parse(&format!("water/{property}")).unwrap();
        let time = UnixMillis(time);
        Row { id, sample: Sample { value, time, quality }, stored: UnixMillis(0) }
    }

    #[test]
    fn rows_become_lines_that_a_spreadsheet_reads() {
        let text = |text: &str| Value::Text(text.to_owned());
        let fields = [("b".to_owned(), text("x")), ("a".to_owned(), Value::Float(1.0))];
        let rows = [
            row("tank/level", 1_760_000_000_123, Value::Float(3.217), Quality::Good),
            row("tank/level", 1_760_000_001_000, Value::Float(3.0), Quality::Uncertain),
            row("tank/level", 0, Value::Float(1e300), Quality::Bad),
            row("tank/level", 1, Value::Float(f64::NAN), Quality::Bad),
            row("tank/count", 1_760_000_001_000, Value::Int(-42), Quality::Good),
            row("pump/on", 1_760_000_001_000, Value::Bool(true), Quality::Good),
            row("pump/mode", 1_760_000_001_000, text("auto"), Quality::Good),
            row("pump/mode", 1_760_000_001_000, text(""), Quality::Good),
            row("pump/mode", 1_760_000_001_000, text("a,b"), Quality::Good),
            row("pump/mode", 1_760_000_001_000, text("say \"no\""), Quality::Good),
            row("pump/mode", 1_760_000_001_000, text("two\r\nlines\n"), Quality::Good),
            row("pump/mode", u64::MAX, text("é "), Quality::Good),
            row("pump/state", 1_760_000_001_000, Value::Struct(fields.into()), Quality::Good),
        ];
        let expected = "\
time,device,property,value,quality\r
2025-10-09T08:53:20.123Z,water/tank,level,3.217,good\r
2025-10-09T08:53:21.000Z,water/tank,level,3.0,uncertain\r
1970-01-01T00:00:00.000Z,water/tank,level,1e300,bad\r
1970-01-01T00:00:00.001Z,water/tank,level,NaN,bad\r
2025-10-09T08:53:21.000Z,water/tank,count,-42,good\r
2025-10-09T08:53:21.000Z,water/pump,on,true,good\r
2025-10-09T08:53:21.000Z,water/pump,mode,auto,good\r
2025-10-09T08:53:21.000Z,water/pump,mode,,good\r
2025-10-09T08:53:21.000Z,water/pump,mode,\"a,b\",good\r
2025-10-09T08:53:21.000Z,water/pump,mode,\"say \"\"no\"\"\",good\r
2025-10-09T08:53:21.000Z,water/pump,mode,\"two\r\nlines\n\",good\r
9999-12-31T23:59:59.999Z,water/pump,mode,é ,good\r
2025-10-09T08:53:21.000Z,water/pump,state,\"{\"\"a\"\":1.0,\"\"b\"\":\"\"x\"\"}\",good\r
";
        let mut out = HEADER.to_owned();
        write(&rows, &mut out);
        assert_eq!(out, expected);
    }
}

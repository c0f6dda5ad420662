//! What is new since a page was told last, as server-sent events (WHATWG HTML §9.2).
//!
//! A page holds tables of rows. It is told the rows that are other than those it has, and which ones are gone; at first
//! all of them. What is remembered of a row is a digest, so that a hundred pages of a large fleet fit into memory.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bus::UnixMillis;
use serde_json::{Map, Value, json};

/// A row's time is told anew when it is off by more than this: pages count on by themselves.
const TIME_OFF_MS: u64 = 2_000;

/// Fields of a row that say how long ago something was. They change all the time and mean the same.
const AGES: [&str; 2] = ["age_ms", "heard_ms_ago"];

/// What one page was told.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    tables: BTreeMap<&'static str, BTreeMap<Arc<str>, Mark>>,
    /// Of the fields beside the rows.
    beside: BTreeMap<&'static str, u64>,
    events: u64,
}

/// What is remembered of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    digest: u64,
    /// When its age was nothing, on the node's clock.
    born: Option<u64>,
}

/// A row as it is now. What many pages show is made and digested once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) key: Arc<str>,
    value: Arc<Value>,
    mark: Mark,
}

impl Row {
    /// `time` is the node's, when the row was so.
    pub(crate) fn new(key: &str, value: Value, time: UnixMillis) -> Self {
        let mark = Mark::of(&value, time);
        Self { key: key.into(), value: Arc::new(value), mark }
    }
}

/// One table as it is now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Changes {
    pub(crate) table: &'static str,
    pub(crate) rows: Vec<Row>,
    /// What is told beside the rows.
    pub(crate) beside: Map<String, Value>,
}

/// One event for a page.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    id: u64,
    name: &'static str,
    data: Value,
}

impl Sent {
    /// The event that brings the page up to date; `None` if it is.
    pub(crate) fn news(&mut self, now: Changes, time: UnixMillis) -> Option<Event> {
        let Changes { table: name, rows, beside } = now;
        let is_first = !self.tables.contains_key(name);
        let table = self.tables.entry(name).or_default();
        let mut gone = std::mem::take(table);
        let mut told = Map::new();
        for Row { key, value, mark } in rows {
            match gone.remove(&key) {
                Some(known) if known.is_as_good_as(mark) => drop(table.insert(key, known)),
                Some(_) | None => {
                    told.insert(key.to_string(), Arc::unwrap_or_clone(value));
                    table.insert(key, mark);
                }
            }
        }
        let digest = digest(&beside);
        let is_same = self.beside.insert(name, digest) == Some(digest);
        if !is_first && told.is_empty() && gone.is_empty() && is_same {
            return None;
        }
        let mut data = beside;
        data.insert("time".to_owned(), time.0.into());
        data.insert("whole".to_owned(), is_first.into());
        data.insert("rows".to_owned(), told.into());
        data.insert("gone".to_owned(), gone.keys().map(|key| &**key).collect::<Value>());
        Some(self.event(name, data.into()))
    }

    /// Something that is no table.
    pub(crate) fn event(&mut self, name: &'static str, data: Value) -> Event {
        self.events += 1;
        Event { id: self.events, name, data }
    }
}

impl Mark {
    fn of(row: &Value, time: UnixMillis) -> Self {
        let mut ages = Vec::new();
        let mut hasher = DefaultHasher::new();
        feed(row, &mut hasher, Some(&mut ages));
        Self { digest: hasher.finish(), born: ages.first().map(|age| time.0.saturating_sub(*age)) }
    }

    fn is_as_good_as(self, newer: Self) -> bool {
        let is_near = match (self.born, newer.born) {
            (Some(known), Some(born)) => known.abs_diff(born) <= TIME_OFF_MS,
            (known, born) => known == born,
        };
        is_near && self.digest == newer.digest
    }
}

fn digest(fields: &Map<String, Value>) -> u64 {
    let mut hasher = DefaultHasher::new();
    fields.iter().for_each(|(name, value)| feed(&json!([name, value]), &mut hasher, None));
    hasher.finish()
}

/// Hashes all but the row's own ages, which are collected. What lies deeper is a record of how old something was.
fn feed(value: &Value, hasher: &mut DefaultHasher, mut ages: Option<&mut Vec<u64>>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (&mut ages, value.as_u64().filter(|_| AGES.contains(&name.as_str()))) {
                    (Some(ages), Some(age)) => ages.push(age),
                    _ => {
                        name.hash(hasher);
                        feed(value, hasher, None);
                    }
                }
            }
            "}".hash(hasher);
        }
        Value::Array(items) => {
            items.iter().for_each(|item| feed(item, hasher, None));
            "]".hash(hasher);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string().hash(hasher),
    }
}

impl std::fmt::Display for Event {
    /// JSON has no line breaks of its own, so the data is one line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "id: {}\nevent: {}\ndata: {}\n\n", self.id, self.name, self.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sent: &mut Sent, rows: &[(&str, Value)], time: u64) -> Option<Value> {
        let rows = rows.iter().map(|(key, row)| Row::new(key, row.clone(), UnixMillis(time))).collect();
        let now = Changes { table: "twins", rows, beside: Map::new() };
        sent.news(now, UnixMillis(time)).map(|event| event.data)
    }

    #[test]
    fn a_page_hears_all_at_first_and_then_what_changed() {
        let mut sent = Sent::default();
        let first = told(&mut sent, &[("a", json!({"v": 1})), ("b", json!({"v": 2}))], 10);
        let all = json!({"time": 10, "whole": true, "rows": {"a": {"v": 1}, "b": {"v": 2}}, "gone": []});
        assert_eq!(first, Some(all));
        assert_eq!(told(&mut sent, &[("a", json!({"v": 1})), ("b", json!({"v": 2}))], 11), None);
        let next = told(&mut sent, &[("b", json!({"v": 3})), ("c", json!({"v": 4}))], 12);
        let changed =
            json!({"time": 12, "whole": false, "rows": {"b": {"v": 3}, "c": {"v": 4}}, "gone": ["a"]});
        assert_eq!(next, Some(changed));
    }

    #[test]
    fn a_page_without_rows_is_told_so_once() {
        let mut sent = Sent::default();
        assert!(told(&mut sent, &[], 10).is_some_and(|data| data["whole"] == true));
        assert_eq!(told(&mut sent, &[], 11), None);
    }

    #[test]
    fn growing_older_is_no_news_and_being_read_again_is() {
        let mut sent = Sent::default();
        let row = |age: u64| [("a", json!({"v": 1, "reported": {"value": 7}, "age_ms": age}))];
        assert!(told(&mut sent, &row(500), 10_000).is_some());
        assert_eq!(told(&mut sent, &row(1_500), 11_000), None);
        assert_eq!(told(&mut sent, &row(60_500), 70_000), None);
        let again = told(&mut sent, &row(100), 71_000).unwrap();
        assert_eq!(again["rows"]["a"]["age_ms"], 100);
        assert!(told(&mut sent, &[("a", json!({"v": 1, "reported": {"value": 7}}))], 72_000).is_some());
    }

    #[test]
    fn what_stands_beside_the_rows_is_news_too() {
        let mut sent = Sent::default();
        let mut with = |total: u64| {
            let beside = Map::from_iter([("total".to_owned(), total.into())]);
            sent.news(Changes { table: "twins", rows: Vec::new(), beside }, UnixMillis(1))
        };
        assert!(with(1).is_some());
        assert_eq!(with(1), None);
        assert_eq!(with(2).unwrap().data["total"], 2);
    }

    #[test]
    fn an_event_is_text_of_three_lines_whatever_is_in_it() {
        let mut sent = Sent::default();
        let event = sent.event("hello", json!("two\nlines\r\nand \u{2028} more"));
        assert_eq!(
            event.to_string(),
            "id: 1\nevent: hello\ndata: \"two\\nlines\\r\\nand \u{2028} more\"\n\n"
        );
        assert_eq!(sent.event("hello", Value::Null).to_string(), "id: 2\nevent: hello\ndata: null\n\n");
    }
}

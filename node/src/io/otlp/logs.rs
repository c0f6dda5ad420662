//! What a node logs, for a collector: a layer of the log that puts lines into a queue, and their JSON.
//!
//! The log begins before the configuration is read, so the queue is one of the process, and keeps the first lines until
//! [`listen`] says whether they are wanted. What sending itself says is never sent: it goes to standard error alone.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::config::LogLevel;

/// Lines that wait: some minutes of a node with much to say, and 4 MB at the very most. When full, new ones are left out
/// and counted; what the first ones say is more often the cause.
const WAITING: usize = 1024;

/// Lines of one request.
const BATCH: usize = 256;

/// Of one text of a line.
const MAX_TEXT: usize = 1024;

/// Fields of a line; more has none of ours.
const MAX_FIELDS: usize = 24;

/// Whose lines come about by sending: what is below HTTP and TLS, and this module's own.
const OWN: [&str; 5] = ["node::io::otlp", "hyper", "hyper_util", "rustls", "tokio_rustls"];

static QUEUE: Mutex<Queue> =
    Mutex::new(Queue { level: Some(Level::INFO), lines: VecDeque::new(), dropped: 0 });

struct Queue {
    /// Down to this level; `None`: nothing.
    level: Option<Level>,
    lines: VecDeque<Line>,
    /// Since the last batch.
    dropped: u64,
}

#[derive(Debug, Clone, PartialEq)]
struct Line {
    at: u128,
    level: Level,
    target: String,
    text: String,
    fields: Vec<(&'static str, Value)>,
}

/// What is sent with one request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Batch {
    lines: Vec<Line>,
    /// How many came before these and found no room.
    dropped: u64,
}

/// Lines are taken down to this level from now on, and of those before.
pub(super) fn listen(level: LogLevel) {
    with(|queue| {
        queue.level = down_to(level);
        let most = queue.level;
        queue.lines.retain(|line| most.is_some_and(|most| line.level <= most));
    });
}

fn down_to(level: LogLevel) -> Option<Level> {
    match level {
        LogLevel::Off => None,
        LogLevel::Error => Some(Level::ERROR),
        LogLevel::Warn => Some(Level::WARN),
        LogLevel::Info => Some(Level::INFO),
        LogLevel::Debug => Some(Level::DEBUG),
    }
}

/// The oldest lines that wait; `None` if there are none.
pub(super) fn take() -> Option<Batch> {
    with(|queue| {
        let count = queue.lines.len().min(BATCH);
        let lines: Vec<Line> = queue.lines.drain(..count).collect();
        let dropped = std::mem::take(&mut queue.dropped);
        (!lines.is_empty() || dropped > 0).then_some(Batch { lines, dropped })
    })
}

fn with<T>(work: impl FnOnce(&mut Queue) -> T) -> T {
    work(&mut QUEUE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The layer of the log. What the log's own filter leaves out does not come here.
#[derive(Debug)]
pub(in crate::io) struct ToCollector;

impl<S: Subscriber> Layer<S> for ToCollector {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let (level, target) = (event.metadata().level(), event.metadata().target());
        if is_own(target) || !with(|queue| queue.level.is_some_and(|most| *level <= most)) {
            return;
        }
        let mut seen = Seen::default();
        event.record(&mut seen);
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let line =
            Line { at, level: *level, target: target.to_owned(), text: seen.text, fields: seen.fields };
        with(|queue| queue.push(line));
    }
}

fn is_own(target: &str) -> bool {
    OWN.iter()
        .any(|own| target.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")))
}

impl Queue {
    fn push(&mut self, line: Line) {
        if self.lines.len() < WAITING {
            self.lines.push_back(line);
        } else {
            self.dropped += 1;
        }
    }
}

/// The fields of a line, as OTLP has values.
#[derive(Debug, Default)]
struct Seen {
    text: String,
    fields: Vec<(&'static str, Value)>,
}

impl Seen {
    fn note(&mut self, field: &Field, value: Value) {
        if self.fields.len() < MAX_FIELDS {
            self.fields.push((field.name(), value));
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

fn text(value: &str) -> Value {
    json!({ "stringValue": cut(value) })
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let shown = format!("{value:?}");
        if field.name() == "message" { self.text = cut(&shown) } else { self.note(field, text(&shown)) }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" { self.text = cut(value) } else { self.note(field, text(value)) }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.note(field, json!({ "intValue": value.to_string() }));
    }

    /// What is no signed number of 64 bits is a text.
    fn record_u64(&mut self, field: &Field, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.record_i64(field, value),
            Err(_) => self.note(field, text(&value.to_string())),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.note(field, json!({ "boolValue": value }));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match value.is_finite() {
            true => self.note(field, json!({ "doubleValue": value })),
            false => self.note(field, text(&value.to_string())),
        }
    }
}

/// `ExportLogsServiceRequest` of opentelemetry-proto 1.x in protobuf's JSON mapping.
pub(super) fn request(node: &str, Batch { lines, dropped }: &Batch) -> Value {
    let mut records: Vec<Value> = lines.iter().map(record).collect();
    if *dropped > 0 {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let text = format!(
            "{dropped} lines of the log found no room on their way here: the node's standard error has them"
        );
        let fields = vec![("dropped", json!({ "intValue": dropped.to_string() }))];
        records.push(record(&Line {
            at,
            level: Level::WARN,
            target: "node::io::otlp".to_owned(),
            text,
            fields,
        }));
    }
    let attributes = [("service.name", "kubebus"), ("service.instance.id", node), ("kubebus.node", node)];
    let attributes: Vec<Value> = attributes.iter().map(|(key, value)| attribute(key, text(value))).collect();
    let scope = json!({ "name": "kubebus", "version": env!("CARGO_PKG_VERSION") });
    json!({ "resourceLogs": [{
        "resource": { "attributes": attributes },
        "scopeLogs": [{ "scope": scope, "logRecords": records }],
    }] })
}

fn attribute(key: &str, value: Value) -> Value {
    json!({ "key": key, "value": value })
}

fn record(Line { at, level, target, text: body, fields }: &Line) -> Value {
    let (number, name) = severity(*level);
    let mut attributes = vec![attribute("target", text(target))];
    attributes.extend(fields.iter().map(|(key, value)| attribute(key, value.clone())));
    json!({
        "timeUnixNano": at.to_string(), "observedTimeUnixNano": at.to_string(),
        "severityNumber": number, "severityText": name,
        "body": { "stringValue": body }, "attributes": attributes,
    })
}

/// `SeverityNumber` of OpenTelemetry's log data model.
fn severity(level: Level) -> (u8, &'static str) {
    match level {
        Level::ERROR => (17, "ERROR"),
        Level::WARN => (13, "WARN"),
        Level::INFO => (9, "INFO"),
        Level::DEBUG => (5, "DEBUG"),
        Level::TRACE => (1, "TRACE"),
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::prelude::*;

    use super::*;

    /// One test: the queue is the process's own.
    #[test]
    fn lines_are_taken_down_to_a_level_bounded_and_never_those_of_sending() {
        let log = tracing_subscriber::registry().with(ToCollector);
        tracing::subscriber::with_default(log, || {
            listen(LogLevel::Off);
            tracing::error!(target: "other", "nobody listens");
            listen(LogLevel::Info);
            tracing::warn!(target: "node::io::otlp", "cannot send");
            tracing::info!(target: "hyper::proto", "below it");
            tracing::debug!(target: "other", "too small");
            tracing::info!(target: "hyperactive", count = u64::MAX, ok = true, share = f64::NAN, why = %"x".repeat(9_999), "said");
        });
        let batch = take().unwrap();
        let shown = request("edge/a", &batch);
        let records = shown["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap();
        let [record] = &records[..] else { panic!("{shown}") };
        assert_eq!((&record["body"]["stringValue"], &record["severityNumber"]), (&"said".into(), &9.into()));
        let attributes: Vec<&Value> =
            record["attributes"].as_array().unwrap().iter().map(|a| &a["value"]).collect();
        let long = "x".repeat(MAX_TEXT);
        let expected = [
            json!({ "stringValue": "hyperactive" }),
            json!({ "stringValue": u64::MAX.to_string() }),
            json!({ "boolValue": true }),
            json!({ "stringValue": "NaN" }),
            json!({ "stringValue": long }),
        ];
        assert_eq!(attributes, expected.iter().collect::<Vec<_>>());
        assert_eq!(take(), None);
        let log = tracing_subscriber::registry().with(ToCollector);
        tracing::subscriber::with_default(log, || {
            (0..WAITING + 5).for_each(|n| tracing::info!(target: "other", n, "one of many"))
        });
        let batch = take().unwrap();
        assert_eq!((batch.lines.len(), batch.dropped), (BATCH, 5));
        let shown = request("edge/a", &batch).to_string();
        assert!(shown.contains("5 lines of the log found no room"), "{shown}");
        listen(LogLevel::Off);
        while take().is_some() {}
    }
}

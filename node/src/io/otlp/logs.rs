//! What a node logs, for a collector: a layer of the log that puts lines into a queue, and their JSON.
//!
//! The log begins before the configuration is read, so the queue is one of the process, and keeps the first lines until
//! [`Lines::listen`] says whether they are wanted. What sending itself says is never sent: it goes to standard error alone.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::config::LogLevel;

/// Lines that wait: some minutes of a node with much to say. When full, new ones are left out and counted; what the first
/// ones say is more often the cause.
const WAITING: usize = 1024;

/// Bytes of the lines that wait, as [`Line::size`] counts them. A line of ours has some 500, so that more are [`WAITING`]
/// first; what peers put into fields may make them longer. When full, the same.
const WAITING_BYTES: usize = 1 << 20;

/// Lines of one request.
const BATCH: usize = 256;

/// Bytes of one request's lines: what is on its way is held besides what waits, as JSON too.
const BATCH_BYTES: usize = 256 << 10;

/// Bytes of one text of a line.
const MAX_TEXT: usize = 1024;

/// What a line or a field takes besides its texts, about.
const OVERHEAD: usize = 128;

/// Fields of a line; more has none of ours.
const MAX_FIELDS: usize = 24;

/// Whose lines come about by sending: what is below HTTP and TLS, and this module's own.
const OWN: [&str; 5] = ["node::io::otlp", "hyper", "hyper_util", "rustls", "tokio_rustls"];

/// Those of this process.
pub(super) static PROCESS: Lines = Lines::new();

/// What waits to be sent.
#[derive(Debug)]
pub(in crate::io) struct Lines(Mutex<Queue>);

#[derive(Debug)]
struct Queue {
    /// Down to this level; `None`: nothing.
    level: Option<Level>,
    lines: VecDeque<Line>,
    /// Of all lines.
    bytes: usize,
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

fn down_to(level: LogLevel) -> Option<Level> {
    match level {
        LogLevel::Off => None,
        LogLevel::Error => Some(Level::ERROR),
        LogLevel::Warn => Some(Level::WARN),
        LogLevel::Info => Some(Level::INFO),
        LogLevel::Debug => Some(Level::DEBUG),
    }
}

impl Lines {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Queue { level: Some(Level::INFO), lines: VecDeque::new(), bytes: 0, dropped: 0 }))
    }

    /// Lines are taken down to this level from now on, and of those before.
    pub(super) fn listen(&self, level: LogLevel) {
        self.with(|queue| {
            queue.level = down_to(level);
            let most = queue.level;
            queue.lines.retain(|line| most.is_some_and(|most| line.level <= most));
            queue.bytes = queue.lines.iter().map(Line::size).sum();
        });
    }

    /// The oldest lines that wait; `None` if there are none.
    pub(super) fn take(&self) -> Option<Batch> {
        self.with(Queue::take)
    }

    /// The collector does not get these: the next batch says so.
    pub(super) fn lose(&self, batch: Batch) {
        self.with(|queue| queue.dropped += batch.lines.len() as u64 + batch.dropped);
    }

    fn with<T>(&self, work: impl FnOnce(&mut Queue) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The layer of the log. What the log's own filter leaves out does not come here.
#[derive(Debug)]
pub(in crate::io) struct ToCollector(&'static Lines);

impl Default for ToCollector {
    fn default() -> Self {
        Self(&PROCESS)
    }
}

impl<S: Subscriber> Layer<S> for ToCollector {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let (level, target) = (event.metadata().level(), event.metadata().target());
        if is_own(target) || !self.0.with(|queue| queue.level.is_some_and(|most| *level <= most)) {
            return;
        }
        let mut seen = Seen::default();
        event.record(&mut seen);
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let line =
            Line { at, level: *level, target: target.to_owned(), text: seen.text, fields: seen.fields };
        self.0.with(|queue| queue.push(line));
    }
}

fn is_own(target: &str) -> bool {
    OWN.iter()
        .any(|own| target.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")))
}

impl Queue {
    fn push(&mut self, line: Line) {
        let bytes = self.bytes + line.size();
        if self.lines.len() < WAITING && bytes <= WAITING_BYTES {
            self.bytes = bytes;
            self.lines.push_back(line);
        } else {
            self.dropped += 1;
        }
    }

    fn take(&mut self) -> Option<Batch> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while let Some(line) = self.lines.pop_front_if(|line| {
            lines.is_empty() || (lines.len() < BATCH && bytes + line.size() <= BATCH_BYTES)
        }) {
            bytes += line.size();
            lines.push(line);
        }
        self.bytes -= bytes;
        (!lines.is_empty()).then(|| Batch { lines, dropped: std::mem::take(&mut self.dropped) })
    }
}

impl Line {
    /// What it holds in memory, about.
    fn size(&self) -> usize {
        let field = |(name, value): &(&str, Value)| {
            let text = value["stringValue"].as_str().map_or(0, str::len);
            OVERHEAD + name.len() + text
        };
        OVERHEAD + self.target.len() + self.text.len() + self.fields.iter().map(field).sum::<usize>()
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
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

/// A text that takes no more than [`MAX_TEXT`] bytes, however long what is written into it.
#[derive(Debug, Default)]
struct Short(String);

impl fmt::Write for Short {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let room = piece.floor_char_boundary(MAX_TEXT.saturating_sub(self.0.len()));
        self.0.push_str(&piece[..room]);
        if room < piece.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

fn shown(value: &dyn fmt::Debug) -> String {
    let mut short = Short::default();
    // Fails when there is no more room.
    let _ = write!(short, "{value:?}");
    short.0
}

fn text(value: &str) -> Value {
    json!({ "stringValue": cut(value) })
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let shown = shown(value);
        if field.name() == "message" { self.text = shown } else { self.note(field, text(&shown)) }
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

impl Batch {
    /// `ExportLogsServiceRequest` of opentelemetry-proto 1.x in protobuf's JSON mapping.
    pub(super) fn request(&self, node: &str) -> Value {
        let mut records: Vec<Value> = self.lines.iter().map(record).collect();
        if self.dropped > 0 {
            records.push(record(&lost(self.dropped)));
        }
        let attributes = [("service.name", "kubebus"), ("service.instance.id", node), ("kubebus.node", node)];
        let attributes: Vec<Value> =
            attributes.iter().map(|(key, value)| attribute(key, text(value))).collect();
        let scope = json!({ "name": "kubebus", "version": env!("CARGO_PKG_VERSION") });
        json!({ "resourceLogs": [{
            "resource": { "attributes": attributes },
            "scopeLogs": [{ "scope": scope, "logRecords": records }],
        }] })
    }
}

/// Says how many lines the collector did not get.
fn lost(dropped: u64) -> Line {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let text = format!(
        "{dropped} lines of the log found no room on their way here, or were refused: the node's standard error has them"
    );
    let fields = vec![("dropped", json!({ "intValue": dropped.to_string() }))];
    Line { at, level: Level::WARN, target: "node::io::otlp".to_owned(), text, fields }
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
pub(super) fn of(lines: &'static Lines) -> ToCollector {
    ToCollector(lines)
}

#[cfg(test)]
mod tests;

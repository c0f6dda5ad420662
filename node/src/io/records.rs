//! The recorder's part of the admin socket: history, audit and the rules' log, answered beside the owner loop.
//!
//! | request | means |
//! |---|---|
//! | `GET /kubebus/v1/history[/<namespace>/<device>[/<property>]]` | samples, a page at a time |
//! | `GET /kubebus/v1/history/<namespace>/<device>/<property>?points=..` | the same at a glance: [`overview`] |
//! | `GET /kubebus/v1/audit[/<namespace>/<device>]` | decisions with what became of them |
//! | `GET /kubebus/v1/audit-log` | who changed what at this node, by `since`, `who` and `limit` |
//! | `GET /kubebus/v1/rule-log` | the rules' log, as `kubebus rule replay` reads it |
//!
//! Samples and decisions take `?since=..&until=..` (milliseconds since 1970), `limit`, and for samples `order=oldest` and
//! the page's `next`. A cloud keeps no samples: it asks the edge that has the device.

use bus::UnixMillis;
use bus::twin::DeviceId;
use device_twin::PropertyId;
use device_twin::history::listing::{AuditQuery, MAX_DECISIONS};
use device_twin::history::query::MAX_ROWS;
use device_twin::history::{Cursor, Order, Query, Which, overview};
use device_twin::io::recorder::{AskError, Handle, RulePosition};
use serde_json::Value;

use super::audit;
use crate::admin::{self, AdminError};
use crate::history::{Question, Told, shown};

/// What is asked of the recorder.
#[derive(Debug)]
pub(super) enum Wanted {
    History(Question),
    Audit(AuditQuery),
    /// The node's own, of who changed what.
    AuditLog(crate::audit::Query),
    RuleLog,
}

/// `None` if the path is not the recorder's.
pub(super) fn parse(path: &str, query: &str) -> Option<Result<Wanted, AdminError>> {
    let rest = path.strip_prefix("/kubebus/v1/")?;
    let levels: Vec<&str> = rest.split('/').collect();
    Some(match levels.as_slice() {
        ["history", place @ ..] => history(place, &Words(query)),
        ["audit", place @ ..] => decisions(place, &Words(query)),
        ["audit-log"] => audit_log(&Words(query)),
        ["rule-log"] => Ok(Wanted::RuleLog),
        _ => return None,
    })
}

/// `a=1&b=2`.
pub(super) struct Words<'a>(pub(super) &'a str);

impl<'a> Words<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.all(name).next()
    }

    pub(super) fn all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        let words = self.0.split('&').filter_map(|word| word.split_once('='));
        words.filter(move |(key, _)| *key == name).map(|(_, value)| value)
    }

    fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T, AdminError> {
        let Some(text) = self.get(name) else { return Ok(default) };
        text.parse().map_err(|_| AdminError::Invalid(format!("{name}: '{text}' is no number")))
    }
}

fn device(namespace: &str, name: &str) -> Result<DeviceId, AdminError> {
    format!("{namespace}/{name}").parse().map_err(|error| AdminError::Invalid(format!("{error}")))
}

fn history(place: &[&str], words: &Words<'_>) -> Result<Wanted, AdminError> {
    let which = match place {
        [] => Which::All,
        [namespace, name] => Which::Device(device(namespace, name)?),
        [namespace, name, property] => Which::Property(PropertyId::new(&device(namespace, name)?, property)),
        _ => return Err(AdminError::NotFound("history/<namespace>/<device>/<property>".to_owned())),
    };
    let order = match words.get("order") {
        Some("oldest") => Order::OldestFirst,
        _ => Order::NewestFirst,
    };
    if let Some(points) = words.get("points") {
        return at_a_glance(which, points, words);
    }
    Ok(Wanted::History(Question::Rows(Query {
        which,
        since: UnixMillis(words.number("since", 0)?),
        until: UnixMillis(words.number("until", u64::MAX)?),
        order,
        limit: words.number("limit", MAX_ROWS)?,
        after: words.get("next").map(cursor).transpose()?,
    })))
}

fn at_a_glance(which: Which, points: &str, words: &Words<'_>) -> Result<Wanted, AdminError> {
    let Which::Property(id) = which else {
        return Err(AdminError::Invalid(
            "points: of one property, history/<namespace>/<device>/<property>".to_owned(),
        ));
    };
    let points = points.parse().ok().filter(|points| (2..=overview::MAX_POINTS).contains(points));
    let points = points
        .ok_or_else(|| AdminError::Invalid(format!("points: a number from 2 to {}", overview::MAX_POINTS)))?;
    let bound = |name| match words.get(name) {
        Some(_) => words.number(name, 0).map(UnixMillis),
        None => Err(AdminError::Invalid(format!("{name}: give it with points, in milliseconds since 1970"))),
    };
    let (since, until) = (bound("since")?, bound("until")?);
    Ok(Wanted::History(Question::Overview(overview::Span { id, since, until, points })))
}

/// `<time>,<ordinal>,<namespace>/<device>/<property>`.
fn cursor(text: &str) -> Result<Cursor, AdminError> {
    let parsed = || {
        let mut parts = text.splitn(3, ',');
        let time = UnixMillis(parts.next()?.parse().ok()?);
        let ordinal = parts.next()?.parse().ok()?;
        Some(Cursor { time, ordinal, id: PropertyId::parse(parts.next()?)? })
    };
    parsed().ok_or_else(|| AdminError::Invalid(format!("next: '{text}' is no place in the history")))
}

fn decisions(place: &[&str], words: &Words<'_>) -> Result<Wanted, AdminError> {
    let device = match place {
        [] => None,
        [namespace, name] => Some(device(namespace, name)?),
        _ => return Err(AdminError::NotFound("audit/<namespace>/<device>".to_owned())),
    };
    Ok(Wanted::Audit(AuditQuery {
        device,
        since: UnixMillis(words.number("since", 0)?),
        until: UnixMillis(words.number("until", u64::MAX)?),
        limit: words.number("limit", MAX_DECISIONS)?,
    }))
}

/// Most lines of the audit log in one answer.
const MAX_LINES: usize = 1000;

fn audit_log(words: &Words<'_>) -> Result<Wanted, AdminError> {
    Ok(Wanted::AuditLog(crate::audit::Query {
        since: UnixMillis(words.number("since", 0)?),
        who: words.get("who").map(str::to_owned),
        limit: words.number("limit", MAX_LINES)?.min(MAX_LINES),
    }))
}

/// The answer as a document; the rules' log is an array of its lines.
pub(super) async fn answer(
    wanted: Wanted,
    recorder: &Handle,
    log: &audit::Handle,
) -> Result<Value, AdminError> {
    match wanted {
        Wanted::AuditLog(query) => {
            let lines = log.read(query).await.map_err(|error| AdminError::Conflict(error.to_string()))?;
            admin::document(&lines)
        }
        Wanted::History(question) => recall(recorder, question).await.map(shown::document).map_err(refused),
        Wanted::Audit(query) => {
            let listing = recorder.audit(query).await.map_err(refused)?;
            admin::document(&listing)
        }
        Wanted::RuleLog => rule_log(recorder).await,
    }
}

fn refused(error: AskError) -> AdminError {
    AdminError::Conflict(error.to_string())
}

/// What the recorder has.
pub(super) async fn recall(recorder: &Handle, question: Question) -> Result<Told, AskError> {
    match question {
        Question::Rows(query) => recorder.history(query).await.map(Told::Rows),
        Question::Overview(span) => recorder.overview(span).await.map(Told::Overview),
    }
}

/// Bounded by what the recorder keeps on the disk.
async fn rule_log(recorder: &Handle) -> Result<Value, AdminError> {
    let mut lines = Vec::new();
    let mut from = Some(RulePosition::default());
    while let Some(position) = from {
        let page = recorder.rule_lines(position).await.map_err(refused)?;
        lines.extend(
            page.lines.iter().map(|(_, line)| Value::from(String::from_utf8_lossy(line).into_owned())),
        );
        from = page.next;
    }
    Ok(Value::Array(lines))
}

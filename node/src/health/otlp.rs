//! Metrics as OTLP/JSON: `ExportMetricsServiceRequest` of opentelemetry-proto 1.x in protobuf's JSON mapping, in which
//! 64-bit integers are strings.

use bus::UnixMillis;
use serde_json::{Value, json};

use super::fleet::{Facts, Known};
use super::links::LinkHead;
use super::series::{Kind, LinkSeries, NodeSeries, Row, Scale, Series};
use super::{Condition, Presence};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u8 = 2;

/// One request for these nodes, each a resource of its own. What is of a node that is away keeps the time at which it
/// was heard.
pub fn request(nodes: &[Facts], now: UnixMillis) -> Value {
    json!({ "resourceMetrics": nodes.iter().map(|facts| resource(facts, now)).collect::<Vec<_>>() })
}

fn resource(facts: &Facts, now: UnixMillis) -> Value {
    let Facts { known, condition } = facts;
    let mut attributes = vec![
        attribute("service.name", "kubebus"),
        attribute("service.instance.id", &known.node.to_string()),
        attribute("kubebus.node", &known.node.to_string()),
    ];
    attributes.extend(known.site.as_ref().map(|site| attribute("kubebus.site", site.as_str())));
    let about = condition.as_deref().map(|condition| &condition.about);
    attributes.extend(about.map(|about| attribute("service.version", &about.version)));
    let heard = UnixMillis(now.0.saturating_sub(known.heard_ms_ago.unwrap_or_default()));
    let started = about.map_or(heard, |about| about.started.min(heard));
    let mut metrics = vec![up(known, now)];
    if let Some(condition) = condition {
        let times = Times { started, at: heard };
        metrics.extend(own(condition, known.is_me, times));
        metrics.extend(links(condition, known.is_me, times));
    }
    let scope = json!({ "name": "kubebus", "version": env!("CARGO_PKG_VERSION") });
    json!({ "resource": { "attributes": attributes }, "scopeMetrics": [{ "scope": scope, "metrics": metrics }] })
}

/// When a counter began, and when it was read.
#[derive(Debug, Clone, Copy)]
struct Times {
    started: UnixMillis,
    at: UnixMillis,
}

fn nanos(time: UnixMillis) -> String {
    format!("{}000000", time.0)
}

fn attribute(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn up(known: &Known, now: UnixMillis) -> Value {
    let value = u64::from(known.state == Presence::Connected);
    let row = NodeSeries::Up.row();
    metric(row, vec![point(row, value, Vec::new(), Times { started: now, at: now })])
}

fn own(condition: &Condition, in_full: bool, times: Times) -> Vec<Value> {
    let mut metrics: Vec<(&Row, Vec<Value>)> = Vec::new();
    for series in Series::ALL.iter().filter(|series| in_full || series.is_federated()) {
        let (row, Some(value)) = (series.row(), condition.values.get(*series)) else { continue };
        let labels = row.label.map(|(name, value)| attribute(name, value)).into_iter().collect();
        let point = point(row, value, labels, times);
        match metrics.last_mut().filter(|(last, _)| last.metric == row.metric) {
            Some((_, points)) => points.push(point),
            None => metrics.push((row, vec![point])),
        }
    }
    metrics.into_iter().map(|(row, points)| metric(row, points)).collect()
}

/// When a link came up nobody tells: its counters count from their first reading on.
fn links(condition: &Condition, in_full: bool, times: Times) -> Vec<Value> {
    let series = LinkSeries::ALL.iter().filter(|series| in_full || series.is_federated());
    let of = |series: &LinkSeries| {
        let points = condition.links.iter().filter_map(|link| {
            Some(point(
                series.row(),
                link.get(*series)?,
                labels(&link.head),
                Times { started: times.at, ..times },
            ))
        });
        let points: Vec<Value> = points.collect();
        (!points.is_empty()).then(|| metric(series.row(), points))
    };
    series.filter_map(of).collect()
}

fn labels(head: &LinkHead) -> Vec<Value> {
    let lane = if head.is_packets { "packets" } else { "bus" };
    let mut labels = vec![
        attribute("peer", &head.peer.to_string()),
        attribute("lane", lane),
        attribute("path", head.path.as_str()),
    ];
    labels.extend(head.in_reserve.then(|| attribute("reserve", "true")));
    labels
}

fn metric(row: &Row, points: Vec<Value>) -> Value {
    let mut metric = json!({ "name": row.metric, "description": row.help, "unit": unit(row.metric) });
    match row.kind {
        Kind::Gauge => metric["gauge"] = json!({ "dataPoints": points }),
        Kind::Counter => {
            metric["sum"] =
                json!({ "aggregationTemporality": CUMULATIVE, "isMonotonic": true, "dataPoints": points });
        }
    }
    metric
}

/// As UCUM has it, by the metric's name.
fn unit(metric: &str) -> &'static str {
    let name = metric.strip_suffix("_total").unwrap_or(metric);
    match name {
        _ if name.ends_with("_bytes_per_second") => "By/s",
        _ if name.ends_with("_seconds") => "s",
        _ if name.ends_with("_bytes") => "By",
        _ => "1",
    }
}

fn point(row: &Row, value: u64, attributes: Vec<Value>, times: Times) -> Value {
    let mut point = json!({ "timeUnixNano": nanos(times.at), "attributes": attributes });
    if row.kind == Kind::Counter {
        point["startTimeUnixNano"] = nanos(times.started).into();
    }
    match row.scale {
        Scale::One => point["asInt"] = value.to_string().into(),
        scale @ (Scale::Milli | Scale::Micro) => {
            point["asDouble"] = (value as f64 / scale.divisor() as f64).into()
        }
    }
    point
}

//! Prometheus' text exposition format, version 0.0.4.
//!
//! A scrape of an edge has that edge. One of a cloud has the cloud in full and, of each edge, the rows that are
//! *federated*: about 4 kB an edge with two links, so 40 MB at 10,000 edges. `?node=edge/a` and `?site=plant`, each as
//! often as one likes, choose nodes, which are then there in full. A link between the cloud and an edge is shown as the
//! edge sees it; the cloud's end of it is there when the cloud is chosen by name.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::fleet::{Facts, Fleet, Known};
use super::links::LinkHead;
use super::series::{LinkSeries, NodeSeries, Row, Series};
use super::{Condition, Part, Presence};

/// The content type by which a scraper knows the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One node with its labels written out.
struct Shown<'a> {
    facts: &'a Facts,
    labels: String,
    /// All rows of it, and not just the federated ones.
    in_full: bool,
    links: Vec<(String, &'a [u64; LinkSeries::ALL.len()])>,
}

impl<'a> Shown<'a> {
    fn new(facts: &'a Facts, choice: &Part) -> Self {
        let Known { node, site, is_me, .. } = &facts.known;
        let mut labels = format!("node=\"{node}\"");
        if let Some(site) = site {
            let _ = write!(labels, ",site=\"{site}\"");
        }
        let mut shown = Self { facts, labels, in_full: *is_me || !choice.is_everybody(), links: Vec::new() };
        shown.links = shown.links_of(choice);
        shown
    }

    /// Of several links that have the same labels, the first.
    fn links_of(&self, choice: &Part) -> Vec<(String, &'a [u64; LinkSeries::ALL.len()])> {
        let Known { node, .. } = &self.facts.known;
        if node.kind == bus::NodeKind::Cloud && choice.is_everybody() {
            return Vec::new();
        }
        let (mut seen, mut links) = (BTreeSet::new(), Vec::new());
        for link in self.facts.condition.iter().flat_map(|condition| &condition.links) {
            let labels = format!("{},{}", self.labels, labels_of(&link.head));
            if seen.insert(labels.clone()) {
                links.push((labels, &link.numbers));
            }
        }
        links
    }
}

fn labels_of(head: &LinkHead) -> String {
    let LinkHead { path, peer, is_packets, in_reserve, .. } = head;
    let lane = if *is_packets { "packets" } else { "bus" };
    let reserve = if *in_reserve { ",reserve=\"true\"" } else { "" };
    format!("peer=\"{peer}\",lane=\"{lane}\",path=\"{}\"{reserve}", path.as_str())
}

/// Names and this version's characters need no escapes; a version that another node says of itself may.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A metric's lines stand together, below its HELP and TYPE.
pub fn render(fleet: &Fleet, choice: &Part) -> String {
    let chosen = fleet.nodes.iter().filter(|facts| choice.has(&facts.known));
    let shown: Vec<Shown<'_>> = chosen.map(|facts| Shown::new(facts, choice)).collect();
    let mut out = Writer::default();
    for series in NodeSeries::ALL {
        let rows = shown.iter().filter_map(|node| of_node(*series, node));
        out.metric(series.row(), rows);
    }
    for series in Series::ALL {
        let rows = shown.iter().filter(|node| node.in_full || series.is_federated());
        let value = |condition: &Condition| condition.values.get(*series);
        let rows = rows.filter_map(|node| {
            let value = node.facts.condition.as_deref().and_then(value)?;
            Some((node.labels.clone(), value as f64 / series.row().scale.divisor() as f64))
        });
        out.metric(series.row(), rows);
    }
    for series in LinkSeries::ALL {
        let nodes = shown.iter().filter(|node| node.in_full || series.is_federated());
        let links = nodes.flat_map(|node| &node.links);
        let rows = links.filter_map(|(labels, numbers)| {
            let value = numbers[*series as usize];
            (value != u64::MAX).then(|| (labels.clone(), value as f64 / series.row().scale.divisor() as f64))
        });
        out.metric(series.row(), rows);
    }
    out.text
}

fn of_node(series: NodeSeries, node: &Shown<'_>) -> Option<(String, f64)> {
    let (Facts { known, condition }, labels) = (node.facts, node.labels.clone());
    let millis = |value: u64| value as f64 / 1e3;
    let about = condition.as_deref().map(|condition| &condition.about);
    let value = match series {
        NodeSeries::Up => f64::from(known.state == Presence::Connected),
        NodeSeries::HeardAge => millis(known.heard_ms_ago?),
        NodeSeries::Info => {
            return Some((format!("{labels},version=\"{}\"", escaped(&about?.version)), 1.0));
        }
        NodeSeries::Started => millis(about?.started.0),
        NodeSeries::ClockOffset => known.clock_offset_ms? as f64 / 1e3,
        NodeSeries::SyncBehind => known.behind? as f64,
        NodeSeries::Problems => node.facts.problems().len() as f64,
    };
    Some((labels, value))
}

#[derive(Default)]
struct Writer {
    text: String,
    last: &'static str,
}

impl Writer {
    /// Rows of one metric follow each other in the tables.
    fn metric(&mut self, row: &'static Row, samples: impl Iterator<Item = (String, f64)>) {
        let Row { metric, kind, label, help, .. } = row;
        for (labels, value) in samples {
            if self.last != *metric {
                let _ = writeln!(self.text, "# HELP {metric} {help}\n# TYPE {metric} {}", kind.as_str());
                self.last = metric;
            }
            let own = label.map(|(name, value)| format!(",{name}=\"{value}\"")).unwrap_or_default();
            let _ = writeln!(self.text, "{metric}{{{labels}{own}}} {value}");
        }
    }
}

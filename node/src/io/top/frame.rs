//! One frame of `kubebus top`, as lines that fit the screen. Pure.

use serde_json::Value;

use super::super::fleet::{ago, bytes, ills, is_unwell, shown_links, state, summary};
use super::super::table::cell;

/// By what lines are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Order {
    /// What is not well first, then by throughput.
    #[default]
    Ills,
    Throughput,
    Rtt,
    Name,
}

impl Order {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Ills => Self::Throughput,
            Self::Throughput => Self::Rtt,
            Self::Rtt => Self::Name,
            Self::Name => Self::Ills,
        }
    }

    /// As the node is asked for it.
    pub(super) fn asked(self) -> &'static str {
        match self {
            Self::Ills => "ills",
            Self::Throughput => "throughput",
            Self::Rtt => "rtt",
            Self::Name => "name",
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Ills => "what is wrong",
            Self::Throughput => "throughput",
            Self::Rtt => "round trip",
            Self::Name => "name",
        }
    }
}

/// A line, and how it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) look: Look,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Plain,
    /// The head of a table.
    Head,
    /// Something that is not well.
    Ill,
}

/// The size of a screen, and what is to be on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) columns: usize,
    pub(super) rows: usize,
    pub(super) order: Order,
    /// Why what is shown is old.
    pub(super) fault: Option<&'a str>,
}

impl Frame<'_> {
    /// The lines, and how far the list could be scrolled.
    pub(super) fn draw(&self, fleet: &Value, scrolled: usize) -> (Vec<Line>, usize) {
        let body = body(fleet, self.order);
        // The summary above, the keys below.
        let room = self.rows.saturating_sub(3).max(1);
        let scrolled = scrolled.min(body.len().saturating_sub(room));
        let mut lines = vec![self.title(fleet), plain("")];
        lines.extend(body.into_iter().skip(scrolled).take(room));
        lines.resize(self.rows.saturating_sub(1).max(2), plain(""));
        lines.push(plain(&format!("q quit   s sort: {}   arrows scroll", self.order.as_str())));
        lines.truncate(self.rows);
        for line in &mut lines {
            line.text = line.text.chars().take(self.columns).collect();
        }
        (lines, scrolled)
    }

    fn title(&self, fleet: &Value) -> Line {
        match self.fault {
            Some(why) => Line { text: format!("as it was last: {why}"), look: Look::Ill },
            None => plain(&summary(fleet)),
        }
    }
}

/// All of it, as text.
pub(super) fn whole(fleet: &Value, order: Order) -> String {
    let lines: Vec<String> = body(fleet, order).into_iter().map(|line| line.text).collect();
    format!("{}\n\n{}", summary(fleet), lines.join("\n"))
}

fn plain(text: &str) -> Line {
    Line { text: text.to_owned(), look: Look::Plain }
}

/// Nodes, links, and what is wrong. Narrow enough for 80 columns.
fn body(fleet: &Value, order: Order) -> Vec<Line> {
    let time = fleet["time"].as_u64().unwrap_or_default();
    let mut nodes: Vec<&Value> = fleet["nodes"].as_array().into_iter().flatten().collect();
    nodes.sort_by_cached_key(|node| (rank(node, order), cell(&node["node"])));
    let mut links = shown_links(fleet);
    links.sort_by_cached_key(|(node, link)| (link_rank(node, link, order), cell(&node["node"])));
    let mut lines = vec![head(&format!(
        "{:<22}{:<16}{:<9}{:>7}{:>13}{:>13}",
        "NODE", "STATE", "HEARD", "OUTBOX", "OUT/s", "IN/s"
    ))];
    lines.extend(nodes.iter().map(|node| node_line(node, time)));
    lines.push(plain(""));
    lines.push(head(&format!(
        "{:<18}{:<18}{:<8}{:<8}{:>7}{:>7}{:>7}{:>7}",
        "LINK OF", "TO", "LANE", "PATH", "RTT ms", "LOSS %", "QUEUE", "BOTH/s"
    )));
    lines.extend(links.iter().map(|(node, link)| link_line(node, link)));
    let ill: Vec<&&Value> = nodes.iter().filter(|node| is_unwell(node)).collect();
    if !ill.is_empty() {
        lines.push(plain(""));
    }
    for node in ill {
        lines.extend(ills(node, time).lines().map(|text| {
            let look = if text.starts_with(' ') { Look::Plain } else { Look::Ill };
            Line { text: text.to_owned(), look }
        }));
    }
    lines
}

fn head(text: &str) -> Line {
    Line { text: text.to_owned(), look: Look::Head }
}

/// Smaller is further up.
fn rank(node: &Value, order: Order) -> (u64, u64) {
    let busy = u64::MAX - sum(node, "sent_bytes_per_s") - sum(node, "received_bytes_per_s");
    let slowest = node["links"].as_array().into_iter().flatten().map(rtt).max().unwrap_or_default();
    match order {
        Order::Ills => (u64::from(!is_unwell(node)), busy),
        Order::Throughput => (0, busy),
        Order::Rtt => (0, u64::MAX - slowest),
        Order::Name => (0, 0),
    }
}

fn link_rank(node: &Value, link: &Value, order: Order) -> (u64, u64) {
    match order {
        Order::Ills => (u64::from(!is_unwell(node)), u64::MAX - throughput(link)),
        Order::Throughput => (0, u64::MAX - throughput(link)),
        Order::Rtt => (0, u64::MAX - rtt(link)),
        Order::Name => (0, 0),
    }
}

fn sum(node: &Value, key: &str) -> u64 {
    node["links"].as_array().into_iter().flatten().filter_map(|link| link[key].as_u64()).sum()
}

fn throughput(link: &Value) -> u64 {
    ["sent_bytes_per_s", "received_bytes_per_s"].iter().filter_map(|key| link[*key].as_u64()).sum()
}

/// In microseconds.
fn rtt(link: &Value) -> u64 {
    (link["rtt_ms"].as_f64().unwrap_or_default() * 1000.0) as u64
}

fn cut(text: &str, width: usize) -> String {
    text.chars().take(width.saturating_sub(1)).collect()
}

fn node_line(node: &Value, time: u64) -> Line {
    let heard = ago(node["heard_ms_ago"].as_u64());
    let heard = heard.strip_suffix(" ago").unwrap_or(&heard);
    let text = format!(
        "{:<22}{:<16}{:<9}{:>7}{:>13}{:>13}",
        cut(&cell(&node["node"]), 22),
        cut(&state(node, time), 16),
        heard,
        cell(&node["sync"]["outbox"]),
        bytes(Some(sum(node, "sent_bytes_per_s"))),
        bytes(Some(sum(node, "received_bytes_per_s"))),
    );
    Line { text, look: if is_unwell(node) { Look::Ill } else { Look::Plain } }
}

fn link_line(node: &Value, link: &Value) -> Line {
    let number = |key: &str| link[key].as_f64().map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
    let lane = if link["in_reserve"] == true { "reserve".to_owned() } else { cell(&link["lane"]) };
    plain(&format!(
        "{:<18}{:<18}{:<8}{:<8}{:>7}{:>7}{:>7}{:>7}",
        cut(&cell(&node["node"]), 18),
        cut(&cell(&link["peer"]), 18),
        lane,
        cut(&cell(&link["path"]), 8),
        number("rtt_ms"),
        number("loss_percent"),
        bytes(link["queue_bytes"].as_u64()).replace(' ', ""),
        bytes(link["sent_bytes_per_s"].as_u64().map(|_| throughput(link))).replace(' ', ""),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::fleet::example;

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn a_frame_fits_the_smallest_terminal_and_shows_what_is_wrong_first() {
        let frame = Frame { columns: 80, rows: 24, order: Order::Ills, fault: None };
        let (lines, _) = frame.draw(&example(), 0);
        assert_eq!(lines.len(), 24);
        assert!(lines.iter().all(|line| line.text.chars().count() <= 80), "{lines:#?}");
        let texts = texts(&lines);
        assert!(texts[3].starts_with("edge/a") && texts[5].starts_with("cloud/hq"), "{texts:#?}");
        assert_eq!(lines[3].look, Look::Ill);
        assert!(texts.contains(&"edge/a: the disk refuses writes: no space"));
        assert_eq!(texts[23], "q quit   s sort: what is wrong   arrows scroll");
    }

    #[test]
    fn scrolling_ends_at_the_last_line() {
        let frame = Frame { columns: 80, rows: 8, order: Order::Name, fault: None };
        let (lines, scrolled) = frame.draw(&example(), 1000);
        assert_eq!(texts(&lines)[6], "    see that it has power");
        assert_eq!(frame.draw(&example(), scrolled + 1).1, scrolled);
    }

    #[test]
    fn any_size_and_a_lost_node_give_a_frame() {
        for (columns, rows) in [(0, 0), (1, 1), (3, 2), (200, 60)] {
            let frame = Frame { columns, rows, order: Order::Rtt, fault: Some("no kubebus runs") };
            let (lines, _) = frame.draw(&example(), 3);
            assert_eq!(lines.len(), rows);
        }
    }

    #[test]
    fn orders_take_turns() {
        let orders: Vec<Order> =
            std::iter::successors(Some(Order::Ills), |order| Some(order.next())).take(5).collect();
        assert_eq!(orders[4], Order::Ills);
        let whole = whole(&example(), Order::Throughput);
        assert!(whole.lines().nth(3).unwrap().starts_with("cloud/hq"), "{whole}");
    }
}

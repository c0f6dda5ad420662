//! `kubebus status`: how the nodes are that this one knows of, and what to do where one is not well.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::admin::AskError;
use super::cli::{Format, Place};
use super::commands::{fetch, say, show, text};
use super::table::{self, cell, rows, table};

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub place: Place,
    /// All nodes, however many; else those of a large fleet that are not well
    #[arg(long)]
    pub all: bool,
    /// How to print; wide adds the node's own parts, queues and counters
    #[arg(short, long, value_enum, default_value_t = StatusFormat::Table)]
    pub output: StatusFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StatusFormat {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

pub(super) const FLEET: &str = "/kubebus/v1/fleet";

/// Of more nodes than that, those are shown that are not well: more is read by nobody.
const MOST_SHOWN: usize = 50;

pub(super) async fn status(args: &StatusArgs) -> Result<()> {
    let own = fetch(&args.place, "/kubebus/v1/status").await?;
    let is_read = matches!(args.output, StatusFormat::Table | StatusFormat::Wide);
    let part = if is_read && !args.all {
        format!("{FLEET}?order=ills&limit={MOST_SHOWN}")
    } else {
        FLEET.to_owned()
    };
    let fleet = match fetch(&args.place, &part).await {
        Err(error) if is_of_standby(&error) => Value::Null,
        fleet => fleet?,
    };
    match args.output {
        StatusFormat::Table if fleet.is_null() => say(&table::status(&own)),
        StatusFormat::Table => say(&with_paths(&overview(&fleet), &own)),
        StatusFormat::Wide => say(&format!("{}\n\n{}", overview(&fleet), table::status(&own))),
        StatusFormat::Name => say(&names(&fleet)),
        StatusFormat::Json => show(&with_fleet(own, fleet), Format::Json, table::any),
        StatusFormat::Yaml => show(&with_fleet(own, fleet), Format::Yaml, table::any),
    }
}

/// An edge knows why its packets to another one go by the cloud.
fn with_paths(overview: &str, own: &Value) -> String {
    match table::paths(&own["paths"]) {
        Some(paths) => format!("{overview}\n\n{paths}"),
        None => overview.to_owned(),
    }
}

/// A replica that waits for its turn knows of no fleet, and says so in its status.
fn is_of_standby(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(AskError::Refused { status: 421, .. }))
}

fn with_fleet(mut own: Value, fleet: Value) -> Value {
    own["fleet"] = fleet;
    own
}

fn nodes(fleet: &Value) -> &[Value] {
    fleet["nodes"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn names(fleet: &Value) -> String {
    nodes(fleet).iter().map(|node| text(&node["node"])).collect::<Vec<_>>().join("\n")
}

/// One line that sums up, a table of nodes, one of links, and what is wrong.
fn overview(fleet: &Value) -> String {
    let cut = is_cut(fleet).then(|| only_unwell(fleet));
    let fleet = cut.as_ref().unwrap_or(fleet);
    let parts = [Some(summary(fleet)), Some(of_nodes(fleet)), of_links(fleet), wrong(fleet), left_out(fleet)];
    parts.into_iter().flatten().collect::<Vec<_>>().join("\n\n")
}

/// Whether there are more nodes than these.
fn is_cut(fleet: &Value) -> bool {
    fleet["total"].as_u64().is_some_and(|total| total > nodes(fleet).len() as u64)
}

/// Of a fleet that is cut short: this node, and those that somebody has to look after.
fn only_unwell(fleet: &Value) -> Value {
    let mut cut = fleet.clone();
    let me = fleet["me"].clone();
    if let Some(nodes) = cut["nodes"].as_array_mut() {
        nodes.retain(|node| node["node"] == me || is_unwell(node));
    }
    cut
}

fn left_out(fleet: &Value) -> Option<String> {
    let count = |name: &str| fleet[name].as_u64().unwrap_or_default();
    let shown = nodes(fleet);
    let ill = count("unwell").saturating_sub(shown.iter().filter(|node| is_unwell(node)).count() as u64);
    let well = count("total").saturating_sub(shown.len() as u64 + ill);
    let words = match (well, ill) {
        (0, 0) => return None,
        (well, 0) => format!("{well} more are well"),
        (0, ill) => format!("{ill} more are not well"),
        (well, ill) => format!("{ill} more are not well, and {well} are"),
    };
    Some(format!("{words}: --all shows them"))
}

pub(super) fn summary(fleet: &Value) -> String {
    let all = nodes(fleet);
    let count = |name: &str| fleet[name].as_u64().unwrap_or_default();
    let (connected, unwell) = (count("connected"), count("unwell"));
    let (me, cluster) = (text(&fleet["me"]), text(&fleet["cluster"]));
    let version = all.first().map_or_else(String::new, |node| format!(" {}", cell(&node["version"])));
    let well = if unwell == 0 { "all is well".to_owned() } else { format!("{unwell} not well") };
    format!("{me} of {cluster}, kubebus{version}: {connected} of {} nodes connected, {well}", count("total"))
}

pub(super) fn is_unwell(node: &Value) -> bool {
    node["problems"].as_array().is_some_and(|problems| !problems.is_empty())
}

fn of_nodes(fleet: &Value) -> String {
    let time = fleet["time"].as_u64().unwrap_or_default();
    let row = |node: &Value| {
        let twins = &node["twins"];
        let some = |part: &str, whole: &str, word: &str| match (twins[part].as_u64(), &twins[whole]) {
            (Some(count), whole) if count > 0 => format!("{} ({count} {word})", cell(whole)),
            (_, whole) => cell(whole),
        };
        let disk = node["disk"].as_str().map_or("-", |disk| disk.split(':').next().unwrap_or(disk));
        vec![
            cell(&node["node"]),
            cell(&node["site"]),
            state(node, time),
            ago(node["heard_ms_ago"].as_u64()),
            disk.to_owned(),
            cell(&node["sync"]["behind"]),
            outbox(&node["sync"]),
            some("offline", "devices", "offline"),
            some("rules_tripped", "rules", "tripped"),
        ]
    };
    let heads = ["NODE", "SITE", "STATE", "HEARD", "DISK", "SYNC LAG", "OUTBOX", "DEVICES", "RULES"];
    table(&heads, &rows(&fleet["nodes"], row))
}

/// With how long it has been so.
pub(super) fn state(node: &Value, time: u64) -> String {
    let word = cell(&node["state"]);
    match node["since"].as_u64() {
        Some(since) => format!("{word} {}", brief(Duration::from_millis(time.saturating_sub(since)))),
        None => word,
    }
}

fn outbox(sync: &Value) -> String {
    match (sync["outbox"].as_u64(), sync["outbox_oldest_ms"].as_u64()) {
        (Some(entries), Some(oldest)) if entries > 0 && oldest >= 1000 => {
            format!("{entries}, {} old", brief(Duration::from_millis(oldest)))
        }
        _ => cell(&sync["outbox"]),
    }
}

fn of_links(fleet: &Value) -> Option<String> {
    let heads = [
        "NODE", "PEER", "LANE", "PATH", "AT", "RTT ms", "LOSS %", "MTU", "OFFLOAD", "QUEUE", "OUT/s", "IN/s",
    ];
    let rows: Vec<Vec<String>> =
        shown_links(fleet).into_iter().map(|(node, link)| link_row(node, link)).collect();
    (!rows.is_empty()).then(|| table(&heads, &rows))
}

/// Each link once: as its edge tells it, or as this node sees it where the edge has not told anything.
pub(super) fn shown_links(fleet: &Value) -> Vec<(&Value, &Value)> {
    let has_links = |node: &&Value| node["links"].as_array().is_some_and(|links| !links.is_empty());
    let telling: BTreeSet<&str> =
        nodes(fleet).iter().filter(has_links).filter_map(|node| node["node"].as_str()).collect();
    let tells = |name: &Value| name.as_str().is_some_and(|name| telling.contains(name));
    let mut found = Vec::new();
    for node in nodes(fleet).iter().filter(|node| node["state"] == "connected" || node["node"] == fleet["me"])
    {
        let is_cloud = text(&node["node"]).starts_with("cloud/");
        let links = node["links"].as_array().into_iter().flatten();
        found.extend(links.filter(|link| !is_cloud || !tells(&link["peer"])).map(|link| (node, link)));
    }
    found
}

fn link_row(node: &Value, link: &Value) -> Vec<String> {
    let reserve = if link["in_reserve"] == true { " (reserve)" } else { "" };
    let lane = format!("{}{reserve}", cell(&link["lane"]));
    let known = [&node["node"], &link["peer"]].map(cell);
    let measured = ["path", "remote", "rtt_ms", "loss_percent", "mtu", "offload"].map(|key| cell(&link[key]));
    let amounts =
        ["queue_bytes", "sent_bytes_per_s", "received_bytes_per_s"].map(|key| bytes(link[key].as_u64()));
    known.into_iter().chain([lane]).chain(measured).chain(amounts).collect()
}

/// Under each node that is not well, what is wrong and what to do.
fn wrong(fleet: &Value) -> Option<String> {
    let time = fleet["time"].as_u64().unwrap_or_default();
    let found: Vec<String> =
        nodes(fleet).iter().filter(|node| is_unwell(node)).map(|node| ills(node, time)).collect();
    (!found.is_empty()).then(|| found.join("\n"))
}

pub(super) fn ills(node: &Value, time: u64) -> String {
    let mut lines = Vec::new();
    for problem in node["problems"].as_array().into_iter().flatten() {
        lines.push(format!("{}: {}", text(&node["node"]), text(&problem["text"])));
        lines.push(format!("    {}", text(&problem["advice"])));
    }
    let error = &node["last_error"];
    if let Some(at) = error["time"].as_u64() {
        let ago = brief(Duration::from_millis(time.saturating_sub(at)));
        lines.push(format!("    last error, {ago} ago: {}", text(&error["text"])));
    }
    lines.join("\n")
}

pub(super) fn ago(millis: Option<u64>) -> String {
    millis.map_or_else(|| "-".to_owned(), |millis| format!("{} ago", brief(Duration::from_millis(millis))))
}

/// In its largest unit.
pub(super) fn brief(time: Duration) -> String {
    match time.as_secs() {
        0 if time.as_millis() > 0 => format!("{:.1}s", time.as_secs_f64()),
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// In units of a thousand, with three digits at most.
pub(super) fn bytes(count: Option<u64>) -> String {
    let Some(count) = count else { return "-".to_owned() };
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            let digits = if unit == "B" || value >= 99.5 { 0 } else { 1 };
            return format!("{value:.digits$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
pub(super) use tests::fleet as example;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    pub(in crate::io) fn fleet() -> Value {
        let link = |peer: &str, lane: &str, rtt: f64| {
            json!({ "peer": peer, "lane": lane, "path": "quic", "in_reserve": false, "remote": "203.0.113.10:10001",
                    "rtt_ms": rtt, "loss_percent": 0.5, "mtu": 1452, "offload": if lane == "bus" { Value::Null } else { "tcp+udp".into() },
                    "queue_bytes": 0, "sent_bytes_per_s": 1_300_000, "received_bytes_per_s": 800 })
        };
        let well = json!({ "node": "cloud/hq", "site": null, "state": "connected", "since": 0, "heard_ms_ago": 0,
            "version": "0.1.0", "disk": "ok", "sync": {}, "twins": {}, "problems": [], "last_error": null,
            "links": [link("edge/a", "bus", 42.1), link("edge/z", "bus", 7.0)] });
        let a = json!({ "node": "edge/a", "site": "plant-a", "state": "connected", "since": 3_600_000, "heard_ms_ago": 1200,
            "version": "0.1.0", "disk": "degraded: no space", "sync": { "behind": 0, "outbox": 7, "outbox_oldest_ms": 90_000 },
            "twins": { "devices": 4, "offline": 1, "rules": 2, "rules_tripped": 0 },
            "problems": [{ "text": "the disk refuses writes: no space", "advice": "make room" }],
            "last_error": { "text": "cannot reach the cloud: no answer", "advice": "-", "time": 3_000_000 },
            "links": [link("cloud/hq", "packets", 42.1)] });
        let b = json!({ "node": "edge/b", "site": "plant-b", "state": "lost", "since": 10_740_000, "heard_ms_ago": 70_000,
            "disk": "ok", "sync": { "behind": null, "outbox": 0, "outbox_oldest_ms": 0 }, "twins": {},
            "problems": [{ "text": "it is not connected", "advice": "see that it has power" }], "last_error": null,
            "links": [link("cloud/hq", "packets", 42.1)] });
        json!({ "cluster": "water", "me": "cloud/hq", "time": 10_800_000, "total": 3, "connected": 2, "unwell": 2,
                "found": 3, "nodes": [well, a, b] })
    }

    #[test]
    fn a_status_has_nodes_links_and_what_to_do() {
        let expected = "\
cloud/hq of water, kubebus 0.1.0: 2 of 3 nodes connected, 2 not well

NODE       SITE      STATE          HEARD     DISK       SYNC LAG   OUTBOX       DEVICES         RULES
cloud/hq   -         connected 3h   0s ago    ok         -          -            -               -
edge/a     plant-a   connected 2h   1s ago    degraded   0          7, 90s old   4 (1 offline)   2
edge/b     plant-b   lost 60s       70s ago   ok         -          0            -               -

NODE       PEER       LANE      PATH   AT                   RTT ms   LOSS %   MTU    OFFLOAD   QUEUE   OUT/s    IN/s
cloud/hq   edge/z     bus       quic   203.0.113.10:10001   7        0.5      1452   -         0 B     1.3 MB   800 B
edge/a     cloud/hq   packets   quic   203.0.113.10:10001   42.1     0.5      1452   tcp+udp   0 B     1.3 MB   800 B

edge/a: the disk refuses writes: no space
    make room
    last error, 2h ago: cannot reach the cloud: no answer
edge/b: it is not connected
    see that it has power";
        assert_eq!(overview(&fleet()), expected);
    }

    #[test]
    fn of_a_large_fleet_those_are_shown_that_are_not_well() {
        let mut fleet = fleet();
        let mut fine = fleet["nodes"][0].clone();
        fine["node"] = "edge/fine".into();
        fleet["nodes"].as_array_mut().unwrap().push(fine);
        for (count, value) in [("total", 10_001), ("connected", 9_998), ("unwell", 3)] {
            fleet[count] = value.into();
        }
        let shown = overview(&fleet);
        assert!(
            shown
                .starts_with("cloud/hq of water, kubebus 0.1.0: 9998 of 10001 nodes connected, 3 not well\n"),
            "{shown}"
        );
        assert!(shown.ends_with("1 more are not well, and 9997 are: --all shows them"), "{shown}");
        assert!(!shown.contains("edge/fine") && shown.contains("edge/b     plant-b   lost 60s"), "{shown}");
        assert!(shown.lines().count() < 25, "{shown}");
    }

    #[test]
    fn ways_to_other_edges_stand_last() {
        let path = json!({ "peer": "edge/b", "path": "relayed", "remote": null, "because": "symmetric NAT" });
        let shown = with_paths("all", &json!({ "paths": [path] }));
        assert_eq!(shown, "all\n\nEDGE     PATH      AT   BECAUSE\nedge/b   relayed   -    symmetric NAT");
        assert_eq!(with_paths("all", &json!({ "paths": [] })), "all");
    }

    #[test]
    fn amounts_are_short() {
        let shown = [0, 999, 1_000, 12_345, 999_400, 999_900, 5_000_000_000].map(|count| bytes(Some(count)));
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "12.3 kB", "999 kB", "1.0 MB", "5.0 GB"]);
    }
}

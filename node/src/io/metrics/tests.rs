use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use bus::{Name, NodeId, UnixMillis};
use proptest::prelude::*;

use crate::health::fleet::{Facts, Fleet, Known};
use crate::health::links::{LinkHead, LinkState, Path};
use crate::health::prometheus::render;
use crate::health::report::About;
use crate::health::series::{LinkSeries, NodeSeries, Row, Series};
use crate::health::{Condition, Part, Presence};

const PAGE: &str = "docs/metrics.md";

/// `docs/metrics.md`, whole: what the page is tested to be.
fn page() -> String {
    let mut text = include_str!("page.md.in").to_owned();
    let mut rows: Vec<(&Row, &str)> = Vec::new();
    rows.extend(NodeSeries::ALL.iter().map(|series| (series.row(), "all")));
    rows.extend(Series::ALL.iter().map(|s| (s.row(), if s.is_federated() { "all" } else { "chosen" })));
    rows.extend(LinkSeries::ALL.iter().map(|s| (s.row(), if s.is_federated() { "all" } else { "chosen" })));
    let mut at = 0;
    while at < rows.len() {
        let (row, _) = rows[at];
        let same: Vec<&(&Row, &str)> =
            rows[at..].iter().take_while(|(r, _)| r.metric == row.metric).collect();
        let labels = if row.metric.starts_with("kubebus_link_")
            && LinkSeries::ALL.iter().any(|s| s.row().metric == row.metric)
        {
            "`peer`, `lane`, `path`, `reserve`".to_owned()
        } else if row.metric == NodeSeries::Info.row().metric {
            "`version`".to_owned()
        } else if let Some((name, _)) = row.label {
            let values: Vec<&str> = same.iter().filter_map(|(row, _)| Some(row.label?.1)).collect();
            format!("`{name}`: {}", values.join(", "))
        } else {
            String::new()
        };
        let mut of: Vec<&str> = same.iter().map(|(_, of)| *of).collect();
        of.sort_unstable();
        of.dedup();
        let of = if of.len() > 1 { "all: denied, no_route, no_lane, queue_full" } else { of[0] };
        let _ =
            writeln!(text, "| `{}` | {} | {labels} | {of} | {} |", row.metric, row.kind.as_str(), row.help);
        at += same.len();
    }
    text
}

/// The node of a label.
fn id(text: &str) -> NodeId {
    text.parse().unwrap()
}

fn condition() -> Condition {
    let mut condition = Condition::default();
    for (at, series) in Series::ALL.iter().enumerate() {
        condition.values.set(*series, at as u64 * 1500);
    }
    let head = |peer: &str, path| LinkHead {
        path,
        peer: id(peer),
        is_packets: true,
        in_reserve: false,
        remote: Some("203.0.113.10:10001".parse().unwrap()),
    };
    let numbers = |number| [number; LinkSeries::ALL.len()];
    condition.links = vec![
        LinkState { head: head("cloud/hq", Path::Quic), numbers: numbers(42_100) },
        LinkState { head: head("cloud/hq", Path::Quic), numbers: numbers(1) },
        LinkState { head: head("edge/z", Path::Relayed), numbers: numbers(u64::MAX) },
    ];
    condition.about = About { version: "0.1 \"beta\"\\\n".to_owned(), ..About::default() };
    condition
}

fn facts(node: &str, is_me: bool, state: Presence) -> Facts {
    let known = Known {
        is_me,
        node: id(node),
        site: (!is_me).then(|| Name::new("plant").unwrap()),
        state,
        is_cut_off: false,
        since: None,
        heard_ms_ago: Some(1250),
        clock_offset_ms: Some(-3),
        behind: Some(0),
    };
    Facts { known, condition: (state != Presence::Never).then(|| Arc::new(condition())) }
}

fn fleet() -> Fleet {
    let nodes = vec![
        facts("cloud/hq", true, Presence::Connected),
        facts("edge/a", false, Presence::Connected),
        facts("edge/b", false, Presence::Lost),
        facts("edge/c", false, Presence::Never),
    ];
    Fleet { cluster: Name::new("water").unwrap(), me: id("cloud/hq"), time: UnixMillis(0), nodes }
}

/// Reads as strictly as the format is defined: HELP and TYPE once, before their samples, which stand together; names,
/// labels and escapes; no sample twice.
fn parse(text: &str) -> Result<BTreeMap<String, f64>, String> {
    let (mut samples, mut typed, mut done) = (BTreeMap::new(), None::<String>, BTreeSet::new());
    assert!(text.is_empty() || text.ends_with('\n'), "the last line ends");
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or("no help")?;
            let kind =
                lines.next().and_then(|next| next.strip_prefix("# TYPE ")).ok_or("no TYPE below HELP")?;
            let (same, kind) = kind.split_once(' ').ok_or("no type")?;
            if same != name || !["counter", "gauge"].contains(&kind) || help.is_empty() {
                return Err(format!("{name}: {kind}"));
            }
            if (kind == "counter") != name.ends_with("_total") || !done.insert(name.to_owned()) {
                return Err(format!("{name} is a {kind}, or not together"));
            }
            typed = Some(name.to_owned());
            continue;
        }
        let (series, value) = line.rsplit_once(' ').ok_or("no value")?;
        let (name, labels) = series.split_once('{').ok_or("no labels")?;
        if typed.as_deref() != Some(name) || !is_name(name) {
            return Err(format!("{name} has no TYPE above it"));
        }
        check_labels(labels.strip_suffix('}').ok_or("no end of labels")?)?;
        let value: f64 = value.parse().map_err(|_| format!("'{value}' is no number"))?;
        if samples.insert(series.to_owned(), value).is_some() {
            return Err(format!("{series} twice"));
        }
    }
    Ok(samples)
}

fn is_name(name: &str) -> bool {
    name.starts_with("kubebus_")
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn check_labels(mut rest: &str) -> Result<(), String> {
    let mut names = BTreeSet::new();
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").ok_or("no value of a label")?;
        if !name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') || !names.insert(name) {
            return Err(format!("label '{name}'"));
        }
        let mut end = None;
        let mut bytes = after.bytes().enumerate();
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'"' => {
                    end = Some(at);
                    break;
                }
                b'\\' if !matches!(bytes.next(), Some((_, b'\\' | b'"' | b'n'))) => {
                    return Err("an escape".to_owned());
                }
                _ => {}
            }
        }
        rest = &after[end.ok_or("a label without end")? + 1..];
        rest = match rest.strip_prefix(',') {
            Some(more) => more,
            None if rest.is_empty() => rest,
            None => return Err("no comma".to_owned()),
        };
    }
    Ok(())
}

#[test]
fn a_scrape_of_the_cloud_has_the_fleet() {
    let samples = parse(&render(&fleet(), &Part::default())).unwrap();
    let up = |node: &str| samples.get(&format!("kubebus_node_up{{node=\"{node}\",site=\"plant\"}}")).copied();
    assert_eq!([up("edge/a"), up("edge/b"), up("edge/c")], [Some(1.0), Some(0.0), Some(0.0)]);
    assert_eq!(samples["kubebus_node_up{node=\"cloud/hq\"}"], 1.0);
    let rtt = "kubebus_link_rtt_seconds{node=\"edge/a\",site=\"plant\",peer=\"cloud/hq\",lane=\"packets\",path=\"quic\"}";
    assert_eq!(samples[rtt], 0.0421);
    assert_eq!(samples["kubebus_outbox_oldest_seconds{node=\"edge/b\",site=\"plant\"}"], 3.0);
    assert_eq!(samples["kubebus_node_clock_offset_seconds{node=\"edge/a\",site=\"plant\"}"], -0.003);
    let of_edges = |name: &str| samples.keys().any(|key| key.starts_with(name) && key.contains("edge/a"));
    assert!(of_edges("kubebus_mqtt_sent_total") && !of_edges("kubebus_store_commits_total"));
    assert!(samples.keys().any(|key| key.starts_with("kubebus_store_commits_total{node=\"cloud/hq\"")));
}

#[test]
fn whom_a_scrape_names_it_has_in_full() {
    let only = |query: &str| parse(&render(&fleet(), &Part::parse(query).unwrap())).unwrap();
    let samples = only("node=edge%2Fa");
    assert!(samples.keys().all(|key| key.contains("node=\"edge/a\"")));
    assert!(samples.keys().any(|key| key.starts_with("kubebus_store_commits_total")));
    assert!(only("site=plant").keys().all(|key| !key.contains("node=\"cloud/hq\"")));
    let cloud = only("node=cloud/hq");
    assert!(cloud.keys().any(|key| key.starts_with("kubebus_link_rtt_seconds{node=\"cloud/hq\"")));
    assert!(only("node=edge/nobody").is_empty());
}

#[test]
fn an_edge_costs_a_scrape_what_the_page_says() {
    let mut fleet = fleet();
    let one = fleet.nodes.swap_remove(1);
    fleet.nodes.truncate(1);
    let without = render(&fleet, &Part::default()).len();
    fleet.nodes.extend(std::iter::repeat_n(one, 1).map(|mut facts| {
        facts.known.node = id("edge/pump-house-12");
        facts
    }));
    let with = render(&fleet, &Part::default()).len();
    assert!(with - without < 4_000, "{}", with - without);
}

#[test]
fn the_checker_finds_mistakes() {
    let head = "# HELP kubebus_a x\n# TYPE kubebus_a gauge\n";
    for wrong in [
        "kubebus_a{node=\"x\"} 1\n".to_owned(),
        format!("{head}kubebus_a{{node=\"x\"}} 1\nkubebus_a{{node=\"x\"}} 2\n"),
        format!("{head}kubebus_b{{node=\"x\"}} 1\n"),
        format!("{head}kubebus_a{{node=\"x\\q\"}} 1\n"),
        format!("{head}kubebus_a{{node=\"x\"y=\"z\"}} 1\n"),
        format!("{head}kubebus_a{{node=\"x\"}} one\n"),
        format!("{head}{head}"),
        "# HELP kubebus_a_total x\n# TYPE kubebus_a_total gauge\n".to_owned(),
    ] {
        assert!(parse(&wrong).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn any_version_of_another_node_is_a_label(version in ".{0,40}") {
        let mut fleet = fleet();
        let mut told = condition();
        told.about.version = version;
        fleet.nodes[1].condition = Some(Arc::new(told));
        prop_assert!(parse(&render(&fleet, &Part::default())).is_ok());
    }
}

/// With `UPDATE_DOCS=1` it writes the page instead.
#[test]
fn the_page_is_what_the_tables_say() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PAGE);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page(), "{PAGE} is not what the code says: run this test with UPDATE_DOCS=1");
}

#[test]
fn rows_of_a_metric_stand_together_and_agree() {
    let rows = NodeSeries::ALL.iter().map(|series| series.row());
    let rows = rows.chain(Series::ALL.iter().map(|series| series.row()));
    let rows: Vec<&Row> = rows.chain(LinkSeries::ALL.iter().map(|series| series.row())).collect();
    let mut seen = BTreeSet::new();
    for (at, row) in rows.iter().enumerate() {
        assert!(seen.insert((row.metric, row.label)), "{row:?}");
        let first = rows.iter().position(|other| other.metric == row.metric).unwrap();
        assert!(rows[first..at].iter().all(|other| other.metric == row.metric), "{row:?} stands apart");
        assert_eq!((rows[first].help, rows[first].kind), (row.help, row.kind));
    }
}

/// Names of metrics in a text.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("kubebus_")).collect()
}

fn known() -> BTreeSet<&'static str> {
    let rows = NodeSeries::ALL.iter().map(|series| series.row());
    let rows = rows.chain(Series::ALL.iter().map(|series| series.row()));
    rows.chain(LinkSeries::ALL.iter().map(|series| series.row())).map(|row| row.metric).collect()
}

/// What one scrape of the cloud has of edges: an alert on anything else would never come.
fn federated() -> BTreeSet<&'static str> {
    let own = Series::ALL.iter().filter(|series| series.is_federated()).map(|series| series.row().metric);
    let links =
        LinkSeries::ALL.iter().filter(|series| series.is_federated()).map(|series| series.row().metric);
    NodeSeries::ALL.iter().map(|series| series.row().metric).chain(own).chain(links).collect()
}

#[test]
fn alert_rules_name_metrics_that_there_are() {
    let text = include_str!("../../../../docs/monitoring/alerts.yaml");
    let rules: serde_json::Value = serde_saphyr::from_str(text).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() > 10);
    let mut names = BTreeSet::new();
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        assert!(names.insert(name), "{name} twice");
        let expr = rule["expr"].as_str().unwrap();
        let used = named(expr);
        assert!(!used.is_empty() && used.is_subset(&federated()), "{name}: {used:?}");
        // A gauge stands still while its node is away; what a counter does not do any more ends by itself.
        let is_frozen = !expr.contains("increase(") && !expr.contains("rate(") && !expr.contains("absent(");
        let knows = expr == "kubebus_node_up == 0" || expr.contains("kubebus_node_up == 1");
        assert!(!is_frozen || knows, "{name}: {expr}");
        for text in [
            &rule["annotations"]["summary"],
            &rule["annotations"]["description"],
            &rule["labels"]["severity"],
        ] {
            assert!(!text.as_str().unwrap().is_empty(), "{name}");
        }
        assert!(named(rule["annotations"].to_string().as_str()).is_subset(&known()), "{name}");
    }
}

#[test]
fn the_dashboard_shows_metrics_that_there_are() {
    let text = include_str!("../../../../docs/monitoring/dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(text).unwrap();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        for target in panel["targets"].as_array().unwrap() {
            let used = named(target["expr"].as_str().unwrap());
            assert!(!used.is_empty() && used.is_subset(&federated()), "{title}: {used:?}");
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        assert!(named(&variable["query"].to_string()).is_subset(&known()), "{variable}");
    }
}

/// Where the processes' sources say something.
fn targets() -> BTreeSet<String> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = BTreeSet::new();
    for (place, name) in [
        ("node/src/io", "node::io"),
        ("router/src/io", "router::io"),
        ("device-twin/src/io", "device_twin::io"),
    ] {
        for entry in std::fs::read_dir(root.join(place)).unwrap().map(Result::unwrap) {
            let module = entry.file_name().into_string().unwrap();
            if speaks(&entry.path()) {
                found.insert(format!("{name}::{}", module.trim_end_matches(".rs")));
            }
        }
    }
    found
}

fn speaks(path: &std::path::Path) -> bool {
    if path.is_dir() {
        return std::fs::read_dir(path).unwrap().any(|entry| speaks(&entry.unwrap().path()));
    }
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().any(|line| line.starts_with("use tracing::"))
}

#[test]
fn the_page_of_logs_has_every_target() {
    let page = include_str!("../../../../docs/monitoring/logs.md");
    for target in targets() {
        assert!(page.contains(&format!("`{target}`")), "docs/monitoring/logs.md lacks {target}");
    }
}

//! Answers as tables for people.

use serde_json::Value;

/// Rows under heads, columns as wide as they need to be.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heads.iter().map(|head| head.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("   ").trim_end().to_owned()
    };
    let head = line(heads.to_vec());
    let body = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(head).chain(body).collect::<Vec<_>>().join("\n")
}

/// A node's or a device's own words, without what a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(shown).collect()
}

pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Number(number) if number.is_f64() => {
            let rounded = format!("{:.3}", number.as_f64().unwrap_or_default());
            rounded.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        other @ (Value::Bool(_) | Value::Number(_) | Value::Object(_)) => other.to_string(),
    }
}

pub(super) fn rows(list: &Value, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    list.as_array().map(Vec::as_slice).unwrap_or_default().iter().map(row).collect()
}

pub(super) fn twins(list: &Value) -> String {
    let heads = ["DEVICE", "PROPERTY", "DESIRED", "REPORTED", "UNIT", "QUALITY", "AGE", "STATE", "DEVICE IS"];
    let row = |twin: &Value| {
        let age = twin["age_ms"].as_u64().map_or("-".to_owned(), |ms| format!("{:.1}s", ms as f64 / 1e3));
        let state = match (twin["desired"].is_null(), twin["converged"].as_bool(), &twin["ack"]["outcome"]) {
            (true, ..) => "-".to_owned(),
            (_, Some(true), _) => "converged".to_owned(),
            (_, _, Value::String(outcome)) if twin["ack"]["version"] == twin["version"] => outcome.clone(),
            _ => "pending".to_owned(),
        };
        vec![
            cell(&twin["device"]),
            cell(&twin["property"]),
            cell(&twin["desired"]),
            cell(&twin["reported"]["value"]),
            cell(&twin["unit"]),
            cell(&twin["reported"]["quality"]),
            age,
            state,
            cell(&twin["state"]["state"]),
        ]
    };
    table(&heads, &rows(list, row))
}

pub(super) fn commands(list: &Value) -> String {
    let row = |command: &Value| {
        let args = command["args"].as_object().into_iter().flatten();
        let args: Vec<String> = args.map(|(name, value)| format!("{name}={}", cell(value))).collect();
        let state = if command["outcome"].is_null() { &command["state"] } else { &command["outcome"] };
        vec![
            cell(&command["id"]),
            cell(&command["device"]),
            cell(&command["name"]),
            args.join(" "),
            cell(&command["by"]),
            cell(state),
            command["detail"].as_str().unwrap_or_default().to_owned(),
        ]
    };
    table(&["ID", "DEVICE", "COMMAND", "ARGUMENTS", "BY", "STATE", "DETAIL"], &rows(list, row))
}

pub(super) fn samples(list: &Value) -> String {
    let row = |sample: &Value| {
        let cells = [&sample["device"], &sample["property"], &sample["value"], &sample["quality"]];
        std::iter::once(time(&sample["time"])).chain(cells.map(cell)).collect()
    };
    table(&["TIME", "DEVICE", "PROPERTY", "VALUE", "QUALITY"], &rows(list, row))
}

/// A decision and what became of it, one line each.
pub(super) fn decisions(list: &Value) -> String {
    let row = |decision: &Value| {
        let outcome = &decision["end"]["outcome"];
        let end = match (outcome.is_null(), decision["id"].is_null()) {
            (false, _) => cell(outcome),
            (true, true) => "-".to_owned(),
            (true, false) => "open".to_owned(),
        };
        let detail =
            [&decision["detail"], &decision["end"]["detail"]].map(|text| text.as_str().unwrap_or_default());
        let detail: Vec<&str> = detail.into_iter().filter(|text| !text.is_empty()).collect();
        let cells =
            ["device", "property", "event", "value", "by", "via", "id"].map(|key| cell(&decision[key]));
        let told = [end, detail.join("; ")];
        std::iter::once(time(&decision["at"])).chain(cells).chain(told).collect()
    };
    table(
        &["TIME", "DEVICE", "PROPERTY", "WHAT", "VALUE", "BY", "VIA", "ID", "OUTCOME", "DETAIL"],
        &rows(list, row),
    )
}

pub(super) fn rules(list: &Value) -> String {
    let row = |rule: &Value| {
        let decided = &rule["decision"];
        let does = match (decided["does"].as_str(), decided["value"].is_null()) {
            (Some(does), true) => does.to_owned(),
            (Some(does), false) => format!("{does} {}", cell(&decided["value"])),
            (None, _) => "-".to_owned(),
        };
        let latched = match rule["tripped"]["case"].as_str() {
            Some(case) => format!("{case}, since {}", time(&rule["tripped"]["at"])),
            None => "-".to_owned(),
        };
        let unknown =
            if rule["unknown"] == serde_json::json!([]) { "-".to_owned() } else { cell(&rule["unknown"]) };
        vec![
            cell(&rule["rule"]),
            cell(&rule["output"]),
            cell(&rule["slot"]),
            does,
            cell(&decided["case"]),
            latched,
            unknown,
        ]
    };
    table(&["RULE", "OUTPUT", "SLOT", "DOES", "CASE", "LATCHED BY", "UNKNOWN INPUTS"], &rows(list, row))
}

/// Milliseconds since 1970 as people write them, in UTC.
pub(super) fn time(value: &Value) -> String {
    value.as_u64().map_or("-".to_owned(), |ms| device_twin::history::csv::rfc3339(bus::UnixMillis(ms)))
}

/// Who asks for what, then where it is decided and why.
pub(super) fn policy_test(test: &Value) -> String {
    let end = |end: &Value| {
        let behind = [("site", &end["site"]), ("edge", &end["edge"]), ("client", &end["client"])];
        let known = behind.into_iter().filter(|(_, name)| !name.is_null());
        let known: Vec<String> = known.map(|(what, name)| format!("{what} {}", cell(name))).collect();
        let known = if known.is_empty() { "unknown".to_owned() } else { known.join(", ") };
        format!("{} ({known})", cell(&end["address"]))
    };
    let allowed = if test["allowed"] == true { "allow" } else { "deny" };
    let head =
        format!("{allowed}: {} from {} to {}", cell(&test["traffic"]), end(&test["from"]), end(&test["to"]));
    let receiver = format!("receiver {}", cell(&test["receiver"]["node"]));
    let places = [("hub", &test["hub"]), (&receiver, &test["receiver"]), ("the other way", &test["back"])];
    let decided = places.into_iter().filter(|(_, ruling)| !ruling.is_null());
    let rows: Vec<Vec<String>> = decided
        .map(|(place, ruling)| vec![place.to_owned(), cell(&ruling["decision"]), cell(&ruling["because"])])
        .collect();
    format!("{head}\n{}", table(&["WHERE", "DECISION", "BECAUSE"], &rows))
}

pub(super) fn nodes(list: &Value) -> String {
    let heads = ["NAME", "SITE", "CONNECTED", "ADDRESS", "CONTAINERS", "LANS"];
    let keys = ["name", "site", "connected", "address", "containers", "lans"];
    table(&heads, &rows(list, |node| keys.iter().map(|key| cell(&node[*key])).collect()))
}

pub(super) fn tokens(list: &Value) -> String {
    let row = |token: &Value| {
        let id: String = cell(&token["id"]).chars().take(12).collect();
        let used = token["used_by"].as_array().map_or(0, Vec::len);
        let state = match (token["expired"].as_bool(), token["uses"].as_u64()) {
            (Some(true), _) => "expired".to_owned(),
            (_, Some(uses)) if used as u64 >= uses => "used".to_owned(),
            (_, uses) => format!("{used} of {} used", uses.unwrap_or_default()),
        };
        vec![id, cell(&token["site"]), state, cell(&token["used_by"]), cell(&token["lans"])]
    };
    table(&["ID", "SITE", "STATE", "USED BY", "LANS"], &rows(list, row))
}

pub(super) fn resources(list: &Value) -> String {
    let row = |item: &Value| {
        let meta = &item["metadata"];
        vec![cell(&meta["namespace"]), cell(&meta["name"]), cell(&item["spec"]["nodeName"])]
    };
    table(&["NAMESPACE", "NAME", "NODE"], &rows(list, row))
}

pub(super) fn status(document: &Value) -> String {
    let mut lines = Vec::new();
    flatten("", document, &mut lines);
    let is_apart = |key: &str| matches!(key, "links" | "paths");
    lines.retain(|row| !is_apart(&row[0]) && (!row[0].starts_with("counters.") || row[1] != "0"));
    let keys = table(&["KEY", "VALUE"], &lines);
    let tables = [Some(keys), links(&document["links"]), paths(&document["paths"])];
    tables.into_iter().flatten().collect::<Vec<_>>().join("\n\n")
}

/// The ways to other edges, where there are any that talk.
pub(super) fn paths(list: &Value) -> Option<String> {
    let row = |path: &Value| ["peer", "path", "remote", "because"].map(|field| cell(&path[field])).into();
    let rows = rows(list, row);
    (!rows.is_empty()).then(|| table(&["EDGE", "PATH", "AT", "BECAUSE"], &rows))
}

fn links(list: &Value) -> Option<String> {
    let heads = [
        "PEER",
        "LANE",
        "AT",
        "RTT ms",
        "LOSS %",
        "MTU",
        "PACKETS/SEND",
        "HELD TO kbit/s",
        "WAIT ms",
        "DROPPED",
    ];
    let row = |link: &Value| {
        let fields = ["remote", "rtt_ms", "loss_percent", "mtu", "packets_per_send"];
        let reserve = if link["in_reserve"] == true { " (reserve)" } else { "" };
        let lane = [cell(&link["peer"]), format!("{}{reserve}", cell(&link["lane"]))];
        let queue = &link["queue"];
        let waiting = [cell(&queue["held_to_kbit"]), wait(queue), dropped(queue)];
        lane.into_iter().chain(fields.iter().map(|field| cell(&link[field]))).chain(waiting).collect()
    };
    let rows = rows(list, row);
    (!rows.is_empty()).then(|| table(&heads, &rows))
}

/// How long packets of the class wait that has sent most.
fn wait(queue: &Value) -> String {
    let classes = queue["classes"].as_object().into_iter().flatten();
    let busiest = classes.max_by_key(|(_, class)| class["sent"].as_u64());
    busiest.map_or("-".to_owned(), |(_, class)| cell(&class["sojourn_ms"]))
}

/// By the queue, for whatever cause.
fn dropped(queue: &Value) -> String {
    let Some(classes) = queue["classes"].as_object() else { return "-".to_owned() };
    let causes = |class: &Value| ["dropped_codel", "dropped_full"].map(|cause| class[cause].as_u64());
    classes.values().flat_map(causes).flatten().sum::<u64>().to_string()
}

pub(super) fn wireguard(list: &Value) -> String {
    let heads = ["NAME", "SITE", "ADDRESSES", "GATEWAY", "LAST HANDSHAKE", "RECEIVED", "SENT", "ENDPOINT"];
    let row = |client: &Value| {
        let tunnel = &client["tunnel"];
        let shake = tunnel["handshake_age_ms"].as_u64().map_or("-".to_owned(), |ms| {
            format!("{} ago", humantime::format_duration(std::time::Duration::from_secs(ms / 1000)))
        });
        let known = [&client["name"], &client["site"], &client["addresses"], &client["gateway"]].map(cell);
        let counted = ["received", "sent", "endpoint"].map(|key| cell(&tunnel[key]));
        known.into_iter().chain([shake]).chain(counted).collect()
    };
    table(&heads, &rows(list, row))
}

/// For answers without a table of their own.
pub(super) fn any(document: &Value) -> String {
    let mut lines = Vec::new();
    flatten("", document, &mut lines);
    table(&["KEY", "VALUE"], &lines)
}

fn flatten(prefix: &str, value: &Value, lines: &mut Vec<Vec<String>>) {
    let Value::Object(fields) = value else {
        lines.push(vec![prefix.to_owned(), cell(value)]);
        return;
    };
    for (key, field) in fields {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        flatten(&name, field, lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_not_printed() {
        let said = serde_json::json!("a\nb\u{1b}[2J\u{9b}c \u{e4}");
        assert_eq!(cell(&said), "a b\u{fffd}[2J\u{fffd}c \u{e4}");
    }

    #[test]
    fn links_stand_below_the_rest_of_a_status() {
        let status = serde_json::json!({
            "node": "edge/a",
            "links": [
                { "peer": "cloud/c", "lane": "packets", "remote": "203.0.113.10:10001", "rtt_ms": 101.25,
                  "loss_percent": 0.5, "mtu": 1472, "packets_per_send": 44,
                  "queue": { "held_to_kbit": 2000, "classes": {
                      "bulk": { "sent": 90, "sojourn_ms": 12.5, "dropped_codel": 3, "dropped_full": 1 },
                      "control": { "sent": 7, "sojourn_ms": 0.25, "dropped_codel": 0, "dropped_full": 1 } } } },
                { "peer": "cloud/c", "lane": "bus", "remote": "203.0.113.10:10001", "rtt_ms": 100,
                  "loss_percent": 0, "mtu": 1472, "packets_per_send": 44, "queue": null },
            ],
        });
        let expected = "\
KEY    VALUE
node   edge/a

PEER      LANE      AT                   RTT ms   LOSS %   MTU    PACKETS/SEND   HELD TO kbit/s   WAIT ms   DROPPED
cloud/c   packets   203.0.113.10:10001   101.25   0.5      1472   44             2000             12.5      5
cloud/c   bus       203.0.113.10:10001   100      0        1472   44             -                -         -";
        assert_eq!(super::status(&status), expected);
    }

    #[test]
    fn ways_to_other_edges_stand_last_in_a_status() {
        let because = "no dial arrived";
        let status = serde_json::json!({
            "node": "edge/a", "links": [],
            "paths": [
                { "peer": "edge/b", "path": "direct", "remote": "203.0.113.22:4000", "because": null, "failed": 0 },
                { "peer": "edge/c", "path": "relayed", "remote": null, "because": because, "failed": 2 },
            ],
        });
        let expected = "\
KEY    VALUE
node   edge/a

EDGE     PATH      AT                  BECAUSE
edge/b   direct    203.0.113.22:4000   -
edge/c   relayed   -                   no dial arrived";
        assert_eq!(super::status(&status), expected);
    }

    #[test]
    fn twins_read_as_a_table() {
        let list = serde_json::json!([
            { "device": "water/valve", "property": "setpoint", "desired": 3.2, "converged": true, "unit": "m",
              "reported": { "value": 3.2, "quality": "good" }, "age_ms": 1200, "state": { "state": "online" } },
            { "device": "water/valve", "property": "position", "desired": 100, "converged": false, "version": "0.2",
              "ack": { "version": "0.2", "outcome": "expired" }, "reported": { "value": 41.25, "quality": "good" } },
        ]);
        let expected = "\
DEVICE        PROPERTY   DESIRED   REPORTED   UNIT   QUALITY   AGE    STATE       DEVICE IS
water/valve   setpoint   3.2       3.2        m      good      1.2s   converged   online
water/valve   position   100       41.25      -      good      -      expired     -";
        assert_eq!(twins(&list), expected);
    }

    #[test]
    fn a_policy_test_says_where_and_why() {
        let ruling =
            |decision: &str, because: &str| serde_json::json!({ "decision": decision, "because": because });
        let mut receiver = ruling("allow", "access policy default/modbus allows it");
        receiver["node"] = "edge/pumps".into();
        let test = serde_json::json!({
            "allowed": true, "traffic": "tcp/502", "hub": null, "receiver": receiver,
            "back": ruling("deny", "no access policy is about these two"),
            "from": { "address": "10.86.0.1", "site": "hq", "edge": null },
            "to": { "address": "192.168.10.7", "site": "plant-a", "edge": "pumps" },
        });
        let expected = "\
allow: tcp/502 from 10.86.0.1 (site hq) to 192.168.10.7 (site plant-a, edge pumps)
WHERE                 DECISION   BECAUSE
receiver edge/pumps   allow      access policy default/modbus allows it
the other way         deny       no access policy is about these two";
        assert_eq!(policy_test(&test), expected);
    }
}

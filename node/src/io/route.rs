//! `kubebus route`: which way packets go, and over which link.

use anyhow::Result;
use bus::Name;
use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::cli::{AskArgs, Place};
use super::commands::{fetch, post, say, show};
use super::exit::Exit;
use super::table::{cell, rows, table};

#[derive(Debug, Subcommand)]
pub enum RouteCommand {
    /// Say which node an address lies behind, over which link packets go there, and what stops them
    ///
    /// Exits with 4 if the overlay has no such address, and with 9 if the link that leads there is down.
    Get(RouteGetArgs),
    /// List which prefix lies behind which node, and which waits for approval
    List {
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Give an edge the right to a LAN that its configuration names (edge.lans); at the cloud
    ///
    /// It counts at once, without a restart. 'kubebus route list' shows what is pending.
    Approve(LanArgs),
    /// Take the right to a LAN back from an edge, whether its token gave it or somebody approved it; at the cloud
    Revoke(LanArgs),
}

#[derive(Debug, Args)]
pub struct LanArgs {
    /// The edge's name
    pub edge: Name,
    /// The LAN behind it, as the site has it
    #[arg(value_name = "CIDR")]
    pub lan: IpNet,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub struct RouteGetArgs {
    /// A node's name, or an address on the overlay
    #[arg(value_name = "ADDRESS|NODE")]
    pub to: String,
    /// Whether a policy lets this pass: tcp, udp, icmp, or a number of IANA's; all of them if not given
    #[arg(long)]
    pub protocol: Option<String>,
    /// The port there; all of them if not given
    #[arg(long, requires = "protocol")]
    pub port: Option<u16>,
    #[command(flatten)]
    pub ask: AskArgs,
}

pub(super) async fn carry_out(command: RouteCommand) -> Result<Exit> {
    match command {
        RouteCommand::Get(RouteGetArgs { to, protocol, port, ask }) => {
            let found = find(&ask.place, &json!({ "to": to, "protocol": protocol, "port": port })).await?;
            show(&found, ask.output, route)?;
            Ok(if found["problem"].is_null() { Exit::Ok } else { Exit::Unreachable })
        }
        RouteCommand::List { ask } => {
            show(&fetch(&ask.place, "/kubebus/v1/routes").await?, ask.output, routes)?;
            Ok(Exit::Ok)
        }
        RouteCommand::Approve(args) => {
            let answer = change(&args, "approve").await?;
            let [node, lan, prefix] = ["node", "lan", "prefix"].map(|field| cell(&answer[field]));
            let known_as =
                if lan == prefix { String::new() } else { format!(", known to other sites as {prefix}") };
            say(&format!("{lan} lies behind {node} now{known_as}"))?;
            Ok(Exit::Ok)
        }
        RouteCommand::Revoke(args) => {
            let answer = change(&args, "revoke").await?;
            say(&format!("{} lies behind {} no more", cell(&answer["lan"]), cell(&answer["node"])))?;
            Ok(Exit::Ok)
        }
    }
}

async fn change(LanArgs { edge, lan, place }: &LanArgs, how: &str) -> Result<Value> {
    post(place, &format!("/kubebus/v1/routes/{how}"), &json!({ "node": edge, "lan": lan })).await
}

/// The way, with the link that it begins with.
pub(super) async fn find(place: &Place, query: &Value) -> Result<Value> {
    let mut found = post(place, "/kubebus/v1/route", query).await?;
    let status = fetch(place, "/kubebus/v1/status").await?;
    found["link"] = link_to(&found["next_hop"]["peer"], &status).clone();
    Ok(found)
}

/// The packets lane to `peer`, of those that are up.
fn link_to<'a>(peer: &Value, status: &'a Value) -> &'a Value {
    let mut links = status["links"].as_array().into_iter().flatten();
    let is_meant = |link: &&Value| {
        let carries = link["lane"] == "packets" && link["in_reserve"] != true;
        carries && !peer.is_null() && link["peer"] == *peer
    };
    links.find(is_meant).unwrap_or(&Value::Null)
}

/// A link in one line.
pub(super) fn link_line(link: &Value) -> String {
    if link.is_null() {
        return "-".to_owned();
    }
    let held = &link["queue"]["held_to_kbit"];
    let held = if held.is_null() { String::new() } else { format!(", held to {} kbit/s", cell(held)) };
    let [remote, rtt, loss, mtu] =
        ["remote", "rtt_ms", "loss_percent", "mtu"].map(|field| cell(&link[field]));
    format!("{remote}, rtt {rtt} ms, loss {loss} %, mtu {mtu}{held}")
}

fn route(found: &Value) -> String {
    let [address, prefix, kind, owner, site] =
        ["address", "prefix", "kind", "owner", "site"].map(|field| cell(&found[field]));
    let next = &found["next_hop"];
    let next_hop = match (next.is_null(), next["connected"].as_bool()) {
        (true, _) => "none: it lies behind this node".to_owned(),
        (false, Some(true)) => cell(&next["peer"]),
        (false, _) => format!("{}, which is not connected", cell(&next["peer"])),
    };
    let policy = format!("{}: {}", cell(&found["policy"]["decision"]), cell(&found["policy"]["because"]));
    let mut rows = vec![
        ("prefix", prefix),
        ("kind", kind),
        ("owner", owner),
        ("site", site),
        ("next hop", next_hop),
        ("link", link_line(&found["link"])),
        ("policy", policy),
    ];
    rows.extend(found["problem"].as_str().map(|problem| ("problem", problem.to_owned())));
    let rows: Vec<_> = rows.into_iter().map(|(key, value)| vec![key.to_owned(), value]).collect();
    table(&["TO", &address], &rows)
}

fn routes(list: &Value) -> String {
    let keys = ["prefix", "real", "kind", "owner", "site", "state"];
    let row = |route: &Value| keys.iter().map(|key| cell(&route[*key])).collect();
    table(&["PREFIX", "STANDS FOR", "KIND", "OWNER", "SITE", "STATE"], &rows(list, row))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Value {
        json!({
            "address": "10.86.0.3", "from": "10.86.0.2", "prefix": "10.86.0.3/32", "kind": "edge-node",
            "owner": "edge/b", "site": "depot", "next_hop": { "peer": "cloud/hq", "connected": true },
            "policy": { "decision": "allow", "policy": null, "because": "both are in one site" },
            "problem": null,
        })
    }

    #[test]
    fn a_route_reads_as_a_table() {
        let link = json!({ "lane": "packets", "peer": "cloud/hq", "remote": "203.0.113.10:10001", "rtt_ms": 60.5,
                           "loss_percent": 0.0, "mtu": 1472, "queue": { "held_to_kbit": 2000 } });
        let bus = json!({ "lane": "bus", "peer": "cloud/hq", "remote": "203.0.113.10:10001" });
        let mut found = found();
        found["link"] = link_to(&found["next_hop"]["peer"], &json!({ "links": [bus, link] })).clone();
        let expected = "\
TO         10.86.0.3
prefix     10.86.0.3/32
kind       edge-node
owner      edge/b
site       depot
next hop   cloud/hq
link       203.0.113.10:10001, rtt 60.5 ms, loss 0 %, mtu 1472, held to 2000 kbit/s
policy     allow: both are in one site";
        assert_eq!(route(&found), expected);
    }

    #[test]
    fn a_way_that_is_cut_says_so() {
        let mut found = found();
        found["next_hop"]["connected"] = json!(false);
        found["problem"] = json!("no packets link to cloud/hq");
        found["link"] = link_to(&found["next_hop"]["peer"], &json!({ "links": [] })).clone();
        let told = route(&found);
        assert!(told.contains("\nnext hop   cloud/hq, which is not connected\nlink       -\n"), "{told}");
        assert!(told.ends_with("\nproblem    no packets link to cloud/hq"), "{told}");
    }

    #[test]
    fn nobody_is_reached_over_the_link_of_a_stranger() {
        let joining = json!({ "links": [{ "lane": "packets", "peer": null }] });
        assert_eq!(link_to(&Value::Null, &joining), &Value::Null);
    }

    #[test]
    fn routes_read_as_a_table() {
        let list = json!([
            { "prefix": "10.86.64.0/24", "real": "192.168.10.0/24", "kind": "lan", "owner": "edge/a", "site": "depot",
              "state": "active" },
            { "prefix": "192.168.20.0/24", "kind": "lan", "owner": "edge/b", "site": null, "state": "pending" },
        ]);
        let expected = "\
PREFIX            STANDS FOR        KIND   OWNER    SITE    STATE
10.86.64.0/24     192.168.10.0/24   lan    edge/a   depot   active
192.168.20.0/24   -                 lan    edge/b   -       pending";
        assert_eq!(routes(&list), expected);
    }
}

//! `kubebus trace`: node by node over the overlay, how long it takes, and where it ends.
//!
//! Time to live is of no use for that: routers of the overlay are no hops of the packets that they carry. So each node on the
//! way is pinged by itself, and the first link says what it knows.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use super::cli::Place;
use super::commands::{block_on, say};
use super::exit::Exit;
use super::ping::{Echo, millis, probe, why};
use super::route::{find, link_line};
use super::table::table;

#[derive(Debug, Args)]
pub struct TraceArgs {
    /// A node's name, or an address on the overlay
    #[arg(value_name = "NODE|ADDRESS")]
    pub to: String,
    #[command(flatten)]
    pub place: Place,
}

/// Requests to each hop.
const COUNT: u16 = 3;
const INTERVAL: Duration = Duration::from_millis(200);

/// What is missing then does not come: the round trip over two satellites, and half as much again.
const LAST_WAIT: Duration = Duration::from_millis(1500);

/// Outside of the runtime: it waits for its sockets.
pub(super) fn run(TraceArgs { to, place }: TraceArgs) -> Result<Exit> {
    let look = |to: &str| block_on(find(&place, &json!({ "to": to, "protocol": "icmp" })));
    let way = look(&to)?;
    let (target, from) = (text(&way["address"]), text(&way["from"]));
    say(&format!("trace {target} ({}) from {from}", text(&way["owner"])))?;
    let mut hops = Vec::new();
    let mut is_reached = false;
    for node in nodes(&way) {
        // What a node is called, without its kind, stands for its own address.
        let name = node.split_once('/').map_or(node, |(_, name)| name);
        let to_node = look(name)?;
        let link = (node == text(&way["next_hop"]["peer"])).then(|| link_line(&way["link"]));
        is_reached = to_node["address"] == way["address"];
        hops.push(Hop::probe(node, &to_node, link)?);
    }
    if !is_reached {
        hops.push(Hop::probe(target, &way, None)?);
    }
    say(&describe(&hops))?;
    match hops.last() {
        Some(Hop { rtt: Some(_), .. }) => Ok(Exit::Ok),
        Some(Hop { why, .. }) => {
            eprintln!("kubebus: no answer from {target}: {why}");
            Ok(Exit::Unreachable)
        }
        None => Ok(Exit::Ok),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The nodes that a packet passes after this one, in order: the next hop, and the owner of the prefix.
fn nodes(way: &Value) -> Vec<&str> {
    let mut nodes: Vec<&str> = [&way["next_hop"]["peer"], &way["owner"]].map(text).into();
    nodes.retain(|node| !node.is_empty());
    nodes.dedup();
    // What lies behind this node passes no other.
    if way["next_hop"].is_null() { Vec::new() } else { nodes }
}

/// A node or host on the way.
#[derive(Debug)]
struct Hop {
    who: String,
    address: String,
    answered: usize,
    rtt: Option<Duration>,
    /// The link that leads there, if it is this node's.
    link: Option<String>,
    /// There was no answer.
    why: String,
}

impl Hop {
    fn probe(who: &str, way: &Value, link: Option<String>) -> Result<Self> {
        let address =
            |field: &str| -> Result<IpAddr> { text(&way[field]).parse().context("the node's answer") };
        let (from, to) = (address("from")?, address("address")?);
        let tally = probe(&Echo::open(from, to)?, COUNT, (INTERVAL, LAST_WAIT), &mut |_| Ok(()))?;
        let (answered, rtt, why) = (tally.answered(), tally.mean(), why(way).to_owned());
        Ok(Self { who: who.to_owned(), address: to.to_string(), answered, rtt, link, why })
    }
}

fn describe(hops: &[Hop]) -> String {
    let row = |(number, hop): (usize, &Hop)| {
        let Hop { who, address, answered, rtt, link, why } = hop;
        let time = rtt.map_or_else(|| "-".to_owned(), millis);
        let (answered, about) =
            (format!("{answered}/{COUNT}"), if rtt.is_none() { why.as_str() } else { "" });
        let about: Vec<&str> = [link.as_deref().unwrap_or_default(), about].into();
        let about: Vec<&str> = about.into_iter().filter(|text| !text.is_empty()).collect();
        vec![(number + 1).to_string(), who.clone(), address.clone(), time, answered, about.join("; ")]
    };
    table(
        &["HOP", "WHO", "ADDRESS", "RTT ms", "ANSWERED", "ABOUT"],
        &hops.iter().enumerate().map(row).collect::<Vec<_>>(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(next: Value, owner: &str) -> Value {
        json!({ "owner": owner, "next_hop": next })
    }

    #[test]
    fn packets_pass_the_next_hop_and_the_owner_each_once() {
        let hub = way(json!({ "peer": "cloud/hq" }), "edge/b");
        assert_eq!(nodes(&hub), ["cloud/hq", "edge/b"]);
        assert_eq!(nodes(&way(json!({ "peer": "edge/b" }), "edge/b")), ["edge/b"], "a neighbour");
        assert_eq!(nodes(&way(Value::Null, "edge/a")), [""; 0], "behind this node");
    }

    #[test]
    fn hops_read_as_a_table_which_says_where_it_ends() {
        let hop = |who: &str, address: &str, rtt: Option<u64>, link: Option<&str>| Hop {
            who: who.to_owned(),
            address: address.to_owned(),
            answered: if rtt.is_some() { 3 } else { 0 },
            rtt: rtt.map(Duration::from_millis),
            link: link.map(ToOwned::to_owned),
            why: "the host is down".to_owned(),
        };
        let hops = [
            hop("cloud/hq", "10.86.0.1", Some(60), Some("203.0.113.10:10001, rtt 60.4 ms")),
            hop("edge/b", "10.86.0.3", Some(121), None),
            hop("192.168.20.10", "192.168.20.10", None, None),
        ];
        let expected = "\
HOP   WHO             ADDRESS         RTT ms   ANSWERED   ABOUT
1     cloud/hq        10.86.0.1       60.00    3/3        203.0.113.10:10001, rtt 60.4 ms
2     edge/b          10.86.0.3       121.00   3/3
3     192.168.20.10   192.168.20.10   -        0/3        the host is down";
        assert_eq!(describe(&hops), expected);
    }
}

//! Gathering what [`diagnose`](crate::diagnose::diagnose) decides on: from the node's console, its files, the machine and
//! the way to its cloud.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::known::{edge_of, known, list, words};
use super::probe::{self, Knock};
use super::progress::Progress;
use super::{DiagnoseArgs, certificate, far, machine, mqtt};
use crate::checkup::{Examined, Looked};
use crate::config::Config;
use crate::diagnose::{
    Broker, Certificate, Clash, Disk, Endpoint, Facts, Failure, Identity, Link, Node, Reach, Role, Upstream,
};
use crate::io::admin::{AskError, ask};
use crate::io::identity::{self, EdgeIdentity, IdentityError};
use crate::io::upstream::{self, parse_endpoints};

/// For one question to the node; a loop that is busy longer hangs.
const ANSWER: Duration = Duration::from_secs(3);

/// Endpoints that are knocked at, at once; a cluster has one, or three replicas.
const MOST_ENDPOINTS: usize = 4;

/// The node's console, with an end to patience.
pub(super) struct Console<'a>(pub(super) &'a Path);

impl Console<'_> {
    pub(super) async fn text(&self, path: &str) -> Result<String, AskError> {
        let asked = timeout(ANSWER, ask(self.0, Method::GET, path, None)).await;
        asked.unwrap_or_else(|_| Err(slow()))
    }

    /// Null where there is no answer.
    pub(super) async fn get(&self, path: &str) -> Value {
        let text = self.text(path).await.unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, AskError> {
        let asked = timeout(ANSWER, ask(self.0, Method::POST, path, Some(body))).await;
        let text = asked.unwrap_or_else(|_| Err(slow()))?;
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }
}

fn slow() -> AskError {
    AskError::Refused { status: 503, message: format!("no answer within {ANSWER:?}"), faults: Vec::new() }
}

/// All of it is done by then; what is not, is told so.
const LIMIT: Duration = Duration::from_secs(15);

/// A console that remembers what it was not told.
pub(super) struct Questions<'a> {
    console: Console<'a>,
    unanswered: RefCell<Vec<String>>,
}

impl Questions<'_> {
    /// Null where there is no answer. A refusal is one: of a replica that waits for its turn, say.
    pub(super) async fn get(&self, path: &str) -> Value {
        match self.console.text(path).await {
            Ok(text) => serde_json::from_str(&text).unwrap_or_default(),
            Err(AskError::Refused { status: ..500, .. }) => Value::Null,
            Err(why) => {
                self.unanswered.borrow_mut().push(format!("{path}: {}", bus::with_causes(&why)));
                Value::Null
            }
        }
    }
}

pub(super) async fn gather(args: &DiagnoseArgs, config: &Config, progress: &Progress) -> Result<Facts> {
    gather_until(Instant::now() + LIMIT, args, config, progress).await
}

/// Knocking at the cloud's door ends by then.
pub(super) async fn gather_until(
    end: Instant,
    args: &DiagnoseArgs,
    config: &Config,
    progress: &Progress,
) -> Result<Facts> {
    let dir = args.ask.place.data_dir(config);
    let questions = Questions { console: Console(dir), unanswered: RefCell::default() };
    let (identity, stored) = who(dir);
    let asked = questions.console.text("/kubebus/v1/status").await;
    let status: Value =
        asked.as_ref().ok().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let node = process(asked.as_ref().err());
    let mut edge = None;
    let mut facts = Facts {
        now_ms: machine::now_ms(),
        clock_synchronised: machine::clock_synchronised(),
        disk: disk(dir, &status, &node),
        certificate: stored.as_ref().map(|stored| with_failure(certificate::look(stored), &status)),
        superseded_by: status.pointer("/metadata/superseded_by").and_then(Value::as_u64),
        links: list(&status["links"], link),
        taken: if node == Node::NotRunning { machine::taken(identity.role, config) } else { Vec::new() },
        identity,
        node,
        ..Facts::default()
    };
    if facts.node == Node::Answers {
        progress.at("what the node knows");
        let (role, to) = (facts.identity.role, args.to.as_deref());
        let reached = Box::pin(async { Some(reach(&questions.console, args, to?).await) });
        edge = edge_of(&questions, role, args.about.as_deref()).await;
        let other_end = Box::pin(other_end(&questions, role, edge.as_deref()));
        ((facts.peers, facts.devices), facts.clash, facts.reach, (facts.far, facts.looked)) = tokio::join!(
            Box::pin(known(&questions, role)),
            Box::pin(clash(&questions, config, &status)),
            reached,
            other_end
        );
        facts.unanswered = questions.unanswered.take();
    }
    progress.at("the MQTT broker");
    facts.broker = broker(config, &status, &facts.node).await;
    if let Some(stored) = &stored {
        progress.at("the way to the cloud");
        let (upstream, is_whole) = way(stored, &status, &facts.node, end).await;
        (facts.upstream, facts.is_cut_short) = (Some(upstream), !is_whole);
    }
    narrowed(facts, args.about.as_deref(), edge.as_deref())
}

/// What the other end of a link says: an edge that is asked about at its cloud, or an edge's cloud.
async fn other_end(
    questions: &Questions<'_>,
    role: Option<Role>,
    edge: Option<&str>,
) -> (Option<Box<Examined>>, Option<Box<Looked>>) {
    match (role, edge) {
        (Some(Role::Edge), _) => {
            let looked = Looked::deserialize(questions.get("/kubebus/v1/upstream").await);
            (None, looked.ok().map(Box::new))
        }
        // That there is no such node is said with all else that is known.
        (Some(Role::Cloud), Some(edge)) => {
            (far::examine(questions.console.0, edge).await.ok().map(Box::new), None)
        }
        (Some(Role::Cloud) | None, _) => (None, None),
    }
}

/// What the node itself says of its certificate, once it takes it for trouble.
fn with_failure(found: Certificate, status: &Value) -> Certificate {
    let failure = status.pointer("/certificate/last_failure");
    let failure = failure.filter(|failure| failure["is_trouble"] == Value::Bool(true));
    let told = failure.and_then(|failure| failure["why"].as_str());
    Certificate { not_renewed: told.map(str::to_owned), ..found }
}

/// What the data directory holds.
fn who(dir: &Path) -> (Identity, Option<EdgeIdentity>) {
    let data_dir = dir.display().to_string();
    let empty = Identity { data_dir, ..Identity::default() };
    match identity::load(dir) {
        Ok(stored) => {
            let (role, name) = (Some(Role::Edge), Some(stored.identity().to_string()));
            (Identity { role, name, ..empty }, Some(stored))
        }
        Err(IdentityError::NotJoined(_)) => match identity::cloud_of(dir) {
            Ok(None) => (empty, None),
            Ok(Some(cloud)) => {
                (Identity { role: Some(Role::Cloud), name: Some(cloud.to_string()), ..empty }, None)
            }
            Err(why) => (Identity { problem: Some(bus::with_causes(&why)), ..empty }, None),
        },
        Err(why) => (Identity { problem: Some(bus::with_causes(&why)), ..empty }, None),
    }
}

fn process(error: Option<&AskError>) -> Node {
    match error {
        None => Node::Answers,
        Some(AskError::NotRunning { .. }) => Node::NotRunning,
        Some(why @ AskError::Forbidden { .. }) => Node::Forbidden(why.to_string()),
        Some(why) => Node::Hangs(bus::with_causes(why)),
    }
}

/// The node's word; where there is none, a try.
fn disk(dir: &Path, status: &Value, node: &Node) -> Disk {
    let said = (status["disk"]["state"] == "degraded").then(|| words(&status["disk"]["why"]));
    let tried = || match node {
        Node::NotRunning if dir.is_dir() => machine::flush_time(dir).err().map(|why| why.to_string()),
        Node::NotRunning | Node::Answers | Node::Hangs(_) | Node::Forbidden(_) => None,
    };
    Disk { free_bytes: machine::free_bytes(dir), refuses: said.or_else(tried) }
}

fn link(link: &Value) -> Link {
    Link {
        peer: words(&link["peer"]),
        lane: words(&link["lane"]),
        rtt_ms: link["rtt_ms"].as_f64().unwrap_or_default(),
        loss_percent: link["loss_percent"].as_f64().unwrap_or_default(),
        mtu: link["mtu"].as_u64().unwrap_or_default(),
        black_holes: link["black_holes"].as_u64().unwrap_or_default(),
    }
}

/// A network at one of our own interfaces that others' prefixes are parts of, or that is part of one.
async fn clash(questions: &Questions<'_>, config: &Config, status: &Value) -> Option<Clash> {
    let routes = questions.get("/kubebus/v1/routes").await;
    let own = words(&status["node"]);
    let others = routes.as_array()?.iter().filter(|route| {
        let owner = route["owner"].as_str().unwrap_or_default();
        !own.ends_with(&format!("/{owner}")) && route["state"] != "pending"
    });
    let prefixes: Vec<ipnet::Ipv4Net> =
        others.filter_map(|route| words(&route["prefix"]).parse().ok()).collect();
    let ours = [&config.overlay.interface, &config.wireguard.interface];
    let networks = machine::networks().into_iter().filter(|(interface, _)| !ours.contains(&interface));
    let overlaps =
        |net: &ipnet::Ipv4Net| prefixes.iter().find(|prefix| prefix.contains(net) || net.contains(*prefix));
    config.overlay.enabled.then_some(())?;
    networks.into_iter().find_map(|(interface, net)| {
        Some(Clash { overlay: overlaps(&net)?.to_string(), interface, network: net.to_string() })
    })
}

/// From here by the way that packets take; from elsewhere by the policies alone.
async fn reach(console: &Console<'_>, args: &DiagnoseArgs, to: &str) -> Reach {
    let mut query = json!({ "to": to, "protocol": args.protocol, "port": args.port });
    let path = match &args.from {
        None => "/kubebus/v1/route",
        Some(from) => {
            query["from"] = json!(from);
            "/kubebus/v1/policy/test"
        }
    };
    let to = to.to_owned();
    match console.post(path, &query).await {
        Err(why) => Reach { to, problem: Some(why.to_string()), denied: None },
        Ok(found) => {
            Reach { to, problem: found["problem"].as_str().map(str::to_owned), denied: denial(&found) }
        }
    }
}

/// Of the cloud, or of who receives it.
fn denial(found: &Value) -> Option<String> {
    let rulings = [&found["policy"], &found["hub"], &found["receiver"]];
    let denies = rulings.into_iter().find(|ruling| ruling["decision"] == "deny")?;
    Some(words(&denies["because"]))
}

async fn broker(config: &Config, status: &Value, node: &Node) -> Option<Broker> {
    if let Some(external) = &config.mqtt.external {
        let state = status.pointer("/mqtt/external")?.as_str()?;
        let problem = state.starts_with("not connected").then(|| state.to_owned());
        return Some(Broker { address: external.address.clone(), is_external: true, problem });
    }
    if *node != Node::Answers {
        return None;
    }
    let (address, problem) = (config.mqtt.listen.to_string(), mqtt::problem(config.mqtt.listen).await);
    Some(Broker { address, is_external: false, problem })
}

/// And whether all of it was found out by `end`.
async fn way(stored: &EdgeIdentity, status: &Value, node: &Node, end: Instant) -> (Upstream, bool) {
    let told = &status["upstream"];
    let names: Vec<String> = Vec::deserialize(&told["endpoints"]).unwrap_or_default();
    let names = if names.is_empty() { stored.membership.endpoints.clone() } else { names };
    let endpoints = parse_endpoints(&names).unwrap_or_default();
    let cloud = probe::cloud_of(stored);
    let cloud_name = cloud.node.to_string();
    let connected = status.pointer("/cloud/connected").and_then(Value::as_bool);
    let is_connected = connected == Some(true);
    let knock =
        Knock { stored: Arc::new(stored.clone()), cloud, is_connected, is_down: *node == Node::NotRunning };
    let (endpoints, is_whole) = knock_at(&endpoints, &knock, end).await;
    let upstream = Upstream {
        cloud: cloud_name,
        connected,
        clock_offset_ms: status.pointer("/cloud/clock_offset_ms").and_then(Value::as_i64),
        failures: Vec::<Failure>::deserialize(&told["failures"]).unwrap_or_default(),
        endpoints,
    };
    (upstream, is_whole)
}

/// At all of them at once: each takes its time where nobody answers.
async fn knock_at(endpoints: &[upstream::Endpoint], knock: &Knock, end: Instant) -> (Vec<Endpoint>, bool) {
    let mut at_work = JoinSet::new();
    for (number, endpoint) in endpoints.iter().take(MOST_ENDPOINTS).enumerate() {
        let (endpoint, knock) = (endpoint.clone(), knock.clone());
        at_work.spawn(async move { (number, probe::endpoint(&endpoint, &knock).await) });
    }
    let (mut found, mut is_whole) = (Vec::new(), true);
    while !at_work.is_empty() {
        let Ok(one) = timeout_at(end, at_work.join_next()).await else {
            is_whole = false;
            break;
        };
        found.extend(one.and_then(Result::ok));
    }
    found.sort_by_key(|(number, _)| *number);
    (found.into_iter().map(|(_, endpoint)| endpoint).collect(), is_whole)
}

/// What was asked about alone: an edge and its devices are told apart by the slash.
fn narrowed(mut facts: Facts, about: Option<&str>, edge: Option<&str>) -> Result<Facts> {
    let Some(about) = about else { return Ok(facts) };
    let unknown = |what: &str| AskError::Refused {
        status: 404,
        message: format!("this node knows no {what} {about}: see 'kubebus get {what}s'"),
        faults: Vec::new(),
    };
    let own = facts.identity.name.as_deref().unwrap_or_default();
    let is_device = facts.devices.iter().any(|device| device.id == about);
    let edge = edge.map(|edge| format!("edge/{edge}")).unwrap_or_default();
    if is_device {
        facts.devices.retain(|device| device.id == about);
        facts.peers.clear();
        facts.far.iter_mut().for_each(|far| far.retain_device(about));
    } else if facts.peers.iter().any(|peer| peer.node == edge) {
        // One that is asked about, or that has the device and is away.
        facts.peers.retain(|peer| peer.node == edge);
        facts.links.retain(|link| link.peer == edge);
        facts.devices.clear();
    } else if !own.ends_with(&format!("/{about}")) && facts.node == Node::Answers {
        return Err(unknown(if about.contains('/') { "device" } else { "node" }).into());
    }
    Ok(facts)
}

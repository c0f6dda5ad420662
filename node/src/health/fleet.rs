//! How all nodes are that this one knows of: what `/kubebus/v1/fleet`, `kubebus status` and the metrics show.

use std::collections::BTreeSet;
use std::sync::Arc;

use bus::{Identity, Name, NodeId, NodeKind, UnixMillis};
use serde::{Serialize, Serializer};

use super::links::{LinkState, Path};
use super::part::{Chosen, Part};
use super::report::{About, Condition};
use super::series::{LinkSeries, Series};
use super::trouble::{Around, Problem, problems};

/// What is known of all nodes at one moment: quickly made, so that its owner can go on, and shown elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Fleet {
    pub cluster: Name,
    pub me: NodeId,
    pub time: UnixMillis,
    /// This node first, then by name.
    pub nodes: Vec<Facts>,
}

/// Of a cloud's own links, the most that are shown with a part of its nodes.
const MAX_LINKS_OF_PART: usize = 50;

/// What is known of one node, and its own word: the last that was heard.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub known: Known,
    pub condition: Option<Arc<Condition>>,
}

/// The document.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FleetView {
    pub cluster: Name,
    #[serde(serialize_with = "as_text")]
    pub me: NodeId,
    pub time: UnixMillis,
    /// Of how many nodes `nodes` are some, how many of them are connected, and with how many something is wrong.
    pub total: usize,
    pub connected: usize,
    pub unwell: usize,
    /// How many fit what was asked for.
    pub found: usize,
    pub nodes: Vec<NodeView>,
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    Connected,
    Lost,
    /// It joined and has not been heard since.
    Never,
}

/// One node. What is not known is null.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeView {
    #[serde(serialize_with = "as_text")]
    pub node: NodeId,
    pub site: Option<Name>,
    pub state: Presence,
    /// When it came to be in that state, on the clock of the node that says so.
    pub since: Option<UnixMillis>,
    /// How old all below is.
    pub heard_ms_ago: Option<u64>,
    pub version: Option<String>,
    pub started: Option<UnixMillis>,
    /// `ok`, or `degraded: ` and why.
    pub disk: Option<String>,
    pub clock_offset_ms: Option<i64>,
    pub sync: SyncView,
    pub twins: TwinsView,
    pub links: Vec<LinkView>,
    /// What is wrong now, worst first.
    pub problems: Vec<Problem>,
    pub last_error: Option<ErrorView>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SyncView {
    /// Keys that the node has not acknowledged, counted up to [`MAX_BEHIND`].
    pub behind: Option<u64>,
    pub outbox: Option<u64>,
    pub outbox_oldest_ms: Option<u64>,
}

/// Up to how many a fleet says how far an edge is behind: counting more costs the owner loop time.
pub const MAX_BEHIND: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TwinsView {
    pub devices: Option<u64>,
    pub offline: Option<u64>,
    pub rules: Option<u64>,
    pub rules_tripped: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LinkView {
    pub peer: String,
    /// `bus` or `packets`.
    pub lane: &'static str,
    pub path: &'static str,
    pub in_reserve: bool,
    pub remote: Option<String>,
    pub rtt_ms: Option<f64>,
    pub loss_percent: Option<f64>,
    pub mtu: Option<u64>,
    /// `tcp+udp`, `tcp`, `udp` or `off`, of the overlay interface; null on a bus lane.
    pub offload: Option<&'static str>,
    pub packets_per_send: Option<u64>,
    pub queue_bytes: Option<u64>,
    pub sent_bytes: Option<u64>,
    pub received_bytes: Option<u64>,
    pub sent_bytes_per_s: Option<u64>,
    pub received_bytes_per_s: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorView {
    pub text: String,
    pub advice: String,
    pub time: UnixMillis,
}

/// What is known of a node beside its own word.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The node that says all this.
    pub is_me: bool,
    pub node: NodeId,
    pub site: Option<Name>,
    /// The node that says all this is there, whoever is not.
    pub state: Presence,
    /// Its cloud does not hear it.
    pub is_cut_off: bool,
    pub since: Option<UnixMillis>,
    pub heard_ms_ago: Option<u64>,
    pub clock_offset_ms: Option<i64>,
    pub behind: Option<u64>,
}

fn as_text<S: Serializer>(node: &NodeId, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(node)
}

impl Fleet {
    pub fn new(me: &Identity, time: UnixMillis, nodes: Vec<Facts>) -> Self {
        Self { cluster: me.cluster.clone(), me: me.node.clone(), time, nodes }
    }

    pub fn view(&self, part: &Part) -> FleetView {
        let Chosen { shown, total, connected, unwell, found } = part.choose(self);
        let (cluster, me, time) = (self.cluster.clone(), self.me.clone(), self.time);
        let mut nodes: Vec<NodeView> = shown.iter().map(|facts| facts.view()).collect();
        if part.limit.is_some() {
            self.shorten(&mut nodes);
        }
        FleetView { cluster, me, time, total, connected, unwell, found, nodes }
    }

    /// A cloud has thousands of links. Where few nodes are wanted, those are left out that their edges tell of.
    fn shorten(&self, nodes: &mut [NodeView]) {
        let Some(at) =
            nodes.iter().position(|node| node.node == self.me && node.node.kind == NodeKind::Cloud)
        else {
            return;
        };
        if nodes[at].links.len() <= MAX_LINKS_OF_PART {
            return;
        }
        let mut links = std::mem::take(&mut nodes[at].links);
        let tells = |facts: &&Facts| facts.condition.as_ref().is_some_and(|told| !told.links.is_empty());
        let telling: BTreeSet<String> =
            self.nodes.iter().filter(tells).map(|facts| facts.known.node.to_string()).collect();
        links.retain(|link| !telling.contains(&link.peer));
        links.truncate(MAX_LINKS_OF_PART);
        nodes[at].links = links;
    }
}

impl Facts {
    /// What is wrong now, worst first.
    pub fn problems(&self) -> Vec<Problem> {
        let Known { is_me, state, is_cut_off, clock_offset_ms, ref node, .. } = self.known;
        // What an edge knows of its cloud is whether it is there, and that it says of itself.
        if node.kind == NodeKind::Cloud && !is_me {
            return Vec::new();
        }
        let around = Around {
            is_me,
            is_connected: state == Presence::Connected && !is_cut_off,
            is_heard: state != Presence::Never,
            clock_offset_ms,
        };
        problems(self.condition.as_deref().unwrap_or(&Condition::default()), around)
    }

    pub(crate) fn view(&self) -> NodeView {
        let Known {
            is_me: _,
            is_cut_off: _,
            node,
            site,
            state,
            since,
            heard_ms_ago,
            clock_offset_ms,
            behind,
        } = self.known.clone();
        let nothing = Condition::default();
        let told = self.condition.is_some();
        let Condition { values, links, about } = self.condition.as_deref().unwrap_or(&nothing);
        let About { version, started, disk, trouble, offload } = about;
        let last_error = trouble.as_ref().map(|trouble| ErrorView {
            text: trouble.detail.clone(),
            advice: trouble.kind.advice().to_owned(),
            time: trouble.at,
        });
        let disk = disk.as_ref().map_or_else(|| "ok".to_owned(), |why| format!("degraded: {why}"));
        NodeView {
            node,
            site,
            state,
            since,
            heard_ms_ago,
            version: told.then(|| version.clone()),
            started: told.then_some(*started),
            disk: told.then_some(disk),
            clock_offset_ms,
            sync: SyncView {
                behind,
                outbox: values.get(Series::OutboxEntries),
                outbox_oldest_ms: values.get(Series::OutboxOldest),
            },
            twins: TwinsView {
                devices: values.get(Series::Devices),
                offline: values.get(Series::DevicesOffline),
                rules: values.get(Series::Rules),
                rules_tripped: values.get(Series::RulesTripped),
            },
            links: links.iter().map(|link| view(link, *offload)).collect(),
            problems: self.problems(),
            last_error,
        }
    }
}

fn view(link: &LinkState, offload: Option<(bool, bool)>) -> LinkView {
    let head = &link.head;
    let offload = offload.map(|on| match on {
        (true, true) => "tcp+udp",
        (true, false) => "tcp",
        (false, true) => "udp",
        (false, false) => "off",
    });
    let hundredths = |value: f64| (value * 100.0).round() / 100.0;
    LinkView {
        peer: head.peer.to_string(),
        lane: if head.is_packets { "packets" } else { "bus" },
        path: head.path.as_str(),
        in_reserve: head.in_reserve,
        remote: head.remote.map(|remote| remote.to_string()),
        rtt_ms: link.get(LinkSeries::Rtt).map(|micros| hundredths(micros as f64 / 1000.0)),
        loss_percent: link.get(LinkSeries::Loss).map(|millionths| hundredths(millionths as f64 / 10_000.0)),
        mtu: link.get(LinkSeries::Mtu),
        offload: offload.filter(|_| head.is_packets && head.path != Path::Relayed),
        packets_per_send: link.get(LinkSeries::Segments),
        queue_bytes: link.get(LinkSeries::QueueBytes),
        sent_bytes: link.get(LinkSeries::Sent),
        received_bytes: link.get(LinkSeries::Received),
        sent_bytes_per_s: link.get(LinkSeries::SentRate),
        received_bytes_per_s: link.get(LinkSeries::ReceivedRate),
    }
}

//! What is known of a node, its machine and its surroundings. What could not be found out is `None`, and no rule takes
//! it for good or bad.

use std::net::IpAddr;

use serde::Serialize;

use super::{Failure, LinkFault};
use crate::checkup::{Examined, Looked};

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Facts {
    /// Milliseconds since 1970, by this machine's clock.
    pub now_ms: u64,
    /// Whether the machine says that its clock is set by somebody.
    pub clock_synchronised: Option<bool>,
    pub identity: Identity,
    pub node: Node,
    pub disk: Disk,
    pub certificate: Option<Certificate>,
    /// Of an edge.
    pub upstream: Option<Upstream>,
    /// Of a cloud: who may be connected.
    pub peers: Vec<Peer>,
    /// Of a cloud: the epoch of the one that was restored from its backup and took over.
    pub superseded_by: Option<u64>,
    pub broker: Option<Broker>,
    pub devices: Vec<Device>,
    pub links: Vec<Link>,
    pub clash: Option<Clash>,
    /// UDP and TCP addresses that the node is to listen on and somebody else has.
    pub taken: Vec<Taken>,
    pub reach: Option<Reach>,
    /// Of a cloud: what an edge found that was asked to look at itself.
    pub far: Option<Box<Examined>>,
    /// Of an edge: what its cloud sees of it.
    pub looked: Option<Box<Looked>>,
    /// Questions that the node did not answer, and why.
    pub unanswered: Vec<String>,
    /// Knocking at the cloud's door was not done when time was over.
    pub is_cut_short: bool,
}

/// What the data directory says the node is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Identity {
    pub role: Option<Role>,
    /// `spiffe://..`
    pub name: Option<String>,
    pub data_dir: String,
    /// Why it cannot be read.
    pub problem: Option<String>,
}

impl Identity {
    /// `edge/pump-house`.
    pub fn short_name(&self) -> Option<String> {
        let identity: bus::Identity = self.name.as_deref()?.parse().ok()?;
        Some(identity.node.to_string())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    Cloud,
    Edge,
}

/// Its process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Node {
    Answers,
    #[default]
    NotRunning,
    /// The console is there and says nothing.
    Hangs(String),
    Forbidden(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// For the node's user, on the data directory's file system.
    pub free_bytes: Option<u64>,
    /// Why it takes no writes: the node's word, or that of a try.
    pub refuses: Option<String>,
}

/// The node's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Certificate {
    pub not_before_ms: u64,
    pub not_after_ms: u64,
    /// Why it is of no use besides its dates: another node's, another key's.
    pub problem: Option<String>,
    /// Why the node did not get its next one so far.
    pub not_renewed: Option<String>,
}

/// The way from an edge to its cloud.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Upstream {
    pub cloud: String,
    /// `None` while the node does not run.
    pub connected: Option<bool>,
    /// How far the cloud's clock is ahead of ours, while there is a link.
    pub clock_offset_ms: Option<i64>,
    /// The node's own last failures, the newest last.
    pub failures: Vec<Failure>,
    pub endpoints: Vec<Endpoint>,
}

/// Where the cloud may be dialled, and what came of knocking there.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Endpoint {
    /// `host:port`.
    pub name: String,
    pub lookup: Lookup,
    pub udp: Udp,
    /// Whether a datagram of 1,400 bytes was answered, where one of 1,200 was.
    pub large_passes: Option<bool>,
    pub host: Host,
    /// What became of a handshake, where UDP is answered.
    pub handshake: Option<Result<(), (LinkFault, String)>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lookup {
    #[default]
    NotTried,
    Found(Vec<IpAddr>),
    Failed(String),
    /// No name server said anything.
    Silent,
}

/// What a QUIC packet of a version that nobody speaks meets; each server answers it (RFC 9000 §6), of 1,200 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Udp {
    #[default]
    NotTried,
    Answers,
    /// ICMP says that nobody listens at the port; a firewall may say the same.
    Refused,
    /// Our own kernel does not let it out: a rule of this machine's firewall.
    Forbidden,
    Silent,
    /// ICMP, or our own kernel, says that there is no way.
    NoWay,
    /// Our own kernel knows that the way is too narrow.
    TooLarge,
}

/// Other signs of life of the same host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Host {
    /// TCP was answered, be it by a refusal.
    pub tcp: Option<bool>,
    /// ICMP echo of 56 bytes.
    pub echo: Option<bool>,
    /// ICMP echo as large as QUIC's first packet, unfragmented.
    pub large_echo: Option<bool>,
}

impl Host {
    pub(super) fn is_alive(self) -> bool {
        self.tcp == Some(true) || self.echo == Some(true)
    }
}

/// A node as the cloud knows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Peer {
    pub node: String,
    pub connected: bool,
    /// What the fleet document says went wrong there last.
    pub last_error: Option<String>,
    /// The disk's state there, if it refuses writes.
    pub disk: Option<String>,
    pub clock_offset_ms: Option<i64>,
}

/// The MQTT broker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Broker {
    pub address: String,
    pub is_external: bool,
    /// `None`: it answered, and let us in or asked who we are.
    pub problem: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Device {
    pub id: String,
    /// online, degraded, offline or unknown.
    pub state: String,
    pub reason: String,
    /// Whether a value of it was ever reported.
    pub is_heard: bool,
    /// Its manifest's host, if that cannot be looked up from here, and why.
    pub unresolved: Option<String>,
    /// Wishes that were not taken, and how: `position: expired`.
    pub refused: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Link {
    pub peer: String,
    pub lane: String,
    pub rtt_ms: f64,
    pub loss_percent: f64,
    pub mtu: u64,
    pub black_holes: u64,
}

/// A network of this machine that the overlay has too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Clash {
    pub overlay: String,
    pub interface: String,
    pub network: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// What the node needs it for, as the configuration calls it.
    pub key: String,
    pub address: String,
    /// Which program has it, if that can be seen.
    pub by: Option<String>,
}

/// Whether one reaches another over the overlay, where that was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reach {
    pub to: String,
    pub problem: Option<String>,
    /// Why a policy denies it.
    pub denied: Option<String>,
}

//! What a shard is started with, and the bounds it keeps.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bus::frame::MAX_FRAME_LEN;
use bus::{Class, NodeId};
use quinn_proto::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use thiserror::Error;

use super::Lane;
use super::congestion::LaneControllers;
use crate::io::tls::{self, Credentials, CredentialsError};
use crate::io::tun::Tun;
use crate::io::udp::RecvBuffers;
use crate::queue::LinkRate;

/// Events that wait for the owner. When full, streams are no longer read and flow control holds the peers back;
/// what happened to links is kept in a list of at most a few entries a link. Worst case 256 of the largest frames
/// (256 MiB), from authenticated peers only; usual frames are 100 bytes.
pub const EVENT_QUEUE: usize = 256;

/// Commands that wait for the shard. When full, [`ShardHandle::send`](super::ShardHandle::send) blocks its caller for
/// the one turn of the loop that it takes to empty the queue. Worst case 256 of the largest frames.
pub const COMMAND_QUEUE: usize = 256;

/// What one class of one link may have waiting, frame heads included: two of the largest frames. When full, a
/// droppable class loses the newest frame and counts it, another closes the link: flow control above has failed.
pub const SEND_QUEUE_BYTES: usize = 2 * (MAX_FRAME_LEN + 64);

/// What a peer may have sent on one stream ahead of our reading: 42 Mbit/s at 100 ms.
pub(super) const STREAM_WINDOW: u32 = 512 << 10;

/// What a peer may have sent on all its streams ahead of our reading. Bounds a link's memory.
pub(super) const LINK_WINDOW: u32 = 1 << 20;

/// The same before a peer has proven who it is, and while it joins: a CSR and its answer.
pub(super) const UNPROVEN_WINDOW: u32 = 16 << 10;

/// All that a joining peer may say in its connection's life, in bytes. More closes it.
pub(super) const JOIN_BYTES: usize = 64 << 10;

/// One stream a class.
pub(super) const MAX_STREAMS: u32 = Class::ALL.len() as u32;

/// Packets that one lane's connection may hold. With no congestion window it holds them only while the kernel's own queue is
/// full; half of it is never used, as what comes then waits in the lane's queue.
pub(super) const DATAGRAM_SEND_BUFFER: usize = 1 << 20;

/// Packets that a peer may take before it must acknowledge. A third of what QUIC's own two would cost either end is
/// saved; gaps are still told at once, and a lone packet after 25 ms.
const ACK_EVERY: u32 = 20;

/// Packets of one lane not yet looked at: one receive batch may be all one peer's, and quinn drops the oldest
/// without a word. Twice, since each also costs its bookkeeping.
const DATAGRAM_RECEIVE_BUFFER: usize = 2 * RecvBuffers::LEN;

/// Every path carries this (RFC 9000 §14.1). Discovery's first probe is 1336, which has room for a packet of 1280.
const MIN_MTU: u16 = 1200;

/// Ethernet: 1500 less IPv4's and UDP's heads.
const MAX_MTU: u16 = 1472;

/// After what looked like an MTU black hole. Overload looks the same, and while it lasts no packet of 1280 passes:
/// quinn's own minute would be a minute without network.
const BLACK_HOLE_COOLDOWN: Duration = Duration::from_secs(5);

/// How long after a search for the path's MTU the next one begins. A path that was narrow for a while is found wide
/// again within this time; on one that stays narrow it costs about ten lost probes. RFC 8899's ten minutes would be
/// ten minutes without large packets.
const MTU_SEARCH_INTERVAL: Duration = Duration::from_secs(30);

/// A handshake is two round trips; one that takes longer is dialled anew.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// One request and its answer, stored durably in between, to join or to renew.
pub(super) const JOIN_LIFETIME: Duration = Duration::from_secs(10);

/// How long a stopping shard waits for the last frames to arrive.
pub(super) const FLUSH_TIME: Duration = Duration::from_secs(1);

/// The longest idle time that makes sense: a dead peer is to be noticed.
const MAX_IDLE: Duration = Duration::from_secs(600);

/// Who keeps a packets lane from sending more than its way carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Congestion {
    /// What runs inside has a congestion control of its own, and the lane's queue is held to what a thin way turns out to
    /// carry. Two controls one inside the other cost up to half of the rate.
    #[default]
    None,
    /// The lane too: for hosts that send without regard for anybody, such as cameras over UDP, on a way that is shared.
    Cubic,
}

/// Bounds on strangers. The defaults fit a cloud whose fleet comes back at once: 4000 handshakes a second and core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Above this many connections of unproven peers a new one must first show that it receives at its address
    /// (QUIC Retry, RFC 9000 §8.1.2): one round trip more, and no memory for spoofed ones.
    pub retry_above: usize,
    /// At this many a new one is refused; the dialler sees [`DialError::Busy`](super::DialError::Busy).
    pub max_unproven: usize,
    /// Peers that may join at the same time.
    pub max_joining: usize,
    /// Nodes that may ask for their next certificate at the same time, each once. Apart from those that join: strangers
    /// keep nobody from renewing.
    pub max_renewing: usize,
}

impl Limits {
    /// Of an edge, which is dialled by its few neighbours alone: but from their addresses others may come too.
    pub const NEIGHBOURS: Self = Self { retry_above: 8, max_unproven: 32, max_joining: 0, max_renewing: 0 };
}

impl Default for Limits {
    fn default() -> Self {
        Self { retry_above: 256, max_unproven: 1024, max_joining: 32, max_renewing: 32 }
    }
}

/// What a shard is started with.
#[derive(Debug)]
pub struct ShardConfig {
    /// UDP address to bind; port 0 is any.
    pub listen: SocketAddr,
    /// `None` while joining: then only the join lane can be dialled.
    pub credentials: Option<Credentials>,
    /// Where overlay packets come from and go to.
    pub tun: Option<Tun>,
    /// A quiet link says something this often, so that NATs keep their mapping (RFC 4787 REQ-5: two minutes, in
    /// the field 30 s).
    pub keepalive: Duration,
    /// A peer that was silent this long is gone.
    pub idle: Duration,
    /// Whether others may dial us: a cloud.
    pub accept: bool,
    /// Whether an edge may dial another, and be dialled by it after a [`Command::Knock`](super::Command::Knock).
    pub neighbours: bool,
    /// Of a cloud that is one of several replicas.
    pub replica: Option<Replica>,
    pub limits: Limits,
    /// What the line carries that packets lanes leave by.
    pub rate: LinkRate,
    pub congestion: Congestion,
}

/// A node may have two bus links to a replica at a time, by two of its addresses: the owner closes one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replica {
    /// Another replica that this one dialled, and that was silent this long, is gone.
    pub silence: Duration,
}

impl ShardConfig {
    /// A node that dials: keepalive 15 s, idle 45 s, no TUN.
    pub fn new(listen: SocketAddr, credentials: Option<Credentials>) -> Self {
        Self {
            listen,
            credentials,
            tun: None,
            keepalive: Duration::from_secs(15),
            idle: Duration::from_secs(45),
            accept: false,
            neighbours: false,
            replica: None,
            limits: Limits::default(),
            rate: LinkRate::Measured,
            congestion: Congestion::default(),
        }
    }

    /// Whether somebody goes by the name of this node itself.
    pub(super) fn is_own(&self, node: &NodeId) -> bool {
        self.credentials.as_ref().is_some_and(|own| own.identity.node == *node)
    }

    pub(super) fn check(&self) -> Result<(), SpawnError> {
        if self.keepalive.is_zero() {
            return Err(SpawnError::Keepalive);
        }
        if self.idle <= self.keepalive || self.idle > MAX_IDLE {
            return Err(SpawnError::Idle);
        }
        if self.accept && self.credentials.is_none() {
            return Err(SpawnError::NoCredentials);
        }
        self.credentials.as_ref().map_or(Ok(()), |own| Ok(tls::check(own)?))
    }

    /// QUIC parameters of a dial, or of accepting, where the lane shows only later.
    pub(super) fn transport(&self, dialled: Option<Lane>) -> TransportConfig {
        let proven = matches!(dialled, Some(Lane::Bus));
        let mut config = TransportConfig::default();
        config
            .max_concurrent_bidi_streams(0u32.into())
            .max_concurrent_uni_streams(if proven { MAX_STREAMS } else { 1 }.into())
            .stream_receive_window(STREAM_WINDOW.into())
            .receive_window(if proven { LINK_WINDOW } else { UNPROVEN_WINDOW }.into())
            .send_window(LINK_WINDOW.into())
            .max_idle_timeout(Some(idle_timeout(self.idle)))
            .keep_alive_interval(Some(self.keepalive))
            .min_mtu(MIN_MTU)
            .initial_mtu(MIN_MTU)
            .mtu_discovery_config(Some(mtu_discovery()))
            .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BUFFER))
            .datagram_send_buffer_size(DATAGRAM_SEND_BUFFER)
            .ack_frequency_config(Some(ack_frequency()))
            .congestion_controller_factory(Arc::new(LaneControllers));
        config
    }
}

fn idle_timeout(idle: Duration) -> IdleTimeout {
    let millis = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX);
    VarInt::from_u32(millis).into()
}

fn ack_frequency() -> AckFrequencyConfig {
    let mut config = AckFrequencyConfig::default();
    config.ack_eliciting_threshold(ACK_EVERY.into());
    config
}

fn mtu_discovery() -> MtuDiscoveryConfig {
    let mut config = MtuDiscoveryConfig::default();
    config.upper_bound(MAX_MTU).interval(MTU_SEARCH_INTERVAL).black_hole_cooldown(BLACK_HOLE_COOLDOWN);
    config
}

/// How much of quinn's send buffer a class may help to fill. What is in it is sent by priority, but while it is full
/// nothing more gets in: so the last part is kept for the urgent.
pub(super) fn send_window(class: Class) -> u64 {
    match class {
        Class::Control | Class::Command => LINK_WINDOW.into(),
        Class::State | Class::Event => (LINK_WINDOW / 2).into(),
        Class::Telemetry | Class::Bulk => (LINK_WINDOW / 4).into(),
    }
}

/// Why a shard did not start.
#[derive(Debug, Error)]
pub enum SpawnError {
    #[error("the keepalive interval is zero, which would send without pause")]
    Keepalive,
    #[error("the idle timeout must be longer than the keepalive interval and at most 10 minutes")]
    Idle,
    #[error("a shard that accepts links needs credentials")]
    NoCredentials,
    #[error("unusable credentials")]
    Credentials(#[from] CredentialsError),
    #[error("cannot bind UDP {address}")]
    Bind { address: SocketAddr, source: std::io::Error },
    #[error("cannot set up the event loop")]
    Loop(#[source] std::io::Error),
}

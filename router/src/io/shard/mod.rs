//! The shard: the thread that owns a UDP socket, its QUIC endpoint with all connections, and the TUN.
//!
//! ```text
//!            Command (bounded)                     Event (bounded)
//!   owner ---------------------> +-----------+ ---------------------> owner
//!                                |   shard   |
//!   TUN <----------------------> | one epoll | <------------------> UDP socket
//!              IP packets        +-----------+      QUIC packets
//! ```
//! Nothing here waits but the one `epoll_wait`, nothing is locked per packet, and no task exists per connection.
//! Connections are told apart by their lane, which is the ALPN of their handshake:
//!
//! | lane | ALPN | certificate of the client | carries |
//! |---|---|---|---|
//! | bus | `kubebus/1` | verified | frames, one stream a class and direction |
//! | packets | `kubebus-ip/2` | verified | IP packets as QUIC datagrams, a byte before each |
//! | join | `kubebus-join/1` | none | frames of class control, for a few seconds |
//! | renew | `kubebus-renew/1` | verified, may be over since at most [`bus::RENEWABLE_FOR`] | the same |
//!
//! A stream is its class in one byte, then frames ([`bus::frame`]). Whatever a peer sends costs at most its own
//! connection.
//!
//! Files: `config` (bounds), `event_loop` (the thread), `attend` (a connection's turn), `links` and `link` (connections), `streams` (frames), `packets` and `datagram`,
//! `congestion`, `silence`, `timers`, `reset` (after a crash), `guests` and `talk` (neighbours), `watch` (whether a peer answers), `owner` (the two
//! queues), `stats` and `report` (what people want to know).

mod attend;
mod config;
mod congestion;
mod datagram;
mod event_loop;
mod guests;
mod lane;
mod link;
mod links;
mod owner;
mod packets;
mod report;
mod reset;
mod silence;
mod stats;
mod streams;
mod talk;
mod timers;
mod watch;

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use bus::bus::LinkId;
use bus::{Class, Frame, KeyHash, NodeId};
use thiserror::Error;
use tokio::sync::mpsc::Receiver;

pub use self::config::{
    COMMAND_QUEUE, Congestion, EVENT_QUEUE, Limits, Replica, SEND_QUEUE_BYTES, ShardConfig, SpawnError,
};
use self::event_loop::EventLoop;
use self::owner::Bell;
pub use self::report::LinkReport;
pub use self::stats::{PacketStats, Stats};
pub use super::tls::{Credentials, CredentialsError, Expect, NoIdentity, ServerRefused};
use crate::{Policy, Table};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    Bus,
    Packets,
    Join,
    /// Where a node asks for its next certificate, and nothing else.
    Renew,
}

impl Lane {
    pub const ALL: [Self; 4] = [Self::Bus, Self::Packets, Self::Join, Self::Renew];

    /// The protocol name in the TLS handshake (RFC 7301).
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Bus => b"kubebus/1",
            Self::Packets => b"kubebus-ip/2",
            Self::Join => b"kubebus-join/1",
            Self::Renew => b"kubebus-renew/1",
        }
    }

    fn from_alpn(protocol: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.alpn() == protocol)
    }

    /// Whether a link is for one question and its answer.
    pub(super) fn is_brief(self) -> bool {
        matches!(self, Self::Join | Self::Renew)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bus => "bus",
            Self::Packets => "packets",
            Self::Join => "join",
            Self::Renew => "renew",
        })
    }
}

/// What the owner wants done.
#[derive(Debug)]
pub enum Command {
    /// Answered by [`Event::Up`] or [`Event::Failed`] with the same `attempt`. Packets of one `in_reserve` count only
    /// from [`Command::Admit`] on.
    Dial { attempt: u64, address: SocketAddr, expect: Expect, lane: Lane, in_reserve: bool },
    /// For a link that is gone: counted and dropped.
    Send { link: LinkId, class: Class, frame: Frame },
    /// Packets of a link that was accepted, is a neighbour's or was dialled in reserve count from now on, and those to its
    /// node take it: until then they are dropped.
    Admit { link: LinkId },
    /// Sends a byte to each address, so that our NAT lets a dial from there in, and accepts links from there for 15 s. Of
    /// no use to a shard that accepts links anyway.
    Knock { addresses: Vec<SocketAddr> },
    /// At once, what is queued is lost. Answered by [`Event::Down`]; the peer is told the reason.
    Close { link: LinkId, reason: Cow<'static, str> },
    /// The routes from now on.
    SetTable(Arc<Table>),
    /// Who may talk to whom from now on; before the first one nobody may.
    SetPolicy(Arc<Policy>),
    /// What this node shows of itself in links that begin from now on; those that stand are kept.
    SetCredentials(Box<Credentials>),
    /// Answered by [`Event::Report`] with the same `id`.
    Report { id: u64 },
    /// Sends what is queued and says goodbye, for at most a second; then the thread ends and with it the events.
    Stop,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// `attempt` if we dialled; `peer` unless the client has no identity yet and joins.
    Up {
        link: LinkId,
        attempt: Option<u64>,
        /// With the key that it proved.
        peer: Option<(NodeId, KeyHash)>,
        remote: SocketAddr,
        lane: Lane,
    },
    Failed {
        attempt: u64,
        why: DialError,
    },
    /// Comes once after every `Up`, and nothing of this link after it; when the shard itself ends with the queue full,
    /// its end stands for all that are missing.
    Down {
        link: LinkId,
        peer: Option<NodeId>,
        why: String,
    },
    /// The packets lane of a peer that dialled us comes from another address now.
    Moved {
        link: LinkId,
        remote: SocketAddr,
    },
    /// Bytes of packets to and from hosts behind other nodes since about a second; said by a shard that dials, of nodes
    /// other than those that it dials for its packets.
    Talk {
        peers: Vec<(NodeId, u64)>,
    },
    /// The links that are up.
    Report {
        id: u64,
        links: Vec<LinkReport>,
    },
    /// Frames of one class come in the order in which they were sent.
    Frame {
        link: LinkId,
        frame: Frame,
    },
}

/// Why a dial made no link.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DialError {
    #[error("no answer: is 'kubebus cloud' running there, and is its UDP port open?")]
    NoAnswer,
    #[error("the server is at its limit")]
    Busy,
    #[error("not the expected server: {0}")]
    Server(ServerRefused),
    /// The server has read our certificate on a connection that nobody else can speak on.
    #[error("refused by the server: {EXPIRED}")]
    Expired,
    /// In the server's words, or in those of somebody on the way to it.
    #[error("refused by the server: {0}")]
    Refused(String),
    #[error("this node has no certificate yet: join first")]
    NoCredentials,
    #[error("cannot dial {address}: {why}")]
    Address { address: SocketAddr, why: String },
    #[error("{0}")]
    Failed(String),
}

/// What a node hears whose certificate is over: it may renew it, and nothing else.
const EXPIRED: &str = "certificate expired: it can only be renewed";

/// Why every link ends when its shard does.
const STOPPING: &str = "the node stops";

/// What a server at its limit is given before the next try, jitter excluded: it clears 4000 handshakes a second, so
/// that a fleet of 100 000 is back in half a minute.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(10);

impl DialError {
    /// How long to stay away at least.
    pub fn retry_after(&self) -> Option<Duration> {
        (*self == Self::Busy).then_some(BUSY_RETRY_AFTER)
    }

    /// Whether the server would take our next certificate.
    pub fn is_renewable(&self) -> bool {
        *self == Self::Expired
    }
}

/// The shard has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the shard has stopped")]
pub struct Stopped;

/// The owner's hold on a shard. When the last one is dropped the shard stops.
#[derive(Debug, Clone)]
pub struct ShardHandle {
    inner: Arc<Inner>,
}

// The order matters: the bell's last ring must find the queue closed.
#[derive(Debug)]
struct Inner {
    commands: SyncSender<Command>,
    bell: LastRing,
    stats: Arc<Mutex<Stats>>,
    local_addr: SocketAddr,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct LastRing(Arc<Bell>);

impl Drop for LastRing {
    fn drop(&mut self) {
        self.0.ring();
    }
}

impl ShardHandle {
    /// Hands over a command, in order. Blocks only while [`COMMAND_QUEUE`] commands wait, for one turn of the shard's
    /// loop, which itself never waits for the owner.
    pub fn send(&self, command: Command) -> Result<(), Stopped> {
        self.inner.commands.send(command).map_err(|_| Stopped)?;
        self.inner.bell.0.ring();
        Ok(())
    }

    /// The counters as of the last turn of the loop.
    pub fn stats(&self) -> Stats {
        *self.inner.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bound address, with the port that the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr
    }

    /// Waits for the thread's end; send [`Command::Stop`] first. The second call returns at once.
    pub fn join(&self) {
        let thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic has been printed by then; the closed events tell the owner.
            let _ = thread.join();
        }
    }
}

/// Starts the thread. It ends by [`Command::Stop`], with the last handle, or when the receiver is dropped; the
/// receiver then yields `None`.
pub fn spawn(config: ShardConfig) -> Result<(ShardHandle, Receiver<Event>), SpawnError> {
    let (commands, commanded) = sync_channel(COMMAND_QUEUE);
    let (told, events) = tokio::sync::mpsc::channel(EVENT_QUEUE);
    let bell = Arc::new(Bell::new().map_err(SpawnError::Loop)?);
    let stats = Arc::new(Mutex::new(Stats::default()));
    let event_loop = EventLoop::new(config, commanded, told, bell.clone(), stats.clone())?;
    let local_addr = event_loop.local_addr().map_err(SpawnError::Loop)?;
    let thread = Builder::new().name("shard".into()).spawn(|| event_loop.run()).map_err(SpawnError::Loop)?;
    let thread = Mutex::new(Some(thread));
    let inner = Inner { commands, bell: LastRing(bell), stats, local_addr, thread };
    Ok((ShardHandle { inner: Arc::new(inner) }, events))
}

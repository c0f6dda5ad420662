//! The only seam between a node and the world.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bus::bus::LinkId;
use bus::overlay::{Lease, Route};
use bus::{
    Class, Filter, Frame, KeyHash, Mono, NodeId, Now, Properties, Qos, Sample, Topic, WireguardGateway,
    WireguardPeer,
};
use bytes::Bytes;
use controller::api::index::Moved;
use controller::user::Users;
use device_twin::dmi::{Answer, Call, Request};
use device_twin::gate::Row;
use device_twin::gate::access::Who;
use device_twin::history::AuditEntry;
use device_twin::{Announcement, Expiry, PropertyId, Receipt, Ticket};
use metadata::{Commit, Revision};
use router::Policy;

use crate::admin::{AdminRequest, AdminResponse, Snapshot};
use crate::checkup::Report;
use crate::health::{Fleet, Measured};
use crate::history::{Question, Told};
use crate::journal::Ready;
use crate::names::Names;
use crate::renewal::News;
use crate::resources::{ApiAnswer, ApiRequest};
use crate::{Cloud, Edge};

/// What can happen to a node.
#[derive(Debug)]
pub enum Input {
    /// A bus connection to an authenticated peer stands. `attempt` if this node dialled it.
    LinkUp {
        link: LinkId,
        peer: NodeId,
        key: KeyHash,
        attempt: Option<u64>,
    },
    LinkDown {
        link: LinkId,
    },
    /// A packets connection that this node dialled stands, or is gone.
    PacketsUp {
        link: LinkId,
        peer: NodeId,
        key: KeyHash,
        attempt: u64,
    },
    PacketsDown {
        link: LinkId,
    },
    /// A peer's packets connection to this node stands; nothing of it counts before [`Output::Admit`].
    PeerPackets {
        link: LinkId,
        peer: NodeId,
        key: KeyHash,
        remote: SocketAddr,
    },
    /// The packets connection of a peer that dialled this node comes from another address now.
    Moved {
        link: LinkId,
        remote: SocketAddr,
    },
    /// Bytes of packets to and from hosts behind other nodes than the cloud since about a second.
    Talk {
        peers: Vec<(NodeId, u64)>,
    },
    /// Where this node is on its own network, as others there would dial it.
    Local {
        addresses: Vec<SocketAddr>,
    },
    Frame {
        link: LinkId,
        frame: Frame,
    },
    /// A request on the join lane: whoever sends it has no identity yet.
    Join {
        link: LinkId,
        request: Bytes,
    },
    /// A node asks for its next certificate. `key` is that of the present one, which may be over.
    Renew {
        link: LinkId,
        peer: NodeId,
        key: KeyHash,
        request: Bytes,
    },
    /// What this node shows of itself, and what became of its wish to renew that.
    Certificate(News),
    DialFailed {
        attempt: u64,
        retry_after: Option<Duration>,
    },
    /// A client of the local broker published.
    Mqtt {
        ticket: Option<Ticket>,
        who: Who,
        topic: Topic,
        payload: Bytes,
        qos: Qos,
        retain: bool,
        /// What is left of the message's own (MQTT 5.0 §3.3.2.3.3).
        expiry: Option<Expiry>,
        /// What MQTT 5 passes on.
        properties: Properties,
        /// The broker's own, to be stored before the ticket is accepted.
        rows: Vec<Row>,
    },
    /// What the broker wants kept over a restart; with a ticket, it is accepted when that is stored.
    Keep {
        ticket: Option<Ticket>,
        rows: Vec<Row>,
        /// What was published with it is safe in the broker once the rows are stored.
        receipt: Option<Receipt>,
    },
    /// A DMI mapper asks; the ticket waits for [`Output::Accept`], [`Output::Registered`] or a refusal.
    Dmi {
        ticket: Ticket,
        request: Request,
    },
    /// How a call to a DMI mapper ended.
    DmiAnswer {
        call: u64,
        answer: Answer,
    },
    /// Said once, when [`Input::Interest`] was said for all that outlived the last process.
    Restored,
    /// The first local subscriber of a filter came, or its last one left.
    Interest {
        filter: Filter,
        wanted: bool,
    },
    /// The store holds everything up to this revision.
    Persisted(Revision),
    /// The disk refuses writes, or takes too long; the next [`Input::Persisted`] ends that. Said again as often as the
    /// disk is tried.
    Degraded {
        why: String,
    },
    Admin {
        id: u64,
        request: AdminRequest,
    },
    /// The same, asked by somebody who is not at this node's own console.
    Order {
        id: u64,
        who: NodeId,
        request: AdminRequest,
    },
    /// Somebody asks the resource API.
    Api {
        id: u64,
        request: ApiRequest,
    },
    /// An administrator wants a copy of all that a cloud knows; an edge refuses.
    Backup {
        id: u64,
    },
    /// What the shell has measured: the answer to [`Output::Measure`], or unasked before somebody is shown it.
    Measured(Box<Measured>),
    /// The answer to [`Output::Examine`]; no report: the checks could not run.
    Examined {
        id: u64,
        report: Option<Box<Report>>,
    },
    /// Somebody wants to see how all nodes are.
    Fleet {
        id: u64,
    },
    /// The answer to [`Output::Recall`], or why there is none.
    Recalled(Result<Told, String>),
    /// This node's WireGuard gateway is up, and how clients reach it.
    Wireguard(WireguardGateway),
    /// A file of the rules' log begins.
    RuleLog,
    /// A timeout that [`Node::poll_timeout`] named has come.
    Timeout,
}

impl Input {
    /// A client's message with nothing special about it.
    pub fn mqtt(ticket: Option<Ticket>, topic: Topic, payload: Bytes, retain: bool) -> Self {
        let qos = if ticket.is_some() { Qos::AtLeastOnce } else { Qos::AtMostOnce };
        Self::Mqtt {
            ticket,
            who: Who::Anonymous,
            topic,
            payload,
            qos,
            retain,
            expiry: None,
            properties: Properties::default(),
            rows: Vec::new(),
        }
    }
}

/// Which of the two connections of a pair to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialLane {
    Bus,
    Packets,
}

/// Which of an edge's two ways to its cloud: to the replica that leads, and to one that stands by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Line {
    First,
    Second,
}

impl Line {
    pub const BOTH: [Self; 2] = [Self::First, Self::Second];

    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// What a node wants done.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Make durable, then say [`Input::Persisted`].
    Persist(Commit),
    Send {
        link: LinkId,
        class: Class,
        frame: Frame,
    },
    Close {
        link: LinkId,
        why: String,
    },
    /// Dial the cloud, the two lines at different endpoints; the attempt's number comes back with what became of it.
    /// Packets of it count from [`Self::Admit`] on.
    Dial {
        line: Line,
        lane: DialLane,
        attempt: u64,
    },
    /// Dial another edge; the attempt's number comes back as with [`Self::Dial`].
    DialNeighbour {
        lane: DialLane,
        attempt: u64,
        peer: NodeId,
        address: SocketAddr,
    },
    /// Get this node's next certificate, from the cloud at the end of this line or, where none stands, from any; then say
    /// [`Input::Certificate`].
    Renew {
        line: Line,
    },
    /// Show the certificate before the present one, if there is one, or go back; then say [`Input::Certificate`].
    ShowOther,
    /// Let another edge dial this one from there.
    Knock {
        addresses: Vec<SocketAddr>,
    },
    /// Packets of this connection, which a peer made or which was dialled to a cloud, count from now on.
    Admit {
        link: LinkId,
    },
    /// Where the cloud can be dialled too, as it says itself: `host:port`, in turn and before the address that this
    /// edge joined by. Replaces what was said before.
    Endpoints(Vec<String>),
    /// To the clients of the local broker.
    Publish(Announcement),
    Accept(Ticket),
    Reject(Ticket, String),
    /// Neither: the disk refuses writes, so whether what the client published lasts cannot be promised.
    Unkept(Ticket),
    /// To a DMI mapper, by its own socket.
    Call(Call),
    /// The answer to a DMI mapper that registered, encoded.
    Registered(Ticket, Bytes),
    /// Not now: there is no room for it.
    Full(Ticket),
    /// The overlay's addresses and routes, whole; the shell brings interface and table in line.
    Overlay {
        lease: Lease,
        routes: Vec<Route>,
    },
    /// Who may talk to whom from now on, whole.
    Policy(Arc<Policy>),
    /// What all is called from now on, whole.
    Names(Arc<Names>),
    /// Who is let in, and as what, from now on, whole.
    Users(Arc<Users>),
    /// Which WireGuard clients come in by this node from now on, whole.
    Wireguard(Vec<WireguardPeer>),
    Admin {
        id: u64,
        response: AdminResponse,
    },
    /// The answer to [`Input::Api`].
    Api {
        id: u64,
        answer: ApiAnswer,
    },
    /// The answer to [`Input::Backup`].
    Backup {
        id: u64,
        snapshot: Snapshot,
    },
    /// Measure, and say [`Input::Measured`].
    Measure,
    /// The cloud wants this node to run its checks: do so, and say [`Input::Examined`].
    Examine {
        id: u64,
    },
    /// The answer to [`Input::Fleet`].
    Fleet {
        id: u64,
        fleet: Box<Fleet>,
    },
    /// Ask whoever keeps the history, and say [`Input::Recalled`]. One is asked for at a time.
    Recall(Question),
    /// For whoever keeps history, audit and the log of rules.
    Record(Record),
    /// For the log: what an operator should know.
    Note(String),
}

/// What a node wants kept beside its store.
#[derive(Debug, PartialEq)]
pub enum Record {
    /// A reading that was stored.
    Sample {
        id: PropertyId,
        sample: Sample,
    },
    Audit(Box<AuditEntry>),
    /// A line of the rules' log.
    Rule(Bytes),
    /// The lines with which a file of it begins.
    RuleHeads(Vec<Bytes>),
}

impl From<Ready<Self>> for Output {
    fn from(ready: Ready<Self>) -> Self {
        match ready {
            Ready::Persist(commit) => Self::Persist(commit),
            Ready::Output(output) => output,
        }
    }
}

/// A node of either kind.
#[derive(Debug)]
pub enum Node {
    Cloud(Box<Cloud>),
    Edge(Box<Edge>),
}

impl Node {
    pub fn handle(&mut self, input: Input, now: Now) {
        match self {
            Self::Cloud(cloud) => cloud.handle(input, now),
            Self::Edge(edge) => edge.handle(input, now),
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        match self {
            Self::Cloud(cloud) => cloud.poll_output(),
            Self::Edge(edge) => edge.poll_output(),
        }
    }

    pub fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        match self {
            Self::Cloud(cloud) => cloud.poll_timeout(),
            Self::Edge(edge) => edge.poll_timeout(),
        }
    }

    /// What is durable of each kind of resource: wakes watches.
    pub fn moved(&self) -> Moved {
        match self {
            Self::Cloud(cloud) => cloud.moved(),
            Self::Edge(edge) => edge.moved(),
        }
    }

    /// Why this node can promise nothing at present.
    pub fn degraded(&self) -> Option<&str> {
        match self {
            Self::Cloud(cloud) => cloud.degraded(),
            Self::Edge(edge) => edge.degraded(),
        }
    }

    /// Whether the shell must wait with further inputs (all but [`Input::Persisted`] and [`Input::Degraded`]) until the
    /// disk caught up.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Cloud(cloud) => cloud.is_full(),
            Self::Edge(edge) => edge.is_full(),
        }
    }

    /// Says goodbye to all peers: step two of the shutdown.
    pub fn goodbye(&mut self) {
        match self {
            Self::Cloud(cloud) => cloud.goodbye(),
            Self::Edge(edge) => edge.goodbye(),
        }
    }
}

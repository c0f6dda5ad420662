//! The cloud: bus, feed, twins and controllers in one cycle.

mod answers;
mod checkup;
mod health;
mod history;
mod renew;
mod resources;
mod shown;
mod steering;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::Arc;

use bus::bus::{LinkId, Role};
use bus::token::CaHash;
use bus::twin::{DeviceId, TwinTopic};
use bus::{
    Bus, Channel, Class, Filter, Frame, Identity, KeyHash, Message, Mono, Name, NodeId, NodeKind, Now,
    PathMessage, Qos, Route, Topic,
};
use bytes::Bytes;
use controller::api::index::Moved;
use controller::api::{Id, Index, Kind, Layout};
use controller::binding::Binder;
use controller::cluster::EstablishError;
use controller::event::{self, Event, Severity};
use controller::join::{CsrError, JoinReply, RefusalCode, Signed};
use controller::renew::Rate;
use controller::user::{self, Users};
use controller::{CloudSubnets, Cluster, access, advert, host, lease, nodes, route, site, wireguard};
use device_twin::cloud::Output as FromTwins;
use device_twin::reply::ReplyTo;
use device_twin::rule::RuleView;
use device_twin::twin::{Availability, DeviceState, Said};
use device_twin::{CloudTwins, Expiry, Publish, Ticket, kubeedge};
use metadata::sync::Lane;
use metadata::{Cause, Feed, FeedOutput, Key, Keyspace, Tells};
use router::Policy;
use router::direct::Introducer;

use crate::admin::{AdminError, AdminRequest, describe};
use crate::broker_rows;
use crate::checkup::Asking;
use crate::health::{Ledger, Monitor, TroubleKind};
use crate::herald::Herald;
use crate::history::Inquiries;
use crate::interest::{Interest, announced};
use crate::journal::{Journal, Speech};
use crate::mesh::hub::Output as FromMesh;
use crate::mesh::{Hub, is_mesh, leaf};
use crate::names::{Facts, Names};
use crate::renewal::Renewal;
use crate::seam::{Input, Output, Record};

/// Signs a CSR for an identity: the certificate authority's only word to the pure side.
pub type Signer = Box<dyn FnMut(&[u8], &Identity) -> Result<Signed, CsrError>>;

/// What a cloud is told about itself.
#[derive(Debug, Clone)]
pub struct CloudSettings {
    pub cluster: Cluster,
    pub subnets: CloudSubnets,
    /// What tokens pin.
    pub ca: CaHash,
    /// Differs from start to start: tells this run's cursors from those of a run before a restored backup.
    pub seed: u64,
    /// Of a cloud that is one of several replicas: each that leads has a higher one than those before it.
    pub term: Option<u64>,
}

/// One cloud node.
pub struct Cloud {
    cluster: Cluster,
    ca: CaHash,
    me: NodeId,
    signer: Signer,
    binder: Binder,
    keyspace: Keyspace,
    journal: Journal<Output>,
    /// What the resource API serves.
    index: Index,
    bus: Bus,
    feed: Feed,
    twins: CloudTwins,
    /// Who may talk to whom.
    policy: Arc<Policy>,
    interest: Interest,
    mesh: Hub,
    /// The newest version of each reported value that other sites were told, by either of its two ways: none goes back.
    /// Bounded by the properties that the catalog knows.
    relayed: BTreeMap<Topic, Told>,
    /// The epoch of the cloud that took over from this one, as far as its edges told.
    superseded: Option<u64>,
    /// The packets connection of each member.
    packets: BTreeMap<NodeId, LinkId>,
    term: Option<u64>,
    /// Members' bus links on which this replica said that it leads, and nothing has come yet: at most one of each.
    offered: BTreeMap<LinkId, (NodeId, KeyHash)>,
    /// Links of replicas that wait for their turn.
    standbys: BTreeSet<LinkId>,
    introducer: Introducer,
    /// Said in the present cycle.
    said: Speech<Output>,
    started: bool,
    renewal: Renewal,
    /// Of edges' certificates.
    rate: Rate,
    monitor: Monitor,
    ledger: Ledger,
    /// Edges that are asked to look at themselves.
    asking: Asking,
    /// What edges are asked of their history.
    inquiries: Inquiries,
    /// Writes events of devices.
    herald: Herald,
    /// Who asks in the present cycle, if it is not this node's own console.
    asker: Option<NodeId>,
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cloud").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Cloud {
    /// `keyspace` is what the store held. Fails if the configured address plan contradicts what was given out.
    pub fn new(
        settings: CloudSettings,
        signer: Signer,
        mut keyspace: Keyspace,
        now: Now,
    ) -> Result<Self, EstablishError> {
        let CloudSettings { cluster, subnets, ca, seed, term } = settings;
        let loaded = keyspace.revision();
        let index = Index::load(Layout::Cloud, &keyspace);
        cluster.establish(&subnets, &mut keyspace, now)?;
        let mut binder = Binder::load(&keyspace);
        binder.reconcile_all(&mut keyspace);
        access::tell_all(&mut keyspace)?;
        let me = cluster.cloud_id();
        let mut twins = CloudTwins::new();
        twins.load(&mut keyspace, now);
        let mut herald = Herald::new(Layout::Cloud);
        herald.load(states(&keyspace), twins.rules_told());
        Ok(Self {
            herald,
            bus: Bus::new(me.clone(), Role::Hub),
            journal: Journal::new(loaded),
            index,
            interest: Interest::default(),
            relayed: BTreeMap::new(),
            superseded: None,
            packets: BTreeMap::new(),
            term,
            offered: BTreeMap::new(),
            standbys: BTreeSet::new(),
            introducer: Introducer::default(),
            said: Speech::default(),
            started: false,
            renewal: Renewal::new(NodeKind::Cloud, seed.rotate_left(40)),
            rate: Rate::default(),
            monitor: Monitor::new(NodeKind::Cloud, now),
            ledger: Ledger::default(),
            asking: Asking::default(),
            inquiries: Inquiries::default(),
            asker: None,
            feed: Feed::load(&mut keyspace, seed),
            mesh: Hub::load(me.clone(), seed.rotate_left(16), &mut keyspace),
            cluster,
            ca,
            me,
            signer,
            binder,
            keyspace,
            twins,
            policy: Arc::default(),
        })
    }

    pub fn handle(&mut self, input: Input, now: Now) {
        if !std::mem::replace(&mut self.started, true) {
            self.say_policy();
            self.say_overlay();
            self.say_names();
            self.say_wireguard();
            self.say_users();
            self.tell_of_restart(now);
        }
        match input {
            Input::LinkUp { link, peer, key, .. } => self.handle_link_up(link, peer, key, now),
            Input::PeerPackets { link, peer, key, remote } => {
                self.handle_peer_packets(link, peer, key, remote);
            }
            Input::PacketsDown { link } => self.handle_packets_down(link),
            Input::Moved { link, remote } => {
                if let Some((node, _)) = self.packets.iter().find(|(_, kept)| **kept == link) {
                    self.introducer.handle_moved(node, remote);
                }
            }
            Input::LinkDown { link } => {
                self.standbys.remove(&link);
                self.offered.remove(&link);
                self.bus.handle_link_down(link, now);
            }
            Input::Frame { link, frame } => self.handle_frame(link, &frame, now),
            Input::Join { link, request } => self.handle_join(link, &request, now),
            Input::Renew { link, peer, key, request } => self.handle_renew(link, &peer, key, &request, now),
            Input::Certificate(news) => drop(self.renewal.handle(news, now)),
            Input::Mqtt { ticket, topic, payload, qos, retain, expiry, properties, rows, .. }
                if is_mesh(&topic) =>
            {
                broker_rows::write(rows, &mut self.keyspace);
                let message = Message::new(topic, payload, retain, self.me.clone());
                let expiry = expiry.map(|Expiry(life)| life);
                self.say_to_sites(ticket, Message { qos, expiry, properties, ..message }, now);
            }
            Input::Mqtt { ticket, who, topic, payload, expiry, properties, rows, .. } => {
                broker_rows::write(rows, &mut self.keyspace);
                if let Some(why) = self.journal.degraded() {
                    self.twins.handle_refused(&topic, why);
                    self.said.extend(ticket.map(Output::Unkept));
                } else {
                    let said = Said { payload: &payload, expiry, reply: ReplyTo::of(&properties) };
                    self.twins.handle_mqtt(ticket, &who, &topic, said, &mut self.keyspace, now);
                }
            }
            Input::Keep { ticket, rows, receipt } => {
                broker_rows::write(rows, &mut self.keyspace);
                if let Some(ticket) = ticket {
                    self.said.promise(Output::Accept(ticket), Some(Output::Unkept(ticket)));
                }
                receipt.into_iter().for_each(|receipt| self.mesh.handle_taken(receipt));
            }
            // Nothing is said here on KubeEdge's topics unasked.
            Input::Interest { filter, .. } if kubeedge::is_served(filter.as_str()) => {}
            Input::Restored => self.mesh.handle_restored(&mut self.keyspace),
            Input::Interest { filter, wanted } => {
                self.interest.change(&filter, wanted, &mut self.bus);
                self.mesh.handle_interest(&filter, wanted, &mut self.keyspace, now.wall);
            }
            Input::Persisted(revision) => {
                if !self.journal.handle_persisted(revision) {
                    return;
                }
                self.feed.handle_disk_back(&self.keyspace, now);
            }
            Input::Degraded { why } => {
                let text = format!("the disk refuses writes: {why}");
                self.monitor.handle_trouble(TroubleKind::Disk, &text, now.wall);
                self.monitor.handle_change(now.mono);
                self.journal.handle_degraded(why, now);
            }
            Input::Backup { id } => {
                // Durable when it is said; while the disk refuses, a copy on another one is wanted all the more.
                let snapshot = self.snapshot();
                self.said.push_back(Output::Backup { id, snapshot });
            }
            Input::Admin { id, request } => self.handle_admin(id, request, now),
            Input::Measured(measured) => self.handle_measured(*measured, now),
            Input::Fleet { id } => self.say_fleet(id, now),
            // Nobody makes a cloud check.
            Input::Examined { .. } => {}
            Input::Order { id, who, request } => {
                self.asker = Some(who);
                self.handle_admin(id, request, now);
                self.asker = None;
            }
            Input::Api { id, request } => self.handle_api(id, request, now),
            Input::Timeout => {
                self.renewal.handle_timeout(now);
                self.monitor.handle_timeout(now.mono);
                if self.monitor.poll_measure() {
                    self.said.push_back(Output::Measure);
                }
                self.bus.handle_timeout(now);
                self.feed.handle_timeout(&self.keyspace, now);
                self.twins.handle_timeout(&mut self.keyspace, now);
                self.asking.handle_timeout(now.mono);
                self.inquiries.handle_timeout(now.mono);
                self.herald.handle_timeout(&mut self.keyspace, now);
            }
            Input::Wireguard(gateway) => {
                let me = self.me.clone();
                wireguard::handle_gateway(&me, Some(&gateway), &mut self.keyspace);
            }
            // A cloud dials nobody, and runs no rules.
            Input::PacketsUp { .. }
            | Input::DialFailed { .. }
            | Input::Talk { .. }
            | Input::Local { .. }
            | Input::RuleLog
            | Input::Recalled(_)
            | Input::DmiAnswer { .. } => {}
            Input::Dmi { ticket, .. } => {
                self.said.push_back(Output::Reject(ticket, "mappers are served by edges".to_owned()));
            }
        }
        self.settle(now);
    }

    /// An app's message; what is neither promised nor retained is worth no disk.
    fn say_to_sites(&mut self, ticket: Option<Ticket>, message: Message, now: Now) {
        if message.qos == Qos::AtMostOnce && !message.retain {
            self.bus.publish(message, now);
            return self.said.extend(ticket.map(Output::Accept));
        }
        self.mesh.publish(message, &mut self.keyspace, now.wall);
        if let Some(ticket) = ticket {
            self.said.promise(Output::Accept(ticket), Some(Output::Unkept(ticket)));
        }
    }

    /// A certificate lives longer than a membership, and a name may have been given to another key since: who is not
    /// in the register as it stands now is turned away here.
    ///
    /// One that shows its next key for the first time has no other one from then on.
    fn is_member(&mut self, peer: &NodeId, key: KeyHash) -> bool {
        let known = nodes::get(&peer.name, &self.keyspace).ok().flatten();
        if peer.kind != NodeKind::Edge || known.is_none_or(|node| node.until(key).is_none()) {
            return false;
        }
        if let Ok(Some(_)) = nodes::promote(&peer.name, key, &mut self.keyspace) {
            self.note(format!("{peer} uses its next certificate: the one before counts no more"));
        }
        true
    }

    fn turn_away(&mut self, link: LinkId, peer: &NodeId) {
        self.note(format!("turned {peer} away: not a member, or with another key"));
        self.close(link, "not a member of this cluster any more: join again");
    }

    fn handle_link_up(&mut self, link: LinkId, peer: NodeId, key: KeyHash, now: Now) {
        if let Some(term) = self.term.filter(|_| peer == self.me) {
            self.standbys.insert(link);
            return self.say_leads(link, term);
        }
        if !self.is_member(&peer, key) {
            return self.turn_away(link, &peer);
        }
        match self.term {
            Some(term) => {
                let older = self.offered.iter().find(|(_, (offered, _))| *offered == peer);
                if let Some(older) = older.map(|(link, _)| *link) {
                    self.offered.remove(&older);
                    self.close(older, "replaced by a newer link of the same node");
                }
                self.offered.insert(link, (peer, key));
                self.say_leads(link, term);
            }
            None => self.bus.handle_link_up(link, peer, now),
        }
    }

    /// Nothing else before the other side has answered: it may follow another replica.
    fn say_leads(&mut self, link: LinkId, term: u64) {
        let frame = Frame::new(Channel::Path, PathMessage::Leads { term }.to_bytes());
        self.said.push_back(Output::Send { link, class: Class::Control, frame });
    }

    /// An edge speaks: it follows this replica.
    fn handle_followed(&mut self, link: LinkId, now: Now) {
        let Some((peer, key)) = self.offered.remove(&link) else { return };
        if self.is_member(&peer, key) {
            self.bus.handle_link_up(link, peer, now);
        } else {
            self.turn_away(link, &peer);
        }
    }

    fn handle_peer_packets(&mut self, link: LinkId, peer: NodeId, key: KeyHash, remote: SocketAddr) {
        if self.is_member(&peer, key) {
            self.introducer.handle_seen(peer.clone(), key, remote);
            self.packets.insert(peer, link);
            self.said.push_back(Output::Admit { link });
        } else {
            self.turn_away(link, &peer);
        }
    }

    fn handle_packets_down(&mut self, link: LinkId) {
        let gone: Vec<NodeId> =
            self.packets.iter().filter(|(_, kept)| **kept == link).map(|(node, _)| node.clone()).collect();
        for node in gone {
            self.packets.remove(&node);
            self.introducer.handle_unseen(&node);
        }
    }

    /// Two edges that wish for each other are introduced.
    fn handle_path(&mut self, link: LinkId, payload: &[u8], now: Now) {
        let Some(peer) = self.bus.peer_of(link).cloned() else { return };
        match PathMessage::from_bytes(payload) {
            Some(PathMessage::Here { addresses }) => self.introducer.handle_here(peer, addresses),
            Some(PathMessage::Wish { peer: wished }) => {
                let Some(met) = self.introducer.handle_wish(&peer, &wished, now.mono) else { return };
                // Where others are is nobody else's business.
                if !access::may_talk(&peer, &wished, &self.keyspace).unwrap_or(false) {
                    return;
                }
                for (node, message) in met {
                    if let Some(link) = self.bus.link_of(&node) {
                        let frame = Frame::new(Channel::Path, message.to_bytes());
                        self.said.push_back(Output::Send { link, class: Class::Control, frame });
                    }
                }
            }
            Some(
                PathMessage::Meet { .. }
                | PathMessage::Upstream { .. }
                | PathMessage::Standby
                | PathMessage::Leads { .. },
            )
            | None => {
                self.close(link, "the peer sent a message about paths that makes no sense here");
            }
        }
    }

    fn handle_frame(&mut self, link: LinkId, frame: &Frame, now: Now) {
        self.handle_followed(link, now);
        match frame.channel {
            Channel::Bus => self.bus.handle_frame(link, &frame.payload, now),
            Channel::Metadata => {
                // A frame that crossed with a close finds no peer.
                if let Some(peer) = self.bus.peer_of(link).map(|peer| peer.name.clone()) {
                    self.feed.handle_frame(&peer, &frame.payload, &mut self.keyspace, now);
                }
            }
            Channel::Join => self.close(link, "a join frame on the bus lane"),
            Channel::Path => self.handle_path(link, &frame.payload, now),
            Channel::Health => self.handle_health(link, &frame.payload, now),
            Channel::Checkup => self.handle_checkup(link, &frame.payload, now),
            Channel::History => self.handle_history(link, &frame.payload),
        }
    }

    /// Who asks, for whoever reads it later; at the console it is `command`.
    fn by(&self, command: &str) -> String {
        self.asker.as_ref().map_or_else(|| command.to_owned(), ToString::to_string)
    }

    fn say_users(&mut self) {
        let users = Users::load(user::PREFIX, &self.keyspace);
        self.said.push_back(Output::Users(Arc::new(users)));
    }

    fn handle_admin(&mut self, id: u64, request: AdminRequest, now: Now) {
        if let AdminRequest::Examine { node } = &request {
            // The edge's word is waited for.
            self.examine(id, node, now);
        } else if let AdminRequest::History(question) = request {
            self.ask_for_history(id, question, now);
        } else if !request.writes() {
            let response = self.answer(request, now);
            self.said.push_back(Output::Admin { id, response });
        } else if let Some(why) = self.journal.degraded() {
            let response = Err(AdminError::Degraded(why.to_owned()));
            self.said.push_back(Output::Admin { id, response });
        } else {
            let response = self.answer(request, now);
            let otherwise = Output::Admin { id, response: Err(AdminError::Unkept) };
            self.said.promise(Output::Admin { id, response }, Some(otherwise));
        }
    }

    fn handle_join(&mut self, link: LinkId, request: &[u8], now: Now) {
        let refusal = |message: &str| {
            let reply = JoinReply::Refused { code: RefusalCode::Internal, message: message.to_owned() };
            let frame = Frame::new(Channel::Join, reply.to_bytes());
            Output::Send { link, class: Class::Control, frame }
        };
        if let Some(why) = self.journal.degraded() {
            return self.said.push_back(refusal(&format!("the cloud's disk refuses writes: {why}")));
        }
        let before = nodes_of(&self.keyspace);
        let known = route::translated(&self.keyspace).unwrap_or_default();
        let reply =
            controller::handle_join(&self.cluster, request, &mut self.keyspace, now, &mut self.signer);
        self.on_membership(&before);
        self.note_translated(&known);
        let frame = Frame::new(Channel::Join, reply);
        let otherwise = refusal("the cloud's disk refuses writes: join again once it takes them");
        self.said.promise(Output::Send { link, class: Class::Control, frame }, Some(otherwise));
    }

    /// Says of which LANs the overlay's prefix has changed: hosts elsewhere may still use the old one.
    fn note_translated(&mut self, before: &[Route]) {
        let now = route::translated(&self.keyspace).unwrap_or_default();
        for route in now.iter().filter(|route| !before.contains(route)) {
            let (lan, owner, prefix) = (route.behind(), &route.owner, route.prefix);
            self.note(format!("{lan} behind {owner} is known as {prefix}: another LAN overlaps it"));
        }
    }

    /// Lets the parts hear each other until all are silent, and edges hear of what that wrote.
    fn settle(&mut self, now: Now) {
        self.drain(now);
        self.mesh.settle(&mut self.keyspace, now.wall);
        self.drain(now);
        let before = self.keyspace.revision();
        self.close_cycle();
        if self.keyspace.revision() > before {
            self.feed.handle_commit(&self.keyspace, now);
            self.drain(now);
            self.close_cycle();
        }
    }

    fn close_cycle(&mut self) {
        let Self { index, keyspace, journal, said, .. } = self;
        crate::resources::seal(index, keyspace, |keyspace| journal.close_cycle(keyspace, said.drain()));
    }

    /// What is durable of each kind of resource.
    pub fn moved(&self) -> Moved {
        self.index.moved(self.journal.durable(), &self.keyspace)
    }

    fn drain(&mut self, now: Now) {
        if let Some(count) = self.herald.take_left_out(now) {
            self.note(format!("{count} events of devices are left out: there are too many in a minute"));
        }
        loop {
            if let Some(output) = self.bus.poll_output() {
                self.on_bus(output, now);
            } else if let Some(output) = self.feed.poll_output() {
                self.on_feed(output, now);
            } else if let Some(output) = self.twins.poll_output() {
                self.on_twins(output, now);
            } else if let Some(output) = self.mesh.poll_output() {
                self.on_mesh(output);
            } else if let Some(output) = self.asking.poll_output() {
                self.on_asking(output);
            } else if let Some(output) = self.inquiries.poll_output() {
                self.on_inquiries(output);
            } else if let Some(wish) = self.renewal.poll_output() {
                self.on_renewal(wish);
            } else {
                return;
            }
        }
    }

    fn on_bus(&mut self, output: bus::bus::Output, now: Now) {
        use bus::bus::Output as FromBus;
        match output {
            FromBus::Send { link, class, frame } => self.said.push_back(Output::Send { link, class, frame }),
            // What is said here of twins is said by the twins here.
            FromBus::Deliver(message) if !is_mesh(&message.topic) => {}
            FromBus::Deliver(message) => self.said.extend(announced(message).map(Output::Publish)),
            FromBus::PeerUp { peer, .. } => {
                self.note(format!("{peer} is connected"));
                self.ledger.handle_up(&peer.name, now);
                self.monitor.handle_change(now.mono);
                self.tell_of_node(&peer.name, Severity::Normal, event::CONNECTED, "its link stands", now);
                // Before it is sent anything: what is too old by now is not handed out.
                self.twins.handle_edge_up(&peer.name, &mut self.keyspace, now);
                self.feed.handle_edge_up(&peer.name, now);
            }
            FromBus::PeerDown { peer, .. } => {
                self.note(format!("{peer} is gone"));
                self.ledger.handle_down(&peer.name, now);
                self.asking.handle_down(&peer.name, now.mono);
                self.inquiries.handle_gone(&peer.name);
                self.monitor.handle_change(now.mono);
                self.tell_of_node(
                    &peer.name,
                    Severity::Warning,
                    event::DISCONNECTED,
                    "its link is gone",
                    now,
                );
                self.introducer.handle_gone(&peer);
                self.feed.handle_edge_down(&peer.name, now);
                self.twins.handle_edge_down(&peer.name);
            }
            FromBus::Wanted { peer, filter } => self.replay(&peer, &filter, now),
            FromBus::Offered { from, message } => self.on_offer(&from, message, now),
            FromBus::Close { link, why } => self.said.push_back(Output::Close { link, why: why.to_string() }),
        }
    }

    fn on_feed(&mut self, output: FeedOutput, now: Now) {
        match output {
            FeedOutput::Send { edge, class, payload, tells } => {
                if let Some(link) = self.bus.link_of(&NodeId::edge(edge)) {
                    let frame = Frame::new(Channel::Metadata, payload);
                    self.say_to_edge(Output::Send { link, class, frame }, tells);
                }
            }
            FeedOutput::Up { edge, entry, .. } if entry.lane == Lane::Mesh => {
                let clock = self.bus.clock_of(&NodeId::edge(edge.clone()), now);
                let theirs = clock.map_or(now.wall, |clock| now.wall.shifted(clock.offset_ms));
                self.mesh.handle_message(&edge, &entry.payload, &mut self.keyspace, theirs, now.wall);
            }
            FeedOutput::Up { edge, entry, .. } if entry.key.starts_with(leaf::UP) => {
                self.mesh.handle_told(&edge, &entry.key, &entry.payload, &mut self.keyspace, now.wall);
            }
            FeedOutput::Up { edge, entry, .. } if entry.key == advert::UP => {
                for lan in advert::handle_told(&edge, &entry.payload, &mut self.keyspace) {
                    let why = format!("nobody has granted it {lan}: kubebus route approve {edge} {lan}");
                    self.tell_of_node(&edge, Severity::Warning, "LanPending", &why, now);
                    self.note(format!(
                        "edge/{edge} names {lan}, which nobody has granted it: kubebus route approve {edge} {lan}"
                    ));
                }
            }
            FeedOutput::Up { edge, entry, .. } if entry.key == wireguard::UP => {
                match minicbor::decode(&entry.payload) {
                    Ok(gateway) => {
                        let node = NodeId::edge(edge);
                        if !wireguard::handle_gateway(&node, Some(&gateway), &mut self.keyspace) {
                            self.note(format!("{node} says that WireGuard clients dial what is no address: not taken"));
                        }
                    }
                    Err(why) => self.note(format!("what edge/{edge} says of its WireGuard gateway cannot be read: {why}")),
                }
            }
            FeedOutput::Up { edge, incarnation, entry } => {
                self.twins.handle_up(&edge, incarnation, &entry.key, &entry.payload, &mut self.keyspace, now);
                self.tell_of_rule(&edge, &entry.key, &entry.payload, now);
            }
            FeedOutput::NewIncarnation { edge, cause, .. } => self.on_new_incarnation(&edge, cause),
            FeedOutput::Gap { edge, class, from, to, .. } => {
                let what = if class == Class::Telemetry { "samples" } else { "events" };
                self.note(format!("edge/{edge} had no room for its {what} {from} to {to}: they are lost"));
            }
            FeedOutput::Differed { edge } => self.note(format!(
                "edge/{edge} held other metadata than it was sent, and is sent it again: its disk or memory may be failing"
            )),
            FeedOutput::Oversized { edge, key } => {
                self.note(format!("{key} is too large for edge/{edge}, which goes without it"));
            }
            FeedOutput::Misbehaved { edge, what } => {
                if let Some(link) = self.bus.link_of(&NodeId::edge(edge)) {
                    self.close(link, &format!("the peer {what}"));
                }
            }
            FeedOutput::Superseded { edge, epoch } => {
                self.superseded = self.superseded.max(Some(epoch));
                self.note(format!(
                    "another cloud, restored from a backup of this one, has taken over (edge/{edge} followed it at \
                     epoch {epoch}): stop this one"
                ));
                let node = NodeId::edge(edge);
                let packets = self.packets.remove(&node);
                for link in self.bus.link_of(&node).into_iter().chain(packets) {
                    self.close(link, "another cloud has taken over from this one");
                }
            }
        }
    }

    /// Its versions start over: what other sites were told of its devices counts no more.
    fn on_new_incarnation(&mut self, edge: &Name, cause: Cause) {
        self.mesh.handle_new_incarnation(edge, cause, &mut self.keyspace);
        let is_its_own = |topic: &Topic| {
            TwinTopic::parse(topic).is_some_and(|twin| self.twins.is_bound(twin.device(), edge))
        };
        self.relayed.retain(|topic, _| !is_its_own(topic));
        self.note(match cause {
                Cause::NewDisk => {
                    format!("edge/{edge} has a new store, first seen, wiped or replaced; it is sent everything")
                }
                Cause::Renewed => format!(
                    "edge/{edge} runs on another store than the one heard last, an old copy or a clone: it goes on as a \
                     new one and is sent everything"
                ),
                Cause::Returned => format!(
                    "two machines take turns as edge/{edge}: stop one, or join it under another name; it is sent \
                     everything"
                ),
            });
    }

    /// Edges must not act on a wish that a crash here could undo: its number would be given to another one. While the
    /// disk refuses, what edges follow does not change, so they are served, unless something was just being written.
    /// What is left out the feed says again.
    fn say_to_edge(&mut self, output: Output, tells: Tells) {
        let may_be_undone = match (tells, self.journal.degraded()) {
            (Tells::Nothing, _) => false,
            (Tells::Shared, Some(_)) => self.keyspace.is_followed_after(self.journal.durable()),
            (Tells::Shared, None) | (Tells::Stored, _) => true,
        };
        match may_be_undone {
            true => self.said.promise(output, None),
            false => self.said.push_back(output),
        }
    }

    /// Nodes came, changed or went: devices that waited for them are bound, and their sites and routes count.
    fn on_membership(&mut self, before: &Members) {
        let after = nodes_of(&self.keyspace);
        let mut changed: Vec<&Key> = before.keys().chain(after.keys()).collect();
        changed.retain(|key| before.get(*key) != after.get(*key));
        if changed.is_empty() {
            return; // A refused stranger costs no more than this look.
        }
        let edges =
            changed.iter().filter_map(|key| Name::new(key.as_str().strip_prefix(nodes::PREFIX)?).ok());
        let here: Vec<Name> = edges.filter(|edge| nodes::exists(edge, &self.keyspace)).collect();
        self.binder.handle_changes(changed, &mut self.keyspace);
        let is_member = |edge: &Name| after.contains_key(format!("{}{edge}", nodes::PREFIX).as_str());
        self.mesh.handle_membership(is_member, &mut self.keyspace);
        self.ledger.retain(is_member);
        if let Err(damaged) = access::tell_changed(here, &mut self.keyspace) {
            self.note(format!("edges are not told of access policies: {}", describe(&damaged)));
        }
        self.say_policy();
        self.say_overlay();
        self.say_names();
    }

    /// What is retained, to a site that newly asks for it; what went straight from site to site may be newer than the
    /// copy here.
    fn replay(&mut self, peer: &NodeId, filter: &Filter, now: Now) {
        for Publish { topic, payload, retain, .. } in self.twins.retained(filter) {
            let told =
                self.relayed.get(&topic).filter(|told| rev_of(&payload).is_some_and(|rev| rev < told.rev));
            let payload = told.map_or(payload, |told| told.payload.clone());
            // How long it has been here nobody counts.
            let message = Message::new(topic.clone(), payload, retain, self.origin_of(&topic));
            self.bus.send_to(peer, Message { travelled: None, ..message }, now);
        }
    }

    /// A copy of what an edge reported is that edge's word: so others know whose the device is, and it gets no echo.
    fn origin_of(&self, topic: &Topic) -> NodeId {
        let device = match TwinTopic::parse(topic) {
            Some(TwinTopic::Reported { device, .. }) => self.twins.catalog().device(&device),
            Some(_) | None => None,
        };
        let edge = device.and_then(|device| device.node.clone());
        edge.map_or_else(|| self.me.clone(), NodeId::edge)
    }

    /// What a peer says to other sites. Messages of apps pass as they are. A report straight from its edge is fresher
    /// than the copy that comes through the outbox, and says its age; only the edge that has a device speaks for it.
    fn on_offer(&mut self, from: &NodeId, message: Message, now: Now) {
        if message.origin != *from {
            return self.note(format!("{from} spoke for {}: not passed on", message.origin));
        }
        if is_mesh(&message.topic) {
            return self.bus.relay(from, message, now);
        }
        let Some(TwinTopic::Reported { device, property }) = TwinTopic::parse(&message.topic) else { return };
        if !self.twins.speaks_for(&from.name, &device)
            || self.twins.catalog().property(&device, &property).is_err()
        {
            return self.note(format!("{from} spoke for {device}, which is not its own: not passed on"));
        }
        // The same version as the copy's is passed on all the same: it alone says its age.
        let Some(rev) = rev_of(&message.payload) else { return };
        if self.relayed.get(&message.topic).is_none_or(|newest| newest.rev <= rev) {
            self.relayed.insert(message.topic.clone(), Told { rev, payload: message.payload.clone() });
            self.bus.relay(from, message, now);
        }
    }

    fn on_twins(&mut self, output: FromTwins, now: Now) {
        match &output {
            FromTwins::Publish(publish) => {
                self.herald.handle_publish(publish, self.twins.catalog(), &mut self.keyspace, now);
            }
            FromTwins::Audit(entry) => self.herald.handle_audit(entry, &mut self.keyspace, now),
            FromTwins::Reply(_) | FromTwins::Accept(_) | FromTwins::Reject(..) => {}
        }
        match output {
            FromTwins::Publish(Publish { topic, payload, retain, expiry }) => {
                if self.is_news(&topic, &payload) {
                    let origin = self.origin_of(&topic);
                    self.bus.publish(Message::new(topic.clone(), payload.clone(), retain, origin), now);
                }
                self.said.push_back(Output::Publish(Publish { topic, payload, retain, expiry }.into()));
            }
            FromTwins::Reply(announcement) => self.said.push_back(Output::Publish(announcement)),
            FromTwins::Accept(ticket) => {
                self.said.promise(Output::Accept(ticket), Some(Output::Unkept(ticket)));
            }
            FromTwins::Reject(ticket, why) => self.said.push_back(Output::Reject(ticket, why)),
            FromTwins::Audit(entry) => self.said.push_back(Output::Record(Record::Audit(entry))),
        }
    }

    fn on_mesh(&mut self, output: FromMesh) {
        match output {
            FromMesh::Announce(announcement) => self.said.push_back(Output::Publish(announcement)),
            FromMesh::Note(text) => self.note(text),
        }
    }

    /// A device that moved to another edge is numbered anew: what other sites were told of it counts no more.
    fn forget_relayed(&mut self, device: &DeviceId) {
        let prefix = format!("twin/{device}/");
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let its = self.relayed.range::<str, _>(from).map(|(topic, _)| topic);
        let its: Vec<Topic> = its.take_while(|topic| topic.as_str().starts_with(&prefix)).cloned().collect();
        for topic in &its {
            self.relayed.remove(topic);
        }
    }

    /// Whether other sites have not heard this yet; only reported values take two ways.
    fn is_news(&mut self, topic: &Topic, payload: &Bytes) -> bool {
        let Some(TwinTopic::Reported { .. }) = TwinTopic::parse(topic) else { return true };
        // An empty payload takes the value back.
        let Some(rev) = rev_of(payload) else { return true };
        let is_newer = self.relayed.get(topic).is_none_or(|newest| newest.rev < rev);
        if is_newer {
            self.relayed.insert(topic.clone(), Told { rev, payload: payload.clone() });
        }
        is_newer
    }

    fn say_overlay(&mut self) {
        let lease = lease::of(&self.me, &self.keyspace).ok().flatten();
        let routes = route::list(&self.keyspace).ok();
        if let (Some(lease), Some(routes)) = (lease, routes) {
            self.said.push_back(Output::Overlay { lease, routes });
        }
    }

    fn say_names(&mut self) {
        let lease = lease::of(&self.me, &self.keyspace).ok().flatten();
        let (Some(lease), Ok(routes)) = (lease, route::list(&self.keyspace)) else { return };
        let names = Names::new(Facts {
            me: &self.identity(),
            lease: &lease,
            routes: &routes,
            sites: &site::list(site::PREFIX, &self.keyspace),
            hosts: &host::list(host::PREFIX, &self.keyspace),
            revision: self.keyspace.revision(),
        });
        self.said.push_back(Output::Names(Arc::new(names)));
    }

    fn identity(&self) -> Identity {
        Identity { cluster: self.cluster.name.clone(), node: self.me.clone() }
    }

    fn say_wireguard(&mut self) {
        match wireguard::behind(&self.me, &self.keyspace) {
            Ok(clients) => self.said.push_back(Output::Wireguard(clients)),
            Err(damaged) => self.note(format!("WireGuard clients are not let in: {}", describe(&damaged))),
        }
    }

    fn say_policy(&mut self) {
        // Without its routes a cloud passes nothing on anyway.
        let routes = route::list(&self.keyspace).unwrap_or_default();
        let sites = site::list(site::PREFIX, &self.keyspace);
        self.policy = Arc::new(Policy::for_hub(&routes, &sites, &access::rules(&self.keyspace)));
        self.said.push_back(Output::Policy(Arc::clone(&self.policy)));
    }

    /// Says goodbye to all edges: step two of the shutdown.
    pub fn goodbye(&mut self) {
        self.bus.goodbye();
        while let Some(output) = self.bus.poll_output() {
            if let bus::bus::Output::Send { link, class, frame } = output {
                self.said.push_back(Output::Send { link, class, frame });
            }
        }
        self.close_cycle();
        self.journal.handle_stop();
    }

    /// Why this cloud can promise nothing, and takes no wishes, manifests, tokens and nodes, at present.
    pub fn degraded(&self) -> Option<&str> {
        self.journal.degraded()
    }

    pub fn is_full(&self) -> bool {
        self.journal.is_full()
    }

    /// What this cloud holds: for the oracle of the deterministic world.
    pub fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.journal.poll().map(Output::from)
    }

    pub fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        if !self.started {
            return Some((Mono::ZERO, "start"));
        }
        let timeouts = [
            self.bus.poll_timeout(),
            self.feed.poll_timeout(),
            self.twins.poll_timeout(),
            self.asking.poll_timeout(),
            self.inquiries.poll_timeout(),
            self.renewal.poll_timeout(),
            Some(self.monitor.poll_timeout()),
            self.herald.poll_timeout(),
        ];
        timeouts.into_iter().flatten().min()
    }

    fn close(&mut self, link: LinkId, why: &str) {
        self.said.push_back(Output::Close { link, why: why.to_owned() });
    }

    /// Nobody is connected yet. Who watches an edge would else see it as the last process left it, until it comes back.
    fn tell_of_restart(&mut self, now: Now) {
        for edge in event::connected(Layout::Cloud, &self.keyspace) {
            self.tell_of_node(&edge, Severity::Warning, event::DISCONNECTED, "the cloud was restarted", now);
        }
    }

    /// A rule stands otherwise, at the edge that speaks for its device.
    fn tell_of_rule(&mut self, edge: &Name, key: &str, payload: &[u8], now: Now) {
        let Some(rule) = key.strip_prefix("rule/") else { return };
        let Ok(view) = minicbor::decode::<RuleView>(payload) else { return };
        let output = view.output.rsplit_once('/').and_then(|(device, _)| device.parse().ok());
        let is_its = output.is_some_and(|device: DeviceId| self.twins.is_bound(&device, edge));
        if view.rule == rule && is_its {
            self.herald.handle_rule(&view, &mut self.keyspace, now);
        }
    }

    /// An event about an edge, for `kubectl describe`.
    fn tell_of_node(
        &mut self,
        edge: &Name,
        severity: Severity,
        reason: &'static str,
        message: &str,
        now: Now,
    ) {
        let about = Id::from(edge.as_str());
        let message = message.to_owned();
        let kind = Kind::EdgeNode;
        let (at, subject, count) = (now.wall, None, 1);
        let event = Event { kind, about, severity, reason, subject, message, at, count };
        event::record(Layout::Cloud, event, &mut self.keyspace);
    }

    fn note(&mut self, text: String) {
        self.said.push_back(Output::Note(text));
    }
}

/// What other sites were last told of a reported value.
#[derive(Debug)]
struct Told {
    rev: u64,
    payload: Bytes,
}

/// As their edges said last.
fn states(keyspace: &Keyspace) -> impl Iterator<Item = (DeviceId, Availability)> {
    keyspace.range("/c/state/").filter_map(|(key, bytes)| {
        let state: DeviceState = minicbor::decode(bytes).ok()?;
        Some((key.as_str().strip_prefix("/c/state/")?.parse().ok()?, state.state))
    })
}

/// The version within its edge's incarnation; what is no reported value has none.
fn rev_of(payload: &[u8]) -> Option<u64> {
    serde_json::from_slice::<device_twin::twin::ReportedBody>(payload).ok().map(|body| body.rev)
}

/// The register's records by key.
type Members = BTreeMap<Key, Bytes>;

fn nodes_of(keyspace: &Keyspace) -> Members {
    keyspace.range(nodes::PREFIX).map(|(key, record)| (key.clone(), record.clone())).collect()
}

#[cfg(test)]
mod tests;

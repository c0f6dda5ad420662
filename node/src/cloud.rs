//! The cloud: bus, feed, twins and controllers in one cycle.

mod answers;
mod checkup;
mod events;
mod feed;
mod health;
mod history;
mod links;
mod membership;
mod renew;
mod resources;
mod shell;
mod shown;
mod sites;
mod steering;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bus::bus::{LinkId, Role};
use bus::token::CaHash;
use bus::{Bus, Channel, Frame, Identity, KeyHash, Message, Mono, NodeId, NodeKind, Now, Topic};
use controller::api::index::Moved;
use controller::api::{Index, Layout};
use controller::binding::Binder;
use controller::cluster::EstablishError;
use controller::event::{self, Severity};
use controller::join::{CsrError, Signed};
use controller::renew::Rate;
use controller::{CloudSubnets, Cluster, access, wireguard};
use device_twin::cloud::Output as FromTwins;
use device_twin::reply::ReplyTo;
use device_twin::twin::Said;
use device_twin::{CloudTwins, Expiry, Publish, kubeedge};
use metadata::{Feed, Keyspace};
use router::Policy;
use router::direct::Introducer;

use self::events::states;
use self::sites::Told;

use crate::admin::{AdminError, AdminRequest};
use crate::broker_rows;
use crate::checkup::Asking;
use crate::health::{Ledger, Monitor, TroubleKind};
use crate::herald::Herald;
use crate::history::Inquiries;
use crate::interest::{Interest, announced};
use crate::journal::{Journal, Speech};
use crate::mesh::{Hub, is_mesh};
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

    fn identity(&self) -> Identity {
        Identity { cluster: self.cluster.name.clone(), node: self.me.clone() }
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

    fn note(&mut self, text: String) {
        self.said.push_back(Output::Note(text));
    }
}

#[cfg(test)]
mod tests;

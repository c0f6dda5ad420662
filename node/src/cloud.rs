//! The cloud: bus, feed, twins and controllers in one cycle.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use bus::bus::{LinkId, Role};
use bus::token::{CaHash, JoinToken};
use bus::twin::{DeviceId, TwinTopic};
use bus::{
    Bus, Channel, Class, Frame, Identity, KeyHash, Message, Mono, Name, NodeId, NodeKind, Now, Topic, Value,
};
use controller::binding::Binder;
use controller::cluster::EstablishError;
use controller::join::{CsrError, Signed};
use controller::resource::{self, Applied, Manifest};
use controller::token::{self, TokenSpec};
use controller::{CloudSubnets, Cluster, lease, nodes, route};
use device_twin::cloud::{Output as FromTwins, SetError};
use device_twin::model::Kind;
use device_twin::{CloudTwins, Publish};
use metadata::{Feed, FeedOutput, Key, Keyspace};
use serde_json::json;

use crate::admin::{self, AdminError, AdminRequest, AdminResponse, TokenOrder};
use crate::interest::Interest;
use crate::journal::{Journal, Ready};
use crate::seam::{Input, Output};

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
    bus: Bus,
    feed: Feed,
    twins: CloudTwins,
    interest: Interest,
    /// The newest version of each reported value that other sites were told, by either of its two ways: none goes back.
    /// Bounded by the properties that the catalog knows.
    relayed: BTreeMap<Topic, u64>,
    /// The packets connection of each member.
    packets: BTreeMap<NodeId, LinkId>,
    /// Said in the present cycle.
    said: VecDeque<Output>,
    started: bool,
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
        let CloudSettings { cluster, subnets, ca, seed } = settings;
        let loaded = keyspace.revision();
        cluster.establish(&subnets, &mut keyspace, now)?;
        let binder = Binder::load(&keyspace);
        binder.reconcile_all(&mut keyspace);
        let me = cluster.cloud_id();
        let mut twins = CloudTwins::new();
        twins.load(&mut keyspace, now);
        Ok(Self {
            bus: Bus::new(me.clone(), Role::Hub),
            journal: Journal::new(loaded),
            interest: Interest::default(),
            relayed: BTreeMap::new(),
            packets: BTreeMap::new(),
            said: VecDeque::new(),
            started: false,
            feed: Feed::load(&mut keyspace, seed),
            cluster,
            ca,
            me,
            signer,
            binder,
            keyspace,
            twins,
        })
    }

    pub fn handle(&mut self, input: Input, now: Now) {
        if !std::mem::replace(&mut self.started, true) {
            self.say_overlay();
        }
        match input {
            Input::LinkUp { link, peer, key, .. } => self.handle_link_up(link, peer, key, now),
            Input::PeerPackets { link, peer, key } => self.handle_peer_packets(link, peer, key),
            Input::PacketsDown { link } => self.packets.retain(|_, kept| *kept != link),
            Input::LinkDown { link } => self.bus.handle_link_down(link, now),
            Input::Frame { link, frame } => self.handle_frame(link, &frame, now),
            Input::Join { link, request } => self.handle_join(link, &request, now),
            Input::Mqtt { ticket, topic, payload, retain } => {
                if topic.as_str().starts_with("mesh/") {
                    self.bus.publish(Message::new(topic, payload, retain, self.me.clone()), now);
                    self.said.extend(ticket.map(Output::Accept));
                } else {
                    self.twins.handle_mqtt(ticket, &topic, &payload, &mut self.keyspace, now);
                }
            }
            Input::Interest { filter, wanted } => self.interest.change(&filter, wanted, &mut self.bus),
            Input::Persisted(revision) => return self.journal.handle_persisted(revision),
            Input::Admin { id, request } => {
                let response = self.answer(request, now);
                self.said.push_back(Output::Admin { id, response });
            }
            Input::Timeout => {
                self.bus.handle_timeout(now);
                self.feed.handle_timeout(&self.keyspace, now);
            }
            // A cloud dials nobody.
            Input::PacketsUp { .. } | Input::DialFailed { .. } => {}
        }
        self.settle(now);
    }

    /// A certificate lives longer than a membership, and a name may have been given to another key since: who is not
    /// in the register as it stands now is turned away here.
    fn is_member(&self, peer: &NodeId, key: KeyHash) -> bool {
        peer.kind == NodeKind::Edge
            && nodes::get(&peer.name, &self.keyspace)
                .is_ok_and(|found| found.is_some_and(|n| n.public_key == key))
    }

    fn turn_away(&mut self, link: LinkId, peer: &NodeId) {
        self.note(format!("turned {peer} away: not a member, or with another key"));
        self.close(link, "not a member of this cluster any more: join again");
    }

    fn handle_link_up(&mut self, link: LinkId, peer: NodeId, key: KeyHash, now: Now) {
        if self.is_member(&peer, key) {
            self.bus.handle_link_up(link, peer, now);
        } else {
            self.turn_away(link, &peer);
        }
    }

    fn handle_peer_packets(&mut self, link: LinkId, peer: NodeId, key: KeyHash) {
        if self.is_member(&peer, key) {
            self.packets.insert(peer, link);
        } else {
            self.turn_away(link, &peer);
        }
    }

    fn handle_frame(&mut self, link: LinkId, frame: &Frame, now: Now) {
        match frame.channel {
            Channel::Bus => self.bus.handle_frame(link, &frame.payload, now),
            Channel::Metadata => {
                // A frame that crossed with a close finds no peer.
                if let Some(peer) = self.bus.peer_of(link).map(|peer| peer.name.clone()) {
                    self.feed.handle_frame(&peer, &frame.payload, &mut self.keyspace, now);
                }
            }
            Channel::Join => self.close(link, "a join frame on the bus lane"),
        }
    }

    fn handle_join(&mut self, link: LinkId, request: &[u8], now: Now) {
        let before: Vec<_> = nodes_of(&self.keyspace);
        let reply =
            controller::handle_join(&self.cluster, request, &mut self.keyspace, now, &mut self.signer);
        self.on_membership(&before);
        let frame = Frame::new(Channel::Join, reply);
        self.said.push_back(Output::Send { link, class: Class::Control, frame });
    }

    /// Lets the parts hear each other until all are silent, and edges hear of what that wrote.
    fn settle(&mut self, now: Now) {
        self.drain(now);
        let before = self.keyspace.revision();
        self.journal.close_cycle(&mut self.keyspace, self.said.drain(..));
        if self.keyspace.revision() > before {
            self.feed.handle_commit(&self.keyspace, now);
            self.drain(now);
            self.journal.close_cycle(&mut self.keyspace, self.said.drain(..));
        }
    }

    fn drain(&mut self, now: Now) {
        loop {
            if let Some(output) = self.bus.poll_output() {
                self.on_bus(output, now);
            } else if let Some(output) = self.feed.poll_output() {
                self.on_feed(output, now);
            } else if let Some(output) = self.twins.poll_output() {
                self.on_twins(output, now);
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
            FromBus::Deliver(message) if !message.topic.as_str().starts_with("mesh/") => {}
            FromBus::Deliver(Message { topic, payload, retain, .. }) => {
                self.said.push_back(Output::Publish { topic, payload, retain, expiry: None });
            }
            FromBus::PeerUp { peer, .. } => {
                self.note(format!("{peer} is connected"));
                self.feed.handle_edge_up(&peer.name, now);
            }
            FromBus::PeerDown { peer, .. } => {
                self.note(format!("{peer} is gone"));
                self.feed.handle_edge_down(&peer.name, now);
            }
            FromBus::Wanted { peer, filter } => {
                for Publish { topic, payload, retain, .. } in self.twins.retained(&filter) {
                    self.bus.send_to(&peer, Message::new(topic, payload, retain, self.me.clone()), now);
                }
            }
            FromBus::Offered { from, message } => self.on_offer(&from, message, now),
            FromBus::Close { link, why } => self.said.push_back(Output::Close { link, why: why.to_string() }),
        }
    }

    fn on_feed(&mut self, output: FeedOutput, now: Now) {
        match output {
            FeedOutput::Send { edge, class, payload } => {
                if let Some(link) = self.bus.link_of(&NodeId::edge(edge)) {
                    let frame = Frame::new(Channel::Metadata, payload);
                    self.said.push_back(Output::Send { link, class, frame });
                }
            }
            FeedOutput::Up { edge, incarnation, entry } => {
                self.twins.handle_up(&edge, incarnation, &entry.key, &entry.payload, &mut self.keyspace, now);
            }
            FeedOutput::NewIncarnation { edge, .. } => {
                self.note(format!(
                    "edge/{edge} has a new store: wiped, replaced or cloned; it is sent everything"
                ));
            }
            FeedOutput::Gap { edge, from, to, .. } => {
                self.note(format!("edge/{edge} had no room for its telemetry {from} to {to}"));
            }
            FeedOutput::Oversized { edge, key } => {
                self.note(format!("{key} is too large for edge/{edge}, which goes without it"));
            }
            FeedOutput::Misbehaved { edge, what } => {
                if let Some(link) = self.bus.link_of(&NodeId::edge(edge)) {
                    self.close(link, &format!("the peer {what}"));
                }
            }
        }
    }

    /// Nodes came or went: devices that waited for them are bound, and their routes count.
    fn on_membership(&mut self, before: &[Key]) {
        let after = nodes_of(&self.keyspace);
        if *before == after {
            return; // A refused stranger costs no more than this look.
        }
        let changed: Vec<&Key> = before.iter().chain(&after).collect();
        self.binder.handle_changes(changed, &mut self.keyspace);
        self.say_overlay();
    }

    /// What a peer says to other sites. Messages of apps pass as they are. A report straight from its edge is fresher
    /// than the copy that comes through the outbox, and says its age; only the edge that has a device speaks for it.
    fn on_offer(&mut self, from: &NodeId, message: Message, now: Now) {
        if message.origin != *from {
            return self.note(format!("{from} spoke for {}: not passed on", message.origin));
        }
        if message.topic.as_str().starts_with("mesh/") {
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
        if self.relayed.get(&message.topic).is_none_or(|newest| *newest <= rev) {
            self.relayed.insert(message.topic.clone(), rev);
            self.bus.relay(from, message, now);
        }
    }

    fn on_twins(&mut self, output: FromTwins, now: Now) {
        match output {
            FromTwins::Publish(Publish { topic, payload, retain, expiry }) => {
                if self.is_news(&topic, &payload) {
                    let message = Message::new(topic.clone(), payload.clone(), retain, self.me.clone());
                    self.bus.publish(message, now);
                }
                self.said.push_back(Output::Publish { topic, payload, retain, expiry });
            }
            FromTwins::Accept(ticket) => self.said.push_back(Output::Accept(ticket)),
            FromTwins::Reject(ticket, why) => self.said.push_back(Output::Reject(ticket, why)),
        }
    }

    /// Whether other sites have not heard this yet; only reported values take two ways.
    fn is_news(&mut self, topic: &Topic, payload: &[u8]) -> bool {
        let Some(TwinTopic::Reported { .. }) = TwinTopic::parse(topic) else { return true };
        // An empty payload takes the value back.
        let Some(rev) = rev_of(payload) else { return true };
        let is_newer = self.relayed.get(topic).is_none_or(|newest| *newest < rev);
        if is_newer {
            self.relayed.insert(topic.clone(), rev);
        }
        is_newer
    }

    fn answer(&mut self, request: AdminRequest, now: Now) -> AdminResponse {
        match request {
            AdminRequest::CreateToken { order, secret } => self.create_token(order, secret, now),
            AdminRequest::ListTokens => self.list_tokens(now),
            AdminRequest::RevokeToken { id } => self.revoke_token(&id),
            AdminRequest::ListNodes => self.list_nodes(),
            AdminRequest::DeleteNode { name } => self.delete_node(&name, now),
            AdminRequest::Apply { manifest } => self.apply(&manifest, now),
            AdminRequest::Delete { kind, device } => self.delete(&kind, &device, now),
            AdminRequest::List { kind } => self.list(&kind),
            AdminRequest::Twins { device } => admin::twins(self.twins.views(now), device.as_ref()),
            AdminRequest::SetTwin { device, property, value } => {
                self.set_twin(&device, &property, value, now)
            }
            AdminRequest::Status => Ok(self.status()),
        }
    }

    fn create_token(
        &mut self,
        order: TokenOrder,
        secret: [u8; JoinToken::SECRET_LEN],
        now: Now,
    ) -> AdminResponse {
        let TokenOrder { site, lans, ttl_seconds, uses } = order;
        let spec = TokenSpec { site, lans, ttl: Duration::from_secs(ttl_seconds), uses };
        token::create(&spec, &secret, &self.cluster.plan, &mut self.keyspace, now)
            .map_err(|error| AdminError::Invalid(admin::describe(&error)))?;
        Ok(json!({ "token": JoinToken::new(self.ca, secret).to_string() }))
    }

    fn list_tokens(&self, now: Now) -> AdminResponse {
        let tokens =
            token::list(&self.keyspace).map_err(|error| AdminError::Invalid(admin::describe(&error)))?;
        let rows = tokens.iter().map(|token| {
            let lans: Vec<String> = token.lans.iter().map(ToString::to_string).collect();
            json!({
                "id": token.id().to_string(), "site": token.site, "lans": lans, "uses": token.uses,
                "used_by": token.used_by, "expires": token.expires, "expired": token.is_expired(now),
            })
        });
        Ok(rows.collect())
    }

    fn revoke_token(&mut self, id: &str) -> AdminResponse {
        let tokens =
            token::list(&self.keyspace).map_err(|error| AdminError::Invalid(admin::describe(&error)))?;
        let meant: Vec<_> =
            tokens.iter().map(|token| token.id()).filter(|t| t.to_string().starts_with(id)).collect();
        match meant.as_slice() {
            [one] => {
                token::revoke(one, &mut self.keyspace);
                Ok(json!({ "id": one.to_string(), "revoked": true }))
            }
            [] => Err(AdminError::NotFound(format!("there is no token '{id}'; see 'kubebus token list'"))),
            _ => Err(AdminError::Conflict(format!("several tokens begin with '{id}': give more of it"))),
        }
    }

    /// Forgets a node: its link ends, its certificate lets it in no more, its devices wait for a node of that name.
    fn delete_node(&mut self, name: &Name, now: Now) -> AdminResponse {
        let before = nodes_of(&self.keyspace);
        nodes::remove(name, &mut self.keyspace, now)
            .map_err(|error| AdminError::NotFound(admin::describe(&error)))?;
        self.on_membership(&before);
        let node = NodeId::edge(name.clone());
        let packets = self.packets.remove(&node);
        for link in self.bus.any_link_of(&node).into_iter().chain(packets) {
            self.close(link, "removed from the cluster");
        }
        Ok(json!({ "name": name, "deleted": true }))
    }

    fn list_nodes(&self) -> AdminResponse {
        let records =
            nodes::list(&self.keyspace).map_err(|error| AdminError::Invalid(admin::describe(&error)))?;
        let rows = records.iter().map(|record| {
            let held = lease::of(&record.id(), &self.keyspace).ok().flatten();
            json!({
                "name": record.name, "site": record.site, "lans": record.lans.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "connected": self.bus.link_of(&record.id()).is_some(),
                "address": held.as_ref().map(|lease| lease.v4.to_string()),
                "containers": held.map(|lease| lease.container_v4.to_string()),
            })
        });
        Ok(rows.collect())
    }

    fn apply(&mut self, document: &serde_json::Value, now: Now) -> AdminResponse {
        let manifest =
            Manifest::parse(document).map_err(|error| AdminError::Invalid(admin::describe(&error)))?;
        let applied = manifest.apply(&mut self.keyspace);
        self.on_resources(&[manifest.key()], now);
        let placement = match manifest.kind() {
            Kind::Device => self.binder.device(manifest.id()),
            Kind::Rule => self.binder.rule(manifest.id()),
            Kind::Model | Kind::Policy => None,
        };
        Ok(json!({
            "kind": kind_name(manifest.kind()), "name": manifest.id().to_string(), "applied": applied_word(applied),
            "placement": placement.map(|p| p.to_string()),
        }))
    }

    fn delete(&mut self, kind: &str, id: &DeviceId, now: Now) -> AdminResponse {
        let kind = kind_named(kind)?;
        if !resource::delete(kind, id, &mut self.keyspace) {
            return Err(AdminError::NotFound(format!("there is no {} {id}", kind_name(kind))));
        }
        self.on_resources(&[resource::key(kind, id)], now);
        Ok(json!({ "kind": kind_name(kind), "name": id.to_string(), "applied": "deleted" }))
    }

    fn list(&self, kind: &str) -> AdminResponse {
        let all = resource::list(kind_named(kind)?, None, &self.keyspace);
        Ok(all.filter_map(|(_, json)| serde_json::from_slice::<serde_json::Value>(json).ok()).collect())
    }

    fn on_resources(&mut self, keys: &[Key], now: Now) {
        self.binder.handle_changes(keys, &mut self.keyspace);
        self.twins.handle_changed(keys, &mut self.keyspace, now);
    }

    fn set_twin(&mut self, device: &DeviceId, property: &str, value: Value, now: Now) -> AdminResponse {
        let version = self
            .twins
            .set_desired(device, property, value, "kubebus twin set", &mut self.keyspace, now)
            .map_err(|error| match &error {
                SetError::Lookup(_) => AdminError::NotFound(admin::describe(&error)),
                SetError::Unbound(_) | SetError::Value(..) => AdminError::Invalid(admin::describe(&error)),
            })?;
        Ok(json!({ "device": device.to_string(), "property": property, "version": version }))
    }

    fn status(&self) -> serde_json::Value {
        let edges: Vec<_> = self
            .feed
            .edges(&self.keyspace)
            .map(|(edge, in_step)| json!({ "edge": edge, "in_step": in_step }))
            .collect();
        json!({
            "node": Identity { cluster: self.cluster.name.clone(), node: self.me.clone() }.to_string(),
            "connected": edges,
            "metadata": { "revision": self.keyspace.revision().0 },
        })
    }

    fn say_overlay(&mut self) {
        let lease = lease::of(&self.me, &self.keyspace).ok().flatten();
        let routes = route::list(&self.keyspace).ok();
        if let (Some(lease), Some(routes)) = (lease, routes) {
            self.said.push_back(Output::Overlay { lease, routes });
        }
    }

    /// Says goodbye to all edges: step two of the shutdown.
    pub fn goodbye(&mut self) {
        self.bus.goodbye();
        while let Some(output) = self.bus.poll_output() {
            if let bus::bus::Output::Send { link, class, frame } = output {
                self.said.push_back(Output::Send { link, class, frame });
            }
        }
        self.journal.close_cycle(&mut self.keyspace, self.said.drain(..));
    }

    pub fn is_full(&self) -> bool {
        self.journal.is_full()
    }

    /// What this cloud holds: for the oracle of the deterministic world.
    pub fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.journal.poll().map(|ready| match ready {
            Ready::Persist(commit) => Output::Persist(commit),
            Ready::Output(output) => output,
        })
    }

    pub fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        if !self.started {
            return Some((Mono::ZERO, "start"));
        }
        [self.bus.poll_timeout(), self.feed.poll_timeout()].into_iter().flatten().min()
    }

    fn close(&mut self, link: LinkId, why: &str) {
        self.said.push_back(Output::Close { link, why: why.to_owned() });
    }

    fn note(&mut self, text: String) {
        self.said.push_back(Output::Note(text));
    }
}

/// The version within its edge's incarnation; what is no reported value has none.
fn rev_of(payload: &[u8]) -> Option<u64> {
    serde_json::from_slice::<device_twin::twin::ReportedBody>(payload).ok().map(|body| body.rev)
}

fn nodes_of(keyspace: &Keyspace) -> Vec<Key> {
    keyspace.range("/c/node/").map(|(key, _)| key.clone()).collect()
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Device => "device",
        Kind::Model => "devicemodel",
        Kind::Policy => "twinpolicy",
        Kind::Rule => "rule",
    }
}

fn applied_word(applied: Applied) -> &'static str {
    match applied {
        Applied::Created => "created",
        Applied::Changed => "configured",
        Applied::Unchanged => "unchanged",
    }
}

fn kind_named(text: &str) -> Result<Kind, AdminError> {
    resource::kind_named(text).ok_or_else(|| AdminError::NotFound(format!("there is no kind '{text}'")))
}

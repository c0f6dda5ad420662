//! An edge: bus, replica, twins, dialling and neighbours in one cycle.

mod checkup;
mod firsthand;
mod health;
mod history;
mod lines;
mod resources;
mod shown;
mod steering;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use bus::bus::{LinkId, Role};
use bus::overlay::{Lease, Route};
use bus::twin::{DeviceId, MapperTopic, TwinTopic};
use bus::{
    Bus, Channel, Class, Filter, Frame, Identity, Message, Mono, NodeId, NodeKind, Now, PathMessage, Qos,
    Topic, UnixMillis, Value, WireguardGateway,
};
use bytes::Bytes;
use controller::api::index::Moved;
use controller::api::{Index, Layout};
use controller::user::{self, Users};
use controller::{Lan, access, advert, client, endpoints, host, site, wireguard};
use device_twin::command::Order;
use device_twin::dmi::{self, Dmi};
use device_twin::edge::Output as FromTwins;
use device_twin::gate::access::Who;
use device_twin::reply::ReplyTo;
use device_twin::twin::Said;
use device_twin::{EdgeTwins, Expiry, PropertyId, Publish, Ticket, kubeedge};
use metadata::outbox::MAX_MESSAGES;
use metadata::{Key, Keyspace, PushError, Replica, ReplicaOutput, epoch};
use router::Policy;
use router::direct::{self, Accepted, LaneOf, Neighbours};
use serde_json::json;

use self::firsthand::Firsthand;
use self::health::OutboxAge;
use self::lines::{Lines, Output as FromLines};

use crate::admin::{self, AdminError, AdminRequest, AdminResponse, AuthorityChange};
use crate::broker_rows;
use crate::checkup::Asked;
use crate::clients;
use crate::health::{Monitor, Teller, TroubleKind};
use crate::herald::Herald;
use crate::history::Telling;
use crate::interest::{Interest, announced, is_for_other_sites};
use crate::journal::{Journal, Speech};
use crate::mesh::leaf::Output as FromMesh;
use crate::mesh::{Leaf, is_mesh};
use crate::names::{Facts, Names};
use crate::policy_test::PolicyTest;
use crate::renewal::{Renewal, Wish};
use crate::route_query::Overlay;
use crate::seam::{DialLane, Input, Output, Record};
use crate::users;

/// One edge node.
#[derive(Debug)]
pub struct Edge {
    identity: Identity,
    cloud: NodeId,
    keyspace: Keyspace,
    journal: Journal<Output>,
    /// What the resource API serves.
    index: Index,
    bus: Bus,
    replica: Replica,
    twins: EdgeTwins,
    /// Who may reach what lies behind this edge.
    policy: Arc<Policy>,
    /// How WireGuard clients reach this edge, where it is a gateway.
    gateway: Option<WireguardGateway>,
    /// Where KubeEdge's mappers are served.
    dmi: Option<Dmi>,
    lines: Lines,
    neighbours: Neighbours,
    firsthand: Firsthand,
    /// Where this edge is on its own network.
    local: Vec<SocketAddr>,
    interest: Interest,
    mesh: Leaf,
    /// An app was told that there is no room for its message, and that was noted.
    mesh_is_full: bool,
    untold: Untold,
    /// There was metadata here before.
    has_metadata: bool,
    /// Networks behind it, as its configuration has them.
    lans: Vec<Lan>,
    /// Said in the present cycle.
    said: Speech<Output>,
    started: bool,
    damaged_stores: Vec<String>,
    renewal: Renewal,
    monitor: Monitor,
    teller: Teller,
    /// What the cloud asks of this edge, and sees of it.
    asked: Asked,
    /// What the cloud asks of the history here.
    telling: Telling,
    outbox_age: OutboxAge,
    /// Writes events of devices.
    herald: Herald,
    /// When the cloud came or went last.
    cloud_since: Option<UnixMillis>,
    /// Who asks in the present cycle, if it is not this node's own console.
    asker: Option<NodeId>,
}

/// What the outbox had no room for.
#[derive(Debug, Default)]
enum Untold {
    #[default]
    Nothing,
    /// These values; bounded by the properties of this edge's devices and the filters that its clients ask for.
    Values(BTreeSet<String>),
    /// Nobody knows which: the process before this one ended while the outbox was full.
    AnyValue,
}

/// What an edge is told about itself.
#[derive(Debug, Clone)]
pub struct EdgeSettings {
    pub identity: Identity,
    /// The cloud that it dials.
    pub cloud: NodeId,
    /// Differs from start to start: feeds the jitter of dialling and, where the store has none yet, the store's incarnation,
    /// and tells what this process says to other sites from what others said.
    pub seed: u64,
    /// Whether it makes links to other edges.
    pub direct: bool,
    /// Networks behind it, beside those of its token.
    pub lans: Vec<Lan>,
    /// Whether it keeps a link to a replica of its cloud that stands by.
    pub standby: bool,
    /// Files of stores that were damaged and replaced, for `kubebus status`, until somebody deletes them.
    pub damaged_stores: Vec<String>,
}

impl Edge {
    /// `keyspace` is what the store held.
    pub fn new(settings: EdgeSettings, mut keyspace: Keyspace, now: Now) -> Self {
        let EdgeSettings { identity, cloud, seed, direct, lans, standby, damaged_stores } = settings;
        let loaded = keyspace.revision();
        let index = Index::load(Layout::Edge, &keyspace);
        let has_metadata = keyspace.range("/m/").next().is_some();
        let replica = Replica::load(&mut keyspace, seed);
        let mut twins = EdgeTwins::new(identity.node.name.clone(), replica.incarnation(), seed);
        twins.load(&mut keyspace, now);
        let mut herald = Herald::new(Layout::Edge);
        herald.load(std::iter::empty(), twins.rule_views(now).iter());
        Self {
            bus: Bus::new(identity.node.clone(), Role::Leaf),
            journal: Journal::new(loaded),
            index,
            lines: Lines::new(seed, standby),
            neighbours: Neighbours::new(2, seed.rotate_left(48), direct),
            firsthand: Firsthand::default(),
            local: Vec::new(),
            interest: Interest::default(),
            mesh: Leaf::load(&keyspace, seed),
            mesh_is_full: false,
            untold: if replica.has_room() { Untold::Nothing } else { Untold::AnyValue },
            has_metadata,
            said: Speech::default(),
            lans,
            started: false,
            asker: None,
            damaged_stores,
            renewal: Renewal::new(NodeKind::Edge, seed.rotate_left(40)),
            monitor: Monitor::new(NodeKind::Edge, now),
            teller: Teller::default(),
            asked: Asked::default(),
            telling: Telling::default(),
            outbox_age: OutboxAge::default(),
            herald,
            cloud_since: None,
            identity,
            cloud,
            keyspace,
            replica,
            twins,
            policy: Arc::default(),
            gateway: None,
            dmi: None,
        }
    }

    /// Serves KubeEdge's mappers from now on, those of the process before this too.
    pub fn serve_dmi(&mut self, now: Now) {
        let me = self.identity.node.name.clone();
        self.dmi = Some(Dmi::load(me, self.twins.catalog(), &self.keyspace, now.mono));
    }

    pub fn handle(&mut self, input: Input, now: Now) {
        if !std::mem::replace(&mut self.started, true) {
            self.say_policy();
            self.say_overlay();
            self.say_names();
            self.say_endpoints();
            self.say_wireguard();
            self.say_users();
            self.mesh.handle_start(&mut self.keyspace, now.wall, now.wall);
            self.tell_lans(false, now);
        }
        match input {
            Input::LinkUp { link, peer, key, attempt: Some(attempt) } if self.neighbours.owns(attempt) => {
                self.neighbours.handle_dialled(attempt, link, (&peer, key), now.mono);
            }
            Input::LinkUp { link, attempt: Some(attempt), .. } => {
                self.lines.handle_bus_up(link, attempt, now.mono);
            }
            Input::LinkUp { link, peer, key, attempt: None } => {
                if self.neighbours.handle_bus_accepted(link, (&peer, key)) == Accepted::No {
                    self.close(link, UNINVITED);
                }
            }
            Input::LinkDown { link } => {
                self.lines.handle_down(link, now.mono);
                self.bus.handle_link_down(link, now);
                self.neighbours.handle_down(link, now.mono);
            }
            Input::PacketsUp { link, peer, key, attempt } if self.neighbours.owns(attempt) => {
                self.neighbours.handle_dialled(attempt, link, (&peer, key), now.mono);
            }
            Input::PacketsUp { link, attempt, .. } => {
                self.lines.handle_packets_up(link, attempt, now.mono);
            }
            Input::PacketsDown { link } => {
                self.lines.handle_down(link, now.mono);
                self.neighbours.handle_down(link, now.mono);
            }
            Input::PeerPackets { link, peer, key, remote } => {
                match self.neighbours.handle_packets_accepted(link, (&peer, key), remote, now.mono) {
                    Accepted::Yes => self.said.push_back(Output::Admit { link }),
                    Accepted::No => self.close(link, UNINVITED),
                }
            }
            Input::DialFailed { attempt, .. } if self.neighbours.owns(attempt) => {
                self.neighbours.handle_failed(attempt, now.mono);
            }
            Input::DialFailed { attempt, retry_after } => {
                self.lines.handle_failed(attempt, retry_after, now.mono);
            }
            Input::Talk { peers } => {
                for (peer, bytes) in peers {
                    self.neighbours.handle_talk(&peer, bytes, now.mono);
                }
            }
            Input::Local { addresses } => {
                self.local = addresses;
                self.say_where();
            }
            // A neighbour's address shows at its packets.
            Input::Moved { .. } => {}
            Input::Frame { link, frame } => self.handle_frame(link, &frame, now),
            Input::Join { link, .. } => self.close(link, "an edge lets nobody join"),
            Input::Renew { link, .. } => self.close(link, "an edge signs no certificates"),
            Input::Certificate(news) => {
                let now = Now { wall: self.cloud_wall(now), ..now };
                if self.renewal.handle(news, now) {
                    self.lines.handle_renewed();
                }
            }
            Input::Mqtt { ticket, topic, payload, qos, retain, expiry, properties, rows, .. }
                if is_mesh(&topic) =>
            {
                broker_rows::write(rows, &mut self.keyspace);
                let message = Message::new(topic, payload, retain, self.identity.node.clone());
                let expiry = expiry.map(|Expiry(life)| life);
                self.say_to_sites(ticket, Message { qos, expiry, properties, ..message }, now);
            }
            Input::Mqtt { ticket, who, topic, payload, expiry, properties, rows, .. } => {
                broker_rows::write(rows, &mut self.keyspace);
                self.herald.handle_client(&topic);
                let said = Said { payload: &payload, expiry, reply: ReplyTo::of(&properties) };
                self.twins.handle_publish(ticket, &who, &topic, said, &mut self.keyspace, now);
            }
            Input::Keep { ticket, rows, receipt } => {
                broker_rows::write(rows, &mut self.keyspace);
                if let Some(ticket) = ticket {
                    self.said.promise(Output::Accept(ticket), Some(Output::Unkept(ticket)));
                }
                if let Some(receipt) = receipt {
                    self.mesh.handle_taken(receipt, &mut self.keyspace);
                }
            }
            Input::Interest { filter, wanted } if kubeedge::is_served(filter.as_str()) => {
                self.twins.handle_interest(&filter, wanted, &mut self.keyspace, now);
            }
            Input::Dmi { ticket, request } => match &mut self.dmi {
                Some(dmi) => {
                    dmi.handle_request(ticket, &request, self.twins.catalog(), &mut self.keyspace, now.mono);
                }
                None => self.said.push_back(Output::Reject(ticket, "DMI is not served here".to_owned())),
            },
            Input::DmiAnswer { call, answer } => {
                if let Some(dmi) = &mut self.dmi {
                    dmi.handle_answer(call, &answer, &mut self.keyspace, now.mono);
                }
            }
            Input::Restored => self.mesh.handle_restored(&mut self.keyspace),
            Input::Interest { filter, wanted } => {
                self.interest.change(&filter, wanted, &mut self.bus);
                self.mesh.handle_interest(&filter, wanted, &mut self.keyspace);
            }
            Input::Persisted(revision) => {
                self.journal.handle_persisted(revision);
                return;
            }
            Input::Degraded { why } => self.handle_degraded(why, now),
            Input::Admin { id, request: AdminRequest::Upstream }
            | Input::Order { id, request: AdminRequest::Upstream, .. } => self.look(id, now),
            Input::Admin { id, request } => {
                let response = self.answer(request, now);
                self.said.push_back(Output::Admin { id, response });
            }
            Input::Order { id, who, request } => {
                self.asker = Some(who);
                let response = self.answer(request, now);
                self.asker = None;
                self.said.push_back(Output::Admin { id, response });
            }
            Input::Api { id, request } => self.handle_api(id, request, now),
            Input::Backup { id } => {
                self.said.push_back(Output::Admin { id, response: Err(AdminError::CloudOnly) });
            }
            Input::Wireguard(gateway) => {
                self.gateway = Some(gateway);
                self.tell_gateway(now);
            }
            Input::RuleLog => self.twins.begin_rule_log(now),
            Input::Measured(measured) => self.handle_measured(*measured, now),
            Input::Fleet { id } => self.say_fleet(id, now),
            Input::Examined { id, report } => self.asked.handle_report(id, report.map(|report| *report)),
            Input::Recalled(told) => self.telling.handle_recalled(told),
            Input::Timeout => self.handle_timeout(now),
        }
        self.settle(now);
    }

    /// An app's message. What is neither promised nor retained is worth no disk; what is retained must reach the sites
    /// that ask later, so it takes the same way as what is promised.
    fn say_to_sites(&mut self, ticket: Option<Ticket>, message: Message, now: Now) {
        let is_promised = message.qos != Qos::AtMostOnce;
        if !is_promised && !message.retain {
            self.bus.publish(message, now);
            return self.said.extend(ticket.map(Output::Accept));
        }
        let has_room = is_promised || self.replica.messages_len() < MAX_MESSAGES / 2;
        let pushed = match self.mesh.pack(message, now.wall) {
            Ok(packed) if has_room => self.replica.push_message(&packed, &mut self.keyspace, now),
            Ok(_) => Err(PushError::Full),
            Err(why) => {
                return self.said.extend(ticket.map(|ticket| Output::Reject(ticket, why.to_string())));
            }
        };
        if pushed.is_ok() {
            self.mesh_is_full &= self.replica.messages_len() > MAX_MESSAGES / 2;
            if let Some(ticket) = ticket {
                self.said.promise(Output::Accept(ticket), Some(Output::Unkept(ticket)));
            }
            return;
        }
        if !std::mem::replace(&mut self.mesh_is_full, true) {
            self.note("the cloud is away for so long that there is no room for more messages to other sites");
        }
        self.said.extend(ticket.map(Output::Full));
    }

    /// The time on the cloud's clock, or on ours while that is not known.
    fn cloud_wall(&self, now: Now) -> UnixMillis {
        let clock = self.bus.clock_of(&self.cloud, now);
        clock.map_or(now.wall, |clock| now.wall.shifted(clock.offset_ms))
    }

    fn handle_frame(&mut self, link: LinkId, frame: &Frame, now: Now) {
        if self.lines.is_silent(link) && frame.channel != Channel::Path {
            // A cloud that is alone says nothing of turns.
            self.lines.handle_leads(link, None);
            self.drain_lines(now);
        }
        match frame.channel {
            Channel::Bus => {
                self.bus.handle_frame(link, &frame.payload, now);
                self.twins.handle_clock(self.bus.clock_of(&self.cloud, now), &mut self.keyspace, now);
            }
            Channel::Metadata if self.bus.link_of(&self.cloud) == Some(link) => {
                self.replica.handle_frame(&frame.payload, &mut self.keyspace, now);
                if self.replica.incarnation() != self.twins.incarnation() {
                    self.note("the cloud does not know this store (an old copy or a clone, or the cloud was restored): it goes on as a new one");
                    self.handle_resynced(now);
                }
            }
            // A frame that crossed with a close.
            Channel::Metadata => {}
            Channel::Join => self.close(link, "a join frame on the bus lane"),
            Channel::Path => self.handle_path(link, &frame.payload, now),
            Channel::Health => self.handle_health(link, &frame.payload),
            Channel::Checkup => self.handle_checkup(link, &frame.payload, now),
            Channel::History => self.handle_history(link, &frame.payload),
        }
    }

    /// The cloud introduces a neighbour, or one of them says how it is.
    fn handle_path(&mut self, link: LinkId, payload: &[u8], now: Now) {
        let is_cloud = self.bus.link_of(&self.cloud) == Some(link);
        match PathMessage::from_bytes(payload) {
            Some(PathMessage::Standby) => self.lines.handle_standby(link),
            Some(PathMessage::Leads { term }) => self.lines.handle_leads(link, Some(term)),
            Some(PathMessage::Meet { peer, key, addresses, dials }) if is_cloud => {
                self.neighbours.handle_meet(&peer, key, (addresses, dials), now.mono);
            }
            Some(PathMessage::Upstream { connected }) if !is_cloud => {
                self.neighbours.handle_upstream(link, connected);
            }
            // A frame that crossed with a close.
            Some(_) if self.bus.peer_of(link).is_none() => {}
            Some(_) | None => {
                self.close(link, "the peer sent a message about paths that makes no sense here")
            }
        }
    }

    /// Tells the cloud where others of the same network may reach this edge.
    fn say_where(&mut self) {
        let addresses = self.local.clone();
        self.say_path(&PathMessage::Here { addresses });
    }

    fn say_path(&mut self, message: &PathMessage) {
        if let Some(link) = self.bus.link_of(&self.cloud) {
            let frame = Frame::new(Channel::Path, message.to_bytes());
            self.said.push_back(Output::Send { link, class: Class::Control, frame });
        }
    }

    fn drain_lines(&mut self, now: Now) {
        while let Some(output) = self.lines.poll_output() {
            self.on_lines(output, now);
        }
    }

    fn on_lines(&mut self, output: FromLines, now: Now) {
        match output {
            FromLines::Dial { line, lane, attempt } => {
                self.said.push_back(Output::Dial { line, lane, attempt });
            }
            FromLines::Follow(link) => self.bus.handle_link_up(link, self.cloud.clone(), now),
            FromLines::Admit(link) => self.said.push_back(Output::Admit { link }),
            FromLines::Close(link, why) => self.close(link, why),
        }
    }

    fn on_neighbours(&mut self, output: direct::Output, now: Now) {
        use direct::Output as FromNeighbours;
        match output {
            FromNeighbours::Wish { peer } => self.say_path(&PathMessage::Wish { peer }),
            FromNeighbours::Dial { attempt, peer, lane, address } => {
                let lane = match lane {
                    LaneOf::Bus => DialLane::Bus,
                    LaneOf::Packets => DialLane::Packets,
                };
                self.said.push_back(Output::DialNeighbour { lane, attempt, peer, address });
            }
            FromNeighbours::Knock { addresses } => self.said.push_back(Output::Knock { addresses }),
            FromNeighbours::Admit { link } => self.said.push_back(Output::Admit { link }),
            FromNeighbours::Close { link, why } => self.close(link, why),
            FromNeighbours::BusUp { link, peer } => self.bus.handle_link_up(link, peer, now),
            FromNeighbours::Upstream { link, connected } => {
                let frame = Frame::new(Channel::Path, PathMessage::Upstream { connected }.to_bytes());
                self.said.push_back(Output::Send { link, class: Class::Control, frame });
            }
            FromNeighbours::Reserve { peer, in_reserve } => self.bus.set_in_reserve(&peer, in_reserve),
            FromNeighbours::Note(text) => self.note(&text),
        }
    }

    /// What a neighbour asks for while one of the two does not reach the cloud: the newest of what is read here.
    fn replay(&mut self, peer: &NodeId, filter: &Filter, now: Now) {
        let is_reported = |topic: &Topic| matches!(TwinTopic::parse(topic), Some(TwinTopic::Reported { .. }));
        let retained = self.twins.retained(filter, now).into_iter();
        for Publish { topic, payload, retain, .. } in retained.filter(|publish| is_reported(&publish.topic)) {
            let message = Message::new(topic, payload, retain, self.identity.node.clone());
            self.bus.send_to(peer, message, now);
        }
    }

    /// A neighbour says something straight.
    fn on_offer(&mut self, from: &NodeId, message: Message, now: Now) {
        let is_of_apps = is_mesh(&message.topic) && message.origin == *from;
        if is_of_apps || self.firsthand.handle_told(from, &message) {
            self.bus.relay(from, message, now);
        }
    }

    /// The cloud is told everything again.
    fn handle_resynced(&mut self, now: Now) {
        self.twins.handle_resynced(self.replica.incarnation(), &mut self.keyspace, now);
        self.mesh.tell_again(|_| true);
        self.tell_lans(true, now);
        self.tell_gateway(now);
    }

    /// Which networks the configuration names, if the cloud was told others or is told everything `again`. What the token
    /// does not grant waits there for somebody's approval.
    fn tell_lans(&mut self, again: bool, now: Now) {
        let wanted = Bytes::from(advert::encode(&self.lans));
        let told = self.keyspace.get(told_lans().as_str());
        let is_known = if told.is_none() { self.lans.is_empty() } else { told == Some(&wanted) && !again };
        if !is_known {
            self.keyspace.put(told_lans(), wanted.clone());
            self.tell_cloud(Class::State, advert::UP.to_owned(), wanted, now);
        }
    }

    fn pending(&self) -> Vec<(NodeId, Lan)> {
        let (me, routes) = (&self.identity.node, self.routes());
        let is_active =
            |lan: &Lan| routes.iter().any(|route| route.owner == *me && route.behind() == lan.net());
        self.lans.iter().filter(|lan| !is_active(lan)).map(|lan| (me.clone(), *lan)).collect()
    }

    /// What became of the networks that the configuration names.
    fn lans(&self) -> serde_json::Value {
        let pending = self.pending();
        let state = |lan: &Lan| {
            let is_pending = pending.iter().any(|(_, pending)| pending == lan);
            let because = is_pending.then(|| {
                let me = &self.identity.node.name;
                format!("nobody has approved it: at the cloud, kubebus route approve {me} {lan}")
            });
            let state = if is_pending { "pending" } else { "active" };
            (lan.to_string(), json!({ "state": state, "because": because }))
        };
        serde_json::Value::Object(self.lans.iter().map(state).collect())
    }

    /// A site goes on without its disk. What it tells the cloud from here on a crash may undo, so it is said in a session
    /// of its own: the receipt of the last one then shows that this edge was further than its disk.
    fn handle_degraded(&mut self, why: String, now: Now) {
        self.monitor.handle_trouble(TroubleKind::Disk, &format!("the disk refuses writes: {why}"), now.wall);
        self.monitor.handle_change(now.mono);
        if self.journal.handle_degraded(why, now) && self.bus.link_of(&self.cloud).is_some() {
            self.replica.handle_link_up(&self.keyspace, now);
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.renewal.handle_timeout(Now { wall: self.cloud_wall(now), ..now });
        self.lines.handle_timeout(now.mono);
        self.bus.handle_timeout(now);
        self.replica.handle_timeout(&self.keyspace, now);
        self.twins.handle_timeout(&mut self.keyspace, now);
        self.herald.handle_timeout(&mut self.keyspace, now);
        self.neighbours.handle_timeout(now.mono);
        self.asked.handle_timeout(now.mono);
        self.monitor.handle_timeout(now.mono);
        if self.monitor.poll_measure() {
            self.said.push_back(Output::Measure);
        }
    }

    /// Lets the parts hear each other until all are silent, then closes the cycle.
    fn settle(&mut self, now: Now) {
        loop {
            if let Some(output) = self.bus.poll_output() {
                self.on_bus(output, now);
            } else if let Some(output) = self.replica.poll_output() {
                self.on_replica(output, now);
            } else if let Some(output) = self.twins.poll_output() {
                self.on_twins(output, now);
            } else if let Some(output) = self.poll_dmi(now) {
                self.on_dmi(output, now);
            } else if let Some(output) = self.mesh.poll_output() {
                self.on_mesh(output, now);
            } else if let Some(output) = self.telling.poll_output() {
                self.on_telling(output);
            } else if let Some(output) = self.neighbours.poll_output() {
                self.on_neighbours(output, now);
            } else if let Some(output) = self.lines.poll_output() {
                self.on_lines(output, now);
            } else if let Some(output) = self.asked.poll_output() {
                self.on_asked(output);
            } else if let Some(wish) = self.renewal.poll_output() {
                self.said.push_back(match wish {
                    Wish::Renew => Output::Renew { line: self.lines.followed() },
                    Wish::ShowOther => Output::ShowOther,
                });
            } else if !self.tell_untold(now) {
                break;
            }
        }
        self.herald.handle_settled();
        if let Some(count) = self.herald.take_left_out(now) {
            self.note(&format!("{count} events of devices are left out: there are too many in a minute"));
        }
        self.close_cycle();
    }

    fn close_cycle(&mut self) {
        let Self { index, keyspace, journal, said, .. } = self;
        crate::resources::seal(index, keyspace, |keyspace| journal.close_cycle(keyspace, said.drain()));
    }

    /// What is durable of each kind of resource.
    pub fn moved(&self) -> Moved {
        self.index.moved(self.journal.durable(), &self.keyspace)
    }

    fn on_bus(&mut self, output: bus::bus::Output, now: Now) {
        use bus::bus::Output as FromBus;
        match output {
            FromBus::Send { link, class, frame } => self.said.push_back(Output::Send { link, class, frame }),
            FromBus::Deliver(message) => self.deliver(message, now),
            FromBus::PeerUp { peer, .. } if peer == self.cloud => {
                self.handle_cloud_change(now);
                self.renewal.handle_link(true, now);
                self.replica.handle_link_up(&self.keyspace, now);
                self.mesh.handle_link_up();
                self.neighbours.handle_hub(true, now.mono);
                self.say_where();
            }
            FromBus::PeerDown { peer, .. } if peer == self.cloud => {
                self.handle_cloud_change(now);
                self.asked.handle_down(now.mono);
                self.renewal.handle_link(false, now);
                self.neighbours.handle_hub(false, now.mono);
                self.replica.handle_link_down();
                self.twins.handle_clock(None, &mut self.keyspace, now);
            }
            FromBus::PeerUp { .. } => {}
            FromBus::PeerDown { peer, .. } => self.firsthand.handle_gone(&peer),
            // What this edge has to say about its twins goes up through the outbox, asked for or not.
            FromBus::Wanted { peer, .. } if peer == self.cloud => {}
            FromBus::Wanted { peer, filter } => self.replay(&peer, &filter, now),
            FromBus::Offered { from, message } => self.on_offer(&from, message, now),
            FromBus::Close { link, why } => self.said.push_back(Output::Close { link, why: why.to_string() }),
        }
    }

    /// A message from elsewhere: for the clients here and, if it is a twin, for the rules. What only clients here may
    /// say (`set`, `report`, a mapper's topics) does not come in by this door.
    fn deliver(&mut self, message: Message, now: Now) {
        let twin = TwinTopic::parse(&message.topic);
        if !self.firsthand.handle_passed_on(&message) || !is_for_other_sites(&message.topic, twin.as_ref()) {
            return;
        }
        if let Some(twin) = twin {
            if self.twins.catalog().device(twin.device()).is_some() {
                return; // The cloud's echo of what this edge itself reported.
            }
            let Message { topic, payload, travelled, .. } = &message;
            self.twins.handle_remote(topic, payload, *travelled, &mut self.keyspace, now);
        }
        self.said.extend(announced(message).map(Output::Publish));
    }

    fn on_replica(&mut self, output: ReplicaOutput, now: Now) {
        match output {
            ReplicaOutput::Send { class, payload } => {
                if let Some(link) = self.bus.link_of(&self.cloud) {
                    self.say_to_cloud(Output::Send {
                        link,
                        class,
                        frame: Frame::new(Channel::Metadata, payload),
                    });
                }
            }
            ReplicaOutput::Changed(keys) => self.on_metadata(&keys, now),
            ReplicaOutput::Resynced => {
                let had_metadata = std::mem::replace(&mut self.has_metadata, true);
                self.note(match had_metadata {
                    false => "the first metadata has come from the cloud",
                    true => "metadata copied anew from the cloud, which is told everything again",
                });
                self.handle_resynced(now);
            }
            ReplicaOutput::Repaired => self.note(
                "the metadata here was not what the cloud had sent, and was repaired: the disk or memory may be failing",
            ),
            ReplicaOutput::Misbehaved(why) => {
                if let Some(link) = self.bus.link_of(&self.cloud) {
                    self.close(link, &format!("the cloud {why}"));
                }
            }
            ReplicaOutput::Outdated { epoch, followed } => {
                self.note(&format!(
                    "the cloud is at epoch {epoch}, and this edge has followed another, restored from its backup, at \
                     epoch {followed}: not followed"
                ));
                for link in self.bus.link_of(&self.cloud).into_iter().chain(self.lines.packets()) {
                    self.close(link, "an outdated cloud");
                }
            }
        }
    }

    /// What rests on the disk in this session is not said once it refuses: [`Self::handle_degraded`] begins another.
    fn say_to_cloud(&mut self, output: Output) {
        match self.journal.degraded() {
            None => self.said.promise(output, None),
            Some(_) => self.said.push_back(output),
        }
    }

    fn on_metadata(&mut self, keys: &[Key], now: Now) {
        self.twins.handle_changed(keys, &mut self.keyspace, now);
        if let Some(dmi) = &mut self.dmi {
            dmi.handle_changed(keys, self.twins.catalog(), &self.keyspace);
        }
        let theirs = self.cloud_wall(now);
        self.mesh.handle_changed(keys, &mut self.keyspace, theirs, now.wall);
        let changed = |prefix: &str| keys.iter().any(|key| key.as_str().starts_with(prefix));
        if changed(ROUTES) || changed(site::TOLD) || changed(access::TOLD) {
            self.say_policy();
        }
        if changed(LEASE) || changed(ROUTES) {
            self.say_overlay();
        }
        if changed(ROUTES) {
            let members: BTreeSet<NodeId> = self.routes().into_iter().map(|route| route.owner).collect();
            self.neighbours.retain(|node| members.contains(node));
        }
        if [LEASE, ROUTES, site::TOLD, host::TOLD].into_iter().any(changed) {
            self.say_names();
        }
        if [user::TOLD, client::TOLD].into_iter().any(changed) {
            self.say_users();
        }
        if changed(wireguard::TOLD) {
            self.say_wireguard();
        }
        if keys.iter().any(|key| key.as_str() == endpoints::TOLD) {
            self.say_endpoints();
        }
    }

    fn on_twins(&mut self, output: FromTwins, now: Now) {
        self.hear(&output, now);
        match output {
            FromTwins::Publish(publish) if self.is_for_dmi(&publish, now) => {}
            FromTwins::Publish(Publish { topic, payload, retain, expiry }) => {
                if let Some(TwinTopic::Reported { .. }) = TwinTopic::parse(&topic) {
                    let message =
                        Message::new(topic.clone(), payload.clone(), retain, self.identity.node.clone());
                    self.bus.publish(message, now);
                }
                self.said.push_back(Output::Publish(Publish { topic, payload, retain, expiry }.into()));
            }
            FromTwins::Reply(announcement) => self.said.push_back(Output::Publish(announcement)),
            FromTwins::Up { class, key, payload } => self.tell_cloud(class, key, payload, now),
            FromTwins::Accept(ticket) => {
                self.said.promise(Output::Accept(ticket), Some(Output::Unkept(ticket)));
            }
            FromTwins::Reject(ticket, why) => self.said.push_back(Output::Reject(ticket, why)),
            FromTwins::Sample { id, sample } => {
                self.said.push_back(Output::Record(Record::Sample { id, sample }));
            }
            FromTwins::Audit(entry) => self.said.push_back(Output::Record(Record::Audit(entry))),
            FromTwins::Watch(filter) => self.interest.change(&filter, true, &mut self.bus),
            FromTwins::Unwatch(filter) => self.interest.change(&filter, false, &mut self.bus),
            FromTwins::RuleLog(line) => self.said.push_back(Output::Record(Record::Rule(line))),
            FromTwins::RuleHeads(lines) => self.said.push_back(Output::Record(Record::RuleHeads(lines))),
        }
    }

    /// What of it is an event.
    fn hear(&mut self, output: &FromTwins, now: Now) {
        let (herald, catalog, ks) = (&mut self.herald, self.twins.catalog(), &mut self.keyspace);
        match output {
            FromTwins::Publish(publish) => herald.handle_publish(publish, catalog, ks, now),
            FromTwins::Audit(entry) => herald.handle_audit(entry, ks, now),
            FromTwins::Up { key, payload, .. } if key.starts_with("rule/") => {
                if let Ok(view) = minicbor::decode(payload) {
                    herald.handle_rule(&view, ks, now);
                }
            }
            FromTwins::Up { .. }
            | FromTwins::Reply(_)
            | FromTwins::Accept(_)
            | FromTwins::Reject(..)
            | FromTwins::Sample { .. }
            | FromTwins::Watch(_)
            | FromTwins::Unwatch(_)
            | FromTwins::RuleLog(_)
            | FromTwins::RuleHeads(_) => {}
        }
    }

    /// Whether a DMI mapper took it: a write goes to one mapper alone.
    fn is_for_dmi(&mut self, publish: &Publish, now: Now) -> bool {
        let (Some(dmi), Some(topic)) = (&mut self.dmi, MapperTopic::parse(&publish.topic)) else {
            return false;
        };
        let is_its = matches!(topic, MapperTopic::Write { .. }) && dmi.serves(topic.mapper());
        if is_its {
            dmi.handle_write(topic.mapper(), &publish.payload, publish.expiry, now.mono);
        }
        is_its
    }

    fn poll_dmi(&mut self, now: Now) -> Option<dmi::Output> {
        let dmi = self.dmi.as_mut()?;
        dmi.poll_output().or_else(|| {
            dmi.drive(&mut self.keyspace, now.mono);
            dmi.poll_output()
        })
    }

    fn on_dmi(&mut self, output: dmi::Output, now: Now) {
        match output {
            dmi::Output::Call(call) => self.said.push_back(Output::Call(call)),
            dmi::Output::Registered(ticket, reply) => self.said.push_back(Output::Registered(ticket, reply)),
            dmi::Output::Reject(ticket, why) => self.said.push_back(Output::Reject(ticket, why)),
            dmi::Output::Note(text) => self.said.push_back(Output::Note(text)),
            dmi::Output::Say(ticket, topic, payload) => {
                // Whoever may open the socket speaks for every device here.
                let who = Who::Anonymous;
                self.twins.handle_publish(
                    ticket,
                    &who,
                    &topic,
                    Said::plain(&payload),
                    &mut self.keyspace,
                    now,
                );
            }
            dmi::Output::State(ticket, device, state) => {
                self.said.push_back(match self.twins.handle_device_state(&device, &state) {
                    Ok(()) => Output::Accept(ticket),
                    Err(why) => Output::Reject(ticket, why),
                });
            }
        }
    }

    fn tell_cloud(&mut self, class: Class, key: String, payload: Bytes, now: Now) {
        match self.replica.push(class, &key, payload, &mut self.keyspace, now) {
            Ok(()) => {}
            Err(PushError::Full) => self.on_full(class, key),
            Err(why) => self.note(&format!("{key} is not told to the cloud: {why}")),
        }
    }

    /// The cloud writes it into clients' configurations.
    fn tell_gateway(&mut self, now: Now) {
        let Some(gateway) = &self.gateway else { return };
        if let Ok(payload) = minicbor::to_vec(gateway) {
            self.tell_cloud(Class::State, wireguard::UP.to_owned(), payload.into(), now);
        }
    }

    fn say_wireguard(&mut self) {
        self.said.push_back(Output::Wireguard(wireguard::told(&self.keyspace)));
    }

    fn on_mesh(&mut self, output: FromMesh, now: Now) {
        match output {
            FromMesh::Up { key, payload } => self.tell_cloud(Class::State, key, payload, now),
            FromMesh::Announce(announcement) => self.said.push_back(Output::Publish(announcement)),
        }
    }

    /// Values wait for room; the outbox itself names the events that it refused.
    fn on_full(&mut self, class: Class, key: String) {
        if let Untold::Nothing = self.untold {
            self.note(
                "the outbox is full: the cloud hears of newer values when there is room, and of newer events how many \
                 there were",
            );
            self.untold = Untold::Values(BTreeSet::new());
        }
        if let (Untold::Values(keys), Class::State) = (&mut self.untold, class) {
            keys.insert(key);
        }
    }

    /// Whether there was room to tell something again.
    fn tell_untold(&mut self, now: Now) -> bool {
        if matches!(self.untold, Untold::Nothing) || !self.replica.has_room() {
            return false;
        }
        match std::mem::take(&mut self.untold) {
            Untold::Nothing => {}
            Untold::Values(keys) => {
                self.twins.tell_again(|key| keys.contains(key), &self.keyspace);
                self.mesh.tell_again(|key| keys.contains(key));
                if keys.contains(advert::UP) {
                    self.tell_lans(true, now);
                }
            }
            Untold::AnyValue => {
                self.twins.tell_again(|_| true, &self.keyspace);
                self.mesh.tell_again(|_| true);
                self.tell_lans(true, now);
            }
        }
        true
    }

    fn answer(&mut self, request: AdminRequest, now: Now) -> AdminResponse {
        match request {
            AdminRequest::Status => Ok(self.status(now)),
            AdminRequest::Page(query) => crate::page::answer(&query, self, now),
            AdminRequest::Twins { device } => admin::twins(self.twins.views(now), device.as_ref()),
            AdminRequest::SetTwin { device, property, value } => {
                self.set_twin(&PropertyId::new(&device, &property), value, now)
            }
            AdminRequest::PatchTwin { device, patch } => self.patch_twin(&device, &patch, now),
            AdminRequest::Command { device, name, order } => self.order(&device, &name, order, now),
            AdminRequest::Commands { device, id } => {
                admin::commands(self.twins.commands(device.as_ref(), now), id.as_ref())
            }
            AdminRequest::Rules => admin::document(&self.twins.rule_views(now)),
            AdminRequest::PolicyTest(asked) => self.test_policy(&asked),
            AdminRequest::Routes => Ok(self.overlay().list()),
            AdminRequest::Route(asked) => {
                let by_cloud = self.lines.packets().is_some();
                self.overlay().find(&asked, |node| by_cloud || self.neighbours.is_direct(node))
            }
            AdminRequest::Authority { device, change } => self.change_authority(&device, change, now),
            AdminRequest::Users(asked) => users::at_edge(&asked, &self.keyspace),
            AdminRequest::Clients(asked) => clients::at_edge(&asked, &self.keyspace),
            AdminRequest::ListWireguard => Ok(crate::wireguard::at_edge(&self.identity.node, &self.keyspace)),
            // It is answered when the cloud was heard.
            AdminRequest::Upstream
            | AdminRequest::Examine { .. }
            | AdminRequest::CreateToken { .. }
            | AdminRequest::AddWireguard(_)
            | AdminRequest::RotateWireguard { .. }
            | AdminRequest::RemoveWireguard { .. }
            | AdminRequest::ListTokens
            | AdminRequest::RevokeToken { .. }
            | AdminRequest::ListNodes
            | AdminRequest::DeleteNode { .. }
            | AdminRequest::Apply { .. }
            | AdminRequest::Delete { .. }
            | AdminRequest::List { .. }
            | AdminRequest::ApproveLan { .. }
            | AdminRequest::RevokeLan { .. }
            | AdminRequest::Labels { .. }
            | AdminRequest::Label { .. }
            | AdminRequest::Change { .. }
            | AdminRequest::History(_) => Err(AdminError::CloudOnly),
        }
    }

    /// An edge knows what may come in to it, and nothing else.
    fn test_policy(&self, asked: &PolicyTest) -> AdminResponse {
        let test = asked.on(&self.routes())?;
        match &test.receiver {
            Some(node) if *node == self.identity.node => Ok(test.answer(None, &test.at(&self.policy))),
            Some(_) | None => Err(AdminError::CloudOnly),
        }
    }

    fn overlay(&self) -> Overlay<'_> {
        Overlay {
            me: &self.identity.node,
            via: Some(&self.cloud),
            neighbours: self.neighbours.direct().cloned().collect(),
            routes: self.routes(),
            pending: self.pending(),
            sites: site::list(site::TOLD, &self.keyspace),
            policy: &self.policy,
        }
    }

    /// Somebody at the edge's own console: an operator.
    fn set_twin(&mut self, id: &PropertyId, value: Value, now: Now) -> AdminResponse {
        self.known(&id.device)?;
        let by = self.by();
        let taken = self.twins.set(id, value, &by, &mut self.keyspace, now);
        let version = taken.map_err(AdminError::Invalid)?;
        Ok(json!({ "device": id.device.to_string(), "property": &*id.property, "version": version }))
    }

    /// Who asks, for whoever reads it later.
    fn by(&self) -> String {
        self.asker.as_ref().map_or_else(|| admin::OPERATOR.to_owned(), ToString::to_string)
    }

    fn known(&self, device: &DeviceId) -> Result<(), AdminError> {
        let known = self.twins.catalog().device(device).map(|_| ());
        known.ok_or_else(|| admin::unknown_device(device))
    }

    fn order(&mut self, device: &DeviceId, name: &str, order: Order, now: Now) -> AdminResponse {
        self.known(device)?;
        let by = self.by();
        let id = self.twins.order(device, name, order, &by, &mut self.keyspace, now);
        let id = id.map_err(AdminError::Invalid)?;
        admin::commands(self.twins.commands(Some(device), now), Some(&id))
    }

    fn change_authority(&mut self, device: &DeviceId, change: AuthorityChange, now: Now) -> AdminResponse {
        let by = self.by();
        let done = match change {
            AuthorityChange::Take { reason, lasting } => {
                let who = (by.as_str(), reason.as_str());
                self.twins.take_authority(device, who, lasting, &mut self.keyspace, now)
            }
            AuthorityChange::HandBack { reason } => {
                self.twins.hand_back(device, (&by, &reason), &mut self.keyspace, now)
            }
        };
        let authority = done.map_err(|error| AdminError::Conflict(admin::describe(&error)))?;
        Ok(admin::authority(device, &authority))
    }

    fn status(&self, now: Now) -> serde_json::Value {
        let connected = self.bus.link_of(&self.cloud).is_some();
        let clock = self.bus.clock_of(&self.cloud, now);
        let stats = self.replica.stats();
        let mut status = json!({
            "node": self.identity.to_string(),
            "cloud": { "name": self.cloud.to_string(), "connected": connected,
                       "clock_offset_ms": clock.map(|c| c.offset_ms) },
            "disk": self.journal.status(),
            "metadata": { "applied": self.replica.applied().revision.0, "outbox": self.replica.outbox_len(),
                          "epoch": epoch::get(&self.keyspace), "snapshots": stats.snapshots,
                          "repairs": stats.repairs, "nacks": stats.nacks },
            "mesh": self.mesh.status(),
            "certificate": self.renewal.status(self.cloud_wall(now)),
        });
        status["mesh"]["waiting"] = json!(self.replica.messages_len());
        if let Some(state) = self.lines.standby() {
            status["standby"] = json!({ "state": state });
        }
        status["paths"] = self.neighbours.views().into_iter().map(admin::path).collect();
        if !self.lans.is_empty() {
            status["lans"] = self.lans();
        }
        if !self.damaged_stores.is_empty() {
            status["damaged_stores"] = json!(self.damaged_stores);
        }
        status
    }

    /// Says goodbye to the cloud: step two of the shutdown.
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

    /// Why this edge can promise nothing at present.
    pub fn degraded(&self) -> Option<&str> {
        self.journal.degraded()
    }

    pub fn is_full(&self) -> bool {
        self.journal.is_full()
    }

    /// What this edge holds: for the oracle of the deterministic world.
    pub fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.journal.poll().map(Output::from)
    }

    pub fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        // Before the first input everything is due: that is how the first dial comes out.
        if !self.started {
            return Some((Mono::ZERO, "start"));
        }
        let timeouts = [
            self.dmi.as_ref().and_then(Dmi::poll_timeout),
            self.lines.poll_timeout(),
            self.bus.poll_timeout(),
            self.replica.poll_timeout(),
            self.twins.poll_timeout(),
            self.neighbours.poll_timeout(),
            self.asked.poll_timeout(),
            self.renewal.poll_timeout(),
            Some(self.monitor.poll_timeout()),
            self.herald.poll_timeout(),
        ];
        timeouts.into_iter().flatten().min()
    }

    fn close(&mut self, link: LinkId, why: &str) {
        self.said.push_back(Output::Close { link, why: why.to_owned() });
    }

    fn note(&mut self, text: &str) {
        self.said.push_back(Output::Note(text.to_owned()));
    }

    fn say_overlay(&mut self) {
        let Some(lease) = self.lease() else { return };
        self.said.push_back(Output::Overlay { lease, routes: self.routes() });
    }

    fn say_users(&mut self) {
        let users = Users::load(user::TOLD, &self.keyspace);
        self.said.push_back(Output::Users(Arc::new(users)));
    }

    fn say_names(&mut self) {
        let Some(lease) = self.lease() else { return };
        let names = Names::new(Facts {
            me: &self.identity,
            lease: &lease,
            routes: &self.routes(),
            sites: &site::list(site::TOLD, &self.keyspace),
            hosts: &host::list(host::TOLD, &self.keyspace),
            revision: self.replica.applied().revision,
        });
        self.said.push_back(Output::Names(Arc::new(names)));
    }

    fn lease(&self) -> Option<Lease> {
        self.keyspace.get(LEASE).and_then(|bytes| minicbor::decode(bytes).ok())
    }

    fn routes(&self) -> Vec<Route> {
        self.keyspace.range(ROUTES).filter_map(|(_, b)| minicbor::decode::<Route>(b).ok()).collect()
    }

    /// Of what the cloud told last, whether or not it is there now.
    fn say_policy(&mut self) {
        let (sites, rules) = (site::list(site::TOLD, &self.keyspace), access::told(&self.keyspace));
        self.policy = Arc::new(Policy::for_edge(&self.routes(), &sites, &rules));
        self.said.push_back(Output::Policy(Arc::clone(&self.policy)));
    }

    fn say_endpoints(&mut self) {
        let told = endpoints::told(&self.keyspace);
        self.lines.handle_endpoints(told.len());
        self.said.push_back(Output::Endpoints(told));
    }
}

/// Why a link that another node made is closed.
const UNINVITED: &str = "an edge is dialled by neighbours alone, once the cloud has introduced them";

/// What the cloud was told of [`EdgeSettings::lans`].
fn told_lans() -> Key {
    Key::new("/local/lans").expect("a short and printable key")
}

const LEASE: &str = "/m/lease";
const ROUTES: &str = "/m/route/";

#[cfg(test)]
mod tests;

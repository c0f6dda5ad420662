//! An edge: bus, replica, twins, dialling and neighbours in one cycle.

mod answers;
mod checkup;
mod dmi;
mod firsthand;
mod health;
mod history;
mod lans;
mod lines;
mod links;
mod outbox;
mod resources;
mod shell;
mod shown;
mod sites;
mod steering;
mod twins;

use std::net::SocketAddr;
use std::sync::Arc;

use bus::bus::{LinkId, Role};
use bus::{
    Bus, Channel, Frame, Identity, Message, Mono, NodeId, NodeKind, Now, UnixMillis, WireguardGateway,
};
use controller::Lan;
use controller::api::index::Moved;
use controller::api::{Index, Layout};
use device_twin::dmi::Dmi;
use device_twin::reply::ReplyTo;
use device_twin::twin::Said;
use device_twin::{EdgeTwins, Expiry, kubeedge};
use metadata::{Keyspace, Replica};
use router::Policy;
use router::direct::{Accepted, Neighbours};

use self::firsthand::Firsthand;
use self::health::OutboxAge;
use self::lines::Lines;
use self::outbox::Untold;

use crate::admin::{AdminError, AdminRequest};
use crate::broker_rows;
use crate::checkup::Asked;
use crate::health::{Monitor, Teller, TroubleKind};
use crate::herald::Herald;
use crate::history::Telling;
use crate::interest::Interest;
use crate::journal::{Journal, Speech};
use crate::mesh::{Leaf, is_mesh};
use crate::renewal::{Renewal, Wish};
use crate::seam::{Input, Output};

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
}

/// Why a link that another node made is closed.
const UNINVITED: &str = "an edge is dialled by neighbours alone, once the cloud has introduced them";

#[cfg(test)]
mod tests;

//! Everybody around the nodes: who joins them, applies manifests, wishes things, subscribes; and the way between
//! brokers and mappers.

use std::time::Duration;

use bus::bus::LinkId;
use bus::token::CaHash;
use bus::twin::{DesiredVersion, DeviceId, MapperTopic, TwinTopic, WriteRequest};
use bus::{Filter, Identity, JoinToken, KeyHash, NodeId, Now, Topic, Value};
use bytes::Bytes;
use controller::cluster::EstablishError;
use controller::join::{JoinReply, JoinRequest, Signed};
use controller::{CloudSubnets, Cluster, Plan};
use device_twin::PropertyId;
use device_twin::twin::{Desired, Reported, Ticket};
use metadata::Keyspace;
use node::admin::{AdminRequest, AdminResponse, TokenOrder};
use node::cloud::CloudSettings;
use node::edge::EdgeSettings;
use node::{Cloud, Edge, Input, Node};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::deeds::Deeds;
use crate::devices::Action;
use crate::dice::Dice;
use crate::host::{About, Question};
use crate::machine::{Machine, Seat};
use crate::manifests::{self, ACTUATOR, MAPPER, PROPERTIES, RULES, SETTING, name};
use crate::world::{Event, World};

const CA: CaHash = CaHash([7; 32]);

/// What people have in mind, and how far they got.
#[derive(Debug)]
pub(crate) struct People {
    manifests: Vec<(serde_json::Value, bool)>,
    devices: Vec<(usize, PropertyId)>,
    joins: Vec<Join>,
    deeds: Deeds,
}

/// How far a site's joining is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Join {
    NoToken,
    HasToken,
    Welcome,
}

pub(crate) fn cloud_id() -> NodeId {
    NodeId::cloud(name("cloud"))
}

pub(crate) fn edge_id(site: usize) -> NodeId {
    NodeId::edge(manifests::edge_name(site))
}

/// What an edge's request for a certificate is about.
fn csr(site: usize) -> Vec<u8> {
    vec![site as u8; 16]
}

pub(crate) fn key_of(site: usize) -> KeyHash {
    KeyHash::of_spki(&csr(site))
}

pub(crate) fn cloud_key() -> KeyHash {
    KeyHash::of_spki(b"cloud")
}

fn cluster() -> Result<Cluster, EstablishError> {
    #[expect(clippy::expect_used, reason = "the default pool is one")]
    let plan = Plan::new(Plan::DEFAULT_POOL, &name("world"), &CA).expect("a pool");
    let endpoints = vec!["cloud.example:10001".to_owned()];
    Ok(Cluster { name: name("world"), cloud: name("cloud"), ca_der: vec![1], endpoints, plan })
}

/// A certificate is not looked at in this world; who holds it is decided by the links.
fn sign(csr: &[u8], identity: &Identity) -> Signed {
    let certificate_der = Sha256::digest([csr, identity.to_string().as_bytes()].concat()).to_vec();
    Signed {
        serial: certificate_der[..8].to_vec(),
        certificate_der,
        public_key: KeyHash::of_spki(csr),
        not_after: bus::UnixMillis(u64::MAX),
    }
}

pub(crate) fn cloud(seed: u64, keyspace: Keyspace, now: Now) -> Result<Node, EstablishError> {
    let settings =
        CloudSettings { cluster: cluster()?, subnets: CloudSubnets::default(), ca: CA, seed, term: None };
    let signer = Box::new(|csr: &[u8], identity: &Identity| Ok(sign(csr, identity)));
    Ok(Node::Cloud(Box::new(Cloud::new(settings, signer, keyspace, now)?)))
}

pub(crate) fn edge(seat: Seat, seed: u64, keyspace: Keyspace, now: Now) -> Node {
    let identity = Identity { cluster: name("world"), node: edge_id(seat.site) };
    let settings = EdgeSettings {
        identity,
        cloud: cloud_id(),
        seed,
        direct: true,
        lans: vec![],
        standby: true,
        damaged_stores: vec![],
    };
    Node::Edge(Box::new(Edge::new(settings, keyspace, now)))
}

impl People {
    pub(crate) fn new(sites: usize, dice: &mut Dice) -> Self {
        let mut documents = vec![manifests::model()];
        documents.extend(manifests::policies());
        let mut devices = Vec::new();
        for site in 0..sites {
            for number in 0..dice.between(1, 2) as usize {
                documents.push(manifests::device_manifest(site, number));
                let device = manifests::device(site, number);
                if dice.one_in(2) {
                    documents.push(manifests::guard_manifest(&device));
                }
                devices.extend(PROPERTIES.map(|property| (site, manifests::property(&device, property))));
            }
        }
        for last in (1..documents.len()).rev() {
            documents.swap(last, dice.between(0, last as u64) as usize);
        }
        let manifests = documents.into_iter().map(|document| (document, false)).collect();
        Self { manifests, devices, joins: vec![Join::NoToken; sites], deeds: Deeds::default() }
    }

    /// All devices with their sites.
    pub(crate) fn devices(&self) -> Vec<(usize, DeviceId)> {
        let mut all: Vec<_> = self.devices.iter().map(|(site, id)| (*site, id.device.clone())).collect();
        all.dedup();
        all
    }

    pub(crate) fn deeds(&mut self) -> &mut Deeds {
        &mut self.deeds
    }

    pub(crate) fn properties_of(&self, site: usize) -> Vec<PropertyId> {
        self.devices.iter().filter(|(of, _)| *of == site).map(|(_, id)| id.clone()).collect()
    }
}

fn secret(site: usize) -> [u8; JoinToken::SECRET_LEN] {
    [site as u8 + 1; JoinToken::SECRET_LEN]
}

impl World {
    pub(crate) fn until_quiet(&self) -> Duration {
        self.quiet_from().since(self.now)
    }

    /// What the cloud was told after its backup it does not know any more: whoever notices tells it again.
    pub(crate) fn people_start_over(&mut self) {
        self.people.manifests.iter_mut().for_each(|(_, taken)| *taken = false);
        self.agenda.at(self.now + Duration::from_secs(2), Event::Apply);
        for site in 0..self.mappers.sites() {
            let key = format!("/c/node/{}", manifests::edge_name(site));
            if self.hosts[&Machine::Cloud].disk.durable().get(&key).is_none() {
                self.people.joins[site] = Join::NoToken;
                self.agenda.at(self.now + Duration::from_secs(1), Event::Join { site });
            }
        }
    }

    /// One step towards membership; tried again until it is reached.
    pub(crate) fn join(&mut self, site: usize) {
        match self.people.joins[site] {
            Join::Welcome => return,
            Join::NoToken => {
                let id = self.number();
                self.asked.tokens.insert(id, site);
                let order = TokenOrder { site: name("plant"), lans: vec![], ttl_seconds: 86_400, uses: 1 };
                let request = AdminRequest::CreateToken { order, secret: secret(site) };
                self.tell(Machine::Cloud, Input::Admin { id, request });
            }
            Join::HasToken => {
                let link = self.links.fresh_link();
                self.asked.joins.insert(link, site);
                let request = JoinRequest {
                    secret: secret(site).to_vec(),
                    name: manifests::edge_name(site),
                    csr_der: csr(site),
                };
                self.tell(Machine::Cloud, Input::Join { link, request: request.to_bytes().into() });
            }
        }
        let again = self.chance.span(Duration::from_millis(300), Duration::from_secs(20));
        self.agenda.at(self.now + again, Event::Join { site });
    }

    pub(crate) fn join_answered(&mut self, link: LinkId, reply: &[u8]) {
        let Some(site) = self.asked.joins.remove(&link) else { return };
        let reply = JoinReply::from_bytes(reply);
        self.trace
            .say(self.now, format_args!("edge-{site} join: {}", matches!(reply, Ok(JoinReply::Welcome(_)))));
        match reply {
            Ok(JoinReply::Welcome(_)) => {
                let durable = self.hosts[&Machine::Cloud].disk.durable();
                self.oracle.on_welcome(site, durable, self.now);
                // A reply may get lost: the edge then asks again with the same token and key.
                if !self.chance.one_in(4) && self.people.joins[site] != Join::Welcome {
                    self.people.joins[site] = Join::Welcome;
                    let machine = Machine::edge(site);
                    self.agenda.at(self.now + Duration::from_millis(400), Event::Boot { machine });
                }
            }
            Ok(JoinReply::Refused { message, .. }) => {
                self.oracle.accuse(
                    self.now,
                    "whoever has a token is let in",
                    format!("edge-{site}: {message}"),
                );
            }
            Err(why) => self.oracle.accuse(self.now, "whoever has a token is let in", why.to_string()),
        }
    }

    /// Somebody writes rules and throws some away: what edges must know comes and goes.
    pub(crate) fn rework(&mut self) {
        if self.quiet {
            return;
        }
        let next = self.chance.skewed(Duration::from_secs(10), Duration::from_secs(900));
        self.agenda.at(self.now + next, Event::Rework);
        for _ in 0..self.chance.between(1, 4) {
            let number = self.chance.between(0, RULES as u64 - 1) as usize;
            let devices: Vec<&PropertyId> = self.people.devices.iter().map(|(_, id)| id).collect();
            let (from, to) = (self.chance.pick(&devices), self.chance.pick(&devices));
            let (Some(from), Some(to)) = (from, to) else { return };
            let request = if self.chance.one_in(2) {
                AdminRequest::Apply { manifest: manifests::rule_manifest(number, &from.device, &to.device) }
            } else {
                AdminRequest::Delete { kind: "rule".to_owned(), device: manifests::rule(number) }
            };
            let id = self.number();
            self.tell(Machine::Cloud, Input::Admin { id, request });
        }
    }

    /// The next manifest that has not been taken, until all are.
    pub(crate) fn apply(&mut self) {
        let Some(number) = self.people.manifests.iter().position(|(_, taken)| !taken) else { return };
        let manifest = self.people.manifests[number].0.clone();
        let id = self.number();
        self.asked.manifests.insert(id, number);
        self.tell(Machine::Cloud, Input::Admin { id, request: AdminRequest::Apply { manifest } });
        let next = self.chance.span(Duration::from_millis(100), Duration::from_secs(5));
        self.agenda.at(self.now + next, Event::Apply);
    }

    /// Somebody at the cloud wishes something, by the CLI or as an app; sometimes what cannot be.
    pub(crate) fn wish(&mut self) {
        if self.quiet {
            return;
        }
        for _ in 0..if self.chance.one_in(6) { 3 } else { 1 } {
            self.wish_once();
        }
        let next = self.chance.skewed(Duration::from_secs(2), Duration::from_secs(600));
        self.agenda.at(self.now + next, Event::Wish);
    }

    fn wish_once(&mut self) {
        let property = if self.chance.one_in(2) { SETTING } else { ACTUATOR };
        let wanted: Vec<&PropertyId> =
            self.people.devices.iter().map(|(_, id)| id).filter(|id| *id.property == *property).collect();
        let Some(id) = self.chance.pick(&wanted).map(|id| (*id).clone()) else { return };
        let valid = !self.chance.one_in(20);
        let value = if valid { self.chance.between(0, 100) as f64 } else { 1000.0 };
        let number = self.number();
        let (input, question) = if self.chance.one_in(2) {
            let request = AdminRequest::SetTwin {
                device: id.device.clone(),
                property: id.property.to_string(),
                value: Value::Float(value),
            };
            (Input::Admin { id: number, request }, Question::Admin(number))
        } else {
            let topic =
                TwinTopic::Set { device: id.device.clone(), property: id.property.to_string() }.topic();
            let payload = json!({"value": value}).to_string().into();
            let ticket = Some(Ticket(number));
            (Input::mqtt(ticket, topic, payload, false), Question::Ticket(number))
        };
        self.trace.say(self.now, format_args!("somebody wishes {id} = {value}"));
        self.tell_about(Machine::Cloud, input, About::Wish { question, ids: vec![id], valid });
    }

    /// Somebody at a site moves an actuator.
    pub(crate) fn operate(&mut self) {
        if self.quiet {
            return;
        }
        let next = self.chance.skewed(Duration::from_secs(60), Duration::from_secs(3600));
        self.agenda.at(self.now + next, Event::Operator);
        let movable: Vec<&(usize, PropertyId)> =
            self.people.devices.iter().filter(|(_, id)| &*id.property == ACTUATOR).collect();
        let Some((site, id)) = self.chance.pick(&movable).map(|found| (*found).clone()) else { return };
        let value = self.chance.between(0, 100) as f64;
        let topic = TwinTopic::Set { device: id.device.clone(), property: id.property.to_string() }.topic();
        let input = Input::mqtt(None, topic, json!(value).to_string().into(), false);
        self.trace.say(self.now, format_args!("somebody at edge-{site} moves {id} to {value}"));
        self.tell_about(Machine::edge(site), input, About::Operator { seat: Seat::of(site), id, value });
    }

    /// What the world wants to remember of an input that was just handled.
    pub(crate) fn note(&mut self, machine: Machine, about: About) {
        let life = self.hosts[&machine].life;
        match about {
            About::Nothing => {}
            About::Report { ticket, id } => {
                let kept = self.value_at(machine, &format!("/t/reported/{id}"));
                let reported = kept.and_then(|bytes| minicbor::decode::<Reported>(&bytes).ok());
                self.asked
                    .reports
                    .insert(ticket, (machine, life, id, reported.map(|reported| reported.version)));
            }
            About::Wish { question, ids, valid } => self.note_wish(question, ids, valid, life),
            About::Operator { seat, id, value } => self.oracle.on_operator(seat, &id, value, self.now),
        }
    }

    fn note_wish(&mut self, question: Question, ids: Vec<PropertyId>, valid: bool, life: u32) {
        let noted = ids.into_iter().map(|id| {
            let site = manifests::site_of(&id.device).unwrap_or_default();
            let key = format!("/e/{}/desired/{id}", manifests::edge_name(site));
            let desired =
                self.value_at(Machine::Cloud, &key).and_then(|b| minicbor::decode::<Desired>(&b).ok());
            (id, desired.map(|desired| desired.version).filter(|_| valid))
        });
        let noted = noted.collect();
        self.asked.wishes.insert(question, (life, noted));
    }

    pub(crate) fn value_at(&self, machine: Machine, key: &str) -> Option<Bytes> {
        let keyspace = match &self.hosts[&machine].running.as_ref()?.node {
            Node::Cloud(cloud) => cloud.keyspace(),
            Node::Edge(edge) => edge.keyspace(),
        };
        keyspace.get(key).cloned()
    }

    pub(crate) fn accepted(&mut self, ticket: u64) {
        self.trace.say(self.now, format_args!("ticket {ticket} accepted"));
        if let Some((machine, _, id, version)) = self.asked.reports.remove(&ticket) {
            if let (Some(version), Machine::Edge(seat)) = (version, machine) {
                let durable = self.hosts[&machine].disk.durable();
                self.oracle.on_report_accepted(seat, &id, version, durable, self.now);
            }
        } else {
            self.wish_accepted(Question::Ticket(ticket));
        }
    }

    fn wish_accepted(&mut self, question: Question) {
        let Some((_, wishes)) = self.asked.wishes.remove(&question) else { return };
        for (id, version) in wishes {
            match version {
                Some(version) => self.wish_taken(&id, version),
                None => self.oracle.accuse(self.now, "what cannot be is not accepted", format!("{id}")),
            }
        }
    }

    fn wish_taken(&mut self, id: &PropertyId, version: DesiredVersion) {
        let durable = self.hosts[&Machine::Cloud].disk.durable();
        self.oracle.on_wish_accepted(id, version, durable, self.now);
    }

    pub(crate) fn rejected(&mut self, ticket: u64, why: &str) {
        self.trace.say(self.now, format_args!("ticket {ticket} rejected: {why}"));
        self.asked.reports.remove(&ticket);
        self.asked.wishes.remove(&Question::Ticket(ticket));
    }

    pub(crate) fn answered(&mut self, id: u64, response: AdminResponse) {
        self.trace.say(self.now, format_args!("question {id} answered: {response:?}"));
        if let Some(site) = self.asked.tokens.remove(&id) {
            // It may exist from an asking whose answer was lost; the secret is the same.
            if self.people.joins[site] == Join::NoToken {
                self.people.joins[site] = Join::HasToken;
            }
        } else if let Some(number) = self.asked.manifests.remove(&id) {
            match response {
                Ok(_) => self.people.manifests[number].1 = true,
                Err(why) => self.oracle.accuse(self.now, "a good manifest is taken", why.to_string()),
            }
        } else if self.asked.orders.contains_key(&id) {
            self.order_answered(id, response.is_ok());
        } else if response.is_ok() {
            self.wish_accepted(Question::Admin(id));
        } else {
            self.asked.wishes.remove(&Question::Admin(id));
        }
    }

    /// After a start of an edge its broker's clients come back.
    pub(crate) fn clients_come(&mut self, seat: Seat) {
        let life = self.hosts[&Machine::Edge(seat)].life;
        let mapper = self.chance.skewed(Duration::from_millis(100), Duration::from_secs(30));
        let app = self.chance.skewed(Duration::from_millis(100), Duration::from_secs(60));
        self.agenda.at(self.now + mapper, Event::MapperConnects { seat, life });
        self.agenda.at(self.now + app, Event::Subscribe { seat, life });
    }

    /// An app at each site looks at the next site's devices.
    pub(crate) fn subscribe(&mut self, seat: Seat, life: u32) {
        if self.hosts[&Machine::Edge(seat)].life != life {
            return;
        }
        let other = (seat.site + 1) % self.mappers.sites();
        let filters = (0..2).map(|number| format!("twin/{}/reported/#", manifests::device(other, number)));
        for filter in filters.filter_map(|text| Filter::new(&text).ok()) {
            self.tell(Machine::Edge(seat), Input::Interest { filter, wanted: true });
        }
    }

    pub(crate) fn mapper_connects(&mut self, seat: Seat, life: u32) {
        let host = &self.hosts[&Machine::Edge(seat)];
        if host.life != life || host.running.is_none() || !self.mappers[seat].running {
            return;
        }
        let config = host.mapper_config.clone();
        let topic = MapperTopic::Config { mapper: name(MAPPER) };
        self.trace.say(self.now, format_args!("{seat} mapper connects"));
        self.mappers[seat].handle_connected();
        self.take_mapper_actions(seat);
        if let Some(payload) = config {
            self.agenda.at(self.now, Event::ToMapper { seat, life, topic, payload, expires: None });
        }
    }

    /// The broker publishes the mapper's will.
    pub(crate) fn mapper_crashes(&mut self, seat: Seat) {
        let was_connected = self.mappers[seat].connected;
        self.mappers[seat].handle_crash();
        if was_connected {
            let topic = MapperTopic::State { mapper: name(MAPPER) }.topic();
            let payload = Bytes::from_static(b"offline");
            self.tell(Machine::Edge(seat), Input::mqtt(None, topic, payload, true));
        }
    }

    pub(crate) fn publish_to_mapper(
        &mut self,
        seat: Seat,
        topic: MapperTopic,
        payload: Bytes,
        expires: Option<bus::Mono>,
    ) {
        let slow = self.chance.per_mille(self.mappers[seat].habits.slow / 4);
        let longest = if slow { Duration::from_secs(15) } else { Duration::from_millis(20) };
        let mut at = self.now + self.chance.span(Duration::from_micros(300), longest);
        let repeats = self.chance.per_mille(self.mappers[seat].habits.repeated);
        let now = self.now;
        let host = self.host(Machine::Edge(seat));
        at = at.max(host.last_to_mapper);
        host.last_to_mapper = at;
        let life = host.life;
        match &topic {
            MapperTopic::Config { .. } => host.mapper_config = Some(payload.clone()),
            MapperTopic::Write { .. } => {
                if let Ok(request) = serde_json::from_slice::<WriteRequest>(&payload) {
                    let durable = self.hosts[&Machine::Edge(seat)].disk.durable();
                    self.oracle.on_published(seat, &request, durable, now);
                }
            }
            MapperTopic::Result { .. } | MapperTopic::State { .. } | MapperTopic::Health { .. } => {}
        }
        if repeats {
            let (topic, payload) = (topic.clone(), payload.clone());
            self.agenda
                .at(at + Duration::from_secs(1), Event::ToMapper { seat, life, topic, payload, expires });
        }
        self.agenda.at(at, Event::ToMapper { seat, life, topic, payload, expires });
    }

    pub(crate) fn deliver_to_mapper(
        &mut self,
        seat: Seat,
        life: u32,
        topic: &MapperTopic,
        payload: &[u8],
        expires: Option<bus::Mono>,
    ) {
        let host = &self.hosts[&Machine::Edge(seat)];
        let expired = expires.is_some_and(|at| at <= self.now);
        if host.life != life || expired || !self.mappers[seat].connected {
            return;
        }
        let now = host.now(self.now);
        self.mappers[seat].handle_message(topic, payload, now);
        self.take_mapper_actions(seat);
    }

    pub(crate) fn take_mapper_actions(&mut self, seat: Seat) {
        let life = self.hosts[&Machine::Edge(seat)].life;
        for action in self.mappers[seat].take_actions() {
            match action {
                Action::Publish { topic, payload, retain, sure } => {
                    let event = Event::FromMapper { seat, life, topic, payload, retain, sure };
                    self.agenda.at(self.now + Duration::from_millis(1), event);
                }
                Action::Wake { at, event } => self.agenda.at(at, Event::Mapper { seat, event }),
                Action::Execute(request) => {
                    self.trace.say(self.now, format_args!("{seat} device moves: {request:?}"));
                    self.oracle.on_executed(seat, &request, self.now);
                }
            }
        }
    }

    pub(crate) fn hear_mapper(
        &mut self,
        seat: Seat,
        life: u32,
        topic: Topic,
        payload: Bytes,
        retain: bool,
        sure: bool,
    ) {
        let machine = Machine::Edge(seat);
        if self.hosts[&machine].life != life || !self.mappers[seat].connected {
            return;
        }
        let number = self.number();
        let report = match TwinTopic::parse(&topic) {
            Some(TwinTopic::Report { device, property }) if sure => {
                Some(manifests::property(&device, &property))
            }
            _ => None,
        };
        let text = String::from_utf8_lossy(&payload).into_owned();
        self.trace.say(self.now, format_args!("{seat} mapper says {} {text} ({number})", topic.as_str()));
        let about = report.map_or(About::Nothing, |id| About::Report { ticket: number, id });
        let ticket = sure.then_some(Ticket(number));
        self.tell_about(machine, Input::mqtt(ticket, topic, payload, retain), about);
    }
}

//! KubeEdge's Device Mapper Interface, DMI v1beta1: the edge's half, without a socket.
//!
//! ```text
//!   mapper ---- MapperRegister, ReportDeviceStatus, ReportDeviceStates ---> Dmi ---- mapper/.., twin/../report --> twins
//!          <--- RegisterDevice, UpdateDevice, .. (one call at a time) -----     <--- mapper/../write ------------
//! ```
//!
//! To the twins a DMI mapper is a mapper like any other: the same topics, the same writes with a time to live. What is
//! kept of it is under `/t/dmi/`: who registered for which protocol, and what it was told of each device, so that after a
//! restart of the edge it hears what it missed, and no more.
//!
//! Three things differ from KubeEdge, on purpose. What a mapper does not take is said again until it does, so that the
//! order in which mappers, models and devices come does not matter. Nothing but a fresh write moves a device (see
//! `describe.rs`). And nothing is limited to one request a second.
//!
//! Reading order: `describe.rs`, `mapper.rs`, then this.

mod any;
pub mod api;
mod call;
mod describe;
mod device;
mod manifest;
mod mapper;
mod report;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bus::twin::{DeviceId, MapperTopic, Outcome, WriteRequest, WriteResult};
use bus::{Mono, Name, Topic};
use bytes::Bytes;
use metadata::{Key, Keyspace};
use prost::Message as _;
use thiserror::Error;

pub use call::{Answer, Call, Method};
pub use report::InvalidReport;

use self::api::{MapperInfo, MapperRegisterRequest, MapperRegisterResponse};
use self::describe::{Description, Digest};
use self::device::Write;
use self::mapper::{Effect, Mapper, Registration};
use crate::model::{Catalog, Kind, Layout, Protocol};
use crate::twin::{self, Expiry, Ticket, key};

/// Protocols that mappers can be registered for. A machine runs a handful; one more is refused and can register when
/// another's registration is gone.
const MAX_MAPPERS: usize = 64;

/// Bytes of a mapper's name. It is shown to people, and kept.
const MAX_NAME: usize = 256;

/// Bytes of a socket's path: what an address of Linux holds with its end (unix(7)).
const MAX_ADDRESS: usize = 107;

const REGISTRATIONS: &str = "/t/dmi/mapper/";
const TOLD: &str = "/t/dmi/told/";

/// What a mapper says.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    Register(MapperRegisterRequest),
    Status(api::ReportDeviceStatusRequest),
    States(api::ReportDeviceStatesRequest),
}

/// What is to be done, in this order, once the keyspace's writes are durable.
#[derive(Debug, PartialEq)]
pub enum Output {
    Call(Call),
    /// The answer to [`Request::Register`], encoded.
    Registered(Ticket, Bytes),
    /// Another request is refused, and why.
    Reject(Ticket, String),
    /// For the twins, as if a client of the local broker had said it. With a ticket that is the request's answer.
    Say(Option<Ticket>, Topic, Bytes),
    /// For the twins: what a mapper says of a device's state.
    State(Ticket, DeviceId, String),
    Note(String),
}

/// Why a mapper cannot be registered; the first in KubeEdge's words.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidRegistration {
    #[error("fail to register mapper {0} because the protocol is nil")]
    NoProtocol(String),
    #[error("fail to register mapper because it says nothing of itself")]
    NoMapper,
    #[error("fail to register mapper {0}: {1}")]
    Unfit(String, String),
}

/// What a mapper has to be told about.
#[derive(Debug, Clone, Copy)]
struct Bound<'a> {
    me: &'a Name,
    catalog: &'a Catalog,
}

impl Bound<'_> {
    fn mapper_of(&self, id: &DeviceId) -> Option<&Name> {
        let info = self.catalog.device(id)?;
        info.mapper.as_ref().filter(|_| info.node.as_ref() == Some(self.me))
    }
}

/// The edge's half of DMI.
#[derive(Debug)]
pub struct Dmi {
    me: Name,
    mappers: BTreeMap<Name, Mapper>,
    calls: u64,
    outputs: VecDeque<Output>,
}

impl Dmi {
    /// Takes up who had registered before this process began.
    pub fn load(me: Name, catalog: &Catalog, ks: &Keyspace, now: Mono) -> Self {
        let mut mappers = BTreeMap::new();
        for (key, kept) in ks.range(REGISTRATIONS) {
            let name = Name::new(key.as_str().strip_prefix(REGISTRATIONS).unwrap_or_default());
            if let (Ok(name), Some(registration)) = (name, twin::decode::<Registration>(kept)) {
                mappers.insert(name, Mapper::new(registration, now));
            }
        }
        let bound = Bound { me: &me, catalog };
        for (name, mapper) in &mut mappers {
            for (id, digest) in told(name, ks) {
                mapper.devices.entry(id.clone()).or_default().told = Some(digest);
                mapper.unwant(&id);
            }
            for (id, _) in catalog.devices().filter(|(id, _)| bound.mapper_of(id) == Some(name)) {
                mapper.want(id, describe::model_of(id, ks));
            }
        }
        Self { me, mappers, calls: 0, outputs: VecDeque::new() }
    }

    /// Whether writes for this mapper are for one that registered here.
    pub fn serves(&self, mapper: &Name) -> bool {
        self.mappers.contains_key(mapper)
    }

    pub fn handle_request(
        &mut self,
        ticket: Ticket,
        request: &Request,
        catalog: &Catalog,
        ks: &mut Keyspace,
        now: Mono,
    ) {
        let done = match request {
            Request::Register(request) => {
                self.register(ticket, request, catalog, ks, now).map_err(|why| why.to_string())
            }
            Request::Status(request) => report::of_status(request, catalog)
                .map(|(device, topic, payload)| {
                    self.heard_of(&device, catalog, now);
                    self.outputs.push_back(Output::Say(Some(ticket), topic, payload));
                })
                .map_err(|why| why.to_string()),
            Request::States(request) => report::of_states(request)
                .map(|(device, state)| {
                    self.heard_of(&device, catalog, now);
                    self.outputs.push_back(Output::State(ticket, device, state));
                })
                .map_err(|why| why.to_string()),
        };
        if let Err(why) = done {
            self.outputs.push_back(Output::Reject(ticket, why));
        }
        self.perform();
    }

    /// The last registration for a protocol holds, as with KubeEdge.
    fn register(
        &mut self,
        ticket: Ticket,
        request: &MapperRegisterRequest,
        catalog: &Catalog,
        ks: &mut Keyspace,
        now: Mono,
    ) -> Result<(), InvalidRegistration> {
        let info = request.mapper.as_ref().ok_or(InvalidRegistration::NoMapper)?;
        let (name, registration) = self.check(info)?;
        if !request.with_data {
            // As with KubeEdge: who wants no devices is told of none, later neither.
            self.outputs.push_back(Output::Registered(ticket, Bytes::new()));
            return Ok(());
        }
        self.replace(&name);
        put(ks, key(REGISTRATIONS, &name), twin::cbor(&registration));
        let before: Vec<DeviceId> = told(&name, ks).map(|(id, _)| id).collect();
        before.iter().for_each(|id| ks.delete(&told_key(&name, id)));
        let mut mapper = Mapper::new(registration, now);
        let reply = self.introduce(&name, &mut mapper, catalog, ks, now);
        mapper.heard(now);
        self.outputs.push_back(Output::Registered(ticket, Bytes::from(reply.encode_to_vec())));
        self.mappers.insert(name, mapper);
        Ok(())
    }

    fn check(&self, info: &MapperInfo) -> Result<(Name, Registration), InvalidRegistration> {
        let shown: String = info.name.chars().take(MAX_NAME).collect();
        let unfit = |why: &str| InvalidRegistration::Unfit(shown.clone(), why.to_owned());
        let protocol = Protocol { protocol_name: info.protocol.clone(), ..Protocol::default() };
        let name = protocol.mapper().map_err(|why| unfit(&why.reason))?;
        let name = name.ok_or_else(|| InvalidRegistration::NoProtocol(shown.clone()))?;
        let address = std::str::from_utf8(&info.address).ok().filter(|path| is_address(path));
        let address = address.ok_or_else(|| unfit("its address is no absolute path of a socket"))?;
        if self.mappers.len() >= MAX_MAPPERS && !self.mappers.contains_key(&name) {
            return Err(unfit("too many protocols are served here already"));
        }
        let registration = Registration {
            protocol: info.protocol.clone(),
            address: address.to_owned(),
            name: shown.clone(),
        };
        Ok((name, registration))
    }

    /// To the twins the mapper went away, and what it had not answered is not known.
    fn replace(&mut self, name: &Name) {
        let before = self.mappers.remove(name);
        if before.is_some_and(|mapper| mapper.is_online()) {
            self.say_online(name, false);
        }
    }

    /// All devices that are the mapper's, as it is told them at its registration.
    fn introduce(
        &self,
        name: &Name,
        mapper: &mut Mapper,
        catalog: &Catalog,
        ks: &mut Keyspace,
        now: Mono,
    ) -> MapperRegisterResponse {
        let bound = Bound { me: &self.me, catalog };
        let mut models = BTreeMap::new();
        let mut devices = Vec::new();
        for (id, _) in catalog.devices().filter(|(id, _)| bound.mapper_of(id) == Some(name)) {
            let Some(description) = Description::at_rest(id, ks) else {
                mapper.want(id, describe::model_of(id, ks));
                continue;
            };
            let digest = description.digest();
            put(ks, told_key(name, id), Bytes::copy_from_slice(&digest));
            mapper.introduced(id, description.model_id.clone(), digest, now);
            models.insert(description.model_id, description.model);
            devices.push(description.device);
        }
        MapperRegisterResponse { models: models.into_values().collect(), devices }
    }

    fn heard_of(&mut self, device: &DeviceId, catalog: &Catalog, now: Mono) {
        let bound = Bound { me: &self.me, catalog };
        if let Some(mapper) = bound.mapper_of(device).and_then(|name| self.mappers.get_mut(name)) {
            mapper.heard(now);
        }
    }

    /// The twins want something written by a mapper that [`Self::serves`]. A payload of theirs is well-formed.
    pub fn handle_write(&mut self, mapper: &Name, payload: &[u8], expiry: Option<Expiry>, now: Mono) {
        let Some(mapper) = self.mappers.get_mut(mapper) else { return };
        let Ok(WriteRequest { id, device, property, value, ttl_ms, .. }) = serde_json::from_slice(payload)
        else {
            return;
        };
        let ttl = std::time::Duration::from_millis(ttl_ms);
        let ttl = expiry.map_or(ttl, |expiry| expiry.0.min(ttl));
        mapper.write(&device, &property, Write { id, value, expires: now + ttl });
        self.perform();
    }

    pub fn handle_answer(&mut self, call: u64, answer: &Answer, ks: &mut Keyspace, now: Mono) {
        for mapper in self.mappers.values_mut() {
            if mapper.answered(call, answer, now) {
                break;
            }
        }
        self.keep(ks);
        self.perform();
    }

    /// Manifests changed, and the catalog with them.
    pub fn handle_changed(&mut self, keys: &[Key], catalog: &Catalog, ks: &Keyspace) {
        if self.mappers.is_empty() {
            return;
        }
        for (kind, id) in keys.iter().filter_map(|key| Kind::of_key(Layout::Edge, key.as_str())) {
            match kind {
                Kind::Device => self.device_changed(&id, catalog, ks),
                Kind::Model => self.mappers.values_mut().for_each(|mapper| mapper.model_changed(&id)),
                Kind::Policy | Kind::Rule => {}
            }
        }
        self.perform();
    }

    fn device_changed(&mut self, id: &DeviceId, catalog: &Catalog, ks: &Keyspace) {
        let bound = Bound { me: &self.me, catalog };
        let of = bound.mapper_of(id);
        for (name, mapper) in &mut self.mappers {
            if of == Some(name) {
                mapper.want(id, describe::model_of(id, ks));
            } else {
                mapper.unwant(id);
            }
        }
    }

    /// Asks the mappers what is due. To be called after whatever else was handled.
    pub fn drive(&mut self, ks: &mut Keyspace, now: Mono) {
        for mapper in self.mappers.values_mut() {
            if mapper.drive(self.calls, ks, now) {
                self.calls += 1;
            }
        }
        self.keep(ks);
        self.perform();
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        self.mappers.values().map(Mapper::poll_timeout).min().map(|at| (at, "dmi"))
    }

    /// Brings what is kept in line with what the mappers were told.
    fn keep(&mut self, ks: &mut Keyspace) {
        for (name, mapper) in &self.mappers {
            for effect in &mapper.effects {
                match effect {
                    Effect::Told { device, digest: Some(digest) } => {
                        put(ks, told_key(name, device), Bytes::copy_from_slice(digest));
                    }
                    Effect::Told { device, digest: None } => ks.delete(&told_key(name, device)),
                    Effect::Ask { .. } | Effect::Ended { .. } | Effect::Online(_) | Effect::Note(_) => {}
                }
            }
        }
    }

    /// Says what the mappers want said.
    fn perform(&mut self) {
        let names: BTreeSet<Name> = self.with_effects().cloned().collect();
        for name in names {
            let Some(mapper) = self.mappers.get_mut(&name) else { continue };
            let address = mapper.registration.address.clone();
            for effect in std::mem::take(&mut mapper.effects) {
                self.say(&name, &address, effect);
            }
        }
    }

    fn with_effects(&self) -> impl Iterator<Item = &Name> {
        self.mappers.iter().filter(|(_, mapper)| !mapper.effects.is_empty()).map(|(name, _)| name)
    }

    fn say(&mut self, name: &Name, address: &str, effect: Effect) {
        match effect {
            Effect::Ask { id, method, body, expires } => {
                let address = address.to_owned();
                self.outputs.push_back(Output::Call(Call { id, address, method, body, expires }));
            }
            Effect::Ended { device, property, write, outcome, detail } => {
                self.say_result(name, WriteResult { id: write.id, device, property, outcome, detail });
            }
            Effect::Online(online) => self.say_online(name, online),
            Effect::Note(text) => self.outputs.push_back(Output::Note(text)),
            Effect::Told { .. } => {}
        }
    }

    fn say_result(&mut self, mapper: &Name, result: WriteResult) {
        debug_assert_ne!(result.outcome, Outcome::Rejected, "a mapper that refuses has failed");
        let topic = MapperTopic::Result { mapper: mapper.clone() }.topic();
        self.outputs.push_back(Output::Say(None, topic, twin::json(&result)));
    }

    fn say_online(&mut self, mapper: &Name, online: bool) {
        let topic = MapperTopic::State { mapper: mapper.clone() }.topic();
        let payload = if online { "online" } else { "offline" };
        self.outputs.push_back(Output::Say(None, topic, Bytes::from_static(payload.as_bytes())));
    }
}

fn is_address(path: &str) -> bool {
    path.starts_with('/') && path.len() <= MAX_ADDRESS && !path.contains('\0')
}

fn told_key(mapper: &Name, device: &DeviceId) -> Key {
    key(TOLD, format_args!("{mapper}/{device}"))
}

/// What a mapper was told, as it is kept.
fn told(mapper: &Name, ks: &Keyspace) -> impl Iterator<Item = (DeviceId, Digest)> {
    let prefix = format!("{TOLD}{mapper}/");
    let rows = ks.range(&prefix).filter_map(|(key, digest)| {
        let device = twin::parse_device(key.as_str().strip_prefix(&prefix)?)?;
        Some((device, Digest::try_from(&digest[..]).unwrap_or(describe::OPEN)))
    });
    rows.collect::<Vec<_>>().into_iter()
}

/// What is there already costs no commit.
fn put(ks: &mut Keyspace, key: Key, value: Bytes) {
    if ks.get(key.as_str()) != Some(&value) {
        ks.put(key, value);
    }
}

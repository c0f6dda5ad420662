//! The edge's half: reports come in from mappers, wishes from cloud, operators and rules; at most one write a property
//! goes out.
//!
//! A desired value of the cloud takes this way, and no version takes it twice:
//!
//! ```text
//!                older or known            not valid      too old, or age unknown        held by a stronger slot
//!  /m/desired --> (ignored)  --> Rejected  --> Expired (actuators)  --> Superseded (actuators)
//!      |                                             ^
//!      |  cloud's time not known yet: Waiting -------+ after CLOCK_GRACE
//!      v
//!   slot 14 --> write --> Succeeded | Failed | Rejected | Expired      (the mapper's answer)
//!                     `-> Superseded (a newer write)  | Unknown (no answer, or a restart)
//! ```
//!
//! Only a *decision* moves an actuator: a new desired value, an operator's set, a rule's evaluation, or the end of one
//! of these. A start of node or mapper is none. A setting (`onStale: apply`) is delivered again until it is
//! acknowledged.
//!
//! Drive it as every core: `handle_*`, then [`EdgeTwins::poll_output`] to `None`, then [`EdgeTwins::poll_timeout`].
//! The node seals the keyspace after each handle and holds outputs back until that is durable.

mod audit;
mod authority;
mod clock;
mod command;
mod desired;
mod device;
mod kubeedge;
mod mqtt;
mod output;
mod pace;
mod property;
mod reading;
mod resync;
mod rules;
mod write;

pub use authority::AuthorityError;
pub use output::Output;
pub use rules::ResetError;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bus::bus::ClockOffset;
use bus::twin::{DeviceId, Incarnation, ReportedVersion, TwinTopic};
use bus::{Filter, Mono, Name, Now, Topic, UnixMillis};
use metadata::{Key, Keyspace};

use crate::command::CommandPlace;
use crate::model::{Catalog, Change, Kind, Layout, Property};
use crate::twin::{self, Availability, DeviceState, PropertyId, Publish, ReportedBody, key};
use crate::view::{Gist, TwinView};
use clock::CloudClock;
use command::Commands;
use device::{Bound, Mapper};
use kubeedge::KubeEdge;
use output::Outputs;
use property::Twin;
use rules::Rules;

/// How long a new desired value waits for the first estimate of the cloud's clock: both come right after the link, in
/// any order. Then it counts as stale.
pub const CLOCK_GRACE: Duration = Duration::from_secs(10);

/// How long an operator's set at the edge holds its slot.
pub const OPERATOR_HOLD: Duration = Duration::from_secs(600);

/// How long a mapper has to carry out a write.
pub const WRITE_TTL: Duration = Duration::from_secs(10);

/// How long after that its answer is waited for.
pub const WRITE_GRACE: Duration = Duration::from_secs(2);

/// After a write that failed the same one is not tried again before this: a device in trouble is left alone.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How often rules look at time itself: ages, `for`, and the renewal of their slots.
pub const RULE_INTERVAL: Duration = Duration::from_secs(1);

/// Numbers reserved with one write to the store, so that an id is never given out twice and a report costs no write
/// for its number. A restart skips what was not used.
const RESERVE: u64 = 1024;

/// What went wrong, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Reports that said nothing new and cost no write to the store.
    pub unchanged: u64,
    /// Reports, sets and results that were refused.
    pub refused: u64,
    /// Desired values that came again, or were older than what is known.
    pub repeated_desired: u64,
    /// Desired values that were too old to be applied.
    pub stale_desired: u64,
    /// Desired values that were made under an authority that was over.
    pub outranked: u64,
    /// Commands that came too late to be carried out.
    pub expired_commands: u64,
    /// Decisions of rules that their output cannot hold.
    pub unfit_decisions: u64,
}

/// The twins of one edge.
#[derive(Debug)]
pub struct EdgeTwins {
    me: Name,
    incarnation: Incarnation,
    start: Mono,
    catalog: Catalog,
    clock: CloudClock,
    /// Boxed, as the map leaves half of its room free.
    twins: BTreeMap<PropertyId, Box<Twin>>,
    devices: BTreeMap<DeviceId, Bound>,
    mappers: BTreeMap<Name, Mapper>,
    rules: Rules,
    commands: Commands,
    kubeedge: KubeEdge,
    timers: BTreeSet<(Mono, PropertyId)>,
    /// When authorities end.
    device_timers: BTreeSet<(Mono, DeviceId)>,
    /// Wishes that came in the present input and are not decided on; empty between inputs.
    undecided: BTreeSet<PropertyId>,
    numbers: Numbers,
    /// When the present life of this disk began, by the edge's clock: commands that were given before may have been
    /// carried out by the disk before it. `None`: nobody knows any more.
    life_since: Option<UnixMillis>,
    /// Of this process, for the ids of its writes.
    seed: u64,
    stats: Stats,
    outputs: Outputs,
}

/// Devices and rules of an edge, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    pub devices: usize,
    /// Of them.
    pub offline: usize,
    pub rules: usize,
    /// Of them: with a latch that is closed.
    pub rules_tripped: usize,
}

/// See [`EdgeTwins::life_since`].
const LIFE: &str = "/t/life";

/// Grows over restarts: revisions of reported values and ids of writes.
#[derive(Debug, Default)]
struct Numbers {
    next: u64,
    reserved: u64,
}

impl Numbers {
    const KEY: &str = "/t/rev";

    fn load(ks: &Keyspace) -> Self {
        let next = ks.get(Self::KEY).and_then(|bytes| twin::decode(bytes)).unwrap_or(1);
        Self { next, reserved: next }
    }

    fn take(&mut self, ks: &mut Keyspace) -> u64 {
        if self.next >= self.reserved {
            self.reserved = self.next + RESERVE;
            ks.put(key(Self::KEY, ""), twin::cbor(&self.reserved));
        }
        let number = self.next;
        self.next += 1;
        number
    }
}

impl EdgeTwins {
    /// `incarnation` is the store's ([`metadata::Replica`] knows it), `seed` random at each start: a disk that refused
    /// writes may have forgotten numbers, and a mapper that knows an id answers for what it did then. Call
    /// [`Self::load`] next.
    pub fn new(me: Name, incarnation: Incarnation, seed: u64) -> Self {
        Self {
            me,
            incarnation,
            seed,
            start: Mono::ZERO,
            catalog: Catalog::default(),
            clock: CloudClock::default(),
            twins: BTreeMap::new(),
            devices: BTreeMap::new(),
            mappers: BTreeMap::new(),
            rules: Rules::default(),
            commands: Commands::default(),
            kubeedge: KubeEdge::default(),
            timers: BTreeSet::new(),
            device_timers: BTreeSet::new(),
            undecided: BTreeSet::new(),
            numbers: Numbers::default(),
            life_since: None,
            stats: Stats::default(),
            outputs: Outputs::default(),
        }
    }

    /// Takes up what the store holds, once at the start: publishes what is retained, ends writes that were under way
    /// as unknown, and writes nothing to a device.
    pub fn load(&mut self, ks: &mut Keyspace, now: Now) {
        self.start = now.mono;
        self.numbers = Numbers::load(ks);
        self.life_since = ks.get(LIFE).and_then(|bytes| twin::decode(bytes));
        // Without a number nothing was ever written to a device from this disk.
        if self.life_since.is_none() && ks.get(Numbers::KEY).is_none() {
            self.begin_life(ks, now);
        }
        let mut devices = BTreeSet::new();
        for kind in Kind::ALL {
            let all: Vec<_> =
                ks.range(kind.prefix(Layout::Edge)).map(|(k, v)| (k.clone(), v.clone())).collect();
            for (key, json) in all {
                if let Some((kind, id)) = Kind::of_key(Layout::Edge, key.as_str())
                    && let Change::Devices(changed) = self.catalog.put(kind, &id, Some(&json))
                {
                    devices.extend(changed);
                }
            }
        }
        self.devices_changed(&devices, ks, now);
        self.load_commands(ks, now);
        self.decide_all(ks, now);
        self.renumber(ks);
        self.rules_changed(ks, now);
        self.configs_due(now);
    }

    /// The disk is new here, or an old copy that took a new incarnation.
    fn begin_life(&mut self, ks: &mut Keyspace, now: Now) {
        self.life_since = Some(now.wall);
        ks.put(key(LIFE, ""), twin::cbor(&now.wall));
    }

    /// Keys under `/m/` changed, by the replica.
    pub fn handle_changed(&mut self, keys: &[Key], ks: &mut Keyspace, now: Now) {
        let mut devices = BTreeSet::new();
        let mut manifests = false;
        for key in keys {
            manifests |= key.as_str().starts_with(rules::UNITS);
            let Some((kind, id)) = Kind::of_key(Layout::Edge, key.as_str()) else { continue };
            manifests = true;
            let json = ks.get(key.as_str()).cloned();
            if let Change::Devices(changed) = self.catalog.put(kind, &id, json.as_ref()) {
                devices.extend(changed);
            }
        }
        if manifests {
            self.devices_changed(&devices, ks, now);
            self.rules_changed(ks, now);
            self.configs_due(now);
        }
        // Whoever may wish is known before the wishes are looked at.
        for device in keys.iter().filter_map(|key| key.as_str().strip_prefix("/m/authority/")) {
            if let Ok(device) = device.parse() {
                self.authority_changed(&device, ks, now);
            }
        }
        for key in keys {
            let id = key.as_str().strip_prefix("/m/desired/").and_then(PropertyId::parse);
            if let Some(id) = id.filter(|id| self.twins.contains_key(id)) {
                self.desired_changed(&id, ks, now);
            }
            if let Some(id) = key.as_str().strip_prefix("/m/withdrawn/").and_then(PropertyId::parse) {
                self.withdrawn_changed(&id, ks, now);
            }
        }
        self.decide_all(ks, now);
        for key in keys {
            if let Some(place) =
                CommandPlace::parse(key.as_str().strip_prefix("/m/command/").unwrap_or_default())
            {
                self.command_changed(&place, ks, now);
            }
        }
    }

    /// What the link says of the cloud's clock; `None` while there is no link.
    pub fn handle_clock(&mut self, estimate: Option<ClockOffset>, ks: &mut Keyspace, now: Now) {
        self.clock.update(estimate, now);
        let waiting: Vec<PropertyId> =
            self.timers.iter().map(|(_, id)| id).filter(|id| self.is_waiting(id)).cloned().collect();
        waiting.iter().for_each(|id| self.decide_desired(id, ks, now));
        self.decide_commands(ks, now);
    }

    fn is_waiting(&self, id: &PropertyId) -> bool {
        self.twins.get(id).is_some_and(|twin| twin.waiting.is_some())
    }

    /// A message of the mesh on a topic that was asked for with [`Output::Watch`]. What `travelled` long is so much
    /// older; without a known travel time its age is not known either.
    pub fn handle_remote(
        &mut self,
        topic: &Topic,
        payload: &[u8],
        travelled: Option<Duration>,
        ks: &mut Keyspace,
        now: Now,
    ) {
        for rule in self.rules.take_remote(topic, payload, travelled, now) {
            self.run_rule(&rule, ks, now);
        }
    }

    pub fn handle_timeout(&mut self, ks: &mut Keyspace, now: Now) {
        // First: after a machine stood still, what is latched must hold its slot anew before the slot's time is over.
        for rule in self.rules.due(now.mono) {
            self.run_rule(&rule, ks, now);
        }
        while let Some((_, id)) = self.timers.first().filter(|(at, _)| *at <= now.mono).cloned() {
            self.property_due(&id, ks, now);
            self.reschedule(&id);
        }
        self.authorities_due(ks, now);
        self.commands_due(ks, now);
        self.configs_due(now);
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop().or_else(|| {
            self.tell_deltas();
            self.outputs.pop()
        })
    }

    pub fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        let property = self.timers.first().map(|(at, _)| (*at, "twin"));
        let rules = self.rules.next_tick().map(|at| (at, "rules"));
        let authority = self.device_timers.first().map(|(at, _)| (*at, "authority"));
        let command = self.commands.next_timeout().map(|at| (at, "command"));
        let config = self.next_config().map(|at| (at, "mapper configuration"));
        [property, rules, authority, command, config].into_iter().flatten().min()
    }

    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// What there is at this edge, counted.
    pub fn tally(&self) -> Tally {
        let is_offline =
            |bound: &&Bound| bound.state.as_ref().is_some_and(|state| state.state == Availability::Offline);
        let (rules, rules_tripped) = self.count_rules();
        Tally {
            devices: self.devices.len(),
            offline: self.devices.values().filter(is_offline).count(),
            rules,
            rules_tripped,
        }
    }

    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Every twin of this edge, for people.
    pub fn views(&self, now: Now) -> Vec<TwinView> {
        self.twins.keys().filter_map(|id| self.view_of(id, now)).collect()
    }

    /// The twins of one device, for people.
    pub fn view(&self, device: &DeviceId, now: Now) -> Vec<TwinView> {
        let first = PropertyId::new(device, "");
        let of_device = self.twins.range(first..).map(|(id, _)| id).take_while(|id| id.device == *device);
        of_device.filter_map(|id| self.view_of(id, now)).collect()
    }

    /// What of that a search asks.
    pub fn gist(&self, device: &DeviceId) -> Gist {
        let state = self.devices.get(device).and_then(|bound| bound.state.as_ref());
        let online = state.is_some_and(|state| state.state == Availability::Online);
        let mut gist = Gist { online, ..Gist::default() };
        let first = PropertyId::new(device, "");
        for (id, twin) in self.twins.range(first..).take_while(|(id, _)| id.device == *device) {
            if self.property(id).is_some() {
                gist.note(twin.desired.as_deref(), twin.reported.as_ref());
            }
        }
        gist
    }

    fn view_of(&self, id: &PropertyId, now: Now) -> Option<TwinView> {
        let (property, twin) = (self.property(id)?, self.twins.get(id)?);
        let (reported, desired) = (twin.reported.as_ref(), twin.desired.as_deref());
        let view = TwinView::new(id, property, reported, desired, twin.age(now.mono));
        let bound = self.devices.get(&id.device)?;
        let state =
            bound.state.clone().map(|state| DeviceState { last_seen: self.last_seen(&id.device), ..state });
        Some(TwinView { state, authority: bound.authority.clone(), ..view })
    }

    /// What is retained here under `filter`: replay it to a node that newly asked.
    pub fn retained(&self, filter: &Filter, now: Now) -> Vec<Publish> {
        let mut all = Vec::new();
        for (id, twin) in &self.twins {
            let body = twin.reported.as_ref().and_then(|r| ReportedBody::of(r, twin.age(now.mono)));
            all.extend(body.map(|body| Publish::retained(&id.reported_topic(), &body)));
            let desired = twin.desired.as_deref().map(twin::DesiredBody::from);
            all.extend(desired.map(|body| Publish::retained(&id.desired_topic(), &body)));
        }
        for (device, bound) in &self.devices {
            let topic = TwinTopic::State { device: device.clone() };
            all.extend(bound.state.as_ref().map(|state| Publish::retained(&topic, state)));
        }
        all.retain(|publish| filter.matches(&publish.topic));
        all
    }

    fn next_version(&mut self, ks: &mut Keyspace) -> ReportedVersion {
        ReportedVersion { incarnation: self.incarnation, rev: self.numbers.take(ks) }
    }

    /// Puts the twin's next moment into the list of timers.
    fn reschedule(&mut self, id: &PropertyId) {
        let Some(twin) = self.twins.get_mut(id) else { return };
        let property = self.catalog.property(&id.device, &id.property).ok();
        let due = property.and_then(|property| twin.next_due(property, self.start));
        let old = std::mem::replace(&mut twin.due, due);
        if due != old {
            self.timers.extend(due.map(|at| (at, id.clone())));
            old.map(|at| self.timers.remove(&(at, id.clone())));
        }
    }

    /// The properties of one device that have a twin here.
    fn ids_of(&self, device: &DeviceId) -> Vec<PropertyId> {
        let from = PropertyId::new(device, "");
        self.twins.range(from..).map(|(id, _)| id).take_while(|id| id.device == *device).cloned().collect()
    }

    fn property(&self, id: &PropertyId) -> Option<&Property> {
        self.catalog.property(&id.device, &id.property).ok()
    }
}

#[cfg(test)]
mod tests;

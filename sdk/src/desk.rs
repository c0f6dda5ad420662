//! What the mapper's process decides for all its devices: who is served, which write is let in, what is published.
//!
//! Pure: inputs come by `handle_*`, what is to be done is drained by [`Desk::poll_output`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use bus::twin::{
    DeviceConfig, DeviceHealth, DeviceId, Json, MapperConfig, MapperCounts, MapperTopic, Outcome,
    PropertyConfig, ReportBody, ReportMany, TwinTopic, WriteRequest, WriteResult,
};
use bus::{Mono, Name, Now, Quality, Sample, Topic, Value};

use crate::device::LONGEST_WAIT;
use crate::health::Health;
use crate::ledger::{Admission, Ledger, MAX_WRITES};
use crate::permit::Deadline;
use crate::pushing::Source;

/// Publications under way to the broker. Enough to keep a loopback connection busy; while it is full, reports of one
/// device melt into the latest value per property and results wait in their queue.
pub(crate) const WINDOW: usize = 32;

/// Properties in one report, some 25 KiB: brokers limit their packets, and what does not fit would break the connection
/// again and again. The rest follows in its turn.
const MAX_REPORT: usize = 256;

/// Devices of one mapper: each has a task and a session. Those beyond are not served, and the log says so.
const MAX_DEVICES: usize = 4096;

/// Largest write that is read at all, in bytes; the largest sensible one (a struct) is far below.
const MAX_WRITE_BYTES: usize = 64 * 1024;

/// Longest id of a write, in bytes: ids are remembered.
const MAX_ID: usize = 128;

/// Results that wait to be sent: every remembered write and its repetitions. When full the oldest goes: it is in the
/// ledger, and comes again with the next connection.
const MAX_RESULTS: usize = 2 * MAX_WRITES;

/// A write that may be carried out, its value of the right type and within its range.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    pub(crate) request: WriteRequest,
    pub(crate) deadline: Deadline,
    /// What it was let in for.
    pub(crate) target: Target,
}

/// A property and the way to its device, as far as they decide what a write does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    connection: Json,
    property: PropertyConfig,
}

impl Target {
    /// `None` if the device has no such property.
    pub(crate) fn of(config: &DeviceConfig, property: &str) -> Option<Self> {
        let property = config.properties.iter().find(|p| p.name == property)?.clone();
        // How often it is read and told makes no difference.
        let property = PropertyConfig { poll_ms: 0, deadband: None, max_age_ms: None, ..property };
        Some(Self { connection: config.connection.clone(), property })
    }

    /// Why a value of it is out of its range.
    pub(crate) fn beyond(&self, value: &Value) -> Option<String> {
        let number = value.as_f64()?;
        let (minimum, maximum) = (self.property.minimum, self.property.maximum);
        let below =
            minimum.filter(|minimum| number < *minimum).map(|minimum| format!("{number} is below {minimum}"));
        below.or_else(|| maximum.filter(|max| number > *max).map(|max| format!("{number} is above {max}")))
    }
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(crate) enum Output {
    /// Start the device's task; it opens its first session `after` this time.
    Start {
        config: DeviceConfig,
        after: Duration,
    },
    /// Hand the running task its new configuration.
    Configure(DeviceConfig),
    /// Let the running task end.
    Stop(DeviceId),
    Write(Box<Order>),
    Publish {
        topic: Topic,
        payload: Vec<u8>,
        retain: bool,
    },
    /// Something that a person should know.
    Warn(String),
}

/// The last report of one device, and what of it the node has not been told.
#[derive(Debug, Default)]
struct Board {
    latest: BTreeMap<String, Sample>,
    unsent: BTreeSet<String>,
}

/// Where a device's task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Running,
    /// Told to end; its device may be wanted again by now.
    Ending,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Desk {
    mapper: Name,
    devices: BTreeMap<DeviceId, DeviceConfig>,
    tasks: BTreeMap<DeviceId, Task>,
    ledger: Ledger,
    boards: BTreeMap<DeviceId, Board>,
    health: Health,
    results: VecDeque<WriteResult>,
    outputs: VecDeque<Output>,
    /// Publications that the broker has not acknowledged; `None` without a connection.
    in_flight: Option<usize>,
    /// Whose report went last: the next one's turn comes after it.
    turn: Option<DeviceId>,
}

impl Desk {
    pub(crate) fn new(mapper: Name) -> Self {
        Self {
            mapper,
            devices: BTreeMap::new(),
            tasks: BTreeMap::new(),
            ledger: Ledger::default(),
            boards: BTreeMap::new(),
            health: Health::new(),
            results: VecDeque::new(),
            outputs: VecDeque::new(),
            in_flight: None,
            turn: None,
        }
    }

    /// A new connection with a clean session: whatever was under way may be lost, so everything known is said again.
    pub(crate) fn handle_connected(&mut self) {
        self.in_flight = Some(0);
        self.say_state("online");
        self.health.handle_connected();
        self.results = self.ledger.results().cloned().collect();
        for board in self.boards.values_mut() {
            board.unsent = board.latest.keys().cloned().collect();
        }
    }

    pub(crate) fn handle_disconnected(&mut self) {
        self.in_flight = None;
        self.results.clear();
        self.outputs.retain(|o| !matches!(o, Output::Publish { .. }));
    }

    /// The broker has acknowledged one publication.
    pub(crate) fn handle_acked(&mut self) {
        self.in_flight = self.in_flight.map(|n| n.saturating_sub(1));
    }

    /// `mapper/<name>/config`: starts, configures and stops only what has changed.
    pub(crate) fn handle_config(&mut self, payload: &[u8]) {
        let Some(config) = self.parse_config(payload) else { return };
        let mut wanted: BTreeMap<_, _> = config.devices.into_iter().map(|d| (d.device.clone(), d)).collect();
        while wanted.len() > MAX_DEVICES {
            let Some((device, _)) = wanted.pop_last() else { break };
            self.warn(format!("{device} is not served: a mapper has at most {MAX_DEVICES} devices"));
        }
        let before = std::mem::replace(&mut self.devices, wanted.clone());
        for gone in before.keys().filter(|device| !wanted.contains_key(device)) {
            self.dismiss(gone);
        }
        for (device, config) in wanted {
            if before.get(&device) != Some(&config) {
                self.serve(config, before.get(&device));
            }
        }
    }

    fn parse_config(&mut self, payload: &[u8]) -> Option<MapperConfig> {
        if payload.is_empty() {
            return Some(MapperConfig::default());
        }
        let parsed = serde_json::from_slice(payload);
        parsed
            .map_err(|e| self.warn(format!("the configuration is not understood, the old one stays: {e}")))
            .ok()
    }

    fn dismiss(&mut self, device: &DeviceId) {
        self.boards.remove(device);
        self.health.remove(device);
        if let Some(task) = self.tasks.get_mut(device) {
            *task = Task::Ending;
            self.outputs.push_back(Output::Stop(device.clone()));
        }
    }

    /// What is known of a property is not passed on under its name when that means something else.
    fn serve(&mut self, config: DeviceConfig, before: Option<&DeviceConfig>) {
        let source = |config: &DeviceConfig| -> BTreeMap<String, Source> {
            config.properties.iter().map(|p| (p.name.clone(), Source::of(p))).collect()
        };
        let (old, new) = (before.map(source).unwrap_or_default(), source(&config));
        if let Some(board) = self.boards.get_mut(&config.device) {
            board.latest.retain(|name, _| new.contains_key(name) && old.get(name) == new.get(name));
            board.unsent.retain(|name| board.latest.contains_key(name));
        }
        match self.tasks.get(&config.device) {
            None => self.start(config, Duration::ZERO),
            Some(Task::Running) => self.outputs.push_back(Output::Configure(config)),
            // It starts again when the old task has let the device go: see `handle_ended`.
            Some(Task::Ending) => {}
        }
    }

    fn start(&mut self, config: DeviceConfig, after: Duration) {
        self.tasks.insert(config.device.clone(), Task::Running);
        self.outputs.push_back(Output::Start { config, after });
    }

    /// A device's task has ended: as told, or by a crash of its driver. What it had in hand is unknown now.
    pub(crate) fn handle_ended(&mut self, device: &DeviceId) {
        let was = self.tasks.remove(device);
        for id in self.ledger.running(device) {
            self.finish(&id, Outcome::Unknown, "the driver ended in the middle of it".to_owned());
        }
        if let Some(config) = self.devices.get(device).cloned() {
            let crashed = was == Some(Task::Running);
            if crashed && let Some(board) = self.boards.get_mut(device) {
                board.turn_bad();
            }
            self.start(config, if crashed { LONGEST_WAIT } else { Duration::ZERO });
        }
    }

    /// `mapper/<name>/write`.
    pub(crate) fn handle_write(&mut self, payload: &[u8], retained: bool, now: Now) {
        let request = match parse_write(payload) {
            Ok(request) => request,
            Err(why) => return self.warn(format!("a write is not understood: {why}")),
        };
        let deadline = Deadline::of(&request, now);
        match self.ledger.admit(&request, now.mono + deadline.left(now), now.mono) {
            Admission::New => self.decide(request, deadline, retained, now),
            Admission::Running => {}
            Admission::Done(result) => self.answer(result),
            Admission::Full => {
                let detail = "too many writes at a time".to_owned();
                let WriteRequest { id, device, property, .. } = request;
                self.answer(WriteResult { id, device, property, outcome: Outcome::Rejected, detail });
            }
        }
    }

    /// The rules, first match wins: a retained write may be of any age, so it is refused; then expiry; then what the
    /// property can take.
    fn decide(&mut self, mut request: WriteRequest, deadline: Deadline, retained: bool, now: Now) {
        if retained {
            return self.reject(&request.id, "a retained write is refused".to_owned());
        }
        if deadline.is_over(now) {
            return self.finish(&request.id, Outcome::Expired, "too old when it arrived".to_owned());
        }
        let device = self.devices.get(&request.device);
        let Some(target) = device.and_then(|device| Target::of(device, &request.property)) else {
            return self.reject(&request.id, "no such device or property".to_owned());
        };
        match fitting(request.value.clone(), &target) {
            Ok(_) if self.tasks.get(&request.device) != Some(&Task::Running) => {
                self.finish(&request.id, Outcome::Failed, "the device is being set up anew".to_owned());
            }
            Ok(value) => {
                request.value = value;
                self.outputs.push_back(Output::Write(Box::new(Order { request, deadline, target })));
            }
            Err(why) => self.reject(&request.id, why),
        }
    }

    fn reject(&mut self, id: &str, why: String) {
        self.finish(id, Outcome::Rejected, why);
    }

    /// A write has ended.
    pub(crate) fn finish(&mut self, id: &str, outcome: Outcome, detail: String) {
        if let Some(result) = self.ledger.finish(id, outcome, detail).cloned() {
            self.answer(result);
        }
    }

    fn answer(&mut self, result: WriteResult) {
        if self.in_flight.is_none() || self.results.contains(&result) {
            return; // without a connection the ledger keeps it
        }
        if self.results.len() == MAX_RESULTS {
            self.results.pop_front();
        }
        self.results.push_back(result);
    }

    /// A device was read. What is no longer configured is not passed on.
    pub(crate) fn handle_report(&mut self, device: &DeviceId, report: BTreeMap<String, Sample>) {
        let Some(config) = self.devices.get(device) else { return };
        let board = self.boards.entry(device.clone()).or_default();
        for (name, sample) in report {
            if config.properties.iter().any(|p| p.name == name) {
                board.unsent.insert(name.clone());
                board.latest.insert(name, sample);
            }
        }
    }

    /// How a device is, and what was done with it since the last time.
    pub(crate) fn handle_health(&mut self, device: &DeviceId, health: DeviceHealth, counts: MapperCounts) {
        if self.devices.contains_key(device) {
            self.health.handle_device(device, health, counts);
        }
    }

    /// When [`handle_time`](Self::handle_time) has something to do; without a connection or with a full window there is
    /// nothing.
    pub(crate) fn next_due(&self) -> Option<Mono> {
        self.health.due().filter(|_| self.in_flight.is_some_and(|n| n < WINDOW))
    }

    pub(crate) fn handle_time(&mut self, now: Mono) {
        if self.next_due().is_some_and(|at| at <= now) {
            let payload = self.health.take(now);
            self.say(&MapperTopic::Health { mapper: self.mapper.clone() }, payload);
        }
    }

    /// Says goodbye. How the devices are, nobody knows from now on.
    pub(crate) fn handle_stop(&mut self) {
        self.say(&MapperTopic::Health { mapper: self.mapper.clone() }, Vec::new());
        self.say_state("offline");
    }

    fn say_state(&mut self, state: &str) {
        self.say(&MapperTopic::State { mapper: self.mapper.clone() }, state.into());
    }

    fn say(&mut self, topic: &MapperTopic, payload: Vec<u8>) {
        self.outputs.push_back(Output::Publish { topic: topic.topic(), payload, retain: true });
    }

    fn warn(&mut self, text: String) {
        self.outputs.push_back(Output::Warn(text));
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front().or_else(|| self.next_publication())?;
        if let (Output::Publish { .. }, Some(in_flight)) = (&output, &mut self.in_flight) {
            *in_flight += 1;
        }
        Some(output)
    }

    /// Results before reports: somebody waits for them.
    fn next_publication(&mut self) -> Option<Output> {
        if self.in_flight? >= WINDOW {
            return None;
        }
        if let Some(result) = self.results.pop_front() {
            let topic = MapperTopic::Result { mapper: self.mapper.clone() }.topic();
            return Some(Output::Publish { topic, payload: json(&result), retain: false });
        }
        let device = self.next_in_turn()?;
        let report = self.boards.get_mut(&device)?.take_unsent();
        let topic = TwinTopic::ReportMany { device: device.clone() }.topic();
        self.turn = Some(device);
        Some(Output::Publish { topic, payload: json(&report), retain: false })
    }

    /// Round robin, so that a full window starves nobody.
    fn next_in_turn(&self) -> Option<DeviceId> {
        let after = self.turn.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let in_turn = self.boards.range((after, Bound::Unbounded)).chain(&self.boards);
        let mut talkative = in_turn.filter(|(_, board)| !board.unsent.is_empty());
        talkative.next().map(|(device, _)| device.clone())
    }

    /// Whether everything that there was to say has been said and heard, or nobody listens.
    pub(crate) fn is_quiet(&self) -> bool {
        let said = self.results.is_empty() && self.boards.values().all(|b| b.unsent.is_empty());
        self.in_flight.is_none_or(|n| n == 0 && said)
    }
}

impl Board {
    /// Nobody reads any more.
    fn turn_bad(&mut self) {
        for (name, sample) in &mut self.latest {
            if sample.quality != Quality::Bad {
                sample.quality = Quality::Bad;
                self.unsent.insert(name.clone());
            }
        }
    }

    fn take_unsent(&mut self) -> ReportMany {
        let Self { latest, unsent } = self;
        let full = |sample: &Sample| ReportBody::Full {
            value: sample.value.clone(),
            time: Some(sample.time),
            quality: sample.quality,
            unit: None,
        };
        let names = std::iter::from_fn(|| unsent.pop_first()).take(MAX_REPORT);
        names.filter_map(|name| latest.get(&name).map(full).map(|body| (name, body))).collect()
    }
}

fn parse_write(payload: &[u8]) -> Result<WriteRequest, String> {
    if payload.len() > MAX_WRITE_BYTES {
        return Err(format!("longer than {MAX_WRITE_BYTES} bytes"));
    }
    let request: WriteRequest = serde_json::from_slice(payload).map_err(|e| e.to_string())?;
    if request.id.is_empty() || request.id.len() > MAX_ID {
        return Err(format!("its id needs 1 to {MAX_ID} bytes"));
    }
    Ok(request)
}

/// The value as the property takes it, or why it does not.
fn fitting(value: Value, target: &Target) -> Result<Value, String> {
    if !target.property.writable {
        return Err("not writable".to_owned());
    }
    let value = value.coerce(target.property.value_type).map_err(|e| e.to_string())?;
    target.beyond(&value).map_or(Ok(value), Err)
}

#[expect(clippy::expect_used, reason = "maps with text keys and finite numbers always have a JSON form")]
pub(crate) fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("JSON of a result or report")
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;

//! A mapper with its devices, as the SDK makes them behave: one at each edge.
//!
//! It carries out an id once, nothing after its time, of two wishes for a property the later one. Beyond that it is
//! as bad as mappers are: slow, forgetful, and at some sites lying.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::twin::{MapperConfig, MapperTopic, Outcome, TwinTopic, WriteRequest, WriteResult};
use bus::{Mono, Now, Topic, UnixMillis};
use bytes::Bytes;
use device_twin::PropertyId;
use serde_json::json;

use crate::dice::Dice;
use crate::manifests::{self, MAPPER, SENSOR};

/// How bad a mapper is, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Habits {
    /// Writes that take seconds.
    pub slow: u64,
    /// Results that are never said.
    pub silent: u64,
    /// Reports that are malformed or out of range, results of what was never asked, successes that are none.
    pub lying: u64,
    /// Messages that the broker delivers twice.
    pub repeated: u64,
}

/// What the mapper wants to be woken for. Those of an earlier life are void.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapperEvent {
    Report { life: u32, id: PropertyId },
    Work { life: u32, write: String },
}

/// What the mapper does.
#[derive(Debug)]
pub enum Action {
    /// `sure`: QoS 1.
    Publish {
        topic: Topic,
        payload: Bytes,
        retain: bool,
        sure: bool,
    },
    Wake {
        at: Mono,
        event: MapperEvent,
    },
    /// The device moves.
    Execute(WriteRequest),
}

#[derive(Debug)]
struct Pending {
    request: WriteRequest,
    mono: Mono,
    wall: UnixMillis,
}

/// A mapper process and the devices behind it, which outlive it.
#[derive(Debug)]
pub struct Mapper {
    pub habits: Habits,
    pub connected: bool,
    pub running: bool,
    /// No more reports: the world is about to be looked at.
    pub hushed: bool,
    life: u32,
    reporting: BTreeMap<PropertyId, Duration>,
    ledger: BTreeMap<String, Option<WriteResult>>,
    pending: BTreeMap<String, Pending>,
    positions: BTreeMap<PropertyId, f64>,
    dice: Dice,
    actions: Vec<Action>,
    /// Claimed successes without any.
    pub lies: u64,
}

impl Mapper {
    pub fn new(habits: Habits, dice: Dice) -> Self {
        Self {
            habits,
            connected: false,
            running: true,
            hushed: false,
            life: 0,
            reporting: BTreeMap::new(),
            ledger: BTreeMap::new(),
            pending: BTreeMap::new(),
            positions: BTreeMap::new(),
            dice,
            actions: Vec::new(),
            lies: 0,
        }
    }

    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Where a device stands.
    pub fn position(&self, id: &PropertyId) -> f64 {
        self.positions.get(id).copied().unwrap_or(5.0)
    }

    pub fn handle_connected(&mut self) {
        self.connected = true;
        self.say_online();
        let results: Vec<WriteResult> = self.ledger.values().flatten().cloned().collect();
        results.iter().for_each(|result| self.say_result(result));
    }

    /// The process ends; what it remembered is gone, the devices stay as they are.
    pub fn handle_crash(&mut self) {
        self.connected = false;
        self.running = false;
        self.life += 1;
        self.reporting.clear();
        self.ledger.clear();
        self.pending.clear();
    }

    pub fn handle_message(&mut self, topic: &MapperTopic, payload: &[u8], now: Now) {
        match topic {
            MapperTopic::Config { .. } => {
                if let Ok(config) = serde_json::from_slice(payload) {
                    self.configure(&config, now);
                }
            }
            MapperTopic::Write { .. } => {
                if let Ok(request) = serde_json::from_slice(payload) {
                    self.admit(request, now);
                }
            }
            MapperTopic::Result { .. } | MapperTopic::State { .. } | MapperTopic::Health { .. } => {}
        }
    }

    fn configure(&mut self, config: &MapperConfig, now: Now) {
        let ids = config.devices.iter().flat_map(|device| {
            device.properties.iter().map(|property| manifests::property(&device.device, &property.name))
        });
        let new: Vec<PropertyId> = ids.filter(|id| !self.reporting.contains_key(id)).collect();
        for id in new {
            let interval = self.dice.skewed(Duration::from_secs(10), Duration::from_secs(600));
            self.reporting.insert(id.clone(), interval);
            let first = now.mono + self.dice_span(interval);
            self.wake_to_report(id, first);
        }
    }

    fn dice_span(&mut self, to: Duration) -> Duration {
        self.dice.span(Duration::ZERO, to)
    }

    fn wake_to_report(&mut self, id: PropertyId, at: Mono) {
        self.actions.push(Action::Wake { at, event: MapperEvent::Report { life: self.life, id } });
    }

    fn admit(&mut self, request: WriteRequest, now: Now) {
        match self.ledger.get(&request.id).cloned() {
            Some(Some(result)) => return self.say_result(&result),
            Some(None) => return,
            None => self.ledger.insert(request.id.clone(), None),
        };
        let same = |p: &Pending| p.request.device == request.device && p.request.property == request.property;
        let older: Vec<String> =
            self.pending.iter().filter(|(_, p)| same(p)).map(|(id, _)| id.clone()).collect();
        for id in older {
            if let Some(pending) = self.pending.remove(&id) {
                self.finish(&pending.request, Outcome::Superseded);
            }
        }
        let slow = self.dice.per_mille(self.habits.slow);
        let longest = if slow { Duration::from_secs(20) } else { Duration::from_millis(500) };
        let at = now.mono + self.dice_span(longest);
        let event = MapperEvent::Work { life: self.life, write: request.id.clone() };
        self.actions.push(Action::Wake { at, event });
        let mono = now.mono + Duration::from_millis(request.ttl_ms);
        let wall = UnixMillis(request.sent.0.saturating_add(request.ttl_ms));
        self.pending.insert(request.id.clone(), Pending { request, mono, wall });
    }

    pub fn handle(&mut self, event: MapperEvent, now: Now) {
        match event {
            MapperEvent::Report { life, id } if life == self.life => self.report(id, now),
            MapperEvent::Work { life, write } if life == self.life => self.work(&write, now),
            MapperEvent::Report { .. } | MapperEvent::Work { .. } => {}
        }
    }

    fn work(&mut self, write: &str, now: Now) {
        let Some(Pending { request, mono, wall }) = self.pending.remove(write) else { return };
        if now.mono >= mono || now.wall >= wall {
            self.finish(&request, Outcome::Expired);
        } else if self.dice.per_mille(self.habits.lying) {
            self.lies += 1;
            self.finish(&request, Outcome::Succeeded);
        } else if self.dice.per_mille(self.habits.slow) {
            self.finish(&request, Outcome::Failed);
        } else {
            let id = manifests::property(&request.device, &request.property);
            self.positions.insert(id.clone(), request.value.as_f64().unwrap_or_default());
            self.actions.push(Action::Execute(request.clone()));
            self.finish(&request, Outcome::Succeeded);
            self.say_position(&id, now);
        }
    }

    fn finish(&mut self, request: &WriteRequest, outcome: Outcome) {
        let result = WriteResult {
            id: request.id.clone(),
            device: request.device.clone(),
            property: request.property.clone(),
            outcome,
            detail: String::new(),
        };
        self.ledger.insert(request.id.clone(), Some(result.clone()));
        if !self.dice.per_mille(self.habits.silent) {
            self.say_result(&result);
        }
    }

    fn report(&mut self, id: PropertyId, now: Now) {
        let Some(interval) = self.reporting.get(&id).copied() else { return };
        if self.hushed {
            return;
        }
        if &*id.property == SENSOR {
            let step = self.dice.between(0, 400) as f64 / 100.0 - 2.0;
            let position = (self.position(&id) + step).clamp(0.0, 10.0);
            self.positions.insert(id.clone(), position);
        }
        if self.dice.per_mille(self.habits.lying) {
            self.lie(&id);
        } else {
            self.say_position(&id, now);
        }
        let next = now.mono + interval / 2 + self.dice_span(interval);
        self.wake_to_report(id, next);
    }

    fn say_position(&mut self, id: &PropertyId, now: Now) {
        let position = self.position(id);
        let payload = if self.dice.one_in(2) {
            json!(position)
        } else {
            json!({"value": position, "time": now.wall, "quality": "good"})
        };
        let topic = TwinTopic::Report { device: id.device.clone(), property: id.property.to_string() };
        self.say(topic.topic(), payload.to_string().into(), false, true);
    }

    fn lie(&mut self, id: &PropertyId) {
        let (device, property) = (id.device.clone(), id.property.to_string());
        let topic = TwinTopic::Report { device: device.clone(), property: property.clone() };
        let unknown = TwinTopic::Report { device: device.clone(), property: "unheard-of".to_owned() };
        let result = WriteResult {
            id: format!("never-asked-{}", self.dice.number()),
            device,
            property,
            outcome: Outcome::Succeeded,
            detail: String::new(),
        };
        match self.dice.between(0, 5) {
            0 => self.say(topic.topic(), "{\"value\":".into(), false, true),
            1 => self.say(topic.topic(), "1e300".into(), false, true),
            2 => self.say(topic.topic(), "\"full\"".into(), false, true),
            3 => self.say(unknown.topic(), "1".into(), false, true),
            4 => self.say(
                topic.topic(),
                json!({"value": 3.0, "time": u64::MAX}).to_string().into(),
                false,
                true,
            ),
            _ => self.say_result(&result),
        }
    }

    fn say_result(&mut self, result: &WriteResult) {
        let topic = MapperTopic::Result { mapper: manifests::name(MAPPER) };
        self.say(topic.topic(), json!(result).to_string().into(), false, true);
    }

    fn say_online(&mut self) {
        let topic = MapperTopic::State { mapper: manifests::name(MAPPER) };
        self.say(topic.topic(), "online".into(), true, false);
    }

    fn say(&mut self, topic: Topic, payload: Bytes, retain: bool, sure: bool) {
        if self.connected {
            self.actions.push(Action::Publish { topic, payload, retain, sure });
        }
    }
}

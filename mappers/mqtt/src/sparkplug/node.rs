//! What one edge node and its devices have said.
//!
//! ```text
//!             NBIRTH                          seq as expected
//!   unknown ---------> born (next seq) <-----+ data, DBIRTH, DDEATH
//!      ^                 |   |         ------+
//!      |  NDEATH, same   |   | seq ahead: something was missed. What came counts, all else is uncertain: ask for a rebirth
//!      +---- bdSeq ------+   | seq behind: a repetition or a latecomer. It counts for nothing: ask for a rebirth
//! ```
//!
//! Either may mean that a birth was lost, and with it what the aliases stand for now: until its owner's next birth a metric
//! goes by name only.
//!
//! Pure; the specification's sections: births and deaths §6.4.19 to 6.4.25, sequence numbers §6.4.5, aliases §6.4.6.

use std::collections::{BTreeMap, BTreeSet};

use kubebus_sdk::{Error, Quality, UnixMillis, Value};
use prost::Message;

use super::message::{Metric, Payload, Wire};
use super::topic::Kind;
use super::value;
use crate::board::Said;

/// Metrics of one node and its devices that are known; further ones are not, and data about them is passed over.
const MAX_METRICS: usize = 16 * 1024;

/// Metrics in one message; further ones are passed over.
const MAX_METRICS_AT_ONCE: usize = 4096;

/// Bytes in a metric's or device's name; what has a longer one is not known.
pub(crate) const MAX_NAME: usize = 1024;

/// Devices of one node.
const MAX_DEVICES: usize = 4096;

/// By which a death finds its birth.
const BD_SEQ: &str = "bdSeq";

const REBIRTH: &str = "Node Control/Rebirth";
const BOOLEAN: u32 = 11;

/// A metric's device (`None`: the node itself) and name.
type Owner = (Option<String>, String);

/// What a message changes for those who listen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    Said {
        device: Option<String>,
        metric: String,
        said: Said,
    },
    Online(Option<String>),
    Offline(Option<String>),
    /// The node and all its devices are gone.
    AllOffline,
    /// Values may have changed without us.
    Missed,
    /// What we know is not enough: the node should say everything again.
    Rebirth,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    alias: Option<u64>,
    data_type: u32,
}

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Node {
    bd_seq: Option<u64>,
    /// `None`: not born, as far as we know.
    next: Option<u8>,
    born: BTreeSet<String>,
    /// Those (`None`: the node itself) whose birth has come since a message was last missed or came late: the aliases of
    /// all others are suspect.
    sure: BTreeSet<Option<String>>,
    /// Births had more than is kept: what is not known needs no rebirth, which would have it once more.
    has_left_out: bool,
    metrics: BTreeMap<Owner, Known>,
    aliases: BTreeMap<u64, Owner>,
}

impl Node {
    /// A message of the node (`device: None`) or of one of its devices.
    pub(crate) fn handle(&mut self, device: Option<String>, kind: Kind, bytes: &[u8]) -> Vec<Effect> {
        let Ok(payload) = Payload::decode(bytes) else { return vec![Effect::Rebirth] };
        match (kind, device) {
            (Kind::Birth, None) => self.node_birth(&payload),
            (Kind::Death, None) => self.node_death(&payload),
            (kind, device) => self.in_sequence(kind, device, &payload),
        }
    }

    fn node_birth(&mut self, payload: &Payload) -> Vec<Effect> {
        let Some(seq) = seq_of(payload) else { return vec![Effect::Rebirth] };
        *self = Self { bd_seq: bd_seq_of(payload), next: Some(seq.wrapping_add(1)), ..Self::default() };
        self.learn(None, payload);
        // Its devices count again when they are born again.
        let mut effects = vec![Effect::Missed, Effect::Online(None)];
        self.tell(None, payload, &mut effects);
        effects
    }

    /// A death of an earlier birth comes too late: the broker found the old connection dead after the new birth.
    fn node_death(&mut self, payload: &Payload) -> Vec<Effect> {
        let of = bd_seq_of(payload);
        if of.is_some() && self.bd_seq.is_some() && of != self.bd_seq {
            return Vec::new();
        }
        *self = Self::default();
        vec![Effect::AllOffline]
    }

    fn in_sequence(&mut self, kind: Kind, device: Option<String>, payload: &Payload) -> Vec<Effect> {
        let mut effects = Vec::new();
        if !self.follow(payload, &mut effects) {
            return effects;
        }
        if device.as_ref().is_some_and(|device| device.len() > MAX_NAME) {
            return effects;
        }
        match (kind, device) {
            (Kind::Birth, device @ Some(_)) => {
                self.learn(device.as_deref(), payload);
                effects.push(Effect::Online(device.clone()));
                self.tell(device.as_deref(), payload, &mut effects);
            }
            (Kind::Death, Some(device)) => {
                self.forget(&device);
                effects.push(Effect::Offline(Some(device)));
            }
            (Kind::Data, device) if device.as_ref().is_none_or(|device| self.born.contains(device)) => {
                self.tell(device.as_deref(), payload, &mut effects);
            }
            (Kind::Data, _) => effects.push(Effect::Rebirth), // of a device whose birth we have not heard
            (Kind::Birth | Kind::Death, None) => {}           // handled before
        }
        effects
    }

    /// Whether a message counts.
    fn follow(&mut self, payload: &Payload, effects: &mut Vec<Effect>) -> bool {
        let (Some(seq), Some(next)) = (seq_of(payload), self.next) else {
            effects.push(Effect::Rebirth);
            return false;
        };
        match seq.wrapping_sub(next) {
            0 => {}
            1..=127 => {
                self.sure.clear();
                effects.extend([Effect::Missed, Effect::Rebirth]);
            }
            128..=255 => {
                // What goes by alias is not heard any more.
                if !std::mem::take(&mut self.sure).is_empty() {
                    effects.push(Effect::Missed);
                }
                effects.push(Effect::Rebirth);
                return false;
            }
        }
        self.next = Some(seq.wrapping_add(1));
        true
    }

    /// Names, aliases and types, as a birth has them.
    fn learn(&mut self, device: Option<&str>, payload: &Payload) {
        if let Some(device) = device {
            self.forget(device);
            if self.born.len() < MAX_DEVICES {
                self.born.insert(device.to_owned());
                self.sure.insert(Some(device.to_owned()));
            }
        } else {
            self.sure.insert(None);
        }
        self.has_left_out |= payload.metrics.len() > MAX_METRICS_AT_ONCE;
        for metric in payload.metrics.iter().take(MAX_METRICS_AT_ONCE) {
            let (Some(name), Some(data_type)) = (&metric.name, metric.datatype) else { continue };
            if name.len() > MAX_NAME || self.metrics.len() >= MAX_METRICS {
                self.has_left_out = true;
                continue;
            }
            let owner = (device.map(str::to_owned), name.clone());
            self.metrics.insert(owner.clone(), Known { alias: metric.alias, data_type });
            if let Some(alias) = metric.alias {
                self.aliases.insert(alias, owner);
            }
        }
    }

    fn forget(&mut self, device: &str) {
        self.born.remove(device);
        self.sure.remove(&Some(device.to_owned()));
        let others = |owner: &Owner| owner.0.as_deref() != Some(device);
        self.metrics.retain(|owner, _| others(owner));
        self.aliases.retain(|_, owner| others(owner));
    }

    /// What a payload says of the device's metrics now; what it says of the past is passed over.
    fn tell(&self, device: Option<&str>, payload: &Payload, effects: &mut Vec<Effect>) {
        let mut is_lost = false;
        if payload.metrics.len() > MAX_METRICS_AT_ONCE {
            effects.push(Effect::Missed);
        }
        for metric in payload.metrics.iter().take(MAX_METRICS_AT_ONCE) {
            if metric.is_historical() {
                continue;
            }
            let Some((name, known)) = self.find(device, metric) else {
                is_lost |= !self.has_left_out || !self.is_sure(device);
                continue;
            };
            let time = metric.timestamp.or(payload.timestamp).map(UnixMillis);
            let said = said(metric, known.data_type, time);
            effects.push(Effect::Said { device: device.map(str::to_owned), metric: name.to_owned(), said });
        }
        if is_lost && !effects.contains(&Effect::Rebirth) {
            effects.push(Effect::Rebirth);
        }
    }

    fn is_sure(&self, device: Option<&str>) -> bool {
        self.sure.contains(&device.map(str::to_owned))
    }

    fn find<'a>(&'a self, device: Option<&str>, metric: &'a Metric) -> Option<(&'a str, Known)> {
        let owner = match (&metric.name, metric.alias) {
            (Some(name), _) if !name.is_empty() => (device.map(str::to_owned), name.clone()),
            (_, Some(alias)) if self.is_sure(device) => {
                self.aliases.get(&alias).filter(|owner| owner.0.as_deref() == device)?.clone()
            }
            (_, Some(_) | None) => return None,
        };
        let (owner, known) = self.metrics.get_key_value(&owner)?;
        Some((&owner.1, *known))
    }

    /// The payload of a command (`DCMD`, `NCMD`). A metric that was born with an alias goes by it alone (§6.4.6).
    pub(crate) fn command(
        &self,
        device: Option<&str>,
        metric: &str,
        value: &Value,
        now: UnixMillis,
    ) -> Result<Vec<u8>, Error> {
        let refused = |why: String| Error::Device(format!("nothing was sent: {why}"));
        let owner = (device.map(str::to_owned), metric.to_owned());
        let known =
            self.metrics.get(&owner).ok_or_else(|| refused(format!("there is no metric {metric}")))?;
        if known.alias.is_some() && !self.is_sure(device) {
            let why = "a birth may have been missed, and the alias be another metric's by now";
            return Err(Error::transient(format!("nothing was sent: {why}; a rebirth was asked for")));
        }
        let wire = value::write(value, known.data_type).map_err(refused)?;
        let name = known.alias.is_none().then(|| metric.to_owned());
        Ok(single(name, known.alias, known.data_type, wire, now))
    }
}

/// The payload of the command that asks for everything again. Its metric goes by name: it has no alias (§6.4.19).
pub(crate) fn rebirth(now: UnixMillis) -> Vec<u8> {
    single(Some(REBIRTH.to_owned()), None, BOOLEAN, Wire::Boolean(true), now)
}

fn single(name: Option<String>, alias: Option<u64>, data_type: u32, wire: Wire, now: UnixMillis) -> Vec<u8> {
    let metric = Metric {
        name,
        alias,
        timestamp: Some(now.0),
        datatype: Some(data_type),
        is_historical: None,
        is_null: None,
        value: Some(wire),
    };
    Payload { timestamp: Some(now.0), metrics: vec![metric], seq: None }.encode_to_vec()
}

fn said(metric: &Metric, data_type: u32, time: Option<UnixMillis>) -> Said {
    let read = match &metric.value {
        _ if metric.is_null() => Err("the device has no value for it".to_owned()),
        None => Err("the device said nothing that this mapper reads".to_owned()),
        Some(wire) => value::read(wire, data_type),
    };
    match read {
        Ok(value) => Said::Value { value, time, quality: Quality::Good },
        Err(why) => Said::Fault(why),
    }
}

fn seq_of(payload: &Payload) -> Option<u8> {
    payload.seq.and_then(|seq| u8::try_from(seq).ok())
}

fn bd_seq_of(payload: &Payload) -> Option<u64> {
    let metric = payload.metrics.iter().find(|metric| metric.name.as_deref() == Some(BD_SEQ))?;
    match metric.value {
        Some(Wire::Int(seq)) => Some(u64::from(seq)),
        Some(Wire::Long(seq)) => Some(seq),
        _ => None,
    }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;

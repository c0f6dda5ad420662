//! What the edge's twins want done.

use std::collections::VecDeque;
use std::time::Duration;

use bus::twin::{DesiredVersion, DeviceId, Outcome, ResultBody, TwinTopic};
use bus::{Class, Filter, Sample, UnixMillis};
use bytes::Bytes;

use crate::announcement::Announcement;
use crate::command::Account;
use crate::history::AuditEntry;
use crate::reply::ReplyTo;
use crate::twin::{
    Desired, DesiredBody, DeviceState, PropertyId, Publish, Reported, ReportedBody, Ticket, TwinResult, cbor,
};

/// What [`super::EdgeTwins`] wants done, in this order, once the keyspace's writes are durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// To the local broker, and to other sites that asked for the topic.
    Publish(Publish),
    /// To the local broker alone: the end of a command, for who asked to be told.
    Reply(Announcement),
    /// Into the outbox, for the cloud's [`crate::cloud::CloudTwins`].
    Up {
        class: Class,
        key: String,
        payload: Bytes,
    },
    /// The client's publish is taken.
    Accept(Ticket),
    /// The client's publish is refused, and why.
    Reject(Ticket, String),
    /// For the history: a reading that was stored.
    Sample {
        id: PropertyId,
        sample: Sample,
    },
    /// For the audit.
    Audit(Box<AuditEntry>),
    /// A rule here reads twins of other sites: subscribe on the bus.
    Watch(Filter),
    Unwatch(Filter),
    /// One line of the rule log, without its line break: see [`crate::rule`]. Only after
    /// [`super::EdgeTwins::begin_rule_log`].
    RuleLog(Bytes),
    /// The lines with which a file of it begins.
    RuleHeads(Vec<Bytes>),
}

/// Outputs on their way; drained after each `handle_*`, and as long as what one input causes.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    queue: VecDeque<Output>,
}

/// Outputs that there is always room for. A start says all that is known, thousands of them, and that room is given
/// back.
const ROOM_KEPT: usize = 64;

impl Outputs {
    pub(super) fn pop(&mut self) -> Option<Output> {
        let next = self.queue.pop_front();
        if next.is_none() {
            self.queue.shrink_to(ROOM_KEPT);
        }
        next
    }

    pub(super) fn push(&mut self, output: Output) {
        self.queue.push_back(output);
    }

    pub(super) fn publish(&mut self, publish: Publish) {
        self.push(Output::Publish(publish));
    }

    fn up(&mut self, class: Class, key: String, payload: Bytes) {
        self.push(Output::Up { class, key, payload });
    }

    /// To subscribers only: the value did not change, it was just seen again.
    pub(super) fn seen(&mut self, id: &PropertyId, reported: &Reported, age: Option<Duration>) {
        if let Some(body) = ReportedBody::of(reported, age) {
            self.publish(Publish::retained(&id.reported_topic(), &body));
        }
    }

    pub(super) fn reported(&mut self, id: &PropertyId, reported: &Reported, age: Option<Duration>) {
        self.seen(id, reported, age);
        self.up(Class::State, reported_key(id), cbor(reported));
    }

    pub(super) fn desired(&mut self, id: &PropertyId, desired: &Desired) {
        self.publish(Publish::retained(&id.desired_topic(), &DesiredBody::from(desired)));
    }

    pub(super) fn state(&mut self, device: &DeviceId, state: &DeviceState) {
        self.publish(Publish::retained(&TwinTopic::State { device: device.clone() }, state));
        self.up(Class::State, state_key(device), cbor(state));
    }

    pub(super) fn sample(&mut self, id: &PropertyId, sample: Sample) {
        self.push(Output::Sample { id: id.clone(), sample });
    }

    pub(super) fn audit(&mut self, entry: AuditEntry) {
        self.push(Output::Audit(Box::new(entry)));
    }

    /// To the cloud alone.
    pub(super) fn tell(&mut self, key: String, value: &impl minicbor::Encode<()>) {
        self.up(Class::State, key, cbor(value));
    }

    /// To whoever watches the device here.
    pub(super) fn result(&mut self, device: &DeviceId, body: &ResultBody) {
        self.publish(Publish::once(&TwinTopic::Result { device: device.clone() }, body));
    }

    /// To who asked to be told.
    pub(super) fn reply(&mut self, reply: Option<&ReplyTo>, body: &ResultBody) {
        self.queue.extend(reply.and_then(|reply| reply.answer(body)).map(Output::Reply));
    }

    /// How far a command is, for the cloud.
    pub(super) fn command(&mut self, place: &str, account: &Account) {
        self.up(Class::Command, format!("command/{place}"), cbor(account));
    }

    /// Here and in the cloud.
    pub(super) fn outcome(
        &mut self,
        id: &PropertyId,
        (outcome, version, detail): (Outcome, Option<DesiredVersion>, &str),
        at: UnixMillis,
    ) {
        let body = ResultBody { version, detail: detail.to_owned(), ..ResultBody::of(&id.property, outcome) };
        self.result(&id.device, &body);
        let result = TwinResult { outcome, version, detail: detail.to_owned(), at };
        self.up(Class::Event, format!("result/{id}"), cbor(&result));
    }

    pub(super) fn accept(&mut self, ticket: Option<Ticket>) {
        self.queue.extend(ticket.map(Output::Accept));
    }

    pub(super) fn reject(&mut self, ticket: Option<Ticket>, why: String) {
        self.queue.extend(ticket.map(|ticket| Output::Reject(ticket, why)));
    }
}

/// What the outbox knows a reported value by.
pub(super) fn reported_key(id: &PropertyId) -> String {
    format!("reported/{id}")
}

/// What the outbox knows a wish in force by that the cloud has no row of.
pub(super) fn own_key(id: &PropertyId) -> String {
    format!("desired/{id}")
}

/// What the outbox knows the newest wish by that is over here, or was refused for its authority.
pub(super) fn outranked_key(id: &PropertyId) -> String {
    format!("outranked/{id}")
}

/// What the outbox knows a device's state by.
pub(super) fn state_key(device: &DeviceId) -> String {
    format!("state/{device}")
}

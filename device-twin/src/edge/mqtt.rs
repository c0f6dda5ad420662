//! What clients of the local broker say.

use bus::twin::{
    DesiredVersion, DeviceId, MapperTopic, Outcome, ReportBody, ReportMany, ResultBody, TwinTopic,
    WriteResult,
};
use bus::{Mono, Name, Now, Topic, Value};
use metadata::Keyspace;
use serde::de::DeserializeOwned;

use super::property::{Owner, Who};
use super::write::Decision;
use super::{EdgeTwins, OPERATOR_HOLD};
use crate::arbiter::{Effective, Entry, Slot};
use crate::authority::Holder;
use crate::command::Order;
use crate::gate::access;
use crate::kubeedge::HwTopic;
use crate::reply::ReplyTo;
use crate::twin::{PropertyId, Said, SetBody, Ticket, brief, explain};

/// Who speaks over the local broker and does not say who it is.
const LOCAL_APP: &str = "local app";

impl EdgeTwins {
    /// A client published on a topic under `twin/` or `mapper/`, or one of KubeEdge's. With a ticket it is answered by
    /// [`super::Output::Accept`] or [`super::Output::Reject`]; without one a refusal is told on `twin/../result` only. A mapper that is known by name speaks for its own devices alone.
    pub fn handle_publish(
        &mut self,
        ticket: Option<Ticket>,
        who: &access::Who,
        topic: &Topic,
        said: Said<'_>,
        ks: &mut Keyspace,
        now: Now,
    ) {
        let done = match (TwinTopic::parse(topic), MapperTopic::parse(topic)) {
            (Some(topic), _) => self.twin_said(topic, who, said, ks, now),
            (None, Some(topic)) => self.mapper_said(&topic, who, said.payload, ks, now),
            (None, None) => match HwTopic::parse(topic.as_str()) {
                Some(topic) => self.kubeedge_said(&topic, said.payload, ks, now),
                None => Err("neither a twin's nor a mapper's topic".to_owned()),
            },
        };
        match done {
            Ok(()) => self.outputs.accept(ticket),
            Err(why) => {
                self.stats.refused += 1;
                self.outputs.reject(ticket, why);
            }
        }
    }

    fn twin_said(
        &mut self,
        topic: TwinTopic,
        who: &access::Who,
        said: Said<'_>,
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<(), String> {
        let payload = said.payload;
        match topic {
            TwinTopic::Report { device, property } => {
                let id = PropertyId::new(&device, &property);
                let done = self
                    .may_report(who, &device)
                    .and_then(|()| parse::<ReportBody>(payload))
                    .and_then(|body| self.report(&id, body, ks, now));
                self.told(&id.device, &id.property, done)
            }
            TwinTopic::ReportMany { device } => {
                let may = self.may_report(who, &device);
                self.told(&device, "", may)?;
                self.report_many(&device, payload, ks, now)
            }
            TwinTopic::Set { device, property } => {
                let id = PropertyId::new(&device, &property);
                let done = match payload {
                    [] => self.unset(&id, ks, now),
                    _ => parse::<SetBody>(payload)
                        .and_then(|body| self.set(&id, body, &who.told(LOCAL_APP), ks, now).map(drop)),
                };
                self.told(&id.device, &id.property, done)
            }
            TwinTopic::Command { device, name } => {
                let done = self.order_said(&device, &name, who, said, ks, now);
                self.told(&device, "", done)
            }
            TwinTopic::Reported { .. }
            | TwinTopic::Desired { .. }
            | TwinTopic::Result { .. }
            | TwinTopic::State { .. } => Err("only nodes publish here".to_owned()),
        }
    }

    fn order_said(
        &mut self,
        device: &DeviceId,
        name: &str,
        who: &access::Who,
        Said { payload, expiry, reply }: Said<'_>,
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<(), String> {
        reply.as_ref().map_or(Ok(()), ReplyTo::check).map_err(|why| explain(&why))?;
        let by = who.told(LOCAL_APP);
        let done = parse::<Order>(payload).and_then(|order| {
            self.order(device, name, order.expiring(expiry).replying(reply.clone()), &by, ks, now)
        });
        done.map(drop).inspect_err(|why| {
            let body = ResultBody { detail: why.clone(), ..ResultBody::of("", Outcome::Rejected) };
            self.outputs.reply(reply.as_ref(), &body);
        })
    }

    /// Anybody whom the broker lets publish a report may report, but a mapper only for devices that name it.
    fn may_report(&self, who: &access::Who, device: &DeviceId) -> Result<(), String> {
        let access::Who::Mapper(me) = who else { return Ok(()) };
        match self.mapper_of(device) {
            Some(its) if its == me => Ok(()),
            Some(its) => Err(format!("device {device} is of mapper {its}, not {me}")),
            None => Err(format!("device {device} is not of mapper {me}")),
        }
    }

    /// Each property by itself: one wrong reading does not cost the others.
    fn report_many(
        &mut self,
        device: &DeviceId,
        payload: &[u8],
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<(), String> {
        let mut first = Ok(());
        for (property, body) in parse::<ReportMany>(payload)? {
            let id = PropertyId::new(device, &property);
            let done = self.report(&id, body, ks, now);
            first = first.and(self.told(&id.device, &id.property, done));
        }
        first
    }

    /// Tells a refusal to whoever watches the device; of a command, which has no one property, with an empty one.
    fn told<T>(&mut self, device: &DeviceId, property: &str, done: Result<T, String>) -> Result<(), String> {
        if let Err(why) = &done {
            let body = ResultBody { detail: why.clone(), ..ResultBody::of(property, Outcome::Rejected) };
            self.outputs.result(device, &body);
        }
        done.map(drop)
    }

    /// A local operator's wish: desired of the device where the edge holds the authority over it, else slot 8 for
    /// [`OPERATOR_HOLD`].
    pub fn set(
        &mut self,
        id: &PropertyId,
        value: impl Into<SetBody>,
        by: &str,
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<Option<DesiredVersion>, String> {
        let holder = self.devices.get(&id.device).map(|bound| bound.authority.holder());
        if holder == Some(Holder::Edge) {
            return self.wish_here(id, value.into(), by, ks, now).map(Some);
        }
        self.operate(id, value.into(), by, ks, now).map(|()| None)
    }

    /// Whether [`Self::set`] would take a value of the right type, and else why not: what belongs together is set only
    /// if all of it can be.
    pub fn may_set(&self, id: &PropertyId, now: Mono) -> Result<(), String> {
        let twin = self.twins.get(id).ok_or_else(|| not_here(id))?;
        let holder = self.devices.get(&id.device).map(|bound| bound.authority.holder());
        match twin.masked_by(Slot::LOCAL_OPERATOR, now).filter(|_| holder != Some(Holder::Edge)) {
            Some((slot, owner)) => Err(format!("{slot} ({owner}) holds it")),
            None => Ok(()),
        }
    }

    /// What the device is held to now, whoever does: a rule, a command or an operator of the site.
    pub fn held_to(&self, id: &PropertyId, now: Mono) -> Option<&Value> {
        self.holding(id, now).map(|(_, value)| value)
    }

    /// What a wish of [`Self::set`] would take the place of. Where the edge holds the authority that is what is desired,
    /// whatever holds the device for a while; else what is in force, as far as an operator may end that.
    pub fn replaced(&self, id: &PropertyId, now: Mono) -> Option<&Value> {
        let holder = self.devices.get(&id.device).map(|bound| bound.authority.holder());
        let held = self.holding(id, now).filter(|_| holder != Some(Holder::Edge));
        match held.filter(|(slot, _)| *slot >= Slot::LOCAL_OPERATOR) {
            Some((_, value)) => Some(value),
            None => self.twins.get(id)?.desired.as_deref().map(|desired| &desired.value),
        }
    }

    fn holding(&self, id: &PropertyId, now: Mono) -> Option<(Slot, &Value)> {
        match self.twins.get(id)?.slots.effective(None, now)? {
            Effective::Slot(slot, entry) => Some((slot, &entry.value)),
            Effective::FailSafe(_) => None,
        }
    }

    fn operate(
        &mut self,
        id: &PropertyId,
        body: SetBody,
        by: &str,
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<(), String> {
        let property = self.catalog.property(&id.device, &id.property).map_err(|why| explain(&why))?;
        if !self.twins.contains_key(id) {
            return Err(not_here(id));
        }
        let value = body.check(property).map_err(|why| explain(&why))?;
        self.may_set(id, now.mono)?;
        let twin = self.twins.get_mut(id).ok_or_else(|| not_here(id))?;
        let owner = Owner { who: Who::Operator, cause: by.to_owned(), since: Some(now.wall) };
        twin.slots.set(Slot::LOCAL_OPERATOR, Entry { value, owner, expires: Some(now.mono + OPERATOR_HOLD) });
        self.arbitrate(id, Decision::Fresh, ks, now);
        self.reschedule(id);
        Ok(())
    }

    /// An empty set: the operator lets go.
    pub(super) fn unset(&mut self, id: &PropertyId, ks: &mut Keyspace, now: Now) -> Result<(), String> {
        let twin = self.twins.get_mut(id).ok_or_else(|| format!("{id} is not of this edge"))?;
        if twin.slots.relinquish(Slot::LOCAL_OPERATOR).is_some() {
            self.arbitrate(id, Decision::Fresh, ks, now);
            self.reschedule(id);
        }
        Ok(())
    }

    fn mapper_said(
        &mut self,
        topic: &MapperTopic,
        who: &access::Who,
        payload: &[u8],
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<(), String> {
        if let (access::Who::Mapper(me), mapper) = (who, topic.mapper())
            && me != mapper
        {
            return Err(format!("mapper {me} does not speak for mapper {mapper}"));
        }
        match topic {
            MapperTopic::Result { mapper } => {
                let result: WriteResult = parse(payload)?;
                self.write_result(mapper, &result, ks, now)
            }
            MapperTopic::State { mapper } => self.mapper_announced(mapper, payload, ks, now),
            MapperTopic::Health { .. } => Ok(()), // for people
            MapperTopic::Config { .. } | MapperTopic::Write { .. } => {
                Err("only nodes publish here".to_owned())
            }
        }
    }

    fn mapper_announced(
        &mut self,
        mapper: &Name,
        payload: &[u8],
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<(), String> {
        let online = match payload {
            b"online" | b"\"online\"" => true,
            b"offline" | b"\"offline\"" => false,
            _ => return Err("a mapper's state is 'online' or 'offline'".to_owned()),
        };
        self.mapper_state(mapper, online, ks, now);
        Ok(())
    }
}

fn not_here(id: &PropertyId) -> String {
    format!("device {} is not of this edge", id.device)
}

fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    serde_json::from_slice(payload).map_err(|why| brief(&format!("malformed: {why}")))
}

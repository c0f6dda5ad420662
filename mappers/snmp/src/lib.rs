//! The mapper for SNMP agents: switches, power supplies, printers, anything with `snmpd`; versions 1, 2c and 3.
//!
//! | connection | |
//! |---|---|
//! | `{"agent": "10.0.0.8", "community": "plant"}` | version 2c; `"version": "1"` for old agents |
//! | `{"agent": "10.0.0.8", "version": "3", "user": "plant", "auth": "sha256", "auth_password": "..", "privacy": "aes128", "privacy_password": ".."}` | version 3 |
//!
//! A property's address is `{"oid": "1.3.6.1.2.1.1.3.0"}` or `{"oid": "sysUpTime.0"}`, for a write with
//! `"type": "integer"` if the agent is not to be asked what it has there. `docs/mappers/snmp.md` says the rest.
//!
//! A reading is one GET of up to 32 objects; a write is one SET, sent once: the `gate` sees to it. An answer counts only if
//! it comes from the agent's own address, to a request that waits (request id, community or the user's key, OID).

pub mod address;
mod agent;
pub mod config;
mod fault;
mod found;
mod gate;
mod value;

use std::collections::BTreeMap;
use std::fmt;

use async_snmp::{ErrorStatus, Oid, Value as Snmp};
use kubebus_sdk::{
    Batch, Context, Error, Found, Manifest, Mapper, Point, Samples, Session, Shared, Value, WriteOutcome,
    WritePermit,
};

use crate::address::{Address, Kind};
use crate::agent::{Agent, Answer};
use crate::config::Config;
use crate::value::{Mismatch, decode, encode, kind_of};

/// How many objects are remembered as having had a value. More than one agent's properties ever are.
const MOST_KNOWN: usize = 65_536;

/// See the crate's page.
#[derive(Debug)]
pub struct SnmpMapper;

/// Objects that the agent has had a value of, with what a write to them carries.
pub type Known = BTreeMap<Oid, Option<Kind>>;

/// One agent, asked once at least.
pub struct Talk {
    agent: Agent,
    known: Shared<Known>,
}

impl fmt::Debug for Talk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Talk").finish_non_exhaustive()
    }
}

impl Mapper for SnmpMapper {
    type Config = Config;
    type Address = Address;
    type Session = Talk;

    fn manifest() -> Manifest {
        Manifest::new("snmp", env!("CARGO_PKG_VERSION"))
            .about("SNMP agents, versions 1, 2c and 3")
            .discovers()
    }

    /// Agents are small: one request at a time, also for several devices behind one agent.
    fn bus(config: &Config) -> Option<String> {
        Some(config.agent.clone())
    }

    async fn open(config: &Config, context: &Context<Talk>) -> Result<Talk, Error> {
        Ok(Talk { agent: Agent::open(config).await?, known: context.bus.clone() })
    }

    async fn discover(config: &Config) -> Result<Vec<Found>, Error> {
        found::discover(config).await
    }
}

impl Session for Talk {
    type Address = Address;
    type Bus = Known;

    async fn read(&mut self, batch: &Batch<'_, Address>, out: &mut Samples) -> Result<(), Error> {
        let mut oids: Vec<Oid> = batch.iter().map(|point| point.address.oid.as_oid().clone()).collect();
        oids.sort_unstable();
        oids.dedup();
        let answers = self.agent.get(&oids).await?;
        let mut place = self.known.lock().await;
        let known = place.get_or_insert_default();
        for point in batch {
            let Ok(at) = oids.binary_search(point.address.oid.as_oid()) else { continue };
            match reading(point, &answers[at], known) {
                Ok(value) => out.good(point, value),
                Err(error) => out.failed(point, error),
            }
        }
        Ok(())
    }

    async fn write(
        &mut self,
        point: &Point<Address>,
        value: Value,
        permit: WritePermit,
    ) -> Result<WriteOutcome, Error> {
        let kind = match point.address.kind {
            Some(kind) => kind,
            None => self.kind_of(point).await?,
        };
        let value = encode(&value, kind, point.value_type).map_err(|mismatch| match mismatch {
            Mismatch::Type(why) => Error::BadAddress { point: point.name.clone(), why },
            Mismatch::Value(why) => Error::Unsupported(format!("{}: {why}", point.name)),
        })?;
        self.agent.set(point.address.oid.as_oid(), value, permit).await
    }

    async fn probe(&mut self) -> Result<(), Error> {
        self.agent.greet().await
    }
}

impl Talk {
    /// What a write to this point carries: what was read there, else what the agent says when it is asked.
    async fn kind_of(&mut self, point: &Point<Address>) -> Result<Kind, Error> {
        let oid = point.address.oid.as_oid();
        let seen = self.known.lock().await.as_ref().and_then(|known| known.get(oid).copied());
        let kind = match seen {
            Some(kind) => kind,
            None => {
                let answers = self.agent.get(std::slice::from_ref(oid)).await?;
                let mut place = self.known.lock().await;
                let known = place.get_or_insert_default();
                let answer = answers.first().map_or(&Err(ErrorStatus::GenErr), |answer| answer);
                kind_of(present(point, answer, known)?)
            }
        };
        let nobody_writes = || Error::BadAddress {
            point: point.name.clone(),
            why: "the agent has a type there that is not written (counter, opaque)".to_owned(),
        };
        kind.ok_or_else(nobody_writes)
    }
}

/// One point's value, if it has one.
fn reading(point: &Point<Address>, answer: &Answer, known: &mut Known) -> Result<Value, Error> {
    let value = present(point, answer, known)?;
    decode(value, point.value_type).map_err(|mismatch| match mismatch {
        Mismatch::Type(why) => Error::BadAddress { point: point.name.clone(), why },
        Mismatch::Value(why) => Error::Device(why),
    })
}

/// The value that the agent has there.
fn present<'a>(point: &Point<Address>, answer: &'a Answer, known: &mut Known) -> Result<&'a Snmp, Error> {
    let oid = point.address.oid.as_oid();
    match answer {
        Ok(Snmp::NoSuchObject | Snmp::NoSuchInstance | Snmp::EndOfMibView) | Err(ErrorStatus::NoSuchName) => {
            Err(missing(point, known.contains_key(oid)))
        }
        Err(status) => Err(Error::Device(status.to_string())),
        Ok(value) => {
            if known.len() < MOST_KNOWN {
                known.insert(oid.clone(), kind_of(value));
            }
            Ok(value)
        }
    }
}

/// An object that was there once may come back (an interface that was unplugged, a part of the agent that starts later
/// than the rest); one that never was is a wrong address.
fn missing(point: &Point<Address>, was_there: bool) -> Error {
    let oid = &point.address.oid;
    if was_there {
        return Error::Device(format!("{oid} is not there any more"));
    }
    let why = format!(
        "the agent has no {oid}: is the instance at its end right (0 for a scalar), and may this community or user see it?"
    );
    Error::BadAddress { point: point.name.clone(), why }
}

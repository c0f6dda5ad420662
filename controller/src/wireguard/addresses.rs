//! Which client holds which addresses: `/c/wireguard/lease/<name>`, by the rules of [`crate::lease`].

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use bus::{Name, Now, UnixMillis};
use ipnet::{IpNet, Ipv4Net};
use metadata::Keyspace;
use minicbor::{Decode, Encode};

use super::ClientError;
use crate::lease::{self, REUSE_AFTER};
use crate::plan::{ClientAddresses, Plan};
use crate::record::{self, DamagedRecord};

const LEASES: &str = "/c/wireguard/lease/";

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Record {
    #[n(0)]
    name: Name,
    #[n(1)]
    v4: u32,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    v6: [u8; 16],
    /// When its client was removed.
    #[n(3)]
    released: Option<UnixMillis>,
}

impl Record {
    fn addresses(&self) -> ClientAddresses {
        ClientAddresses { v4: Ipv4Addr::from_bits(self.v4), v6: Ipv6Addr::from(self.v6) }
    }

    fn is_free(&self, now: Now) -> bool {
        self.released.is_some_and(|at| now.wall.since(at) >= REUSE_AFTER)
    }
}

/// Gives a client its addresses: those it had, else the first that nobody holds. Writes nothing if it fails.
pub(super) fn grant(
    plan: &Plan,
    name: &Name,
    ks: &mut Keyspace,
    now: Now,
) -> Result<ClientAddresses, ClientError> {
    let addresses = match record::get::<Record>(ks, &key(name))? {
        Some(record) => record.addresses(),
        None => first_free(plan, ks, now)?,
    };
    let ClientAddresses { v4, v6 } = addresses;
    let record = Record { name: name.clone(), v4: v4.to_bits(), v6: v6.octets(), released: None };
    record::put(ks, &key(name), &record);
    Ok(addresses)
}

/// Forgets those whose time of grace is over.
fn first_free(plan: &Plan, ks: &mut Keyspace, now: Now) -> Result<ClientAddresses, ClientError> {
    let (free, held): (Vec<_>, Vec<_>) = list(ks)?.into_iter().partition(|record| record.is_free(now));
    let taken = lease::taken_by_nodes(ks, now)?;
    let of_clients: BTreeSet<Ipv4Addr> = held.iter().map(|record| record.addresses().v4).collect();
    // A wider pool gives other IPv4 addresses, and the same IPv6 ones.
    let of_clients_v6: BTreeSet<Ipv6Addr> = held.iter().map(|record| record.addresses().v6).collect();
    let is_free = |client: &ClientAddresses| {
        let is_held = of_clients.contains(&client.v4) || of_clients_v6.contains(&client.v6);
        !is_held && !taken.holds(client.v4.into())
    };
    let found = plan.clients().find(is_free).ok_or_else(|| ClientError::Exhausted(plan.clients().count()))?;
    free.iter().for_each(|record| record::delete(ks, &key(&record.name)));
    Ok(found)
}

pub(super) fn release(name: &Name, ks: &mut Keyspace, now: Now) -> Result<(), DamagedRecord> {
    if let Some(record) = record::get::<Record>(ks, &key(name))? {
        record::put(ks, &key(name), &Record { released: Some(now.wall), ..record });
    }
    Ok(())
}

fn list(ks: &Keyspace) -> Result<Vec<Record>, DamagedRecord> {
    record::list(ks, LEASES)
}

/// All that clients hold, or that is kept for them.
pub(crate) fn held(ks: &Keyspace) -> Result<Vec<IpNet>, DamagedRecord> {
    let addresses = list(ks)?.into_iter().map(|record| record.addresses());
    Ok(addresses
        .flat_map(|ClientAddresses { v4, v6 }| [IpNet::V4(v4.into()), IpNet::V6(v6.into())])
        .collect())
}

pub(crate) fn held_v4(ks: &Keyspace) -> Result<Vec<Ipv4Net>, DamagedRecord> {
    Ok(list(ks)?.iter().map(|record| record.addresses().v4.into()).collect())
}

/// The first address that lies outside the pool, with the client that holds it.
pub(crate) fn check(plan: &Plan, ks: &Keyspace) -> Result<Option<(Name, IpNet)>, DamagedRecord> {
    let outside = list(ks)?.into_iter().find(|record| !plan.v4().contains(&record.addresses().v4));
    Ok(outside.map(|record| (record.name.clone(), IpNet::V4(record.addresses().v4.into()))))
}

fn key(name: &Name) -> String {
    format!("{LEASES}{name}")
}

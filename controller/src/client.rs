//! Certificates of mappers and apps that `kubebus mqtt certificate` made, and which of them were revoked. The cloud keeps
//! all of them, `/c/client/<kind>/<name>`. Of whom something was revoked each edge is told what it needs to turn that away
//! without the cloud, `/all/client/<kind>/<name>`: a fleet may have a mapper for each edge, and few are ever revoked.
//!
//! A row is no condition for a client to be let in: a certificate that is on no list counts, as those do that were issued
//! while the cloud did not run. Who is revoked as a whole has a row from then on, and only what is issued after that, and
//! so is on its list, counts.

use std::collections::{BTreeMap, BTreeSet};

use bus::{KeyHash, NodeId, NodeKind, UnixMillis};
use device_twin::gate::access::{ClientKeys, Keys};
use metadata::Keyspace;
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::record::{self, DamagedRecord};
use crate::user;

/// Where the cloud keeps them.
pub const PREFIX: &str = "/c/client/";

/// Where it puts what edges need of them.
const SHARED: &str = "/all/client/";

/// Where an edge finds that.
pub const TOLD: &str = "/m/client/";

/// Clients on the cloud's list: one for each edge of a large fleet, 2 MB. When it is full one of which nothing was revoked
/// is forgotten, and counts as before.
pub const MAX_CLIENTS: usize = 16_384;

/// Clients that edges are told of: with one revoked certificate it is 90 bytes, so that all of them are 180 KB on each
/// edge. Those of which all that was revoked has ended make room.
pub const MAX_REVOKED: usize = 2048;

/// Valid certificates on one list: a mapper that runs at more machines has a name for each.
pub const MAX_CERTIFICATES: usize = 16;

/// Revoked ones that have not ended and are remembered one by one.
const MAX_REMEMBERED: usize = 48;

/// One client.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Client {
    #[n(0)]
    pub who: NodeId,
    /// In the order in which they were issued.
    #[n(1)]
    pub certificates: Vec<Certificate>,
    /// Since when what is on no list counts no more.
    #[n(2)]
    pub revoked: Option<UnixMillis>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Certificate {
    #[n(0)]
    pub key: KeyHash,
    #[n(1)]
    pub issued: UnixMillis,
    #[n(2)]
    pub not_after: UnixMillis,
    #[n(3)]
    pub revoked: Option<UnixMillis>,
}

/// Why a client's list was not changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClientError {
    #[error("'{0}' is no client: write mapper/NAME or user/NAME")]
    NoClient(NodeId),
    #[error("{0} has a role, and is revoked with it: 'kubebus user revoke {name}'", name = .0.name)]
    IsUser(NodeId),
    #[error("no certificate of {who} begins with '{id}'; see 'kubebus mqtt list'")]
    Unknown { who: NodeId, id: String },
    #[error("several certificates of {who} begin with '{id}': write more of it")]
    Ambiguous { who: NodeId, id: String },
    #[error(
        "{0} has {MAX_CERTIFICATES} certificates that are valid, the most for one name: revoke some, or take another name"
    )]
    TooMany(NodeId),
    #[error(
        "{0} has {MAX_REMEMBERED} revoked certificates that have not ended, the most that are remembered: 'kubebus mqtt \
         revoke {0}' revokes all that there are, and what is issued after that counts"
    )]
    TooManyRevoked(NodeId),
    #[error("this certificate of {0} was revoked: issue another one, with a key of its own")]
    Revoked(NodeId),
    #[error(
        "{MAX_REVOKED} clients have revoked certificates that have not ended, the most that edges are told of: wait until \
         some have ended"
    )]
    Full,
    #[error(transparent)]
    Damaged(#[from] DamagedRecord),
}

/// All clients that have a row, as the cloud keeps them ([`PREFIX`]) or what an edge was told ([`TOLD`]).
pub fn list(prefix: &str, ks: &Keyspace) -> Result<Vec<Client>, DamagedRecord> {
    record::list(ks, prefix)
}

/// Puts a certificate that was just issued on its client's list.
pub fn put(
    who: &NodeId,
    key: KeyHash,
    not_after: UnixMillis,
    ks: &mut Keyspace,
    now: UnixMillis,
) -> Result<Client, ClientError> {
    let mut client = get(who, ks)?;
    client.certificates.retain(|certificate| certificate.not_after > now);
    if client.revoked_ones().any(|certificate| certificate.key == key) {
        return Err(ClientError::Revoked(who.clone()));
    }
    client.certificates.retain(|certificate| certificate.key != key);
    let revoked = client.revoked_ones().count();
    if client.certificates.len() - revoked >= MAX_CERTIFICATES {
        return Err(ClientError::TooMany(who.clone()));
    }
    if revoked >= MAX_REMEMBERED {
        client.forget_revoked()?;
    }
    client.certificates.push(Certificate { key, issued: now, not_after, revoked: None });
    write(&client, ks, now)?;
    Ok(client)
}

fn write(client: &Client, ks: &mut Keyspace, now: UnixMillis) -> Result<(), ClientError> {
    let shared = format!("{SHARED}{}", client.who);
    match client.for_edges() {
        Some(told) => {
            make_room_at_edges(&shared, ks, now)?;
            record::put(ks, &shared, &told);
        }
        None => record::delete(ks, &shared),
    }
    make_room(&client.who, ks, now)?;
    record::put(ks, &row(&client.who), client);
    Ok(())
}

fn make_room_at_edges(shared: &str, ks: &mut Keyspace, now: UnixMillis) -> Result<(), ClientError> {
    if ks.get(shared).is_some() || ks.range(SHARED).count() < MAX_REVOKED {
        return Ok(());
    }
    let is_over = |client: &Client| client.revoked.is_none() && client.has_ended(now);
    let over = list(SHARED, ks)?.into_iter().find(is_over).ok_or(ClientError::Full)?;
    record::delete(ks, &format!("{SHARED}{}", over.who));
    Ok(())
}

/// One of which everything has ended is forgotten for another, or else the one that got its last certificate first: it
/// counts as what is on no list.
fn make_room(who: &NodeId, ks: &mut Keyspace, now: UnixMillis) -> Result<(), ClientError> {
    if ks.get(&row(who)).is_some() || ks.range(PREFIX).count() < MAX_CLIENTS {
        return Ok(());
    }
    let newest = |client: &Client| client.certificates.iter().map(|certificate| certificate.issued).max();
    let mut clients = list(PREFIX, ks)?;
    clients.retain(|client| client.for_edges().is_none());
    let first = clients.iter().min_by_key(|client| (!client.has_ended(now), newest(client)));
    if let Some(client) = first {
        record::delete(ks, &row(&client.who));
    }
    Ok(())
}

/// Lets a client in no more by the certificate whose key's hash begins with `id`, in hexadecimal; without one, by none
/// that it has now, listed or not.
pub fn revoke(
    who: &NodeId,
    id: Option<&str>,
    ks: &mut Keyspace,
    now: UnixMillis,
) -> Result<Client, ClientError> {
    let mut client = get(who, ks)?;
    match id {
        Some(id) => {
            let found = one(&mut client, id)?;
            found.revoked = found.revoked.or(Some(now));
        }
        None => {
            client.revoked = Some(now);
            let revoke = |certificate: &mut Certificate| {
                certificate.revoked = certificate.revoked.or(Some(now));
            };
            client.certificates.iter_mut().for_each(revoke);
        }
    }
    write(&client, ks, now)?;
    Ok(client)
}

fn one<'a>(client: &'a mut Client, id: &str) -> Result<&'a mut Certificate, ClientError> {
    let who = client.who.clone();
    let is_it = |certificate: &&mut Certificate| !id.is_empty() && shown(&certificate.key).starts_with(id);
    let mut found = client.certificates.iter_mut().filter(is_it);
    match (found.next(), found.next()) {
        (Some(certificate), None) => Ok(certificate),
        (None, _) => Err(ClientError::Unknown { who, id: id.to_owned() }),
        (Some(_), Some(_)) => Err(ClientError::Ambiguous { who, id: id.to_owned() }),
    }
}

/// In hexadecimal.
fn shown(key: &KeyHash) -> String {
    key.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A new one if there is no row.
fn get(who: &NodeId, ks: &Keyspace) -> Result<Client, ClientError> {
    match who.kind {
        NodeKind::Mapper => {}
        NodeKind::User if user::get(&who.name, ks).is_ok() => return Err(ClientError::IsUser(who.clone())),
        NodeKind::User => {}
        NodeKind::Cloud | NodeKind::Edge | NodeKind::Wireguard => {
            return Err(ClientError::NoClient(who.clone()));
        }
    }
    let new = || Client { who: who.clone(), certificates: Vec::new(), revoked: None };
    Ok(record::get(ks, &row(who))?.unwrap_or_else(new))
}

fn row(who: &NodeId) -> String {
    format!("{PREFIX}{who}")
}

/// Which certificates count, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clients(BTreeMap<NodeId, Keys>);

impl Clients {
    /// As the cloud keeps them ([`PREFIX`]) or what an edge was told ([`TOLD`]). Of a row that cannot be read no certificate
    /// counts.
    pub fn load(prefix: &str, ks: &Keyspace) -> Self {
        let read = |(key, bytes): (&metadata::Key, &bytes::Bytes)| {
            let who: NodeId = key.as_str().strip_prefix(prefix)?.parse().ok()?;
            let keys = minicbor::decode::<Client>(bytes).map(|client| client.keys());
            Some((who, keys.unwrap_or_else(|_| Keys::Only(BTreeSet::new()))))
        };
        Self(ks.range(prefix).filter_map(read).collect())
    }

    /// Whether a certificate that the cluster's authority signed counts.
    pub fn has(&self, who: &NodeId, key: &KeyHash) -> bool {
        self.0.get(who).is_none_or(|keys| keys.has(key))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = <ClientKeys as IntoIterator>::Item> {
        self.0.clone().into_iter()
    }
}

impl Client {
    fn revoked_ones(&self) -> impl Iterator<Item = &Certificate> {
        self.certificates.iter().filter(|certificate| certificate.revoked.is_some())
    }

    fn has_ended(&self, now: UnixMillis) -> bool {
        self.certificates.iter().all(|certificate| certificate.not_after <= now)
    }

    /// What counts no more anyway need not be remembered; else each of them keeps somebody out.
    fn forget_revoked(&mut self) -> Result<(), ClientError> {
        if self.revoked.is_none() {
            return Err(ClientError::TooManyRevoked(self.who.clone()));
        }
        self.certificates.retain(|certificate| certificate.revoked.is_none());
        Ok(())
    }

    /// The same to a broker, and no more than that; `None`: nothing was revoked.
    fn for_edges(&self) -> Option<Self> {
        let mut told = self.clone();
        told.certificates.retain(|certificate| certificate.revoked.is_some() != self.revoked.is_some());
        (self.revoked.is_some() || !told.certificates.is_empty()).then_some(told)
    }

    fn keys(&self) -> Keys {
        let with = |is_revoked: bool| {
            let listed = self.certificates.iter();
            listed.filter(move |one| one.revoked.is_some() == is_revoked).map(|one| one.key).collect()
        };
        if self.revoked.is_some() { Keys::Only(with(false)) } else { Keys::AllBut(with(true)) }
    }
}

#[cfg(test)]
mod tests;

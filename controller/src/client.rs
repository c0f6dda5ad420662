//! Certificates of mappers and apps that `kubebus mqtt certificate` made, and which of them were revoked:
//! `/all/client/<kind>/<name>`, synced to every edge, so that an edge's broker turns them away without the cloud.
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
pub const PREFIX: &str = "/all/client/";

/// Where an edge finds them.
pub const TOLD: &str = "/m/client/";

/// Clients with a row: of one certificate it is 90 bytes, so that all of them are 180 KB on each edge.
pub const MAX_CLIENTS: usize = 2048;

/// Certificates on one list: a mapper that runs at more machines has a name for each. Ended ones make room.
pub const MAX_CERTIFICATES: usize = 16;

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
    #[error("there are {MAX_CLIENTS} clients on the list, the most that fit: take a name that is on it")]
    Full,
    #[error(transparent)]
    Damaged(#[from] DamagedRecord),
}

/// All clients that have a row, as the cloud keeps them ([`PREFIX`]) or as an edge was told ([`TOLD`]).
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
    client.certificates.retain(|certificate| certificate.not_after > now && certificate.key != key);
    let valid = client.certificates.iter().filter(|certificate| certificate.revoked.is_none()).count();
    if valid >= MAX_CERTIFICATES {
        return Err(ClientError::TooMany(who.clone()));
    }
    // Of the revoked ones the oldest goes: that nothing unlisted counts keeps it out.
    while client.certificates.len() >= MAX_CERTIFICATES {
        let oldest = client.certificates.iter().position(|certificate| certificate.revoked.is_some());
        oldest.map(|index| client.certificates.remove(index));
        client.revoked = client.revoked.or(Some(now));
    }
    make_room(who, ks, now)?;
    client.certificates.push(Certificate { key, issued: now, not_after, revoked: None });
    record::put(ks, &row(who), &client);
    Ok(client)
}

/// A client of which everything has ended, and of which nothing was revoked as a whole, is forgotten for another.
fn make_room(who: &NodeId, ks: &mut Keyspace, now: UnixMillis) -> Result<(), ClientError> {
    if ks.get(&row(who)).is_some() || ks.range(PREFIX).count() < MAX_CLIENTS {
        return Ok(());
    }
    let is_over = |client: &Client| {
        client.revoked.is_none() && client.certificates.iter().all(|certificate| certificate.not_after <= now)
    };
    let over = list(PREFIX, ks)?.into_iter().find(is_over).ok_or(ClientError::Full)?;
    record::delete(ks, &row(&over.who));
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
    make_room(who, ks, now)?;
    record::put(ks, &row(who), &client);
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
    /// As the cloud keeps them ([`PREFIX`]) or as an edge was told ([`TOLD`]). Of a row that cannot be read no certificate
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
    fn keys(&self) -> Keys {
        let with = |is_revoked: bool| {
            let listed = self.certificates.iter();
            listed.filter(move |one| one.revoked.is_some() == is_revoked).map(|one| one.key).collect()
        };
        if self.revoked.is_some() { Keys::Only(with(false)) } else { Keys::AllBut(with(true)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1000);
    const END: UnixMillis = UnixMillis(9000);

    fn id(text: &str) -> NodeId {
        text.parse().unwrap()
    }

    fn key(number: u8) -> KeyHash {
        KeyHash([number; 32])
    }

    fn let_in(ks: &Keyspace, who: &str) -> Vec<u8> {
        let clients = Clients::load(PREFIX, ks);
        (0..=20).filter(|number| clients.has(&id(who), &key(*number))).collect()
    }

    #[test]
    fn one_certificate_is_revoked_or_all_that_there_are_and_what_is_issued_later_counts() {
        let (mut ks, mapper) = (Keyspace::new(), id("mapper/modbus"));
        put(&mapper, key(1), END, &mut ks, NOW).unwrap();
        put(&mapper, key(2), END, &mut ks, NOW).unwrap();
        assert_eq!(let_in(&ks, "mapper/modbus").len(), 21, "a list is no condition");
        revoke(&mapper, Some("0101"), &mut ks, NOW).unwrap();
        assert!(!let_in(&ks, "mapper/modbus").contains(&1));
        assert!(let_in(&ks, "mapper/modbus").contains(&3));
        let unknown = ClientError::Unknown { who: mapper.clone(), id: "ff".into() };
        assert_eq!(revoke(&mapper, Some("ff"), &mut ks, NOW), Err(unknown));
        revoke(&mapper, None, &mut ks, NOW).unwrap();
        assert!(let_in(&ks, "mapper/modbus").is_empty());
        assert_eq!(let_in(&ks, "mapper/other").len(), 21);
        put(&mapper, key(4), END, &mut ks, NOW).unwrap();
        assert_eq!(let_in(&ks, "mapper/modbus"), [4]);
        // One of whom nothing was written down.
        revoke(&id("user/app"), None, &mut ks, NOW).unwrap();
        assert!(let_in(&ks, "user/app").is_empty());
    }

    #[test]
    fn a_list_is_bounded_and_what_it_forgets_stays_out() {
        let (mut ks, mapper) = (Keyspace::new(), id("mapper/modbus"));
        for number in 0..16 {
            put(&mapper, key(number), END, &mut ks, NOW).unwrap();
        }
        assert_eq!(put(&mapper, key(16), END, &mut ks, NOW), Err(ClientError::TooMany(mapper.clone())));
        revoke(&mapper, Some("0505"), &mut ks, NOW).unwrap();
        put(&mapper, key(16), END, &mut ks, NOW).unwrap();
        let expected: Vec<u8> = (0..=16).filter(|number| *number != 5).collect();
        assert_eq!(let_in(&ks, "mapper/modbus"), expected);
        // What has ended makes room.
        put(&mapper, key(17), UnixMillis(99_000), &mut ks, END).unwrap();
        assert_eq!(list(PREFIX, &ks).unwrap()[0].certificates.len(), 1);
    }

    #[test]
    fn nodes_and_users_with_a_role_are_elsewhere_and_a_damaged_row_lets_nobody_in() {
        let mut ks = Keyspace::new();
        let refused = ClientError::NoClient(id("edge/a"));
        assert_eq!(revoke(&id("edge/a"), None, &mut ks, NOW), Err(refused));
        let alice = user::User {
            name: bus::Name::new("alice").unwrap(),
            role: crate::role::Role::Viewer,
            key: key(1),
            not_after: END,
            revoked: None,
        };
        user::put(&alice, false, &mut ks).unwrap();
        let refused = ClientError::IsUser(id("user/alice"));
        assert_eq!(revoke(&id("user/alice"), None, &mut ks, NOW), Err(refused));
        ks.put(record::own_key("/all/client/mapper/eve"), bytes::Bytes::from_static(&[0xff]));
        assert!(let_in(&ks, "mapper/eve").is_empty());
    }
}

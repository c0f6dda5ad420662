//! Users: who is known by a certificate, and what he may do. `/all/user/<name>`, synced to every edge, so that an edge
//! lets in and turns away without the cloud.
//!
//! A user has one certificate: a new one takes the place of the old. Who is revoked keeps the row, so that the name says
//! why he is not let in.

use std::collections::{BTreeMap, BTreeSet};

use bus::{KeyHash, Name, NodeId, NodeKind, UnixMillis};
use device_twin::gate::access::{ClientKeys, Keys};
use metadata::Keyspace;
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::client::{self, Clients};
use crate::record::{self, DamagedRecord};
use crate::role::{Asker, Role};

/// Where the cloud keeps them.
pub const PREFIX: &str = "/all/user/";

/// Where an edge finds them.
pub const TOLD: &str = "/m/user/";

/// Users of a cluster: a row is 60 bytes, so that all of them are 240 KB on each edge.
pub const MAX_USERS: usize = 4096;

/// One user.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct User {
    #[n(0)]
    pub name: Name,
    #[n(1)]
    pub role: Role,
    /// Of the key that his certificate is for.
    #[n(2)]
    pub key: KeyHash,
    /// When that certificate ends.
    #[n(3)]
    pub not_after: UnixMillis,
    /// Since when he is let in no more.
    #[n(4)]
    pub revoked: Option<UnixMillis>,
}

impl User {
    pub fn id(&self) -> NodeId {
        NodeId { kind: NodeKind::User, name: self.name.clone() }
    }
}

impl<C> Encode<C> for Role {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(self.as_str())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Role {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.str()?.parse().map_err(|_| minicbor::decode::Error::message("no role that is known here"))
    }
}

/// Why a user was not changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UserError {
    #[error("there is no user '{0}'; see 'kubebus user list'")]
    Unknown(Name),
    #[error(
        "there is a user '{0}': give '--replace' to issue another certificate in place of the present one"
    )]
    Exists(Name),
    #[error("'{0}' is the name of nobody in particular: choose another")]
    Reserved(Name),
    #[error("there are {MAX_USERS} users, the most that fit; remove one with 'kubebus user remove'")]
    Full,
    #[error(transparent)]
    Damaged(#[from] DamagedRecord),
}

/// All users by name, as the cloud keeps them ([`PREFIX`]) or as an edge was told ([`TOLD`]).
pub fn list(prefix: &str, ks: &Keyspace) -> Result<Vec<User>, DamagedRecord> {
    record::list(ks, prefix)
}

pub fn get(name: &Name, ks: &Keyspace) -> Result<User, UserError> {
    record::get(ks, &key(name))?.ok_or_else(|| UserError::Unknown(name.clone()))
}

/// Lets a user in. One that is there is replaced only if that is wanted.
pub fn put(user: &User, replace: bool, ks: &mut Keyspace) -> Result<(), UserError> {
    may_put(user, replace, ks)?;
    record::put(ks, &key(&user.name), user);
    Ok(())
}

/// Whether [`put`] would.
pub fn may_put(user: &User, replace: bool, ks: &Keyspace) -> Result<(), UserError> {
    let is_there = ks.get(&key(&user.name)).is_some();
    if [Asker::console().who, Asker::stranger().who].contains(&user.id()) {
        return Err(UserError::Reserved(user.name.clone()));
    }
    if is_there && !replace {
        return Err(UserError::Exists(user.name.clone()));
    }
    if !is_there && ks.range(PREFIX).count() >= MAX_USERS {
        return Err(UserError::Full);
    }
    Ok(())
}

/// Gives a user another role, from his next request on.
pub fn set_role(name: &Name, role: Role, ks: &mut Keyspace) -> Result<User, UserError> {
    let user = User { role, ..get(name, ks)? };
    record::put(ks, &key(name), &user);
    Ok(user)
}

/// Lets a user in no more, whatever he holds.
pub fn revoke(name: &Name, ks: &mut Keyspace, now: UnixMillis) -> Result<User, UserError> {
    let user = get(name, ks)?;
    let user = User { revoked: user.revoked.or(Some(now)), ..user };
    record::put(ks, &key(name), &user);
    Ok(user)
}

/// Forgets a user: his certificate is then one that nobody knows.
pub fn remove(name: &Name, ks: &mut Keyspace) -> Result<(), UserError> {
    get(name, ks)?;
    record::delete(ks, &key(name));
    Ok(())
}

fn key(name: &Name) -> String {
    format!("{PREFIX}{name}")
}

/// All users at one moment, for whoever has to know them at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users(BTreeMap<Name, User>, Clients);

/// Why somebody whose certificate the cluster signed is not let in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotLetIn {
    #[error("{0} has a certificate of this cluster and no role: add it at the cloud with 'kubebus user add {name} --role ROLE'", name = .0.name)]
    NoRole(NodeId),
    #[error("this certificate of {0} was replaced by a newer one: use that")]
    Replaced(NodeId),
    #[error("{0} was revoked; an administrator can let it in again with 'kubebus user add {name} --replace --role ROLE'", name = .0.name)]
    Revoked(NodeId),
    #[error(
        "this certificate of {0} was revoked; an administrator can issue another with 'kubebus mqtt certificate {0}'"
    )]
    RevokedClient(NodeId),
    #[error("the certificate of {0} has expired: get another with 'kubebus user add {name} --replace --role ROLE'", name = .0.name)]
    Expired(NodeId),
    #[error("{0} is no user: use a certificate of 'kubebus user add'")]
    NoUser(NodeId),
}

impl Users {
    /// As the cloud keeps them ([`PREFIX`]) or as an edge was told ([`TOLD`]). One that cannot be read is let in by nobody.
    pub fn load(prefix: &str, ks: &Keyspace) -> Self {
        let read = |bytes: &[u8]| minicbor::decode::<User>(bytes).ok();
        let users =
            ks.range(prefix).filter_map(|(_, b)| read(b)).map(|user| (user.name.clone(), user)).collect();
        Self(users, Clients::load(if prefix == PREFIX { client::PREFIX } else { client::TOLD }, ks))
    }

    /// What somebody may do who shows a certificate that the cluster's authority signed, by these rules:
    /// 1. a mapper is one, if its certificate was not revoked;
    /// 2. a user has the role of his row, if it is for this key, is not revoked and has not expired;
    /// 3. nobody else is anybody here.
    pub fn role_of(&self, who: &NodeId, key: KeyHash, now: UnixMillis) -> Result<Role, NotLetIn> {
        match who.kind {
            NodeKind::Mapper if !self.1.has(who, &key) => Err(NotLetIn::RevokedClient(who.clone())),
            NodeKind::Mapper => Ok(Role::Mapper),
            NodeKind::User => match self.role_now(&who.name, now)? {
                (_, known) if known != key => Err(NotLetIn::Replaced(who.clone())),
                (role, _) => Ok(role),
            },
            NodeKind::Cloud | NodeKind::Edge | NodeKind::Wireguard => Err(NotLetIn::NoUser(who.clone())),
        }
    }

    /// By which certificates brokers know clients: a user by that of his row, if he has one.
    pub fn keys(&self) -> ClientKeys {
        let key = |user: &User| {
            Keys::Only(user.revoked.is_none().then_some(user.key).into_iter().collect::<BTreeSet<_>>())
        };
        let users = self.0.values().map(|user| (user.id(), key(user)));
        self.1.keys().chain(users).collect()
    }

    /// The role of a user, and the key that he shows.
    pub fn role_now(&self, name: &Name, now: UnixMillis) -> Result<(Role, KeyHash), NotLetIn> {
        let id = NodeId { kind: NodeKind::User, name: name.clone() };
        match self.0.get(name) {
            None => Err(NotLetIn::NoRole(id)),
            Some(User { revoked: Some(_), .. }) => Err(NotLetIn::Revoked(id)),
            Some(User { not_after, .. }) if *not_after <= now => Err(NotLetIn::Expired(id)),
            Some(User { role, key, .. }) => Ok((*role, *key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, key: u8) -> User {
        let name = Name::new(name).unwrap();
        User {
            name,
            role: Role::Operator,
            key: KeyHash([key; 32]),
            not_after: UnixMillis(1000),
            revoked: None,
        }
    }

    fn id(text: &str) -> NodeId {
        text.parse().unwrap()
    }

    #[test]
    fn a_user_is_let_in_by_his_present_key_until_it_ends_or_he_is_revoked() {
        let mut ks = Keyspace::new();
        put(&user("alice", 1), false, &mut ks).unwrap();
        let role = |ks: &Keyspace, who: &str, key, now| {
            Users::load(PREFIX, ks).role_of(&id(who), KeyHash([key; 32]), UnixMillis(now))
        };
        assert_eq!(role(&ks, "user/alice", 1, 999), Ok(Role::Operator));
        assert_eq!(role(&ks, "user/alice", 2, 0), Err(NotLetIn::Replaced(id("user/alice"))));
        assert_eq!(role(&ks, "user/alice", 1, 1000), Err(NotLetIn::Expired(id("user/alice"))));
        assert_eq!(role(&ks, "user/bob", 1, 0), Err(NotLetIn::NoRole(id("user/bob"))));
        assert_eq!(role(&ks, "edge/a", 1, 0), Err(NotLetIn::NoUser(id("edge/a"))));
        assert_eq!(role(&ks, "mapper/m", 1, 0), Ok(Role::Mapper));
        client::revoke(&id("mapper/m"), None, &mut ks, UnixMillis(5)).unwrap();
        assert_eq!(role(&ks, "mapper/m", 1, 0), Err(NotLetIn::RevokedClient(id("mapper/m"))));
        let alice = Name::new("alice").unwrap();
        set_role(&alice, Role::Viewer, &mut ks).unwrap();
        assert_eq!(role(&ks, "user/alice", 1, 0), Ok(Role::Viewer));
        revoke(&alice, &mut ks, UnixMillis(5)).unwrap();
        assert_eq!(role(&ks, "user/alice", 1, 0), Err(NotLetIn::Revoked(id("user/alice"))));
        assert_eq!(put(&user("alice", 3), false, &mut ks), Err(UserError::Exists(alice.clone())));
        put(&user("alice", 3), true, &mut ks).unwrap();
        assert_eq!(role(&ks, "user/alice", 3, 0), Ok(Role::Operator));
        remove(&alice, &mut ks).unwrap();
        assert_eq!(role(&ks, "user/alice", 3, 0), Err(NotLetIn::NoRole(id("user/alice"))));
    }

    #[test]
    fn nobody_is_called_like_the_console_and_a_damaged_row_lets_nobody_in() {
        let mut ks = Keyspace::new();
        assert!(matches!(put(&user("console", 1), true, &mut ks), Err(UserError::Reserved(_))));
        ks.put(record::own_key("/all/user/eve"), bytes::Bytes::from_static(&[0xff]));
        assert_eq!(Users::load(PREFIX, &ks), Users::default());
    }
}

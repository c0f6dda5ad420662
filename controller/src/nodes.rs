//! Who belongs to the cluster: `/c/node/<name>`, one record for each edge that joined.

pub use bus::KeyHash;
use bus::token::TokenId;
use bus::{Name, NodeId, Now, UnixMillis};
use metadata::Keyspace;
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::join::Signed;
use crate::lan::Lan;
use crate::record::{self, DamagedRecord};
use crate::{advert, label, lease, retired, route, site, wireguard};

pub const PREFIX: &str = "/c/node/";

/// One edge of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NodeRecord {
    #[n(0)]
    pub name: Name,
    #[n(1)]
    pub site: Name,
    #[n(2)]
    pub public_key: KeyHash,
    /// What it may advertise, as its token said, and as was approved or revoked since.
    #[n(3)]
    pub lans: Vec<Lan>,
    #[n(4)]
    pub joined: UnixMillis,
    /// Of its newest certificate, as a positive big-endian integer.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub serial: Vec<u8>,
    #[n(6)]
    pub not_after: UnixMillis,
    /// [`TokenId`]'s bytes of the token that it last came with.
    #[n(7)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) token: [u8; 32],
    /// Signed, and not shown yet.
    #[n(8)]
    pub next: Option<Next>,
}

/// The certificate that takes the place of a node's present one as soon as the node shows it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Next {
    #[n(0)]
    pub public_key: KeyHash,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub serial: Vec<u8>,
    #[n(2)]
    pub not_after: UnixMillis,
}

impl NodeRecord {
    /// Who joins with the token that is named, for now without a LAN.
    pub fn new(name: Name, site: Name, token: TokenId, signed: &Signed, joined: UnixMillis) -> Self {
        Self {
            name,
            site,
            public_key: signed.public_key,
            lans: Vec::new(),
            joined,
            serial: signed.serial.clone(),
            not_after: signed.not_after,
            token: token.0,
            next: None,
        }
    }

    pub fn id(&self) -> NodeId {
        NodeId::edge(self.name.clone())
    }

    pub fn token(&self) -> TokenId {
        TokenId(self.token)
    }

    /// How long the node's certificate for this key holds; `None`: it is not this node's key.
    pub fn until(&self, key: KeyHash) -> Option<UnixMillis> {
        let next = self.next.as_ref().filter(|next| next.public_key == key);
        next.map(|next| next.not_after).or((self.public_key == key).then_some(self.not_after))
    }
}

/// Why a node was not removed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RemoveError {
    #[error("no node '{0}'; see 'kubebus get nodes'")]
    Unknown(Name),
    #[error(transparent)]
    Damaged(#[from] DamagedRecord),
}

pub fn get(name: &Name, ks: &Keyspace) -> Result<Option<NodeRecord>, DamagedRecord> {
    record::get(ks, &key(name))
}

pub fn exists(name: &Name, ks: &Keyspace) -> bool {
    ks.get(&key(name)).is_some()
}

/// All nodes by name.
pub fn list(ks: &Keyspace) -> Result<Vec<NodeRecord>, DamagedRecord> {
    record::list(ks, PREFIX)
}

/// Writes who is in, and in which site.
pub fn put(node: &NodeRecord, ks: &mut Keyspace) {
    record::put(ks, &key(&node.name), node);
    site::put(&node.id(), &node.site, ks);
}

/// A node shows this key: if it is its next one, the one before it counts no more. The record, if it changed.
pub fn promote(name: &Name, key: KeyHash, ks: &mut Keyspace) -> Result<Option<NodeRecord>, DamagedRecord> {
    let Some(mut node) = get(name, ks)? else { return Ok(None) };
    let Some(Next { public_key, serial, not_after }) = node.next.take_if(|next| next.public_key == key)
    else {
        return Ok(None);
    };
    (node.public_key, node.serial, node.not_after) = (public_key, serial, not_after);
    put(&node, ks);
    Ok(Some(node))
}

/// Says again which site each node is in: a cloud before this one did not say it.
pub(crate) fn announce_sites(ks: &mut Keyspace) -> Result<(), DamagedRecord> {
    list(ks)?.iter().for_each(|node| site::put(&node.id(), &node.site, ks));
    Ok(())
}

/// What lies under `/e/<edge>/` for devices: they stay bound to the name, and find it again when a node of that name
/// comes. The cloud's twins go by it all the while.
const OF_DEVICES: [&str; 5] = ["desired/", "withdrawn/", "authority/", "command/", "unit/"];

/// Takes `name` out of the cluster: its routes, the WireGuard clients that come in by it, and all that was to be synced to
/// it go at once, its addresses and virtual prefixes are
/// kept from others for [`lease::REUSE_AFTER`]. Its certificate is not revoked by this.
pub fn remove(name: &Name, ks: &mut Keyspace, now: Now) -> Result<(), RemoveError> {
    let node = get(name, ks)?.ok_or_else(|| RemoveError::Unknown(name.clone()))?;
    retired::update(&node.id(), &[], ks, now)?;
    route::replace(&node.id(), &[], ks)?;
    wireguard::handle_node_gone(&node.id(), ks, now)?;
    lease::release(&node.id(), ks, now)?;
    site::remove(&node.id(), ks);
    advert::remove(name, ks);
    label::remove(name, ks);
    record::delete_all_but(ks, &format!("/e/{name}/"), &OF_DEVICES);
    record::delete(ks, &key(name));
    Ok(())
}

fn key(name: &Name) -> String {
    format!("{PREFIX}{name}")
}

//! Stock WireGuard clients: `/c/wireguard/client/<name>`, and what their gateways are told, `/e/<edge>/wireguard/<name>`.
//!
//! ```text
//! add --> client, its addresses, its routes (owner: the gateway; peer: the client), its site
//!              |                                          |
//!              '--> /e/<gateway>/wireguard/<name>         '--> /all/route/.., /all/site/wireguard/<name>
//! ```
//! A client is in the site that it is put in, and policies know it by its own name: not by the gateway, which only
//! carries its packets. Its private key is never here. A gateway is whoever said how clients reach it
//! (`/c/wireguard/gateway/<node>`).

mod addresses;

use std::collections::BTreeSet;

use bus::{
    Name, NodeId, NodeKind, Now, Route, SubnetKind, UnixMillis, WireguardGateway, WireguardKey, WireguardPeer,
};
use ipnet::IpNet;
use metadata::Keyspace;
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::cluster::Cluster;
use crate::plan::Plan;
use crate::record::{self, DamagedRecord};
use crate::{access, nodes, route, site};

pub(crate) use self::addresses::{check, held, held_v4};

pub(crate) const CLIENTS: &str = "/c/wireguard/client/";
const GATEWAYS: &str = "/c/wireguard/gateway/";

/// Where a gateway edge finds its clients.
pub const TOLD: &str = "/m/wireguard/";

/// What an edge calls what it tells of itself as a gateway.
pub const UP: &str = "wireguard/gateway";

/// One client.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Client {
    #[n(0)]
    pub peer: WireguardPeer,
    #[n(1)]
    pub site: Name,
    #[n(2)]
    pub gateway: NodeId,
    /// Since when it has its key.
    #[n(3)]
    pub keyed: UnixMillis,
}

/// What a new client is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub name: Name,
    /// Not said: one of its own, called like it.
    pub site: Option<Name>,
    /// Not said: the cloud if it is a gateway, else the only one there is.
    pub gateway: Option<NodeId>,
    pub keys: Keys,
}

/// The public side of a client's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    pub public: WireguardKey,
    pub preshared: WireguardKey,
}

/// Why a client was not changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClientError {
    #[error("there is no WireGuard client '{0}'; see 'kubebus wireguard list'")]
    Unknown(Name),
    #[error(
        "there is a WireGuard client '{0}'; give it another key with 'kubebus wireguard rotate {0}', or remove it first"
    )]
    Exists(Name),
    #[error("'{0}' is the name of a node, and policies could not tell them apart: choose another")]
    NameOfNode(Name),
    #[error(
        "there is a site '{0}', and a client of that name would be in it: say '--site {0}' if it is to be, or another site"
    )]
    SiteExists(Name),
    #[error("that public key is the one of {0}: make another")]
    KeyTaken(NodeId),
    #[error(
        "no node is a WireGuard gateway yet: write 'wireguard: {{listen: 51820, endpoint: \"HOST:51820\"}}' into the \
         configuration of the cloud or of an edge, and start it again"
    )]
    NoGateway,
    #[error("{asked} is no WireGuard gateway; there are {}", listed(.known))]
    NotAGateway { asked: NodeId, known: Vec<NodeId> },
    #[error("several nodes are WireGuard gateways: say which with '--gateway', {}", listed(.0))]
    WhichGateway(Vec<NodeId>),
    #[error(
        "all {0} addresses for WireGuard clients are held or kept for 30 days; start the cloud with a wider pool"
    )]
    Exhausted(usize),
    #[error(transparent)]
    Damaged(#[from] DamagedRecord),
}

fn listed(nodes: &[NodeId]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// All clients by name.
pub fn list(ks: &Keyspace) -> Result<Vec<Client>, DamagedRecord> {
    record::list(ks, CLIENTS)
}

pub fn get(name: &Name, ks: &Keyspace) -> Result<Client, ClientError> {
    record::get(ks, &client_key(name))?.ok_or_else(|| ClientError::Unknown(name.clone()))
}

pub fn exists(name: &Name, ks: &Keyspace) -> bool {
    ks.get(&client_key(name)).is_some()
}

/// The clients that come in by `gateway`, as it lets them in.
pub fn behind(gateway: &NodeId, ks: &Keyspace) -> Result<Vec<WireguardPeer>, DamagedRecord> {
    let all = list(ks)?.into_iter();
    Ok(all.filter(|client| client.gateway == *gateway).map(|client| client.peer).collect())
}

/// The clients that an edge was told to let in. One that cannot be read is not let in.
pub fn told(ks: &Keyspace) -> Vec<WireguardPeer> {
    ks.range(TOLD).filter_map(|(_, bytes)| minicbor::decode(bytes).ok()).collect()
}

/// All gateways, and how clients reach them.
pub fn gateways(ks: &Keyspace) -> Vec<(NodeId, WireguardGateway)> {
    let read = |key: &str, bytes: &[u8]| -> Option<(NodeId, WireguardGateway)> {
        Some((key.strip_prefix(GATEWAYS)?.parse().ok()?, minicbor::decode(bytes).ok()?))
    };
    ks.range(GATEWAYS).filter_map(|(key, bytes)| read(key.as_str(), bytes)).collect()
}

/// How clients reach `node`, if it said so.
pub fn gateway(node: &NodeId, ks: &Keyspace) -> Option<WireguardGateway> {
    record::get(ks, &gateway_key(node)).ok().flatten()
}

/// A node says how clients reach it, or that they do not any more. Writes nothing where that is known. False: what it says
/// is no address to dial, and is not taken: it ends up in files that clients' machines execute.
pub fn handle_gateway(node: &NodeId, told: Option<&WireguardGateway>, ks: &mut Keyspace) -> bool {
    if told.is_some_and(|told| !is_endpoint(&told.endpoint)) {
        return false;
    }
    if gateway(node, ks).as_ref() != told {
        match told {
            Some(told) => record::put(ks, &gateway_key(node), told),
            None => record::delete(ks, &gateway_key(node)),
        }
    }
    true
}

/// `host:port`, and nothing else that a line may hold.
fn is_endpoint(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']' | '_');
    !host.is_empty() && text.len() <= 255 && host.chars().all(is_plain) && port.parse::<u16>().is_ok()
}

/// Lets a client in. In this order:
/// 1. its name is neither a client's nor a node's;
/// 2. the gateway is one;
/// 3. the site is said, or there is none of the client's name;
/// 4. nobody has the key;
/// 5. there is an address: the one that it had, or a free one.
///
/// Writes nothing if it fails.
pub fn add(order: Order, cluster: &Cluster, ks: &mut Keyspace, now: Now) -> Result<Client, ClientError> {
    let Order { name, site, gateway, keys } = order;
    if exists(&name, ks) {
        return Err(ClientError::Exists(name));
    }
    if nodes::exists(&name, ks) || cluster.cloud == name {
        return Err(ClientError::NameOfNode(name));
    }
    let gateway = choose_gateway(gateway, &cluster.cloud_id(), ks)?;
    let site = site.map_or_else(|| own_site(&name, ks), Ok)?;
    check_key(&keys.public, &name, ks)?;
    let addresses = addresses::grant(&cluster.plan, &name, ks, now)?;
    let peer = WireguardPeer {
        name: name.clone(),
        public_key: keys.public,
        preshared_key: keys.preshared,
        v4: addresses.v4,
        v6: addresses.v6,
    };
    let client = Client { peer, site, gateway, keyed: now.wall };
    site::put(&NodeId::wireguard(name), &client.site, ks);
    routes(&client).iter().for_each(|route| route::put(route, ks));
    put(&client, ks)?;
    Ok(client)
}

/// Gives a client other keys: the old ones let nobody in.
pub fn rotate(name: &Name, keys: Keys, ks: &mut Keyspace, now: Now) -> Result<Client, ClientError> {
    let client = get(name, ks)?;
    check_key(&keys.public, name, ks)?;
    let Keys { public, preshared } = keys;
    let peer = WireguardPeer { public_key: public, preshared_key: preshared, ..client.peer };
    let client = Client { peer, keyed: now.wall, ..client };
    put(&client, ks)?;
    Ok(client)
}

/// Lets a client in no more. Its addresses are kept for it, and from others for 30 days.
pub fn remove(name: &Name, ks: &mut Keyspace, now: Now) -> Result<Client, ClientError> {
    let client = get(name, ks)?;
    record::delete(ks, &client_key(name));
    told_at(&client).iter().for_each(|key| record::delete(ks, key));
    routes(&client).iter().for_each(|route| route::delete(route, ks));
    site::remove(&NodeId::wireguard(name.clone()), ks);
    addresses::release(name, ks, now)?;
    access::tell_edges(gateway_edge(&client), ks)?;
    Ok(client)
}

/// A node is gone, and with it the clients that came in by it.
pub(crate) fn handle_node_gone(node: &NodeId, ks: &mut Keyspace, now: Now) -> Result<(), DamagedRecord> {
    for client in list(ks)?.into_iter().filter(|client| client.gateway == *node) {
        if let Err(ClientError::Damaged(damaged)) = remove(&client.peer.name, ks, now) {
            return Err(damaged);
        }
    }
    record::delete(ks, &gateway_key(node));
    Ok(())
}

/// What a client sends into its tunnel: both pools, and the LANs and subnets outside them to which it may begin to talk
/// as things are now.
pub fn allowed_ips(name: &Name, plan: &Plan, ks: &Keyspace) -> Result<BTreeSet<IpNet>, DamagedRecord> {
    let outside = access::reachable(name, plan, ks)?;
    Ok(plan.pools().into_iter().chain(outside).collect())
}

fn choose_gateway(asked: Option<NodeId>, cloud: &NodeId, ks: &Keyspace) -> Result<NodeId, ClientError> {
    let known: Vec<NodeId> = gateways(ks).into_iter().map(|(node, _)| node).collect();
    match (asked, known.as_slice()) {
        (_, []) => Err(ClientError::NoGateway),
        (Some(asked), known) if known.contains(&asked) => Ok(asked),
        (Some(asked), _) => Err(ClientError::NotAGateway { asked, known }),
        (None, known) if known.contains(cloud) => Ok(cloud.clone()),
        (None, [one]) => Ok(one.clone()),
        (None, _) => Err(ClientError::WhichGateway(known)),
    }
}

/// Of its own, so that it reaches nobody until a policy says so.
fn own_site(name: &Name, ks: &Keyspace) -> Result<Name, ClientError> {
    let is_there = site::list(site::PREFIX, ks).values().any(|site| site == name);
    if is_there { Err(ClientError::SiteExists(name.clone())) } else { Ok(name.clone()) }
}

/// A gateway tells clients apart by their keys.
fn check_key(key: &WireguardKey, name: &Name, ks: &Keyspace) -> Result<(), ClientError> {
    let clients = list(ks)?.into_iter();
    let clients = clients.map(|client| (NodeId::wireguard(client.peer.name), client.peer.public_key));
    let gateways = gateways(ks).into_iter().map(|(node, gateway)| (node, gateway.public_key));
    let is_anothers =
        |(holder, held): &(NodeId, WireguardKey)| held == key && *holder != NodeId::wireguard(name.clone());
    clients.chain(gateways).find(is_anothers).map_or(Ok(()), |(holder, _)| Err(ClientError::KeyTaken(holder)))
}

fn routes(client: &Client) -> [Route; 2] {
    client.peer.addresses().map(|prefix| Route {
        prefix,
        owner: client.gateway.clone(),
        kind: SubnetKind::Wireguard,
        real: None,
        peer: Some(client.peer.name.clone()),
    })
}

fn put(client: &Client, ks: &mut Keyspace) -> Result<(), DamagedRecord> {
    record::put(ks, &client_key(&client.peer.name), client);
    told_at(client).iter().for_each(|key| record::put(ks, key, &client.peer));
    access::tell_edges(gateway_edge(client), ks)
}

/// Other policies may lead there, as the client is behind it.
fn gateway_edge(client: &Client) -> Option<Name> {
    (client.gateway.kind == NodeKind::Edge).then(|| client.gateway.name.clone())
}

fn client_key(name: &Name) -> String {
    format!("{CLIENTS}{name}")
}

fn gateway_key(node: &NodeId) -> String {
    format!("{GATEWAYS}{node}")
}

/// Where a gateway edge is told of the client. A cloud has it at hand.
fn told_at(client: &Client) -> Option<String> {
    gateway_edge(client).map(|edge| format!("/e/{edge}/wireguard/{}", client.peer.name))
}

#[cfg(test)]
mod tests;

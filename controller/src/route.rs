//! Which prefix lies behind which node: `/all/route/<prefix>`, synced to every edge.

use bus::{NodeId, Route};
use ipnet::IpNet;
use metadata::Keyspace;

use crate::lan::overlap;
use crate::record::{self, DamagedRecord};

pub const PREFIX: &str = "/all/route/";

/// All routes, in the order of their keys.
pub fn list(ks: &Keyspace) -> Result<Vec<Route>, DamagedRecord> {
    record::list(ks, PREFIX)
}

/// The route of another node than `owner` that shares an address with `prefix`, on the overlay or behind that node.
pub fn clash(prefix: &IpNet, owner: &NodeId, ks: &Keyspace) -> Result<Option<Route>, DamagedRecord> {
    let routes = list(ks)?;
    let shares = |route: &Route| overlap(&route.prefix, prefix) || overlap(&route.behind(), prefix);
    Ok(routes.into_iter().find(|route| route.owner != *owner && shares(route)))
}

/// The LANs that the overlay knows by virtual prefixes.
pub fn translated(ks: &Keyspace) -> Result<Vec<Route>, DamagedRecord> {
    Ok(list(ks)?.into_iter().filter(|route| route.real.is_some()).collect())
}

/// Puts `now` where the same network was known by its own prefix.
pub(crate) fn renumber(now: &Route, ks: &mut Keyspace) {
    record::delete(ks, &key(&now.behind()));
    record::put(ks, &key(&now.prefix), now);
}

/// Makes `wanted` all that lies behind `owner`, but for the WireGuard clients that come in by it.
pub(crate) fn replace(owner: &NodeId, wanted: &[Route], ks: &mut Keyspace) -> Result<(), DamagedRecord> {
    for old in list(ks)?.into_iter().filter(|route| route.owner == *owner && route.peer.is_none()) {
        if !wanted.iter().any(|route| route.prefix == old.prefix) {
            record::delete(ks, &key(&old.prefix));
        }
    }
    wanted.iter().for_each(|route| record::put(ks, &key(&route.prefix), route));
    Ok(())
}

pub(crate) fn put(route: &Route, ks: &mut Keyspace) {
    record::put(ks, &key(&route.prefix), route);
}

pub(crate) fn delete(route: &Route, ks: &mut Keyspace) {
    record::delete(ks, &key(&route.prefix));
}

/// `10.86.0.2/32` is `/all/route/10.86.0.2_32`, `fd00::2/128` is `/all/route/fd00--2_128`.
fn key(prefix: &IpNet) -> String {
    format!("{PREFIX}{}", key_part(prefix))
}

pub(crate) fn key_part(prefix: &IpNet) -> String {
    prefix.to_string().replace('/', "_").replace(':', "-")
}

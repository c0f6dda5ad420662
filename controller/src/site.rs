//! Which node is in which site: `/all/site/<node>`, synced to every edge.
//!
//! An edge's site is its token's. The cloud, with the subnets behind it, is in a site of the cloud's own name: an edge
//! that joined for a site of that name is in it too.

use std::collections::BTreeMap;

use bus::{Name, NodeId};
use metadata::Keyspace;
use minicbor::{Decode, Encode};

use crate::record;

/// Where the cloud keeps them.
pub const PREFIX: &str = "/all/site/";

/// Where an edge finds them.
pub const TOLD: &str = "/m/site/";

/// A struct, so that a later version can say more. The key says whose it is.
#[derive(Encode, Decode)]
struct Record {
    #[n(0)]
    site: Name,
}

pub(crate) fn put(node: &NodeId, site: &Name, ks: &mut Keyspace) {
    record::put(ks, &key(node), &Record { site: site.clone() });
}

pub(crate) fn remove(node: &NodeId, ks: &mut Keyspace) {
    record::delete(ks, &key(node));
}

/// All of them, as the cloud keeps them ([`PREFIX`]) or as an edge was told ([`TOLD`]). A node whose record cannot be
/// read is in no site, and may be reached by nobody.
pub fn list(prefix: &str, ks: &Keyspace) -> BTreeMap<NodeId, Name> {
    let read = |key: &str, bytes: &[u8]| {
        let node = key.strip_prefix(prefix)?.parse().ok()?;
        Some((node, minicbor::decode::<Record>(bytes).ok()?.site))
    };
    ks.range(prefix).filter_map(|(key, bytes)| read(key.as_str(), bytes)).collect()
}

/// The site that a row says.
pub(crate) fn read(bytes: &[u8]) -> Option<Name> {
    Some(minicbor::decode::<Record>(bytes).ok()?.site)
}

fn key(node: &NodeId) -> String {
    format!("{PREFIX}{node}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_are_listed_by_node_and_what_cannot_be_read_is_left_out() {
        let name = |text| Name::new(text).unwrap();
        let mut ks = Keyspace::new();
        let (edge, cloud) = (NodeId::edge(name("scada")), NodeId::cloud(name("hq")));
        put(&edge, &name("plant"), &mut ks);
        put(&cloud, &name("hq"), &mut ks);
        put(&NodeId::edge(name("gone")), &name("plant"), &mut ks);
        remove(&NodeId::edge(name("gone")), &mut ks);
        ks.put(record::own_key("/all/site/edge/odd"), bytes::Bytes::from_static(&[0xff]));
        assert_eq!(list(PREFIX, &ks), [(edge, name("plant")), (cloud, name("hq"))].into());
    }
}

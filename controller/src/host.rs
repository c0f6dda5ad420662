//! `Host` (`kubebus.io/v1alpha1`): a machine on a LAN of a site, which is known by name then.
//!
//! ```yaml
//! apiVersion: kubebus.io/v1alpha1
//! kind: Host
//! metadata: {namespace: plant-b, name: plc-3}   # the namespace is the site
//! spec:
//!   addresses: [192.168.10.20]                  # as the site itself has them
//! ```
//! As the namespace is the site, two sites may each have a `plc-3`. The manifest is kept like any other; what a name
//! server needs of it goes to every edge, as `/all/host/<site>/<name>`, and is there without the cloud.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bus::twin::DeviceId;
use bus::{Name, NodeId};
use device_twin::model::{Document, FieldError, Spec};
use metadata::Keyspace;
use minicbor::{Decode, Encode};
use serde::Deserialize;

use crate::record::{self, DamagedRecord};
use crate::resource::{self, ResourceKind};
use crate::{route, site};

/// Where the cloud keeps the manifests.
pub(crate) const MANIFESTS: &str = "/c/resource/host/";

/// Where the cloud keeps what it tells.
pub const PREFIX: &str = "/all/host/";

/// Where an edge finds it.
pub const TOLD: &str = "/m/host/";

/// Of one host. More are several hosts.
pub const MAX_ADDRESSES: usize = 8;

/// Every edge holds all of them in its memory and on its disk: about 1 MB.
pub const MAX_HOSTS: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostSpec {
    addresses: Vec<IpAddr>,
}

impl Spec for HostSpec {
    const API_VERSION: &'static str = "kubebus.io/v1alpha1";
    const KIND: &'static str = "Host";

    fn check(&self) -> Result<(), FieldError> {
        let wrong = |field: &str, reason: String| Err(FieldError { field: field.to_owned(), reason });
        match self.addresses.len() {
            0 => return wrong("spec.addresses", "is empty: name one as the site has it".to_owned()),
            len if len > MAX_ADDRESSES => {
                let reason = format!("has {len} entries, over the limit of {MAX_ADDRESSES}");
                return wrong("spec.addresses", reason);
            }
            _ => {}
        }
        match self.addresses.iter().position(|address| !is_of_a_host(*address)) {
            Some(index) => {
                wrong(&format!("spec.addresses[{index}]"), "is the address of no single host".to_owned())
            }
            None => Ok(()),
        }
    }
}

fn is_of_a_host(address: IpAddr) -> bool {
    let is_broadcast = address == IpAddr::from([255; 4]);
    let is_mapped = address.to_canonical() != address;
    !(address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || is_broadcast
        || is_mapped)
}

/// A host, by its site and its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId {
    pub site: Name,
    pub name: Name,
}

/// The addresses that hosts have at home.
pub type Hosts = BTreeMap<HostId, Vec<IpAddr>>;

/// A struct, so that a later version can say more. The key says whose it is.
#[derive(Encode, Decode)]
struct Record {
    #[n(0)]
    addresses: Vec<IpAddr>,
}

/// Whether a host of this name may be kept.
pub fn has_room(id: &DeviceId, ks: &Keyspace) -> bool {
    resource::get(ResourceKind::Host, id, ks).is_some() || ks.range(MANIFESTS).count() < MAX_HOSTS
}

/// Tells the edges of one host, which is new, has changed or is gone.
pub fn tell(id: &DeviceId, ks: &mut Keyspace) {
    match addresses(id, ks) {
        Some(addresses) => record::put(ks, &key(id), &Record { addresses }),
        None => record::delete(ks, &key(id)),
    }
}

fn addresses(id: &DeviceId, ks: &Keyspace) -> Option<Vec<IpAddr>> {
    let json = resource::get(ResourceKind::Host, id, ks)?;
    Some(Document::<HostSpec>::from_json(json).ok()?.spec.addresses)
}

/// All hosts, as the cloud keeps them ([`PREFIX`]) or as an edge was told ([`TOLD`]). One whose record cannot be read
/// has no name.
pub fn list(prefix: &str, ks: &Keyspace) -> Hosts {
    let read = |key: &str, bytes: &[u8]| {
        let DeviceId { namespace, name } = key.strip_prefix(prefix)?.parse().ok()?;
        let addresses = minicbor::decode::<Record>(bytes).ok()?.addresses;
        Some((HostId { site: namespace, name }, addresses))
    };
    ks.range(prefix).filter_map(|(key, bytes)| read(key.as_str(), bytes)).collect()
}

/// The addresses of one host, as an edge was told them.
pub fn told(id: &DeviceId, ks: &Keyspace) -> Option<Vec<IpAddr>> {
    let bytes = ks.get(&format!("{TOLD}{id}"))?;
    Some(minicbor::decode::<Record>(bytes).ok()?.addresses)
}

/// The node of the host's site that has its name, and is meant by it.
pub fn namesake(id: &DeviceId, ks: &Keyspace) -> Option<NodeId> {
    let sites = site::list(site::PREFIX, ks);
    sites.into_iter().find(|(node, site)| node.name == id.name && *site == id.namespace).map(|(node, _)| node)
}

/// What a host waits for: its site, or networks with its addresses there. Empty: for nothing.
pub fn waits_for(id: &DeviceId, ks: &Keyspace) -> Result<Vec<String>, DamagedRecord> {
    let sites = site::list(site::PREFIX, ks);
    if !sites.values().any(|site| *site == id.namespace) {
        return Ok(vec![format!("nobody has joined yet for site {}", id.namespace)]);
    }
    let routes = route::list(ks)?;
    let is_there = |address: &IpAddr| {
        let mut here = routes.iter().filter(|route| sites.get(&route.owner) == Some(&id.namespace));
        here.any(|route| route.behind().contains(address))
    };
    let nowhere = addresses(id, ks).unwrap_or_default().into_iter().filter(|address| !is_there(address));
    Ok(nowhere.map(|address| format!("no network of site {} holds {address}", id.namespace)).collect())
}

fn key(DeviceId { namespace, name }: &DeviceId) -> String {
    format!("{PREFIX}{namespace}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Manifest;
    use bus::{Route, SubnetKind};
    use serde_json::json;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn manifest(site: &str, host: &str, addresses: serde_json::Value) -> serde_json::Value {
        json!({ "apiVersion": "kubebus.io/v1alpha1", "kind": "Host",
                "metadata": { "namespace": site, "name": host }, "spec": { "addresses": addresses } })
    }

    fn applied(site: &str, host: &str, address: &str, ks: &mut Keyspace) -> DeviceId {
        let manifest = Manifest::parse(&manifest(site, host, json!([address]))).unwrap();
        manifest.apply(ks);
        tell(manifest.id(), ks);
        manifest.id().clone()
    }

    fn host(site: &str, host: &str, address: &str) -> (HostId, Vec<IpAddr>) {
        (HostId { site: name(site), name: name(host) }, vec![address.parse().unwrap()])
    }

    #[test]
    fn two_sites_have_a_host_of_one_name_and_one_that_is_deleted_is_gone() {
        let mut ks = Keyspace::new();
        let here = applied("plant-a", "plc", "192.168.10.7", &mut ks);
        applied("plant-b", "plc", "192.168.10.7", &mut ks);
        ks.put(record::own_key("/all/host/plant-a/odd"), bytes::Bytes::from_static(&[0xff]));
        let both = [host("plant-a", "plc", "192.168.10.7"), host("plant-b", "plc", "192.168.10.7")];
        assert_eq!(list(PREFIX, &ks), both.clone().into());
        resource::delete(ResourceKind::Host, &here, &mut ks);
        tell(&here, &mut ks);
        assert_eq!(list(PREFIX, &ks), [both[1].clone()].into());
    }

    #[test]
    fn a_host_waits_for_its_site_and_for_a_network_there() {
        let mut ks = Keyspace::new();
        let id = applied("plant", "plc", "192.168.10.7", &mut ks);
        assert_eq!(waits_for(&id, &ks).unwrap(), ["nobody has joined yet for site plant"]);
        let edge = NodeId::edge(name("a"));
        site::put(&edge, &name("plant"), &mut ks);
        assert_eq!(waits_for(&id, &ks).unwrap(), ["no network of site plant holds 192.168.10.7"]);
        let lan = Route {
            prefix: "10.86.64.0/24".parse().unwrap(),
            owner: edge.clone(),
            kind: SubnetKind::Lan,
            real: Some("192.168.10.0/24".parse().unwrap()),
            peer: None,
        };
        route::replace(&edge, &[lan], &mut ks).unwrap();
        assert_eq!(waits_for(&id, &ks).unwrap(), [""; 0]);
    }

    #[test]
    fn a_node_of_its_site_goes_before_a_host() {
        let mut ks = Keyspace::new();
        let id = applied("plant", "plc", "192.168.10.7", &mut ks);
        let node = NodeId::edge(name("plc"));
        site::put(&node, &name("depot"), &mut ks);
        assert_eq!(namesake(&id, &ks), None);
        site::put(&node, &name("plant"), &mut ks);
        assert_eq!(namesake(&id, &ks), Some(node));
    }

    #[test]
    fn addresses_that_no_host_has_are_refused() {
        for (addresses, field) in [
            (json!([]), "spec.addresses"),
            (json!(vec!["10.0.0.1"; MAX_ADDRESSES + 1]), "spec.addresses"),
            (json!(["10.0.0.1", "127.0.0.1"]), "spec.addresses[1]"),
            (json!(["224.0.0.1"]), "spec.addresses[0]"),
            (json!(["::ffff:10.0.0.1"]), "spec.addresses[0]"),
            (json!(["10.0.0.0/24"]), "spec.addresses[0]"),
        ] {
            let error = Manifest::parse(&manifest("plant", "plc", addresses)).unwrap_err();
            assert_eq!(error.field(), Some(field), "{error:?}");
        }
    }
}

//! What is there under a name.

use std::net::IpAddr;

use bus::Name;
use domain::base::iana::Rtype;

use super::reverse::Reversed;
use super::{Known, Names};

/// What a name of ours has of a type.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// Never empty.
    Records(Vec<Data>),
    /// The name is there, or one below it, and has nothing of this type.
    NoData {
        zone: String,
    },
    NoName {
        zone: String,
    },
}

/// One record's data.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Data {
    Address(IpAddr),
    Pointer(String),
    Server,
    Authority,
}

impl Names {
    /// `labels` in lower case, from the left; `asker` is the site that wants to know. `None`: a name of somebody else.
    pub(super) fn look_up(&self, labels: &[String], wanted: Rtype, asker: &Name) -> Option<Found> {
        if let Some(reversed) = Reversed::read(labels) {
            return self.look_up_address(&reversed, wanted, asker);
        }
        let apex: Vec<&str> = self.apex.split('.').collect();
        let at = labels.len().checked_sub(apex.len())?;
        let (below, end) = labels.split_at(at);
        (end == apex).then(|| found(self.below_apex(below, wanted, asker), &self.apex))
    }

    /// The records of a name of the cluster; `None` if there is no such name.
    fn below_apex(&self, labels: &[String], wanted: Rtype, asker: &Name) -> Option<Vec<Data>> {
        let read = |label: &String| Name::new(label).ok();
        match labels {
            [] => Some(of_apex(wanted)),
            [name] => {
                let name = read(name)?;
                let cloud = self.clouds.get(&name).map(|cloud| addresses(cloud, wanted, true));
                cloud.or_else(|| self.sites.contains_key(&name).then(Vec::new))
            }
            [name, site] => {
                let (name, site) = (read(name)?, read(site)?);
                Some(addresses(self.sites.get(&site)?.get(&name)?, wanted, site == *asker))
            }
            _ => None,
        }
    }

    /// All of the pool is ours. Of a LAN's addresses we know the hosts that were named to us: the site may have a name
    /// server of its own for the others.
    fn look_up_address(&self, reversed: &Reversed, wanted: Rtype, asker: &Name) -> Option<Found> {
        let pointers =
            reversed.address().map(|address| self.pointers_for(address, asker)).unwrap_or_default();
        let is_known = !pointers.is_empty();
        let records = if matches!(wanted, Rtype::PTR | Rtype::ANY) { pointers } else { Vec::new() };
        let Some((zone, is_apex)) = self.pools.iter().find_map(|pool| reversed.zone_in(*pool)) else {
            return (!records.is_empty()).then_some(Found::Records(records));
        };
        let is_there = is_known || (!reversed.has_more() && reversed.address().is_none());
        let records = if is_apex { of_apex(wanted) } else { records };
        Some(found(is_there.then_some(records), &zone))
    }

    fn pointers_for(&self, address: IpAddr, asker: &Name) -> Vec<Data> {
        let known = self.pointers.get(&address).into_iter().flatten();
        let for_asker = known.filter(|pointer| pointer.within.as_ref().is_none_or(|site| site == asker));
        for_asker.map(|pointer| Data::Pointer(pointer.name.clone())).collect()
    }
}

fn found(records: Option<Vec<Data>>, zone: &str) -> Found {
    let zone = zone.to_owned();
    match records {
        Some(records) if records.is_empty() => Found::NoData { zone },
        Some(records) => Found::Records(records),
        None => Found::NoName { zone },
    }
}

fn of_apex(wanted: Rtype) -> Vec<Data> {
    match wanted {
        Rtype::SOA => vec![Data::Authority],
        Rtype::NS => vec![Data::Server],
        Rtype::ANY => vec![Data::Authority, Data::Server],
        _ => Vec::new(),
    }
}

fn addresses(known: &Known, wanted: Rtype, is_home: bool) -> Vec<Data> {
    let is_wanted = |address: &&IpAddr| match wanted {
        Rtype::A => address.is_ipv4(),
        Rtype::AAAA => address.is_ipv6(),
        other => other == Rtype::ANY,
    };
    known.seen_from(is_home).iter().filter(is_wanted).map(|address| Data::Address(*address)).collect()
}

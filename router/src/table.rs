//! The routing table: an immutable snapshot that decides about every packet.
//!
//! Anti-spoofing is by *owner*: the longest prefix that holds a packet's source must belong to the node that sent it.
//! "The source lies in one of the sender's ranges" is not enough, as a shorter prefix of the sender may hold a longer
//! one of somebody else (Nebula CVE-2025-62820).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bus::{Lease, NodeId, Route};
use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use crate::packet::Packet;
use crate::translate::{Mapping, Translator};
use crate::verdict::{DropReason, Verdict};

/// Who owns which prefix, as seen by one node.
///
/// A *hub* (no `via`) sends a packet to the owner of its destination. An *edge* sends all that is not its own to its
/// hub, `via`, and takes from it packets of every other owner: the hub has checked them.
#[derive(Debug, Clone)]
pub struct Table {
    me: NodeId,
    via: Option<NodeId>,
    owners: JointPrefixMap<IpNet, NodeId>,
    translator: Translator,
}

impl Table {
    /// Host bits of a prefix are ignored. Of two routes for one prefix the later counts.
    ///
    /// Virtual prefixes of ours that do not make one translation are not translated: hosts behind them are then reached
    /// by nobody, instead of by the wrong address.
    pub fn new(me: NodeId, routes: impl IntoIterator<Item = Route>, via: Option<NodeId>) -> Self {
        let (mut owners, mut mappings) = (JointPrefixMap::new(), Vec::new());
        for Route { prefix, owner, kind: _, real, peer: _ } in routes {
            if owner == me {
                mappings.extend(real.and_then(|real| Mapping::new(real, prefix).ok()));
            }
            owners.insert(prefix.trunc(), owner);
        }
        Self { me, via, owners, translator: Translator::new(mappings).unwrap_or_default() }
    }

    /// Adds what a lease says: its addresses and containers are `me`'s, whatever a route claims; what nobody has of
    /// the pool is the hub's, so that an edge whose routes lag behind still reaches a new node.
    #[must_use]
    pub fn with_lease(mut self, lease: &Lease) -> Self {
        let own: [IpNet; 4] = [
            IpAddr::V4(lease.v4).into(),
            IpAddr::V6(lease.v6).into(),
            lease.container_v4.trunc().into(),
            lease.container_v6.trunc().into(),
        ];
        for prefix in own {
            self.owners.insert(prefix, self.me.clone());
        }
        if let Some(hub) = &self.via {
            for pool in [lease.pool_v4.trunc().into(), lease.pool_v6.trunc().into()] {
                self.owners.entry(pool).or_insert_with(|| hub.clone());
            }
        }
        self
    }

    pub fn me(&self) -> &NodeId {
        &self.me
    }

    /// The hub, at an edge.
    pub fn via(&self) -> Option<&NodeId> {
        self.via.as_ref()
    }

    /// Between the virtual prefixes that the overlay knows our networks by, as the rest of the table does, and theirs.
    pub fn translator(&self) -> &Translator {
        &self.translator
    }

    /// The node that `address` lies behind: the owner of the longest prefix that holds it.
    pub fn lookup(&self, address: IpAddr) -> Option<&NodeId> {
        self.owners.get_lpm(&IpNet::from(address)).map(|(_, owner)| owner)
    }

    /// Decides about a packet from our TUN. In this order:
    /// 1. it is well-formed, and its addresses may travel;
    /// 2. its source is ours;
    /// 3. its destination has an owner, and not us: the kernel would hand it back to the TUN for ever;
    /// 4. it goes to the hub if we have one, else to the owner.
    pub fn forward(&self, packet: &[u8]) -> Verdict<'_> {
        self.try_forward(packet).map_or_else(Verdict::Drop, Verdict::Peer)
    }

    fn try_forward(&self, packet: &[u8]) -> Result<&NodeId, DropReason> {
        let packet = travelling(packet)?;
        if self.source_owner(&packet)? != &self.me {
            return Err(DropReason::SpoofedSource);
        }
        let owner = self.destination_owner(&packet)?;
        if owner == &self.me {
            return Err(DropReason::Loop);
        }
        Ok(self.via.as_ref().unwrap_or(owner))
    }

    /// Decides about a packet that the peer `from` sent. In this order:
    /// 1. it is well-formed, and its addresses may travel;
    /// 2. its source belongs to `from`; the hub may speak for every owner but us;
    /// 3. its destination has an owner;
    /// 4. ours: local. Else an edge drops it, and a hub passes it on, but never back.
    pub fn accept(&self, from: &NodeId, packet: &[u8]) -> Verdict<'_> {
        self.try_accept(from, packet).unwrap_or_else(Verdict::Drop)
    }

    fn try_accept(&self, from: &NodeId, packet: &[u8]) -> Result<Verdict<'_>, DropReason> {
        let packet = travelling(packet)?;
        if !self.may_speak_for(from, self.source_owner(&packet)?) {
            return Err(DropReason::SpoofedSource);
        }
        let owner = self.destination_owner(&packet)?;
        if owner == &self.me {
            Ok(Verdict::Local)
        } else if self.via.is_some() {
            Err(DropReason::NotOurs)
        } else if owner == from {
            Err(DropReason::Loop)
        } else {
            Ok(Verdict::Peer(owner))
        }
    }

    fn may_speak_for(&self, from: &NodeId, owner: &NodeId) -> bool {
        let hub = self.via.as_ref() == Some(from);
        owner != &self.me && (hub || owner == from)
    }

    fn source_owner(&self, packet: &Packet<'_>) -> Result<&NodeId, DropReason> {
        self.lookup(packet.source()).ok_or(DropReason::UnknownSource)
    }

    fn destination_owner(&self, packet: &Packet<'_>) -> Result<&NodeId, DropReason> {
        self.lookup(packet.destination()).ok_or(DropReason::NoRoute)
    }
}

/// A packet whose addresses may leave their link.
pub(crate) fn travelling(bytes: &[u8]) -> Result<Packet<'_>, DropReason> {
    let packet = Packet::parse(bytes).map_err(|_| DropReason::Malformed)?;
    let (source, destination) = (packet.source(), packet.destination());
    if destination.is_multicast() {
        Err(DropReason::Multicast)
    } else if is_link_local(source) || is_link_local(destination) {
        Err(DropReason::LinkLocal)
    } else if source.is_multicast() || is_martian(source) || is_martian(destination) {
        Err(DropReason::Martian)
    } else {
        Ok(packet)
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// RFC 6890: never a source or destination beyond the host itself.
fn is_martian(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_martian_v4(v4),
        IpAddr::V6(v6) => is_martian_v6(v6),
    }
}

/// 0.0.0.0/8, 127.0.0.0/8 and 240.0.0.0/4, which ends in the broadcast address.
fn is_martian_v4(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first == 0 || first == 127 || first >= 240
}

fn is_martian_v6(address: Ipv6Addr) -> bool {
    address.is_unspecified() || address.is_loopback() || address.to_ipv4_mapped().is_some()
}

#[cfg(test)]
mod tests;

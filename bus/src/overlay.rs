//! The overlay's address plan, as the cloud gives it out and every router uses it.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use minicbor::{Decode, Encode};

use crate::{Name, NodeId};

/// What is behind a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum SubnetKind {
    #[n(0)]
    CloudVm,
    #[n(1)]
    CloudContainer,
    #[n(2)]
    EdgeNode,
    #[n(3)]
    EdgeContainer,
    /// Devices on a network behind an edge.
    #[n(4)]
    Lan,
    /// A stock WireGuard client.
    #[n(5)]
    Wireguard,
}

impl SubnetKind {
    pub const ALL: [Self; 6] = [
        Self::CloudVm,
        Self::CloudContainer,
        Self::EdgeNode,
        Self::EdgeContainer,
        Self::Lan,
        Self::Wireguard,
    ];

    /// As policies call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CloudVm => "cloud-vm",
            Self::CloudContainer => "cloud-container",
            Self::EdgeNode => "edge-node",
            Self::EdgeContainer => "edge-container",
            Self::Lan => "lan",
            Self::Wireguard => "wireguard",
        }
    }
}

/// One prefix of the overlay and the node that it lies behind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Route {
    #[n(0)]
    #[cbor(with = "net")]
    pub prefix: IpNet,
    #[n(1)]
    pub owner: NodeId,
    #[n(2)]
    pub kind: SubnetKind,
    /// What the network behind the owner calls itself, if that is another prefix of the same length: `prefix` is virtual
    /// then, and the owner translates.
    #[n(3)]
    #[cbor(with = "maybe_net", has_nil)]
    pub real: Option<IpNet>,
    /// The WireGuard client that has the prefix, where one does: policies go by it, and not by the owner, its gateway.
    #[n(4)]
    pub peer: Option<Name>,
}

impl Route {
    /// The prefix that hosts behind the owner have themselves.
    pub fn behind(&self) -> IpNet {
        self.real.unwrap_or(self.prefix)
    }

    /// Whom policies know the prefix by: its WireGuard client, or the node that it lies behind.
    pub fn holder(&self) -> NodeId {
        self.peer.clone().map_or_else(|| self.owner.clone(), NodeId::wireguard)
    }
}

/// A node's addresses. Belongs to the identity: it survives restarts of either side, is kept at the edge too, and is
/// not given to another node.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Lease {
    /// The node's own address, inside `pool_v4`.
    #[n(0)]
    #[cbor(with = "addr4")]
    pub v4: Ipv4Addr,
    #[n(1)]
    #[cbor(with = "addr6")]
    pub v6: Ipv6Addr,
    /// For containers on the node.
    #[n(2)]
    #[cbor(with = "net4")]
    pub container_v4: Ipv4Net,
    #[n(3)]
    #[cbor(with = "net6")]
    pub container_v6: Ipv6Net,
    /// The whole overlay.
    #[n(4)]
    #[cbor(with = "net4")]
    pub pool_v4: Ipv4Net,
    #[n(5)]
    #[cbor(with = "net6")]
    pub pool_v6: Ipv6Net,
}

macro_rules! as_text {
    ($module:ident, $type:ty) => {
        pub(crate) mod $module {
            use minicbor::decode::Error as DecodeError;
            use minicbor::encode::{Error as EncodeError, Write};
            use minicbor::{Decoder, Encoder};

            pub(crate) fn encode<C, W: Write>(
                value: &$type,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), EncodeError<W::Error>> {
                e.str(&value.to_string())?.ok()
            }

            pub(crate) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<$type, DecodeError> {
                d.str()?.parse().map_err(DecodeError::custom)
            }
        }
    };
}
as_text!(net, ipnet::IpNet);
as_text!(net4, ipnet::Ipv4Net);

/// A prefix that may be absent, in the middle of a record or at its end.
pub(crate) mod maybe_net {
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};

    use super::{IpNet, net};

    pub(crate) fn encode<C, W: Write>(
        value: &Option<IpNet>,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        match value {
            Some(value) => net::encode(value, e, ctx),
            None => e.null()?.ok(),
        }
    }

    pub(crate) fn decode<C>(d: &mut Decoder<'_>, ctx: &mut C) -> Result<Option<IpNet>, DecodeError> {
        if d.datatype()? == minicbor::data::Type::Null {
            return d.null().map(|()| None);
        }
        net::decode(d, ctx).map(Some)
    }

    pub(crate) fn is_nil(value: &Option<IpNet>) -> bool {
        value.is_none()
    }

    #[expect(clippy::option_option, reason = "minicbor's word for: absent is fine, and this value then")]
    pub(crate) fn nil() -> Option<Option<IpNet>> {
        Some(None)
    }
}

as_text!(net6, ipnet::Ipv6Net);
as_text!(addr4, std::net::Ipv4Addr);
as_text!(addr6, std::net::Ipv6Addr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_and_leases_read_back() {
        let route = Route {
            prefix: "192.168.10.0/24".parse().unwrap(),
            owner: NodeId::edge(Name::new("a").unwrap()),
            kind: SubnetKind::Lan,
            real: Some("192.168.1.0/24".parse().unwrap()),
            peer: None,
        };
        let lease = Lease {
            v4: "10.86.0.2".parse().unwrap(),
            v6: "fd00::2".parse().unwrap(),
            container_v4: "10.86.129.0/24".parse().unwrap(),
            container_v6: "fd00:0:0:1::/64".parse().unwrap(),
            pool_v4: "10.86.0.0/16".parse().unwrap(),
            pool_v6: "fd00::/48".parse().unwrap(),
        };
        let bytes = minicbor::to_vec((&route, &lease)).unwrap();
        assert_eq!(minicbor::decode::<(Route, Lease)>(&bytes).unwrap(), (route, lease));
    }

    #[test]
    fn a_route_that_is_not_translated_looks_as_before_there_was_translation() {
        let owner = NodeId::edge(Name::new("a").unwrap());
        let before = minicbor::to_vec(("192.168.10.0/24", &owner, SubnetKind::Lan)).unwrap();
        let route: Route = minicbor::decode(&before).unwrap();
        assert_eq!((route.real, route.behind()), (None, route.prefix));
        assert_eq!(minicbor::to_vec(&route).unwrap(), before);
    }
}

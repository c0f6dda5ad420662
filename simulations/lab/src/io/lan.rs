//! The LAN side of a node: hosts on cables of their own, routed by the node's kernel.
//!
//! ```text
//!  host "plc"                     gateway "edge"
//!  192.168.10.20/32  eth0 ==veth== lan0  192.168.10.1/32   route 192.168.10.20/32 -> lan0
//!  default via 192.168.10.1                                forwarding on
//! ```
//! Hosts of one LAN reach each other through the gateway, which stands in for the switch: unicast behaves as on a
//! real LAN, broadcast and multicast discovery do not pass. Containers behind an edge and VMs behind a cloud are
//! hosts like any other.

use std::net::IpAddr;
use std::os::fd::AsFd;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use router::io::netlink::{Netlink, NetlinkError};
use router::io::sysctl::{SysctlError, enable_forwarding};
use thiserror::Error;

use super::namespace::{Namespace, NamespaceError};

/// One host's cable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanLink {
    /// Interface at the gateway, one for each cable.
    pub gateway_interface: String,
    /// Interface at the host.
    pub host_interface: String,
    /// For each family: the gateway's address, which all hosts of a LAN share, and the host's own.
    pub addresses: Vec<LanAddress>,
}

/// The two ends' addresses, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanAddress {
    pub gateway: IpAddr,
    pub host: IpAddr,
}

impl LanAddress {
    fn is_mixed(&self) -> bool {
        self.gateway.is_ipv4() != self.host.is_ipv4()
    }
}

/// Why a host is not connected.
#[derive(Debug, Error)]
pub enum LanError {
    #[error("{gateway} and {host} are not of one family")]
    MixedFamilies { gateway: IpAddr, host: IpAddr },
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error("cannot set up the gateway's end")]
    Gateway(#[source] NetlinkError),
    #[error("cannot let the gateway forward")]
    Forwarding(#[from] SysctlError),
    #[error("cannot set up the host's end")]
    Host(#[source] NetlinkError),
}

/// Connects `host` to `gateway`, which is its default route from then on.
pub fn connect(gateway: &Namespace, host: &Namespace, link: &LanLink) -> Result<(), LanError> {
    if let Some(LanAddress { gateway, host }) = link.addresses.iter().find(|a| a.is_mixed()) {
        return Err(LanError::MixedFamilies { gateway: *gateway, host: *host });
    }
    gateway.run(|| gateway_end(host, link).map_err(LanError::Gateway))??;
    gateway.run(enable_forwarding)??;
    host.run(|| host_end(link).map_err(LanError::Host))?
}

/// Runs inside the gateway.
fn gateway_end(host: &Namespace, link: &LanLink) -> Result<(), NetlinkError> {
    let mut netlink = Netlink::open()?;
    let dev = &link.gateway_interface;
    netlink.veth_create(dev, &link.host_interface, Some(host.as_fd()))?;
    for address in &link.addresses {
        netlink.address_add(dev, alone(address.gateway))?;
    }
    netlink.link_up(dev)?;
    for address in &link.addresses {
        netlink.route_replace(alone(address.host), dev, None, Some(address.gateway))?;
    }
    Ok(())
}

/// Runs inside the host.
fn host_end(link: &LanLink) -> Result<(), NetlinkError> {
    let mut netlink = Netlink::open()?;
    let dev = &link.host_interface;
    for address in &link.addresses {
        netlink.address_add(dev, alone(address.host))?;
    }
    netlink.link_up(dev)?;
    for address in &link.addresses {
        netlink.route_replace(alone(address.gateway), dev, None, None)?;
        netlink.route_replace(everything(address.gateway), dev, Some(address.gateway), None)?;
    }
    Ok(())
}

fn alone(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

fn everything(family_of: IpAddr) -> IpNet {
    match family_of {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    }
}

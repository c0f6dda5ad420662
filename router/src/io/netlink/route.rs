//! Unicast routes of the main table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::address::family;
use super::{Netlink, NetlinkError};

/// A route on one interface that somebody set; those that the kernel makes for an address are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelRoute {
    pub destination: IpNet,
    /// The gateway; none: the destination is on the link.
    pub via: Option<IpAddr>,
    /// The source address of what the machine itself sends along it.
    pub source: Option<IpAddr>,
    /// Lower wins among routes to one destination. The kernel reads an IPv6 route's 0 as 1024.
    pub metric: u32,
}

impl Netlink {
    /// Adds a route; refused with `EEXIST` if there is one of that destination and metric, on whatever interface.
    pub fn route_add(&mut self, dev: &str, route: &KernelRoute) -> Result<(), NetlinkError> {
        self.put_route(dev, route, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Sets the route to `dst`, with the kernel's default metric, and replaces one there may be, on whatever
    /// interface.
    pub fn route_replace(
        &mut self,
        dst: IpNet,
        dev: &str,
        via: Option<IpAddr>,
        src: Option<IpAddr>,
    ) -> Result<(), NetlinkError> {
        let route = KernelRoute { destination: dst, via, source: src, metric: 0 };
        self.put_route(dev, &route, NLM_F_CREATE | NLM_F_REPLACE)
    }

    fn put_route(&mut self, dev: &str, route: &KernelRoute, flags: u16) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewRoute(self.route_message(dev, route)?);
        self.ask(message, flags, || format!("route {} to '{dev}'", route.destination))?;
        Ok(())
    }

    pub fn route_del(&mut self, dev: &str, route: &KernelRoute) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelRoute(self.route_message(dev, route)?);
        self.ask(message, 0, || format!("remove the route {} from '{dev}'", route.destination))?;
        Ok(())
    }

    /// All routes on the interface, in order.
    pub fn route_list(&mut self, dev: &str) -> Result<Vec<KernelRoute>, NetlinkError> {
        let index = self.link_index(dev)?;
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let request = RouteNetlinkMessage::GetRoute(request);
            let messages = self.dump(&request, || format!("list the routes of '{dev}'"))?;
            routes.extend(messages.iter().filter_map(|message| route_on(message, index)));
        }
        routes.sort();
        Ok(routes)
    }

    fn route_message(&mut self, dev: &str, route: &KernelRoute) -> Result<RouteMessage, NetlinkError> {
        let mut message = RouteMessage::default();
        let on_link_v4 = route.via.is_none() && route.destination.addr().is_ipv4();
        message.header.address_family = family(route.destination.addr());
        message.header.destination_prefix_length = route.destination.prefix_len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.header.scope = if on_link_v4 { RouteScope::Link } else { RouteScope::Universe };
        message.attributes = attributes(route, self.link_index(dev)?);
        Ok(message)
    }
}

fn attributes(route: &KernelRoute, index: u32) -> Vec<RouteAttribute> {
    let KernelRoute { destination, via, source, metric } = route;
    let mut attributes =
        vec![RouteAttribute::Destination(destination.network().into()), RouteAttribute::Oif(index)];
    attributes.extend(via.map(|via| RouteAttribute::Gateway(via.into())));
    attributes.extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
    attributes.extend((*metric != 0).then_some(RouteAttribute::Priority(*metric)));
    attributes
}

fn route_on(message: &RouteNetlinkMessage, index: u32) -> Option<KernelRoute> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = &message.header;
    let ours = header.table == RouteHeader::RT_TABLE_MAIN
        && header.kind == RouteType::Unicast
        && header.protocol != RouteProtocol::Kernel
        && message.attributes.contains(&RouteAttribute::Oif(index));
    if ours { read_route(message) } else { None }
}

fn read_route(message: &RouteMessage) -> Option<KernelRoute> {
    let is_v4 = message.header.address_family == AddressFamily::Inet;
    let anywhere: IpAddr = if is_v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let length = message.header.destination_prefix_length;
    let mut route =
        KernelRoute { destination: IpNet::new(anywhere, length).ok()?, via: None, source: None, metric: 0 };
    for attribute in &message.attributes {
        if let RouteAttribute::Destination(address) = attribute {
            route.destination = IpNet::new(ip(address)?, length).ok()?;
        } else if let RouteAttribute::Gateway(address) = attribute {
            route.via = ip(address);
        } else if let RouteAttribute::PrefSource(address) = attribute {
            route.source = ip(address);
        } else if let RouteAttribute::Priority(metric) = attribute {
            route.metric = *metric;
        }
    }
    Some(route)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(v4) = address {
        Some((*v4).into())
    } else if let RouteAddress::Inet6(v6) = address {
        Some((*v6).into())
    } else {
        None
    }
}

//! Addresses of an interface.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Netlink, NetlinkError};

/// The kernel starts to take in packets to a new IPv6 address from a worker of its own (`addrconf_dad_work` in
/// net/ipv6/addrconf.c), microseconds after it has acknowledged the address; packets before that are lost. When it has
/// not done so for this long, something else is odd, and waiting would not help.
const SETTLING: Duration = Duration::from_millis(500);

/// How often to look.
const SETTLING_STEP: Duration = Duration::from_millis(1);

impl Netlink {
    /// Gives the interface an address that it does not have yet.
    ///
    /// It can be used at once, if the interface is up: an IPv6 address skips duplicate detection (RFC 4862 §5.4),
    /// which takes a second and finds nothing where addresses are leased, and the call waits until the kernel takes in
    /// packets to it, for half a second at most.
    pub fn address_add(&mut self, dev: &str, address: IpNet) -> Result<(), NetlinkError> {
        self.put_address(dev, address, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Gives the interface an address, or leaves it as it is.
    pub fn address_replace(&mut self, dev: &str, address: IpNet) -> Result<(), NetlinkError> {
        self.put_address(dev, address, NLM_F_CREATE | NLM_F_REPLACE)
    }

    fn put_address(&mut self, dev: &str, address: IpNet, flags: u16) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewAddress(self.address_message(dev, address)?);
        self.ask(message, flags, || format!("give '{dev}' the address {address}"))?;
        if address.addr().is_ipv6() && self.link_is_up(dev)? {
            self.await_settled(address.addr());
        }
        Ok(())
    }

    fn await_settled(&mut self, address: IpAddr) {
        let deadline = Instant::now() + SETTLING;
        while !self.is_local(address) && Instant::now() < deadline {
            thread::sleep(SETTLING_STEP);
        }
    }

    /// Whether the kernel takes in packets to `address`.
    fn is_local(&mut self, address: IpAddr) -> bool {
        let mut request = RouteMessage::default();
        request.header.address_family = family(address);
        request.header.destination_prefix_length = IpNet::from(address).prefix_len();
        request.attributes.push(RouteAttribute::Destination(address.into()));
        let answer = self.ask(RouteNetlinkMessage::GetRoute(request), 0, || format!("look up {address}"));
        answer.is_ok_and(|messages| messages.iter().any(is_local_route))
    }

    pub fn address_del(&mut self, dev: &str, address: IpNet) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelAddress(self.address_message(dev, address)?);
        self.ask(message, 0, || format!("take the address {address} from '{dev}'"))?;
        Ok(())
    }

    /// All addresses of the interface, IPv6 link-local ones included.
    pub fn address_list(&mut self, dev: &str) -> Result<Vec<IpNet>, NetlinkError> {
        let index = self.link_index(dev)?;
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let messages = self.dump(&request, || format!("list the addresses of '{dev}'"))?;
        Ok(messages.iter().filter_map(|message| address_on(message, index)).collect())
    }

    /// The networks of all addresses of this host but those on the interfaces `except`.
    pub fn connected(&mut self, except: &[&str]) -> Result<Vec<IpNet>, NetlinkError> {
        let except = except.iter().filter_map(|dev| self.link_index(dev).ok()).collect::<Vec<_>>();
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let messages = self.dump(&request, || "list all addresses".to_owned())?;
        let of_others = |message: &&RouteNetlinkMessage| matches!(message, RouteNetlinkMessage::NewAddress(address) if !except.contains(&address.header.index));
        let networks = messages.iter().filter(of_others).filter_map(address_of);
        Ok(networks.map(|address| address.trunc()).collect())
    }

    fn address_message(&mut self, dev: &str, address: IpNet) -> Result<AddressMessage, NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.index = self.link_index(dev)?;
        message.header.prefix_len = address.prefix_len();
        message.header.family = family(address.addr());
        message.attributes.push(AddressAttribute::Local(address.addr()));
        message.attributes.push(AddressAttribute::Address(address.addr()));
        if address.addr().is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        Ok(message)
    }
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn is_local_route(message: &RouteNetlinkMessage) -> bool {
    matches!(message, RouteNetlinkMessage::NewRoute(route) if route.header.kind == RouteType::Local)
}

fn address_on(message: &RouteNetlinkMessage, index: u32) -> Option<IpNet> {
    let is_there = matches!(message, RouteNetlinkMessage::NewAddress(on) if on.header.index == index);
    if is_there { address_of(message) } else { None }
}

/// The kernel tells an IPv6 address as `Address` alone, and on a point-to-point link `Address` is the far end.
fn address_of(message: &RouteNetlinkMessage) -> Option<IpNet> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let local = message.attributes.iter().find_map(|attribute| {
        if let AddressAttribute::Local(address) = attribute { Some(*address) } else { None }
    });
    let plain = message.attributes.iter().find_map(|attribute| {
        if let AddressAttribute::Address(address) = attribute { Some(*address) } else { None }
    });
    IpNet::new(local.or(plain)?, message.header.prefix_len).ok()
}

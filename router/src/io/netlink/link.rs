//! Interfaces.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkHeader, LinkInfo, LinkMessage,
};

use super::{Netlink, NetlinkError};

impl Netlink {
    /// The number of the interface `name`.
    pub fn link_index(&mut self, name: &str) -> Result<u32, NetlinkError> {
        Ok(self.link(name)?.index)
    }

    pub(super) fn link_is_up(&mut self, name: &str) -> Result<bool, NetlinkError> {
        Ok(self.link(name)?.flags.contains(LinkFlags::Up))
    }

    fn link(&mut self, name: &str) -> Result<LinkHeader, NetlinkError> {
        let request = RouteNetlinkMessage::GetLink(named(name));
        let answer = self.ask(request, 0, || format!("look up the interface '{name}'"));
        match answer {
            Ok(messages) => first_link(&messages).ok_or_else(|| NetlinkError::NoInterface(name.to_owned())),
            Err(error) if error.refused_with() == Some(libc::ENODEV) => {
                Err(NetlinkError::NoInterface(name.to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    /// Brings the interface up.
    pub fn link_up(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut message = self.existing(name)?;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.set_link(message, || format!("bring the interface '{name}' up"))
    }

    /// Sets the largest packet that the interface takes, in bytes.
    pub fn set_mtu(&mut self, name: &str, mtu: u32) -> Result<(), NetlinkError> {
        let mut message = self.existing(name)?;
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.set_link(message, || format!("set the MTU of '{name}' to {mtu}"))
    }

    /// Removes the interface.
    pub fn link_del(&mut self, name: &str) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelLink(self.existing(name)?);
        self.ask(message, 0, || format!("remove the interface '{name}'"))?;
        Ok(())
    }

    /// Creates the two ends of a virtual cable, `b` in `peer_netns` if one is given. Both are down.
    pub fn veth_create(
        &mut self,
        a: &str,
        b: &str,
        peer_netns: Option<BorrowedFd<'_>>,
    ) -> Result<(), NetlinkError> {
        let mut peer = named(b);
        peer.attributes.extend(peer_netns.map(|netns| LinkAttribute::NetNsFd(netns.as_raw_fd())));
        let mut message = named(a);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        let request = RouteNetlinkMessage::NewLink(message);
        self.ask(request, NLM_F_CREATE | NLM_F_EXCL, || format!("create the veth pair '{a}' and '{b}'"))?;
        Ok(())
    }

    /// Creates an interface of the kernel's WireGuard in `netns`. Its UDP socket will be in the namespace of this socket.
    /// Refused with `EOPNOTSUPP` if the kernel has none.
    pub fn wireguard_create(&mut self, name: &str, netns: BorrowedFd<'_>) -> Result<(), NetlinkError> {
        let mut message = named(name);
        message.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)]));
        let request = RouteNetlinkMessage::NewLink(message);
        self.ask(request, NLM_F_CREATE | NLM_F_EXCL, || format!("create the WireGuard interface '{name}'"))?;
        Ok(())
    }

    fn existing(&mut self, name: &str) -> Result<LinkMessage, NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = self.link_index(name)?;
        Ok(message)
    }

    fn set_link(&mut self, message: LinkMessage, step: impl Fn() -> String) -> Result<(), NetlinkError> {
        self.ask(RouteNetlinkMessage::SetLink(message), 0, step)?;
        Ok(())
    }
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn first_link(messages: &[RouteNetlinkMessage]) -> Option<LinkHeader> {
    messages.iter().find_map(|message| {
        if let RouteNetlinkMessage::NewLink(link) = message { Some(link.header.clone()) } else { None }
    })
}

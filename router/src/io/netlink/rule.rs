//! Rules of policy routing, as `ip rule` has them.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Netlink, NetlinkError};

/// Before the main table's rule, which is 32766, and after the local one's, which is 0.
const PRIORITY: u32 = 100;

/// A table of our own; any number that is none of the kernel's.
const TABLE: u32 = 51_820;

impl Netlink {
    /// What comes in by `from` and is not for this host goes out by `to`, whatever the main table says. For one interface a
    /// namespace.
    pub fn forward_all(&mut self, from: &str, to: &str, is_v6: bool) -> Result<(), NetlinkError> {
        let family = if is_v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let mut route = RouteMessage::default();
        route.header.address_family = family;
        route.header.table = RouteHeader::RT_TABLE_UNSPEC;
        route.header.protocol = RouteProtocol::Static;
        route.header.kind = RouteType::Unicast;
        route.header.scope = if is_v6 { RouteScope::Universe } else { RouteScope::Link };
        route.attributes = vec![RouteAttribute::Table(TABLE), RouteAttribute::Oif(self.link_index(to)?)];
        let step = || format!("send all that comes in by '{from}' to '{to}'");
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.ask(RouteNetlinkMessage::NewRoute(route), flags, step)?;
        let mut rule = RuleMessage::default();
        rule.header.family = family;
        rule.header.action = RuleAction::ToTable;
        rule.attributes = vec![
            RuleAttribute::Iifname(from.to_owned()),
            RuleAttribute::Priority(PRIORITY),
            RuleAttribute::Table(TABLE),
        ];
        self.ask(RouteNetlinkMessage::NewRule(rule), flags, step).map(drop)
    }
}

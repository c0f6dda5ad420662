//! What passes between a gateway's WireGuard clients and its kernel.
//!
//! ```text
//!   client == WireGuard ==> Guard::let_in ----> TUN --> kernel --+--> overlay's TUN --> shard, which asks its own gate
//!                                                                   '--> the gateway itself, its LANs, other clients
//! ```
//! The kernel hands a client's packet to whatever its destination is. What goes on over the overlay is decided there too;
//! what does not is decided here alone, in both directions: a client is no part of the gateway's site by being behind it.

use std::sync::Arc;

use bus::Mono;
use ipnet::IpNet;

use crate::packet::Packet;
use crate::table::travelling;
use crate::{DropReason, Gate, Policy, Table};

/// Holds a table, a policy, and what was said lately. Lets nothing pass before it has both.
#[derive(Debug)]
pub struct Guard {
    table: Option<Arc<Table>>,
    gate: Gate,
    /// Networks that this host is in, by other interfaces than the overlay's and the clients'.
    connected: Vec<IpNet>,
    denied: u64,
}

impl Guard {
    /// Conversations that one gateway remembers: as many as an edge.
    const CONVERSATIONS: usize = crate::policy::Flows::AT_EDGE;

    /// `seed` differs from process to process, and nobody else knows it.
    pub fn new(seed: [u64; 2]) -> Self {
        Self { table: None, gate: Gate::new(Self::CONVERSATIONS, seed), connected: Vec::new(), denied: 0 }
    }

    pub fn set_table(&mut self, table: Arc<Table>) {
        self.table = Some(table);
    }

    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.gate.set_policy(policy);
    }

    /// Which networks this host is in by itself, its own addresses included.
    pub fn set_connected(&mut self, connected: Vec<IpNet>) {
        self.connected = connected;
    }

    /// Packets that the policy did not let pass, since the start; the kernel's chatter on its link is none of them.
    pub fn denied(&self) -> u64 {
        self.denied
    }

    /// Decides about a packet that a client sent; WireGuard has made sure that its source is the client's. In this order:
    /// 1. it is well-formed, and its addresses may travel;
    /// 2. its source is a client's of this gateway;
    /// 3. what lies behind another node is none of what the kernel would deliver right here, under the same addresses;
    /// 4. what lies behind another node: noted, that one and the hub decide;
    /// 5. what lies behind this one, or nowhere in the overlay: by the policy.
    ///
    /// What may pass is given the destination that it has here, where this gateway's LAN is known by a virtual prefix.
    pub fn let_in(&mut self, bytes: &mut [u8], now: Mono) -> Result<(), DropReason> {
        let decided = self.try_let_in(bytes, now);
        self.count(decided)
    }

    fn try_let_in(&mut self, bytes: &mut [u8], now: Mono) -> Result<(), DropReason> {
        let table = self.table.as_deref().ok_or(DropReason::NoRoute)?;
        let packet = travelling(bytes)?;
        if table.lookup(packet.source()) != Some(table.me()) {
            return Err(DropReason::SpoofedSource);
        }
        match table.lookup(packet.destination()) {
            Some(owner) if owner != table.me() => {
                if self.connected.iter().any(|net| net.contains(&packet.destination())) {
                    return Err(DropReason::Denied);
                }
                self.gate.leaving(&packet, now)?
            }
            Some(_) | None => self.gate.check(&packet, now)?,
        };
        table.translator().inbound(bytes, false);
        Ok(())
    }

    /// Decides about a packet to a client, whoever it is from: by the policy.
    pub fn let_out(&mut self, bytes: &mut [u8], now: Mono) -> Result<(), DropReason> {
        let decided = self.try_let_out(bytes, now);
        self.count(decided)
    }

    fn try_let_out(&mut self, bytes: &mut [u8], now: Mono) -> Result<(), DropReason> {
        let table = self.table.as_deref().ok_or(DropReason::NoRoute)?;
        if Packet::parse(bytes).is_ok() {
            table.translator().outbound(bytes, false);
        }
        self.gate.check(&travelling(bytes)?, now).map(|_| ())
    }

    fn count(&mut self, decided: Result<(), DropReason>) -> Result<(), DropReason> {
        self.denied += u64::from(decided == Err(DropReason::Denied));
        decided
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use bus::{AccessRule, Name, NodeId, PortRange, Protocol, Route, Selector, SubnetKind};

    use super::*;
    use crate::packet::TCP;
    use crate::packet::tests::build::{ip, tcp, udp, whole};
    use crate::policy::Sites;

    const SYN: u8 = 0x02;
    const SYN_ACK: u8 = 0x12;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn edge(text: &str) -> NodeId {
        NodeId::edge(name(text))
    }

    /// Two clients and a LAN behind `gate`, at a site of its own, and another site's LAN behind `far`.
    fn routes() -> Vec<Route> {
        let route = |prefix: &str, owner: &str, kind, peer: Option<&str>| Route {
            prefix: prefix.parse().unwrap(),
            owner: edge(owner),
            kind,
            real: None,
            peer: peer.map(name),
        };
        let lan = route("10.86.64.0/24", "gate", SubnetKind::Lan, None);
        vec![
            route("10.86.32.1/32", "gate", SubnetKind::Wireguard, Some("phone")),
            route("10.86.32.2/32", "gate", SubnetKind::Wireguard, Some("plc")),
            Route { real: Some("192.168.1.0/24".parse().unwrap()), ..lan },
            route("192.168.7.0/24", "far", SubnetKind::Lan, None),
        ]
    }

    /// The phone may talk Modbus to the gateway's LAN.
    fn guard() -> Guard {
        let site = |node: NodeId, site: &str| (node, name(site));
        let sites: Sites = [
            site(edge("gate"), "plant"),
            site(edge("far"), "depot"),
            site(NodeId::wireguard(name("phone")), "people"),
            site(NodeId::wireguard(name("plc")), "plcs"),
        ]
        .into();
        let rule = AccessRule {
            name: "default/modbus".into(),
            from: vec![Selector { node: Some(name("phone")), ..Selector::default() }],
            to: vec![Selector { site: Some(name("plant")), ..Selector::default() }],
            ports: vec![PortRange { protocol: Protocol::Tcp, ports: Some((80, 80)) }],
        };
        let mut guard = Guard::new([1, 2]);
        let hub = NodeId::cloud(name("hq"));
        guard.set_table(Arc::new(Table::new(edge("gate"), routes(), Some(hub))));
        guard.set_policy(Arc::new(Policy::for_edge(&routes(), &sites, &[rule])));
        guard
    }

    fn destination(packet: &[u8]) -> IpAddr {
        Packet::parse(packet).unwrap().destination()
    }

    #[test]
    fn nothing_passes_before_there_is_a_policy() {
        let mut guard = Guard::new([1, 2]);
        let mut packet = udp(ip("10.86.32.1"), ip("192.168.7.7"), b"x");
        assert_eq!(guard.let_in(&mut packet, Mono::ZERO), Err(DropReason::NoRoute));
        guard.set_table(Arc::new(Table::new(edge("gate"), routes(), None)));
        assert_eq!(guard.let_out(&mut packet, Mono::ZERO), Err(DropReason::Denied));
        assert_eq!(guard.denied(), 1);
    }

    #[test]
    fn what_does_not_go_over_the_overlay_needs_a_policy_here_and_its_answers_pass() {
        let mut guard = guard();
        let (phone, plc, host) = (ip("10.86.32.1"), ip("10.86.32.2"), ip("10.86.64.7"));
        let mut first = tcp(phone, host, SYN, &[], b"");
        assert_eq!(guard.let_in(&mut first, Mono::ZERO), Ok(()));
        assert_eq!(destination(&first), ip("192.168.1.7"), "as the LAN knows it");
        let mut swapped = tcp(plc, host, SYN, &[], b"");
        assert_eq!(guard.let_in(&mut swapped, Mono::ZERO), Err(DropReason::Denied), "not the other client");
        let mut datagram = udp(phone, host, b"x");
        assert_eq!(guard.let_in(&mut datagram, Mono::ZERO), Err(DropReason::Denied), "not another port");
        for elsewhere in ["203.0.113.5", "10.86.32.2"] {
            let mut packet = tcp(phone, ip(elsewhere), SYN, &[], b"");
            assert_eq!(guard.let_in(&mut packet, Mono::ZERO), Err(DropReason::Denied), "{elsewhere}");
        }
    }

    #[test]
    fn what_leaves_is_noted_so_that_its_answers_come_in_and_nothing_else_does() {
        let mut guard = guard();
        let (plc, far) = (ip("10.86.32.2"), ip("192.168.7.7"));
        let mut begins = tcp(far, plc, SYN, &[], b"");
        assert_eq!(guard.let_out(&mut begins, Mono::ZERO), Err(DropReason::Denied));
        let mut asks = tcp(plc, far, SYN, &[], b"");
        assert_eq!(guard.let_in(&mut asks, Mono::ZERO), Ok(()));
        let header = [0, 80, 0x13, 0x88, 0, 0, 0, 1, 0, 0, 0, 2, 5 << 4, SYN_ACK, 0xff, 0xff, 0, 0, 0, 0];
        let mut answer = whole(far, plc, TCP, &header);
        assert_eq!(guard.let_out(&mut answer, Mono::ZERO), Ok(()));
    }

    /// The kernel prefers what is right beside it.
    #[test]
    fn what_the_gateway_has_on_a_wire_of_its_own_is_not_taken_for_another_sites() {
        let mut guard = guard();
        let (phone, far) = (ip("10.86.32.1"), ip("192.168.7.7"));
        let mut first = tcp(phone, far, SYN, &[], b"");
        assert_eq!(guard.let_in(&mut first, Mono::ZERO), Ok(()));
        guard.set_connected(vec!["192.168.7.0/24".parse().unwrap()]);
        let mut second = tcp(phone, far, SYN, &[], b"");
        assert_eq!(guard.let_in(&mut second, Mono::ZERO), Err(DropReason::Denied));
    }

    #[test]
    fn a_source_that_is_no_clients_is_no_clients() {
        let mut packet = udp(ip("192.168.7.7"), ip("10.86.64.7"), b"x");
        assert_eq!(guard().let_in(&mut packet, Mono::ZERO), Err(DropReason::SpoofedSource));
        let mut to_all = udp(ip("10.86.32.1"), ip("224.0.0.1"), b"x");
        assert_eq!(guard().let_in(&mut to_all, Mono::ZERO), Err(DropReason::Multicast));
    }
}

//! A NAT: which packets pass, and under which address.
//!
//! Works on [`Flow`] values, so that the deterministic world (datagrams as structs) and the emulator (real packets,
//! see `translate`) share it. The four kinds are the old names of RFC 3489 for these behaviours of RFC 4787:
//!
//! | kind | mapping (§4.1) | filtering (§5) |
//! |---|---|---|
//! | [`NatKind::FullCone`] | endpoint-independent | endpoint-independent |
//! | [`NatKind::RestrictedCone`] | endpoint-independent | address-dependent |
//! | [`NatKind::PortRestricted`] | endpoint-independent | address and port-dependent |
//! | [`NatKind::Symmetric`] | address and port-dependent | address and port-dependent |
//!
//! Ports are drawn at random and never preserved, so that code that takes its own port for its public one fails.
//! A mapping is refreshed by what goes out, never by what comes in (RFC 4787 REQ-6): the harder of the two.
//! Hairpins (REQ-9, which many cheap routers lack) are [the port's business](crate::Internet::set_hairpin); there is no
//! port parity (REQ-4) and no fragment reassembly (REQ-14).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::time::Duration;

use bus::Mono;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use thiserror::Error;

/// How long a UDP mapping lives without outbound traffic: what cheap routers do, a quarter of RFC 4787 REQ-5.
pub const UDP_TIMEOUT: Duration = Duration::from_secs(30);
/// RFC 5382 REQ-5 for an established connection: two hours and four minutes. Ends of connections are not watched.
pub const TCP_TIMEOUT: Duration = Duration::from_secs(2 * 3600 + 4 * 60);
/// RFC 5508 REQ-2.
pub const ECHO_TIMEOUT: Duration = Duration::from_secs(60);
/// Public ports and echo ids that a NAT hands out: the well-known ones are left alone (RFC 4787 REQ-3).
pub const DYNAMIC_PORTS: RangeInclusive<u16> = 1024..=u16::MAX;
/// Flows that one NAT remembers: the default of Linux' connection tracking on a small router, about 6 MB.
/// When full, new flows are refused ([`Refusal::FlowsFull`]) until old ones time out.
pub const MAX_FLOWS: usize = 65_536;
/// Dead entries are dead at once and thrown out this often; often enough to stay small, rarely enough to be free.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// What a NAT can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Udp,
    Tcp,
    /// ICMP echo: the id stands in the port of the asking end, zero in the other (RFC 5508 §3.1).
    Echo,
}

impl Protocol {
    /// How long a mapping lives without outbound traffic.
    pub fn timeout(self) -> Duration {
        match self {
            Self::Udp => UDP_TIMEOUT,
            Self::Tcp => TCP_TIMEOUT,
            Self::Echo => ECHO_TIMEOUT,
        }
    }
}

/// One packet's way, as its sender wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    pub protocol: Protocol,
    pub source: SocketAddrV4,
    pub destination: SocketAddrV4,
}

impl Flow {
    /// The way of an answer.
    pub fn reversed(self) -> Self {
        Self { protocol: self.protocol, source: self.destination, destination: self.source }
    }
}

/// See the table in the [module's](self) documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NatKind {
    FullCone,
    RestrictedCone,
    PortRestricted,
    Symmetric,
}

/// Why a packet does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Refusal {
    #[error("no mapping")]
    NoMapping,
    #[error("a mapping, but not for this sender")]
    Filtered,
    #[error("all public ports are taken")]
    PortsExhausted,
    #[error("the flow table is full")]
    FlowsFull,
}

/// Who has a mapping: an inside endpoint, and for a symmetric NAT the remote one too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Holder {
    protocol: Protocol,
    inside: SocketAddrV4,
    remote: Option<SocketAddrV4>,
}

#[derive(Debug, Clone, Copy)]
struct Mapping {
    holder: Holder,
    refreshed: Mono,
}

/// One NAT with one public address.
#[derive(Debug)]
pub struct Nat {
    kind: NatKind,
    public: Ipv4Addr,
    ports: RangeInclusive<u16>,
    rng: ChaCha8Rng,
    port_of: BTreeMap<Holder, u16>,
    mappings: BTreeMap<(Protocol, u16), Mapping>,
    /// (protocol, public port, remote endpoint): when last sent to. What filtering looks at.
    sent_to: BTreeMap<(Protocol, u16, SocketAddrV4), Mono>,
    next_sweep: Mono,
}

impl Nat {
    pub fn new(kind: NatKind, public: Ipv4Addr, seed: u64) -> Self {
        Self::with_ports(kind, public, DYNAMIC_PORTS, seed)
    }

    /// A NAT that hands out `ports` only, as behind a carrier's NAT that gives each subscriber a few.
    pub fn with_ports(kind: NatKind, public: Ipv4Addr, ports: RangeInclusive<u16>, seed: u64) -> Self {
        Self {
            kind,
            public,
            ports,
            rng: ChaCha8Rng::seed_from_u64(seed),
            port_of: BTreeMap::new(),
            mappings: BTreeMap::new(),
            sent_to: BTreeMap::new(),
            next_sweep: Mono::ZERO,
        }
    }

    pub fn kind(&self) -> NatKind {
        self.kind
    }

    pub fn public(&self) -> Ipv4Addr {
        self.public
    }

    /// Mappings that are held, those that ended within the last five seconds included.
    pub fn mapped(&self) -> usize {
        self.mappings.len()
    }

    /// A packet leaves: the public endpoint that replaces its source. Makes or refreshes the mapping.
    pub fn outbound(&mut self, flow: Flow, now: Mono) -> Result<SocketAddrV4, Refusal> {
        self.sweep_if_due(now);
        let holder = self.holder(flow);
        let port = match self.live_port(holder, now) {
            Some(port) => port,
            None => self.free_port(holder.protocol, now)?,
        };
        self.remember_remote(flow.protocol, port, flow.destination, now)?;
        self.port_of.insert(holder, port);
        self.mappings.insert((flow.protocol, port), Mapping { holder, refreshed: now });
        Ok(SocketAddrV4::new(self.public, port))
    }

    /// A packet arrives at the public address: the inside endpoint that replaces its destination.
    pub fn inbound(&self, flow: Flow, now: Mono) -> Result<SocketAddrV4, Refusal> {
        if *flow.destination.ip() != self.public {
            return Err(Refusal::NoMapping);
        }
        let port = flow.destination.port();
        let mapping = self.mappings.get(&(flow.protocol, port)).ok_or(Refusal::NoMapping)?;
        if !is_alive(flow.protocol, mapping.refreshed, now) {
            return Err(Refusal::NoMapping);
        }
        if !self.admits(flow.protocol, port, flow.source, now) {
            return Err(Refusal::Filtered);
        }
        Ok(mapping.holder.inside)
    }

    /// The public endpoint that an inside flow already has; makes nothing. For ICMP errors that leave
    /// (RFC 5508 REQ-5).
    pub fn existing(&self, flow: Flow, now: Mono) -> Option<SocketAddrV4> {
        let port = self.live_port(self.holder(flow), now)?;
        Some(SocketAddrV4::new(self.public, port))
    }

    fn holder(&self, flow: Flow) -> Holder {
        let remote = (self.kind == NatKind::Symmetric).then_some(flow.destination);
        Holder { protocol: flow.protocol, inside: flow.source, remote }
    }

    fn live_port(&self, holder: Holder, now: Mono) -> Option<u16> {
        let port = *self.port_of.get(&holder)?;
        let mapping = self.mappings.get(&(holder.protocol, port))?;
        (mapping.holder == holder && is_alive(holder.protocol, mapping.refreshed, now)).then_some(port)
    }

    /// The filtering behaviour.
    fn admits(&self, protocol: Protocol, port: u16, from: SocketAddrV4, now: Mono) -> bool {
        let alive = |sent: &Mono| is_alive(protocol, *sent, now);
        match self.kind {
            NatKind::FullCone => true,
            NatKind::RestrictedCone => {
                let any_port = |p| (protocol, port, SocketAddrV4::new(*from.ip(), p));
                self.sent_to.range(any_port(0)..=any_port(u16::MAX)).any(|(_, sent)| alive(sent))
            }
            NatKind::PortRestricted | NatKind::Symmetric => {
                self.sent_to.get(&(protocol, port, from)).is_some_and(alive)
            }
        }
    }

    fn remember_remote(
        &mut self,
        protocol: Protocol,
        port: u16,
        remote: SocketAddrV4,
        now: Mono,
    ) -> Result<(), Refusal> {
        let key = (protocol, port, remote);
        if self.sent_to.len() >= MAX_FLOWS && !self.sent_to.contains_key(&key) {
            self.sweep(now);
            if self.sent_to.len() >= MAX_FLOWS {
                return Err(Refusal::FlowsFull);
            }
        }
        self.sent_to.insert(key, now);
        Ok(())
    }

    /// A public port that nobody holds: from a random one upwards, around the end of the range.
    fn free_port(&mut self, protocol: Protocol, now: Mono) -> Result<u16, Refusal> {
        let start = self.random_port();
        let port = self.free_port_from(protocol, start).or_else(|| {
            self.sweep(now);
            self.free_port_from(protocol, start)
        });
        port.ok_or(Refusal::PortsExhausted)
    }

    fn random_port(&mut self) -> u16 {
        let (first, last) = (u32::from(*self.ports.start()), u32::from(*self.ports.end()));
        let count = last.saturating_sub(first) + 1;
        (first + self.rng.next_u32() % count) as u16
    }

    fn free_port_from(&self, protocol: Protocol, start: u16) -> Option<u16> {
        let upper = start..=*self.ports.end();
        let lower = *self.ports.start()..=start;
        upper.chain(lower).find(|port| !self.mappings.contains_key(&(protocol, *port)))
    }

    fn sweep_if_due(&mut self, now: Mono) {
        if now >= self.next_sweep {
            self.sweep(now);
        }
    }

    fn sweep(&mut self, now: Mono) {
        self.next_sweep = now + SWEEP_EVERY;
        self.sent_to.retain(|(protocol, ..), sent| is_alive(*protocol, *sent, now));
        self.mappings.retain(|(protocol, _), mapping| is_alive(*protocol, mapping.refreshed, now));
        let mappings = &self.mappings;
        self.port_of.retain(|holder, port| mappings.contains_key(&(holder.protocol, *port)));
    }
}

fn is_alive(protocol: Protocol, refreshed: Mono, now: Mono) -> bool {
    now.since(refreshed) < protocol.timeout()
}

#[cfg(test)]
mod tests;

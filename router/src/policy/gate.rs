//! The one question that is asked for each packet.

use std::sync::Arc;

use bus::Mono;

use super::flows::{Begun, Entry, Flows, Key};
use super::fragments::Fragments;
use super::stage::Signal;
use super::{Decision, Policy};
use crate::DropReason;
use crate::packet::{Flow, Fragment, ICMP, Packet, Ports, Upper};

/// Why a packet may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// True of every packet between these two addresses until the [epoch](Gate::epoch) ends.
    SameSite,
    /// The conversation begins, or what cannot be answered is covered: by the rule at this place in the policy.
    Rule(usize),
    /// Of a conversation that began before, in either direction.
    Known,
    /// An ICMP error about a conversation that began before.
    Related,
    /// A later fragment, whose first one passed.
    Fragment,
    /// Leaves an edge: the hub decides.
    Leaving,
}

/// A policy, and what was said lately.
#[derive(Debug)]
pub struct Gate {
    policy: Arc<Policy>,
    epoch: u32,
    flows: Flows,
    fragments: Fragments,
}

impl Gate {
    /// Denies all until it is told a policy. `seed` differs from process to process, and nobody else knows it.
    pub fn new(capacity: usize, seed: [u64; 2]) -> Self {
        Self {
            policy: Arc::default(),
            epoch: 0,
            flows: Flows::new(capacity, seed),
            fragments: Fragments::new(seed),
        }
    }

    /// The policy from now on. A conversation that it does not allow ends with the next packet of it.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.policy = policy;
        self.epoch = self.epoch.wrapping_add(1);
        self.fragments.clear();
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Differs from policy to policy: what was remembered of an older one counts no more.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    pub fn flows(&self) -> &Flows {
        &self.flows
    }

    /// Decides about a packet that comes in for this node, or that a hub passes on; the order is the module's.
    pub fn check(&mut self, packet: &Packet<'_>, now: Mono) -> Result<Allowed, DropReason> {
        let seen = Seen::of(packet);
        let allowed = self.known(&seen, now).or_else(|| self.begins(&seen, now));
        let allowed = allowed.or_else(|| self.follows(packet, &seen, now)).ok_or(DropReason::Denied)?;
        if seen.upper.fragment == Fragment::First && allowed != Allowed::SameSite {
            self.fragments.remember(packet, seen.upper.protocol, now);
        }
        Ok(allowed)
    }

    /// Decides about a packet that comes out of this node: a hub checks it; an edge notes it, so that the answers
    /// may come in.
    pub fn leaving(&mut self, packet: &Packet<'_>, now: Mono) -> Result<Allowed, DropReason> {
        if !self.policy.guards_arrivals_only {
            return self.check(packet, now);
        }
        self.note(&Seen::of(packet), now);
        Ok(Allowed::Leaving)
    }

    fn known(&mut self, seen: &Seen, now: Mono) -> Option<Allowed> {
        let (key, from_low) = seen.key?;
        let entry = self.standing(&key, from_low, &seen.flow, now).allowed()?;
        if !entry.goes_on(seen.signal, from_low) {
            return None;
        }
        entry.advance(seen.signal, from_low, now);
        Some(Allowed::Known)
    }

    /// Our side says something to another site. If a rule allowed that conversation once, and none does now, then what
    /// our side still says is no reason to let the other in.
    fn note(&mut self, seen: &Seen, now: Mono) {
        let Some((key, from_low)) = seen.key else { return };
        match self.standing(&key, from_low, &seen.flow, now) {
            Standing::Revoked => {}
            Standing::Allowed(entry) if entry.goes_on(seen.signal, from_low) => {
                entry.advance(seen.signal, from_low, now);
            }
            Standing::Allowed(_) | Standing::Unknown => {
                if self.policy.decide(&seen.flow) != Decision::SameSite {
                    self.begin(seen, true, now);
                }
            }
        }
    }

    fn begins(&mut self, seen: &Seen, now: Mono) -> Option<Allowed> {
        match self.policy.decide(&seen.flow) {
            Decision::SameSite => Some(Allowed::SameSite),
            Decision::Rule(rule) => {
                self.begin(seen, false, now);
                Some(Allowed::Rule(rule))
            }
            Decision::Deny => None,
        }
    }

    fn begin(&mut self, seen: &Seen, noted: bool, now: Mono) {
        if let Some((key, by_low)) = seen.key {
            self.flows.begin(Begun { key, by_low, noted }, seen.signal, self.epoch, now);
        }
    }

    /// What has no flow of its own, but follows from one.
    fn follows(&mut self, packet: &Packet<'_>, seen: &Seen, now: Mono) -> Option<Allowed> {
        let Seen { upper, flow, .. } = seen;
        if upper.fragment == Fragment::Later {
            let passed = self.fragments.has_first_of(packet, upper.protocol, now);
            return passed.then_some(Allowed::Fragment);
        }
        (flow.ports == Ports::IcmpError && tells_no_lie_about_routes(packet, upper))
            .then(|| self.related(packet, upper, flow, now))
            .flatten()
    }

    /// An ICMP error passes if it goes to the sender of the packet that it quotes, that packet belongs to a
    /// conversation, and it comes from the site to which that packet went, from a cloud on its way, or from the site of the gateway of the
    /// WireGuard client to which it went. It changes nothing about the conversation.
    fn related(&mut self, packet: &Packet<'_>, upper: &Upper, flow: &Flow, now: Mono) -> Option<Allowed> {
        let quoted = packet.quoted(upper)?;
        let (from, to) = (self.policy.spot(flow.source), self.policy.spot(quoted.destination));
        let is_on_the_way = from.is_cloud() || from.shares_site_with(&to) || to.comes_in_at_site_of(&from);
        if quoted.source != flow.destination || !is_on_the_way {
            return None;
        }
        let (key, from_low) = Key::of(&quoted)?;
        self.standing(&key, from_low, &quoted, now).allowed().map(|_| Allowed::Related)
    }

    /// How the conversation of `flow` stands. What began under an older policy is held against today's, once.
    fn standing(&mut self, key: &Key, from_low: bool, flow: &Flow, now: Mono) -> Standing<'_> {
        let Some(entry) = self.flows.find(key, now) else { return Standing::Unknown };
        if entry.epoch != self.epoch {
            let first = if entry.is_answer(from_low) { flow.reversed() } else { *flow };
            if !entry.noted && self.policy.decide(&first) == Decision::Deny {
                return Standing::Revoked;
            }
            entry.epoch = self.epoch;
        }
        Standing::Allowed(entry)
    }
}

/// What is looked at in a packet.
struct Seen {
    upper: Upper,
    flow: Flow,
    signal: Signal,
    key: Option<(Key, bool)>,
}

impl Seen {
    fn of(packet: &Packet<'_>) -> Self {
        let upper = packet.upper();
        let flow = Flow {
            source: packet.source(),
            destination: packet.destination(),
            protocol: upper.protocol,
            ports: upper.ports,
        };
        // A later fragment of a protocol without ports is no conversation either: it may be one with ports.
        let key = if upper.fragment == Fragment::Later { None } else { Key::of(&flow) };
        Self { upper, flow, signal: Signal::of(packet, &upper), key }
    }
}

/// What is known of a conversation.
enum Standing<'f> {
    Unknown,
    /// It was allowed, and today's policy denies it. The entry stays until it would have been forgotten: the rule may
    /// come back.
    Revoked,
    Allowed(&'f mut Entry),
}

impl<'f> Standing<'f> {
    fn allowed(self) -> Option<&'f mut Entry> {
        match self {
            Self::Allowed(entry) => Some(entry),
            Self::Unknown | Self::Revoked => None,
        }
    }
}

/// Source quench and redirect (RFC 792) would have a host change its pace or its routes at another site's word.
fn tells_no_lie_about_routes(packet: &Packet<'_>, upper: &Upper) -> bool {
    const SOURCE_QUENCH: u8 = 4;
    const REDIRECT: u8 = 5;
    let kind = packet.bytes().get(upper.offset).copied();
    upper.protocol != ICMP || !matches!(kind, None | Some(SOURCE_QUENCH | REDIRECT))
}

#[cfg(test)]
mod tests;

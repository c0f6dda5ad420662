//! Who may talk to whom: deny by default between sites, allow inside one, and remember who began.
//!
//! ```text
//!            site a                  hub: all rules                site b
//!   host -> TUN -> edge ===========> check =========> edge -> check -> TUN -> host
//!                  notes what leaves                  the rules that lead to it
//! ```
//! A [`Policy`] is an immutable snapshot, like the [`Table`](crate::Table): what follows from sites, routes and rules.
//! A [`Gate`] holds one, and what was said lately ([`Flows`]). It decides about a packet in this order:
//! 1. both ends are in one site: allow;
//! 2. a rule lets this conversation begin, or it began so and the rule still holds: allow;
//! 3. it answers a conversation that was allowed in the other direction: allow. An ICMP error does if the packet that
//!    it quotes belongs to one, a later fragment if its first one passed;
//! 4. deny.
//!
//! An edge has no rules about what leaves its site, so it [notes](Gate::leaving) that and lets the hub decide.
//!
//! Files: `places` (what an address is), `rule`, `gate`, `flows` and `stage` (conversations), `fragments`, `hash`,
//! `explain` (for people).

mod explain;
mod flows;
mod fragments;
mod gate;
mod hash;
mod places;
mod rule;
mod stage;

use bus::{AccessRule, Name, NodeId, Route};

use self::places::{Places, Spot};
use self::rule::Rule;
use crate::packet::Flow;

pub use self::explain::{End, Explanation, Ruling};
pub use self::flows::Flows;
pub use self::gate::{Allowed, Gate};
pub(crate) use self::stage::Signal;

/// Which node is in which site.
pub type Sites = std::collections::BTreeMap<NodeId, Name>;

/// What rules, sites and routes say, compiled. Immutable: a change makes a new one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policy {
    places: Places,
    rules: Vec<Rule>,
    /// Whether what leaves is for somebody else to decide.
    guards_arrivals_only: bool,
}

/// What a policy says about a conversation that begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    SameSite,
    /// The first rule that allows it, by its place in the policy.
    Rule(usize),
    Deny,
}

impl Policy {
    /// For a hub, which has all rules.
    pub fn for_hub(routes: &[Route], sites: &Sites, rules: &[AccessRule]) -> Self {
        let mut places = Places::new(routes, sites);
        let rules = rules.iter().map(|rule| Rule::new(rule, &mut places)).collect();
        Self { places, rules, guards_arrivals_only: false }
    }

    /// For an edge, which has the rules that lead to it and no others.
    pub fn for_edge(routes: &[Route], sites: &Sites, rules: &[AccessRule]) -> Self {
        Self { guards_arrivals_only: true, ..Self::for_hub(routes, sites, rules) }
    }

    /// Whether `flow` may begin, whatever was said before. In this order:
    /// 1. both ends are in one site: allow;
    /// 2. the first rule that has its source, its destination, its protocol and its destination port allows it;
    /// 3. deny.
    ///
    /// What has no ports (a later fragment, another protocol, a header that was not understood) is covered by rules
    /// without ports alone.
    pub fn decide(&self, flow: &Flow) -> Decision {
        let (from, to) = (self.places.spot(flow.source), self.places.spot(flow.destination));
        if from.shares_site_with(&to) {
            return Decision::SameSite;
        }
        let deciding = self.rules.iter().position(|rule| rule.covers(&from, &to, flow));
        deciding.map_or(Decision::Deny, Decision::Rule)
    }

    /// The name of a rule that decided.
    pub fn rule_name(&self, rule: usize) -> Option<&str> {
        self.rules.get(rule).map(|rule| rule.name.as_str())
    }

    fn spot(&self, address: std::net::IpAddr) -> Spot {
        self.places.spot(address)
    }
}

#[cfg(test)]
mod tests;

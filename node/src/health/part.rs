//! Which nodes of a fleet are asked for: all of a small one, and of a large one as many as somebody reads.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::fleet::{Facts, Fleet, Known};
use super::links::LinkState;
use super::series::LinkSeries;
use super::{Condition, Presence};
use crate::page::decoded;

/// `?node=edge/a&site=plant&unwell=true&order=ills&from=0&limit=50`; all of it may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Part {
    /// Of these names, or of these sites; all if there are none of both.
    pub nodes: BTreeSet<String>,
    pub sites: BTreeSet<String>,
    /// Only those with which something is wrong.
    pub unwell: bool,
    pub order: Order,
    /// How many are left out before the first.
    pub from: usize,
    /// The most; all if there is none.
    pub limit: Option<usize>,
}

/// Which come first. This node always does, but by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// As they are listed: this node, then by name.
    #[default]
    Name,
    /// Those that are away, then those with which something is wrong, then by throughput.
    Ills,
    Throughput,
    /// The slowest first.
    Rtt,
}

/// What cannot be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    #[error("{0}: '{1}' is no number")]
    Number(&'static str, String),
    #[error("order: '{0}' is none of name, ills, throughput and rtt")]
    Order(String),
    #[error("unwell: write true or false")]
    Unwell,
}

/// Some of the nodes, and what is true of all that were to choose from.
#[derive(Debug)]
pub(super) struct Chosen<'a> {
    pub(super) shown: Vec<&'a Facts>,
    pub(super) total: usize,
    pub(super) connected: usize,
    pub(super) unwell: usize,
    /// How many fit, those included that are left out before the first and after the last.
    pub(super) found: usize,
}

impl Part {
    pub fn parse(query: &str) -> Result<Self, PartError> {
        let mut part = Self::default();
        for (key, value) in query.split('&').filter_map(|word| word.split_once('=')) {
            let value = decoded(value);
            match key {
                "node" => drop(part.nodes.insert(value)),
                "site" => drop(part.sites.insert(value)),
                "unwell" => part.unwell = value.parse().map_err(|_| PartError::Unwell)?,
                "from" => part.from = number("from", &value)?,
                "limit" => part.limit = Some(number("limit", &value)?),
                "order" => part.order = Order::parse(value)?,
                _ => {}
            }
        }
        Ok(part)
    }

    /// Whether no node is chosen by what it is.
    pub fn is_everybody(&self) -> bool {
        self.nodes.is_empty() && self.sites.is_empty()
    }

    pub fn has(&self, known: &Known) -> bool {
        let is_of_site = || known.site.as_ref().is_some_and(|site| self.sites.contains(site.as_str()));
        self.is_everybody()
            || is_of_site()
            || !self.nodes.is_empty() && self.nodes.contains(&known.node.to_string())
    }

    pub(super) fn choose<'a>(&self, fleet: &'a Fleet) -> Chosen<'a> {
        let of_part: Vec<(&Facts, bool)> = fleet
            .nodes
            .iter()
            .filter(|facts| self.has(&facts.known))
            .map(|facts| (facts, facts.is_unwell()))
            .collect();
        let total = of_part.len();
        let connected = of_part.iter().filter(|(facts, _)| facts.known.state == Presence::Connected).count();
        let unwell = of_part.iter().filter(|(_, is_unwell)| *is_unwell).count();
        let mut fit: Vec<(&Facts, bool)> =
            of_part.into_iter().filter(|(_, is_unwell)| *is_unwell || !self.unwell).collect();
        self.order.sort(&mut fit);
        let found = fit.len();
        let limit = self.limit.unwrap_or(usize::MAX);
        let shown = fit.into_iter().skip(self.from).take(limit).map(|(facts, _)| facts).collect();
        Chosen { shown, total, connected, unwell, found }
    }
}

impl Order {
    fn parse(text: String) -> Result<Self, PartError> {
        match text.as_str() {
            "name" => Ok(Self::Name),
            "ills" => Ok(Self::Ills),
            "throughput" => Ok(Self::Throughput),
            "rtt" => Ok(Self::Rtt),
            _ => Err(PartError::Order(text)),
        }
    }

    /// Those that are alike stay in the order of their names.
    pub fn sort(self, nodes: &mut [(&Facts, bool)]) {
        if self == Self::Name {
            return;
        }
        nodes.sort_by_cached_key(|(facts, is_unwell)| {
            let is_there = facts.known.is_me || facts.known.state == Presence::Connected;
            let ills = if self == Self::Ills { (is_there, !is_unwell) } else { (false, false) };
            let most = if self == Self::Rtt { facts.slowest() } else { facts.throughput() };
            (!facts.known.is_me, ills, Reverse(most))
        });
    }
}

fn number(name: &'static str, text: &str) -> Result<usize, PartError> {
    text.parse().map_err(|_| PartError::Number(name, text.to_owned()))
}

impl Facts {
    /// Whether something is wrong now.
    pub fn is_unwell(&self) -> bool {
        !self.problems().is_empty()
    }

    fn links(&self) -> &[LinkState] {
        self.condition.as_deref().map_or(&[], |Condition { links, .. }| links)
    }

    /// Bytes a second, of all links and both ways.
    fn throughput(&self) -> u64 {
        self.links().iter().map(LinkState::throughput).sum()
    }

    /// The longest round trip of its links.
    fn slowest(&self) -> u64 {
        self.links().iter().filter_map(|link| link.get(LinkSeries::Rtt)).max().unwrap_or_default()
    }
}

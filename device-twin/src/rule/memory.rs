//! What a rule remembers between evaluations, and what of it outlives a restart.

use std::time::Duration;

use bus::{Mono, Quality, UnixMillis, Value};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::document::RuleSpec;
use super::micros;
use crate::twin;

/// What a rule remembers between evaluations.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleState {
    /// Since when its inputs have had the chance to be heard.
    #[serde(default, with = "micros::mono", skip_serializing_if = "Option::is_none")]
    pub(super) began: Option<Mono>,
    /// One entry a predicate.
    pub(super) tests: Vec<Memory>,
    /// Cases that are latched, in the order in which they tripped. At most as many as there are cases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) trips: Vec<Trip>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Memory {
    /// The comparison held last time: its hysteresis applies.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) held: bool,
    /// Since when it has held without a break.
    #[serde(default, with = "micros::mono", skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<Mono>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Why a case is latched.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trip {
    /// Its name, or `case <number>`.
    #[n(0)]
    pub case: String,
    /// Its place among the cases, from 0.
    #[n(1)]
    pub number: u32,
    /// On the edge's clock, for display.
    #[n(2)]
    pub at: UnixMillis,
    /// It could not be told, and `onUnknown` is `trip`.
    #[n(3)]
    pub unknown: bool,
    /// What the case's inputs said then.
    #[n(4)]
    pub readings: Vec<Evidence>,
}

/// What one input said when a case tripped.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The input's name, or `change of <input> in 1m`.
    #[n(0)]
    pub input: String,
    /// In the unit in which the rule counts it. `None`: it was not known. Texts are cut, structs are texts.
    #[n(1)]
    pub value: Option<Value>,
    #[n(2)]
    pub quality: Option<Quality>,
    #[n(3)]
    pub age_ms: Option<u64>,
}

/// What outlives a restart: which comparisons held, and which cases are latched. A `for` begins anew, and so do the
/// windows. A map, so that it is told from what earlier versions kept: an array of the comparisons alone.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Kept {
    #[n(0)]
    pub held: Vec<bool>,
    #[n(1)]
    pub trips: Vec<Trip>,
}

impl Kept {
    /// Nothing held, and nothing is latched.
    pub fn is_empty(&self) -> bool {
        self.trips.is_empty() && !self.held.contains(&true)
    }

    /// From the store; `None` if it is nothing that a version wrote.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let earlier = || twin::decode(bytes).map(|held| Self { held, trips: Vec::new() });
        twin::decode(bytes).or_else(earlier)
    }
}

impl RuleState {
    pub fn kept(&self) -> Kept {
        Kept { held: self.tests.iter().map(|test| test.held).collect(), trips: self.trips.clone() }
    }

    /// Whether the other keeps the same over a restart.
    pub fn keeps_as(&self, other: &Self) -> bool {
        let (held, other_held) = (self.tests.iter().map(|t| t.held), other.tests.iter().map(|t| t.held));
        self.trips == other.trips && held.eq(other_held)
    }

    /// Takes up what the last process kept, perhaps under an earlier text of the document: comparisons go by their
    /// place, a trip by its case's title, else by its place. One whose case is gone, or latches no more, is gone too.
    pub fn restore(kept: Kept, spec: &RuleSpec) -> Self {
        let Kept { held, trips } = kept;
        let mut tests: Vec<Memory> = held.into_iter().map(|held| Memory { held, since: None }).collect();
        tests.resize(spec.predicates().len(), Memory::default());
        let mut state = Self { began: None, tests, trips: Vec::new() };
        for trip in trips {
            let Some((number, case)) = place(&trip, spec) else { continue };
            if !state.is_tripped(number) {
                state.trips.push(Trip { case, number: number as u32, ..trip });
            }
        }
        state
    }

    /// Inputs begin anew, after their mapper came: see [`super::evaluate`].
    pub(super) fn settle(&mut self) {
        self.began = None;
    }

    /// The cases that are latched; the one that tripped first comes first.
    pub fn trips(&self) -> &[Trip] {
        &self.trips
    }

    pub(super) fn trip(&self, case: usize) -> Option<&Trip> {
        self.trips.iter().find(|trip| trip.number as usize == case)
    }

    pub(super) fn is_tripped(&self, case: usize) -> bool {
        self.trip(case).is_some()
    }

    /// How long inputs have had the chance to be heard.
    pub(super) fn waited(&self, now: Mono) -> Duration {
        self.began.map_or(Duration::ZERO, |began| now.since(began))
    }
}

/// The latching case that `trip` speaks of, by number and title.
fn place(trip: &Trip, spec: &RuleSpec) -> Option<(usize, String)> {
    let all = spec.cases.iter().enumerate().filter(|(_, case)| case.latch);
    let mut latching = all.map(|(at, case)| (at, case.title(at)));
    let titled = latching.clone().find(|(_, title)| *title == trip.case);
    titled.or_else(|| latching.find(|(at, _)| *at == trip.number as usize))
}

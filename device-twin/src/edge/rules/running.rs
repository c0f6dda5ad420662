//! One rule at work.

use std::time::Duration;

use bus::twin::DeviceId;
use bus::{Mono, UnixMillis};
use metadata::Keyspace;

use super::Source;
use super::act::Place;
use crate::rule::{By, Counting, Does, Evaluation, Input, Kept, Program, RuleSpec, RuleState, RuleView};
use crate::twin::PropertyId;

#[derive(Debug)]
pub(super) struct Running {
    pub(super) program: Program,
    pub(super) state: RuleState,
    pub(super) place: Place,
    /// One an input, in the program's order.
    pub(super) sources: Vec<Source>,
    /// A mapper came since the last evaluation.
    pub(super) anew: bool,
    /// The last evaluation, and since when it says that.
    pub(super) said: Option<Said>,
    /// What the cloud was told last.
    pub(super) told: Option<Told>,
    /// Its beginning stands in the log.
    pub(super) is_logged: bool,
}

#[derive(Debug)]
pub(super) struct Said {
    pub(super) evaluation: Evaluation,
    pub(super) since: UnixMillis,
}

#[derive(Debug)]
pub(super) struct Told {
    pub(super) gist: Gist,
    pub(super) view: RuleView,
    pub(super) at: Mono,
}

/// What of a rule's state is worth telling the cloud: the case that decides, what it does, and what is latched since
/// when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gist {
    says: Option<(By, Does)>,
    latched: Vec<(u32, UnixMillis)>,
}

impl Gist {
    /// Whether something was latched or reset between them: that cannot wait.
    pub(super) fn is_urgent_after(&self, earlier: &Self) -> bool {
        self.latched != earlier.latched
    }
}

impl Running {
    /// `counting` says how values become what the document counts. `None` if the document names no property.
    pub(super) fn new(id: &DeviceId, spec: &RuleSpec, counting: Counting, ks: &Keyspace) -> Option<Self> {
        let sources: Option<Vec<Source>> = spec.inputs.values().map(|input| source(id, input)).collect();
        let kept = ks.get(&format!("/t/rule/{id}")).and_then(|bytes| Kept::read(bytes));
        Some(Self {
            state: RuleState::restore(kept.unwrap_or_default(), spec),
            place: place(id, spec)?,
            sources: sources?,
            program: Program::new(spec.clone(), counting),
            anew: false,
            said: None,
            told: None,
            is_logged: false,
        })
    }

    pub(super) fn is_of(&self, spec: &RuleSpec, counting: &Counting) -> bool {
        self.program.spec() == spec && self.program.counting() == counting
    }

    /// Whether it reads from `device` or writes to it.
    pub(super) fn concerns(&self, device: &DeviceId) -> bool {
        self.place.output.device == *device || self.sources.iter().any(|(_, id)| id.device == *device)
    }

    /// The properties over whose history it looks, with span and longest gap.
    pub(super) fn windows(&self) -> impl Iterator<Item = (&PropertyId, Duration, Duration)> {
        let through = self.program.windows().iter();
        through.filter_map(|t| Some((&self.sources.get(t.input)?.1, t.over.span().0, t.max_age)))
    }

    /// Keeps what was decided; whether it is another decision than before.
    pub(super) fn note(&mut self, evaluation: Evaluation, now: UnixMillis) -> bool {
        let before = self.said.take();
        let is_new = before.as_ref().is_none_or(|before| before.evaluation != evaluation);
        let since = before.filter(|before| gist(&before.evaluation) == gist(&evaluation));
        self.said = Some(Said { since: since.map_or(now, |before| before.since), evaluation });
        is_new
    }

    pub(super) fn gist(&self) -> Gist {
        Gist {
            says: self.said.as_ref().map(|said| gist(&said.evaluation)),
            latched: self.state.trips().iter().map(|trip| (trip.number, trip.at)).collect(),
        }
    }
}

fn gist(evaluation: &Evaluation) -> (By, Does) {
    (evaluation.by, Does::of(&evaluation.decision))
}

pub(super) fn source(rule: &DeviceId, input: &Input) -> Option<Source> {
    let device = RuleSpec::device(rule, &input.device)?;
    Some((input.from, PropertyId::new(&device, &input.property)))
}

/// `None` if the document names no property.
pub(super) fn place(rule: &DeviceId, spec: &RuleSpec) -> Option<Place> {
    let device = RuleSpec::device(rule, &spec.output.device)?;
    let output = PropertyId::new(&device, &spec.output.property);
    Some(Place { output, slot: spec.output.slot, ttl: spec.output.ttl.0 })
}

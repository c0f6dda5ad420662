//! The document. What its types cannot say is checked in [`super::check`].

use std::collections::BTreeMap;

use bus::Value;
use bus::twin::DeviceId;
use serde::{Deserialize, Serialize};

use crate::arbiter::Slot;
use crate::model::{Document, Span};

pub type Rule = Document<RuleSpec>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleSpec {
    /// By the name that the cases use.
    pub inputs: BTreeMap<String, Input>,
    /// What the rule decides about: one property, whose edge runs the rule.
    pub output: Output,
    /// What happens when a case cannot be told true or false. There is no default: it is a decision about safety.
    pub on_unknown: OnUnknown,
    /// In order; the first that is true decides.
    pub cases: Vec<Case>,
}

/// One property, anywhere in the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Input {
    /// `<namespace>/<name>`, or a name in the rule's own namespace.
    pub device: String,
    /// Of that device.
    pub property: String,
    /// Which half of the twin; reported if not said.
    #[serde(default)]
    pub from: From,
    /// Older readings are unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
    /// UCUM code of the unit in which the rule counts it; absent: the property's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// Which half of the twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    #[default]
    Reported,
    Desired,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Output {
    /// `<namespace>/<name>`, or a name in the rule's own namespace.
    pub device: String,
    /// Of that device.
    pub property: String,
    /// The place among those who want something of it; 10 if not said.
    #[serde(default = "default_slot")]
    pub slot: Slot,
    /// How long a decision holds if the rule cannot renew it.
    pub ttl: Span,
}

fn default_slot() -> Slot {
    Slot::LOCAL_RULE
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnUnknown {
    /// What the rule said last stays.
    Hold,
    /// The property's fail-safe value, through the rule's slot.
    FailSafe,
    /// This, through the rule's slot.
    Value(Value),
    /// An interlock: what cannot be told counts as true.
    Trip,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    /// For people: it is the cause of the writes that follow.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Once true it decides until it is reset, also over restarts.
    #[serde(default, skip_serializing_if = "is_false")]
    pub latch: bool,
    /// Absent: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// What holds if the case is true.
    pub then: Then,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum When {
    All(All),
    Any(Any),
    Not(Not),
    AtLeast(AtLeast),
    Is(Predicate),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct All {
    /// All of these hold.
    pub all: Vec<When>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Any {
    /// At least one of these holds.
    pub any: Vec<When>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Not {
    /// This does not hold.
    pub not: Box<When>,
}

/// A vote: so many of these hold, whichever.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AtLeast {
    /// So many of `of` hold, whichever: a vote.
    pub at_least: usize,
    /// What is counted.
    pub of: Vec<When>,
}

/// `input op (value | than) + margin`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Predicate {
    /// The name of one of the inputs.
    pub input: String,
    /// Not the input itself is compared but how far it has come in this time: the newest value minus the oldest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change_in: Option<Span>,
    /// or how far it was spread over it: the greatest value minus the least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread_in: Option<Span>,
    /// How it is compared.
    pub op: Op,
    /// Compare with this,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// or with this input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub than: Option<String>,
    /// UCUM code of the unit of `value`, `margin` and `hysteresis`; absent: the one in which the input is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Added to what is compared with.
    #[serde(default)]
    pub margin: f64,
    /// Once true, it stays true until the input is this far back on the other side.
    #[serde(default)]
    pub hysteresis: f64,
    /// It must have been true this long without a break.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasting: Option<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    Above,
    Below,
    AtLeast,
    AtMost,
    Equal,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Then {
    /// This: a constant, or reckoned from an input.
    Value(Expression),
    /// What the rule said last stays.
    Hold,
    /// Let go of the slot.
    Relinquish,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Expression {
    Linear(Linear),
    Constant(Value),
}

/// `clamp(gain * (input - minus) + offset, min, max)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// The input that counts.
    pub input: String,
    /// Taken from the input first; 0 if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minus: Option<Operand>,
    /// What the difference is multiplied by; 1 if not said.
    #[serde(default = "one")]
    pub gain: f64,
    /// Added to that; 0 if not said.
    #[serde(default)]
    pub offset: f64,
    /// The result is not less than this,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Operand>,
    /// and not more than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Operand>,
}

fn one() -> f64 {
    1.0
}

/// A number, or the input of that name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Operand {
    Number(f64),
    Input(String),
}

impl RuleSpec {
    /// The device that `text` names, seen from a rule in `rule`'s namespace.
    pub fn device(rule: &DeviceId, text: &str) -> Option<DeviceId> {
        if text.contains('/') {
            return text.parse().ok();
        }
        Some(DeviceId { namespace: rule.namespace.clone(), name: text.parse().ok()? })
    }

    /// Every predicate, in the order in which its state is kept.
    pub fn predicates(&self) -> Vec<&Predicate> {
        self.cases.iter().flat_map(Case::predicates).collect()
    }
}

impl Case {
    /// In the order of the document.
    pub fn predicates(&self) -> Vec<&Predicate> {
        let mut all = Vec::new();
        if let Some(when) = &self.when {
            when.collect(&mut all);
        }
        all
    }

    /// What people know it by: its name, or its number.
    pub(super) fn title(&self, at: usize) -> String {
        if self.name.is_empty() { format!("case {}", at + 1) } else { self.name.clone() }
    }
}

impl When {
    fn collect<'a>(&'a self, into: &mut Vec<&'a Predicate>) {
        if let Self::Is(predicate) = self {
            into.push(predicate);
        }
        self.parts().iter().for_each(|part| part.collect(into));
    }

    /// What a group is made of; nothing of a predicate.
    pub(super) fn parts(&self) -> &[Self] {
        match self {
            Self::All(group) => &group.all,
            Self::Any(group) => &group.any,
            Self::AtLeast(group) => &group.of,
            Self::Not(group) => std::slice::from_ref(&*group.not),
            Self::Is(_) => &[],
        }
    }
}

/// What a predicate looks at beside the present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The newest value minus the oldest.
    Change(Span),
    /// The greatest value minus the least.
    Spread(Span),
}

impl Over {
    pub fn span(self) -> Span {
        match self {
            Self::Change(span) | Self::Spread(span) => span,
        }
    }
}

impl Predicate {
    /// The window that it looks through, if it has one. A checked document does not state two.
    pub fn over(&self) -> Option<Over> {
        self.change_in.map(Over::Change).or(self.spread_in.map(Over::Spread))
    }
}

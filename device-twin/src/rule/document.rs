//! The document, checked when it is read.

use std::collections::BTreeMap;

use bus::Value;
use bus::twin::DeviceId;
use serde::{Deserialize, Serialize};

use crate::arbiter::Slot;
use crate::model::{Document, FieldError, Span, Spec};

pub type Rule = Document<RuleSpec>;

/// Predicates and nested groups of one rule; bounds the work of one evaluation.
const MAX_PREDICATES: usize = 64;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleSpec {
    /// By the name that the cases use.
    pub inputs: BTreeMap<String, Input>,
    pub output: Output,
    /// What happens when a case cannot be told true or false. There is no default: it is a decision about safety.
    pub on_unknown: OnUnknown,
    pub cases: Vec<Case>,
}

/// One property, anywhere in the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Input {
    /// `<namespace>/<name>`, or a name in the rule's own namespace.
    pub device: String,
    pub property: String,
    #[serde(default)]
    pub from: From,
    /// Older readings are unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
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
    pub device: String,
    pub property: String,
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
    Value(Value),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    /// For people: it is the cause of the writes that follow.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Absent: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    pub then: Then,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum When {
    All(All),
    Any(Any),
    Not(Not),
    Is(Predicate),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct All {
    pub all: Vec<When>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Any {
    pub any: Vec<When>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Not {
    pub not: Box<When>,
}

/// `input op (value | than) + margin`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Predicate {
    pub input: String,
    pub op: Op,
    /// Compare with this,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// or with this input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub than: Option<String>,
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
    pub input: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minus: Option<Operand>,
    #[serde(default = "one")]
    pub gain: f64,
    #[serde(default)]
    pub offset: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Operand>,
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
    pub(super) fn predicates(&self) -> Vec<&Predicate> {
        let mut all = Vec::new();
        for case in &self.cases {
            if let Some(when) = &case.when {
                when.collect(&mut all);
            }
        }
        all
    }

    fn check_input(&self, field: &str, name: &str) -> Result<(), FieldError> {
        if self.inputs.contains_key(name) {
            return Ok(());
        }
        Err(FieldError::new(field, format!("'{name}' is none of the inputs")))
    }

    fn check_operand(&self, field: &str, operand: Option<&Operand>) -> Result<(), FieldError> {
        if let Some(Operand::Input(name)) = operand { self.check_input(field, name) } else { Ok(()) }
    }

    fn check_case(&self, at: usize, case: &Case) -> Result<(), FieldError> {
        let mut predicates = Vec::new();
        if let Some(when) = &case.when {
            when.collect(&mut predicates);
        }
        for predicate in predicates {
            self.check_predicate(&format!("spec.cases[{at}].when"), predicate)?;
        }
        let Then::Value(Expression::Linear(linear)) = &case.then else { return Ok(()) };
        let field = format!("spec.cases[{at}].then.value");
        self.check_input(&field, &linear.input)?;
        for operand in [&linear.minus, &linear.min, &linear.max] {
            self.check_operand(&field, operand.as_ref())?;
        }
        Ok(())
    }

    fn check_predicate(&self, field: &str, predicate: &Predicate) -> Result<(), FieldError> {
        let fail = |reason: &str| Err(FieldError::new(field, reason));
        self.check_input(field, &predicate.input)?;
        match (&predicate.value, &predicate.than) {
            (Some(_), None) => {}
            (None, Some(than)) => self.check_input(field, than)?,
            _ => return fail("give either 'value' or 'than'"),
        }
        if predicate.op == Op::Equal && (predicate.hysteresis != 0.0 || predicate.margin != 0.0) {
            return fail("'equal' has no margin and no hysteresis");
        }
        if predicate.hysteresis < 0.0 {
            return fail("a hysteresis is not negative");
        }
        let text = predicate.value.as_ref().is_some_and(|v| v.as_f64().is_none());
        if predicate.op != Op::Equal && text {
            return fail("only numbers can be above or below; texts can be equal");
        }
        Ok(())
    }
}

impl When {
    pub(super) fn collect<'a>(&'a self, into: &mut Vec<&'a Predicate>) {
        match self {
            Self::All(All { all: parts }) | Self::Any(Any { any: parts }) => {
                parts.iter().for_each(|part| part.collect(into));
            }
            Self::Not(Not { not }) => not.collect(into),
            Self::Is(predicate) => into.push(predicate),
        }
    }
}

impl Spec for RuleSpec {
    const API_VERSION: &'static str = "kubebus.io/v1alpha1";
    const KIND: &'static str = "Rule";

    fn check(&self) -> Result<(), FieldError> {
        if self.predicates().len() > MAX_PREDICATES {
            return Err(FieldError::new("spec.cases", format!("more than {MAX_PREDICATES} predicates")));
        }
        if self.output.ttl.0.is_zero() {
            return Err(FieldError::new("spec.output.ttl", "a decision must hold for some time"));
        }
        let place =
            self.inputs.iter().map(|(name, input)| (format!("spec.inputs.{name}.device"), &input.device));
        for (field, device) in place.chain([("spec.output.device".to_owned(), &self.output.device)]) {
            check_device(&field, device)?;
        }
        self.cases.iter().enumerate().try_for_each(|(at, case)| self.check_case(at, case))
    }
}

fn check_device(field: &str, text: &str) -> Result<(), FieldError> {
    text.parse::<DeviceId>().map(|_| ()).map_err(|why| FieldError::new(field, why.to_string()))
}

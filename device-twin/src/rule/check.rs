//! What a document's types cannot say.

use std::collections::BTreeSet;

use bus::twin::DeviceId;

use super::document::{Case, Expression, From, OnUnknown, Op, Operand, Predicate, RuleSpec, Then, When};
use crate::model::{FieldError, Spec};

/// Predicates of one rule; bounds the work of one evaluation.
const MAX_PREDICATES: usize = 64;

/// Predicates and groups of one case: three groups around each predicate, which nobody needs.
const MAX_PARTS: usize = 4 * MAX_PREDICATES;

/// Cases of one rule: one for each predicate.
const MAX_CASES: usize = MAX_PREDICATES;

/// Predicates over a span of one rule. Each keeps up to 4 KB of history, so that 200 rules full of them take 6 MB.
const MAX_WINDOWS: usize = 8;

impl Spec for RuleSpec {
    const API_VERSION: &'static str = "kubebus.io/v1alpha1";
    const KIND: &'static str = "Rule";

    fn check(&self) -> Result<(), FieldError> {
        self.check_size()?;
        if let Some(whose) = self.output.slot.reserved() {
            let reason = format!("{} is for {whose}; 10 is meant for rules", self.output.slot);
            return Err(FieldError::new("spec.output.slot", reason));
        }
        if self.output.ttl.0.is_zero() {
            return Err(FieldError::new("spec.output.ttl", "a decision must hold for some time"));
        }
        let place =
            self.inputs.iter().map(|(name, input)| (format!("spec.inputs.{name}.device"), &input.device));
        for (field, device) in place.chain([("spec.output.device".to_owned(), &self.output.device)]) {
            check_device(&field, device)?;
        }
        self.cases.iter().enumerate().try_for_each(|(at, case)| self.check_case(at, case))?;
        self.check_titles()
    }
}

fn check_device(field: &str, text: &str) -> Result<(), FieldError> {
    text.parse::<DeviceId>().map(|_| ()).map_err(|why| FieldError::new(field, why.to_string()))
}

impl RuleSpec {
    fn check_size(&self) -> Result<(), FieldError> {
        let predicates = self.predicates();
        let windows = predicates.iter().filter(|predicate| predicate.over().is_some()).count();
        for (count, limit, what) in [
            (self.cases.len(), MAX_CASES, "cases"),
            (predicates.len(), MAX_PREDICATES, "predicates"),
            (windows, MAX_WINDOWS, "predicates with changeIn or spreadIn"),
        ] {
            if count > limit {
                return Err(FieldError::new("spec.cases", format!("more than {limit} {what}")));
            }
        }
        Ok(())
    }

    fn check_case(&self, at: usize, case: &Case) -> Result<(), FieldError> {
        let field = format!("spec.cases[{at}]");
        if let Some(when) = &case.when {
            check_groups(&format!("{field}.when"), when, &mut 0)?;
        }
        for predicate in case.predicates() {
            self.check_predicate(&format!("{field}.when"), predicate)?;
        }
        check_latch(&field, case)?;
        if self.on_unknown == OnUnknown::Trip && case.when.is_some() && case.then == Then::Relinquish {
            let reason = "with 'onUnknown: trip' an unknown input would let go; give a value";
            return Err(FieldError::new(format!("{field}.then"), reason));
        }
        self.check_then(&format!("{field}.then.value"), &case.then)
    }

    fn check_then(&self, field: &str, then: &Then) -> Result<(), FieldError> {
        let Then::Value(Expression::Linear(linear)) = then else { return Ok(()) };
        self.check_input(field, &linear.input)?;
        for operand in [&linear.minus, &linear.min, &linear.max] {
            if let Some(Operand::Input(name)) = operand {
                self.check_input(field, name)?;
            }
        }
        Ok(())
    }

    fn check_input(&self, field: &str, name: &str) -> Result<(), FieldError> {
        if self.inputs.contains_key(name) {
            return Ok(());
        }
        Err(FieldError::new(field, format!("'{name}' is none of the inputs")))
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
        if text && (predicate.unit.is_some() || predicate.over().is_some()) {
            return fail("only numbers have a unit, a change and a spread");
        }
        self.check_window(field, predicate)
    }

    fn check_window(&self, field: &str, predicate: &Predicate) -> Result<(), FieldError> {
        let fail = |reason: &str| Err(FieldError::new(field, reason));
        let Some(over) = predicate.over() else { return Ok(()) };
        let input = self.inputs.get(&predicate.input);
        if predicate.change_in.is_some() && predicate.spread_in.is_some() {
            return fail("give either 'changeIn' or 'spreadIn'");
        }
        if over.span().0.is_zero() {
            return fail("a span is longer than nothing");
        }
        if input.is_none_or(|input| input.from == From::Desired || input.max_age.is_none()) {
            return fail(
                "'changeIn' and 'spreadIn' ask for a reported input with a 'maxAge', which says what a gap is",
            );
        }
        Ok(())
    }

    /// What is latched is known by its case's title.
    fn check_titles(&self) -> Result<(), FieldError> {
        let mut known = BTreeSet::new();
        for (at, case) in self.cases.iter().enumerate().filter(|(_, case)| case.latch) {
            if !known.insert(case.title(at)) {
                let reason = format!("two cases that latch are named '{}'", case.title(at));
                return Err(FieldError::new(format!("spec.cases[{at}].name"), reason));
            }
        }
        Ok(())
    }
}

fn check_latch(field: &str, case: &Case) -> Result<(), FieldError> {
    let is_constant = matches!(case.then, Then::Value(Expression::Constant(_)));
    match (case.latch, &case.when) {
        (true, None) => Err(FieldError::new(format!("{field}.latch"), "it would never open: give a 'when'")),
        (true, Some(_)) if !is_constant => {
            Err(FieldError::new(format!("{field}.then"), "a latch holds a value that does not change"))
        }
        _ => Ok(()),
    }
}

fn check_groups(field: &str, when: &When, parts: &mut usize) -> Result<(), FieldError> {
    *parts += 1;
    if *parts > MAX_PARTS {
        return Err(FieldError::new(field, format!("more than {MAX_PARTS} predicates and groups")));
    }
    if let When::AtLeast(vote) = when
        && !(1..=vote.of.len()).contains(&vote.at_least)
    {
        let reason =
            format!("'atLeast: {}' of {}: give a number from 1 to that", vote.at_least, vote.of.len());
        return Err(FieldError::new(field, reason));
    }
    when.parts().iter().try_for_each(|part| check_groups(field, part, parts))
}

//! A rule against the devices that it reads and moves, and against the other rules.

use std::collections::BTreeMap;

use bus::Value;
use bus::twin::DeviceId;

use super::circle::{self, Circle, driven};
use super::threshold::{self, Compared};
use super::units;
use crate::model::{Catalog, FieldError, Property};
use crate::rule::{Case, Expression, Linear, OnUnknown, Operand, Predicate, RuleSpec, Then, When};
use crate::twin::{PropertyId, explain};
use crate::unit::Unit;

/// Slots from here on are for what is wished; below it is for what protects, and protection must have somewhere to go.
const FIRST_WISH: u8 = 8;

/// Names that an error lists of what there is.
const LISTED: usize = 8;

/// What is wrong with a rule, seen from `catalog`, which may hold an older version of it. In the order of the document:
/// a property that a known device lacks, an output that cannot be written or has no fail-safe value where one is
/// needed, values that the output cannot hold, thresholds that decide nothing, units that do not go together, a slot
/// that another rule fills, and rules that move each other in a circle.
pub fn check_rule(id: &DeviceId, rule: &RuleSpec, catalog: &Catalog) -> Vec<FieldError> {
    let mut check = Check { id, rule, catalog, seen: BTreeMap::new(), errors: Vec::new() };
    check.inputs();
    let output = check.output();
    check.on_unknown(output.as_ref());
    for (at, case) in rule.cases.iter().enumerate() {
        check.case(at, case, output.as_ref());
    }
    check.slot();
    check.circle();
    check.errors
}

/// A property that the rule speaks of and that is known.
#[derive(Debug, Clone)]
struct Known<'a> {
    /// `water/tank level`.
    name: String,
    property: &'a Property,
    /// In which the rule sees its numbers.
    unit: Option<Unit>,
}

struct Check<'a> {
    id: &'a DeviceId,
    rule: &'a RuleSpec,
    catalog: &'a Catalog,
    /// The inputs that are known, by the rule's name for them.
    seen: BTreeMap<&'a str, Known<'a>>,
    errors: Vec<FieldError>,
}

impl<'a> Check<'a> {
    fn fail(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.errors.push(FieldError::new(field, reason));
    }

    /// `None`: not known yet, or wrong, which is noted under `field`.
    fn find(&mut self, field: &str, device: &str, property: &str) -> Option<Known<'a>> {
        let device = RuleSpec::device(self.id, device)?;
        let info = self.catalog.device(&device).filter(|_| self.catalog.has_model_of(&device))?;
        if let Some(found) = info.properties.get(property) {
            let name = format!("{device} {property}");
            return Some(Known { name, property: found, unit: found.ucum.clone() });
        }
        let all: Vec<&str> = info.properties.keys().map(|name| &**name).take(LISTED).collect();
        let why = info.problem.as_ref().map(|problem| format!(" ({problem})")).unwrap_or_default();
        let reason = format!("{device} has no property '{property}'{why}; it has {}", all.join(", "));
        self.fail(field, reason);
        None
    }

    fn inputs(&mut self) {
        let rule = self.rule;
        for (name, input) in &rule.inputs {
            let place = format!("spec.inputs.{name}");
            let Some(mut known) = self.find(&format!("{place}.property"), &input.device, &input.property)
            else {
                continue;
            };
            match units::seen(units::of_input(input), known.property) {
                Ok(unit) => known.unit = unit,
                Err(why) => self.fail(format!("{place}.unit"), format!("{}: {why}", known.name)),
            }
            self.seen.insert(name, known);
        }
    }

    fn output(&mut self) -> Option<Known<'a>> {
        let output = &self.rule.output;
        let known = self.find("spec.output.property", &output.device, &output.property)?;
        if !known.property.writable {
            self.fail("spec.output.property", format!("{} is read-only", known.name));
            return None;
        }
        let policy = &known.property.policy;
        if policy.actuator && policy.fail_safe.is_none() {
            self.lacks_fail_safe(&known.name);
        }
        Some(known)
    }

    fn lacks_fail_safe(&mut self, name: &str) {
        let missing = format!("{name} has no fail-safe value: state failSafe in its TwinPolicy");
        if u8::from(self.rule.output.slot) < FIRST_WISH {
            self.fail("spec.output.slot", format!("{} protects, and {missing}", self.rule.output.slot));
        }
        if self.rule.on_unknown == OnUnknown::FailSafe {
            self.fail("spec.onUnknown", missing);
        }
    }

    fn on_unknown(&mut self, output: Option<&Known<'_>>) {
        if let OnUnknown::Value(value) = &self.rule.on_unknown {
            self.constant("spec.onUnknown.value", value, output);
        }
    }

    fn constant(&mut self, field: &str, value: &Value, output: Option<&Known<'_>>) {
        let Some(output) = output else { return };
        if let Err(why) = output.property.check_desired(value.clone()) {
            self.fail(field, format!("{} cannot be set to this: {}", output.name, explain(&why)));
        }
    }

    fn case(&mut self, at: usize, case: &'a Case, output: Option<&Known<'_>>) {
        let place = format!("spec.cases[{at}]");
        if let Some(when) = &case.when {
            self.when(format!("{place}.when"), when);
        }
        let field = format!("{place}.then.value");
        match &case.then {
            Then::Value(Expression::Constant(value)) => self.constant(&field, value, output),
            Then::Value(Expression::Linear(linear)) => self.linear(&field, linear, output),
            Then::Hold | Then::Relinquish => {}
        }
    }

    fn when(&mut self, field: String, when: &When) {
        match when {
            When::All(group) => {
                group
                    .all
                    .iter()
                    .enumerate()
                    .for_each(|(at, part)| self.when(format!("{field}.all[{at}]"), part));
            }
            When::Any(group) => {
                group
                    .any
                    .iter()
                    .enumerate()
                    .for_each(|(at, part)| self.when(format!("{field}.any[{at}]"), part));
            }
            When::AtLeast(group) => {
                let parts = group.of.iter().enumerate();
                parts.for_each(|(at, part)| self.when(format!("{field}.of[{at}]"), part));
            }
            When::Not(group) => self.when(format!("{field}.not"), &group.not),
            When::Is(predicate) => self.predicate(&field, predicate),
        }
    }

    fn predicate(&mut self, field: &str, predicate: &Predicate) {
        let Some(input) = self.seen.get(predicate.input.as_str()).cloned() else { return };
        // A threshold that names no unit is counted as the rule sees the input.
        let own = self.rule.inputs.get(&predicate.input).and_then(units::of_input);
        let unit = units::of_threshold(predicate).or(own);
        if let Some(than) = &predicate.than {
            self.alike(field, &predicate.input, than);
        }
        if predicate.than.is_some() || !units::is_about_value(predicate) {
            // Of what is stated the unit alone can be judged.
            if let Err(why) = units::seen(unit, input.property) {
                self.fail(field, format!("{}: {why}", input.name));
            }
            return;
        }
        let compared = Compared { name: &input.name, property: input.property, unit };
        if let Some(reason) = threshold::fault(predicate, compared) {
            self.fail(field, reason);
        }
    }

    fn linear(&mut self, field: &str, linear: &Linear, output: Option<&Known<'_>>) {
        if let Some(Operand::Input(minus)) = &linear.minus {
            self.alike(field, &linear.input, minus);
        }
        for bound in [&linear.min, &linear.max].into_iter().flatten() {
            let (Operand::Input(bound), Some(output)) = (bound, output) else { continue };
            let Some(input) = self.seen.get(bound.as_str()) else { continue };
            let (input, output) =
                ((bound.as_str(), input.unit.as_ref()), (output.name.as_str(), output.unit.as_ref()));
            if let Some(reason) = units::mismatch(input, output) {
                self.fail(field, reason);
            }
        }
    }

    /// Two inputs that are compared or subtracted must be counted alike.
    fn alike(&mut self, field: &str, a: &str, b: &str) {
        let unit = |name: &str| self.seen.get(name).and_then(|known| known.unit.as_ref());
        if let Some(reason) = units::mismatch((a, unit(a)), (b, unit(b))) {
            self.fail(field, reason);
        }
    }

    /// A slot holds one decision: two rules in it would undo each other in turn.
    fn slot(&mut self) {
        let Some(mine) = driven(self.id, self.rule) else { return };
        let is_rival =
            |(id, rule): &(&DeviceId, &RuleSpec)| *id != self.id && driven(id, rule).as_ref() == Some(&mine);
        let Some((rival, _)) = self.catalog.rules().find(is_rival) else { return };
        let (PropertyId { device, property }, slot) = &mine;
        let reason = format!("rule {rival} fills {slot} of {device} {property} already: take another one");
        self.fail("spec.output.slot", reason);
    }

    fn circle(&mut self) {
        let Some(Circle { chain, input }) = circle::find((self.id, self.rule), self.catalog) else { return };
        let names: Vec<String> = chain.iter().map(ToString::to_string).collect();
        let reason = format!("these rules move each other in a circle: {}", names.join(" -> "));
        self.fail(format!("spec.inputs.{input}"), reason);
    }
}

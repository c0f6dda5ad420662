//! Rules that move each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bus::twin::DeviceId;

use crate::arbiter::Slot;
use crate::model::Catalog;
use crate::rule::{From, RuleSpec};
use crate::twin::PropertyId;

type Named<'a> = (&'a DeviceId, &'a RuleSpec);

/// A way from what a rule moves back to what it reads.
#[derive(Debug, PartialEq)]
pub(super) struct Circle<'a> {
    /// The rules on the way, this one first and last.
    pub(super) chain: Vec<&'a DeviceId>,
    /// By which the way comes back.
    pub(super) input: &'a str,
}

/// The shortest circle through `rule`, which is not in `catalog` or replaces what is there under its name.
///
/// Rules that move each other in a circle never come to rest, or stay where the first of them happened to push. A rule
/// that reads what it moves itself is a controller, and so are several on one property: its slots say which one counts.
pub(super) fn find<'a>((id, rule): Named<'a>, catalog: &'a Catalog) -> Option<Circle<'a>> {
    let readers = readers(catalog.rules().filter(|(other, _)| *other != id).chain([(id, rule)]));
    let mut met = BTreeSet::from([id]);
    let mut ways = VecDeque::from([(vec![id], driven(id, rule)?.0)]);
    while let Some((way, output)) = ways.pop_front() {
        for (next, spec, input) in readers.get(&output).into_iter().flatten() {
            let Some((moved, _)) = driven(next, spec).filter(|(moved, _)| *moved != output) else { continue };
            let chain: Vec<_> = way.iter().copied().chain([*next]).collect();
            if *next == id {
                return Some(Circle { chain, input });
            }
            if met.insert(next) {
                ways.push_back((chain, moved));
            }
        }
    }
    None
}

/// The rules that read each property, and by which input.
fn readers<'a>(
    rules: impl Iterator<Item = Named<'a>>,
) -> BTreeMap<PropertyId, Vec<(&'a DeviceId, &'a RuleSpec, &'a str)>> {
    let mut readers: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (id, rule) in rules {
        // What is desired no rule moves.
        for (name, input) in rule.inputs.iter().filter(|(_, input)| input.from == From::Reported) {
            let Some(device) = RuleSpec::device(id, &input.device) else { continue };
            let property = PropertyId::new(&device, &input.property);
            readers.entry(property).or_default().push((id, rule, name.as_str()));
        }
    }
    readers
}

/// What a rule moves, and through which slot.
pub(super) fn driven(id: &DeviceId, rule: &RuleSpec) -> Option<(PropertyId, Slot)> {
    let device = RuleSpec::device(id, &rule.output.device)?;
    Some((PropertyId::new(&device, &rule.output.property), rule.output.slot))
}

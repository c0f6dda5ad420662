//! Rules as the cloud knows them: what each does at its edge, and the units of what it reads from other sites.

use std::collections::{BTreeMap, BTreeSet};

use bus::Name;
use bus::twin::DeviceId;
use metadata::{Key, Keyspace};

use super::CloudTwins;
use crate::rule::{RuleSpec, RuleView};
use crate::twin::{self, PropertyId, key};

/// Where an edge finds the unit of a property of another site.
fn unit_key(edge: &Name, id: &PropertyId) -> Key {
    key(&format!("/e/{edge}/unit/"), id)
}

impl CloudTwins {
    pub(super) fn load_rules(&mut self, ks: &Keyspace) {
        for (key, bytes) in ks.range("/c/rule/") {
            let rule = key.as_str().strip_prefix("/c/rule/").and_then(|text| text.parse().ok());
            self.rules.extend(rule.zip(twin::decode(bytes)));
        }
    }

    /// Every rule that an edge told of, as it does now or did last.
    pub fn rule_views(&self) -> Vec<RuleView> {
        self.rules_told().cloned().collect()
    }

    /// The same, to choose from.
    pub fn rules_told(&self) -> impl Iterator<Item = &RuleView> {
        self.rules.values()
    }

    /// `None` if it is malformed.
    pub(super) fn rule_up(
        &mut self,
        edge: &Name,
        rest: &str,
        payload: &[u8],
        ks: &mut Keyspace,
    ) -> Option<()> {
        let rule = twin::parse_device(rest)?;
        let view: RuleView = twin::decode(payload)?;
        let device = self.catalog.rule(&rule).and_then(|spec| RuleSpec::device(&rule, &spec.output.device));
        if device.is_some_and(|device| self.speaks_for(edge, &device)) {
            ks.put(key("/c/rule/", &rule), twin::cbor(&view));
            self.rules.insert(rule, view);
        }
        Some(())
    }

    /// Forgets those of `rules` that are gone, and tells edges the units of what the others read elsewhere.
    pub(super) fn rules_changed(&mut self, rules: &BTreeSet<DeviceId>, ks: &mut Keyspace) {
        for rule in rules {
            if self.catalog.rule(rule).is_none() && self.rules.remove(rule).is_some() {
                ks.delete(&key("/c/rule/", rule));
            }
            let units = self.units_of(rule);
            let needed = units.keys().cloned().collect();
            for (edge, property) in self.units.set(rule, needed) {
                ks.delete(&unit_key(&edge, &property));
            }
            for ((edge, property), unit) in units {
                ks.put(unit_key(&edge, &property), unit.into());
            }
        }
    }

    /// Rows that no rule needs: once at the start.
    pub(super) fn remove_stray_units(&self, ks: &mut Keyspace) {
        let wanted: BTreeSet<Key> =
            self.units.rules.keys().map(|(edge, property)| unit_key(edge, property)).collect();
        let known = ks.range("/e/").map(|(key, _)| key).filter(|key| is_unit(key.as_str()));
        let stray: Vec<Key> = known.filter(|key| !wanted.contains(*key)).cloned().collect();
        stray.iter().for_each(|key| ks.delete(key));
    }

    /// What the rule's edge must be told.
    fn units_of(&self, rule: &DeviceId) -> BTreeMap<Need, String> {
        let mut units = BTreeMap::new();
        let node = |device: &DeviceId| self.catalog.device(device)?.node.as_ref();
        let Some(spec) = self.catalog.rule(rule) else { return units };
        let output = RuleSpec::device(rule, &spec.output.device);
        let Some(edge) = output.as_ref().and_then(node) else { return units };
        for input in spec.inputs.values() {
            let Some(device) = RuleSpec::device(rule, &input.device) else { continue };
            let unit = self.catalog.property(&device, &input.property).ok().and_then(|p| p.unit.clone());
            if let Some(unit) = unit.filter(|_| node(&device) != Some(edge)) {
                units.insert((edge.clone(), PropertyId::new(&device, &input.property)), unit);
            }
        }
        units
    }
}

/// An edge, and a property of another site of which it needs the unit.
type Need = (Name, PropertyId);

/// The units that edges are told, and for which rules.
#[derive(Debug, Default)]
pub(super) struct Units {
    needs: BTreeMap<DeviceId, BTreeSet<Need>>,
    rules: BTreeMap<Need, BTreeSet<DeviceId>>,
}

impl Units {
    /// The rule needs these from here on; what nobody needs any more.
    fn set(&mut self, rule: &DeviceId, needs: BTreeSet<Need>) -> Vec<Need> {
        for need in &needs {
            self.rules.entry(need.clone()).or_default().insert(rule.clone());
        }
        let before = if needs.is_empty() {
            self.needs.remove(rule)
        } else {
            self.needs.insert(rule.clone(), needs.clone())
        };
        let mut left: Vec<Need> = before.unwrap_or_default().difference(&needs).cloned().collect();
        left.retain(|need| self.leave(rule, need));
        left
    }

    /// True if it was the last one.
    fn leave(&mut self, rule: &DeviceId, need: &Need) -> bool {
        let Some(rules) = self.rules.get_mut(need) else { return true };
        rules.remove(rule);
        if rules.is_empty() {
            self.rules.remove(need);
            return true;
        }
        false
    }
}

/// `/e/<edge>/unit/..`.
fn is_unit(key: &str) -> bool {
    key.splitn(4, '/').nth(3).is_some_and(|rest| rest.starts_with("unit/"))
}

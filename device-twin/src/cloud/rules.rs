//! Rules as the cloud knows them: what each does at its edge, and the units of what it reads from other sites.

use std::collections::BTreeMap;

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

    /// Forgets rules that are gone, and tells edges the units of what their rules read elsewhere.
    pub(super) fn rules_changed(&mut self, ks: &mut Keyspace) {
        let gone: Vec<DeviceId> =
            self.rules.keys().filter(|rule| self.catalog.rule(rule).is_none()).cloned().collect();
        for rule in gone {
            ks.delete(&key("/c/rule/", &rule));
            self.rules.remove(&rule);
        }
        let wanted = self.units();
        let known = ks.range("/e/").filter(|(key, _)| is_unit(key.as_str())).map(|(key, _)| key.clone());
        let stray: Vec<Key> = known.filter(|key| !wanted.contains_key(key)).collect();
        stray.iter().for_each(|key| ks.delete(key));
        for (key, unit) in wanted {
            ks.put(key, unit.into());
        }
    }

    /// By their place in the edges' keyspaces.
    fn units(&self) -> BTreeMap<Key, String> {
        let mut units = BTreeMap::new();
        let node = |device: &DeviceId| self.catalog.device(device)?.node.as_ref();
        for (rule, spec) in self.catalog.rules() {
            let output = RuleSpec::device(rule, &spec.output.device);
            let Some(edge) = output.as_ref().and_then(node) else { continue };
            for input in spec.inputs.values() {
                let Some(device) = RuleSpec::device(rule, &input.device) else { continue };
                let unit = self.catalog.property(&device, &input.property).ok().and_then(|p| p.unit.clone());
                if let Some(unit) = unit.filter(|_| node(&device) != Some(edge)) {
                    units.insert(unit_key(edge, &PropertyId::new(&device, &input.property)), unit);
                }
            }
        }
        units
    }
}

/// `/e/<edge>/unit/..`.
fn is_unit(key: &str) -> bool {
    key.splitn(4, '/').nth(3).is_some_and(|rest| rest.starts_with("unit/"))
}

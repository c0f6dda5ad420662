//! What a manifest alone cannot show: whether it fits to the others that are there.
//!
//! A document is held against what is known. What is not known yet is no error, since manifests come in any order: it
//! is looked at when the other document comes, and that one is refused if it would break a rule that is there.

mod change;
mod circle;
mod rule;
mod threshold;
mod units;

pub use rule::check_rule;

use bus::twin::DeviceId;
use bytes::Bytes;

use super::{Catalog, Document, FieldError, Kind, TwinPolicySpec};
use crate::rule::RuleSpec;

/// Errors that are told at once: more than a person mends in one go. A model under thousands of rules may break them
/// all; what is left out is told when these are mended.
const MAX_ERRORS: usize = 32;

/// What is wrong with a manifest, seen from those in `catalog`, of which it may be a new version. Empty: all is well,
/// or the manifest cannot be read, which [`Document::from_json`] says better.
pub fn check(kind: Kind, id: &DeviceId, json: &Bytes, catalog: &Catalog) -> Vec<FieldError> {
    let mut errors = match kind {
        Kind::Rule => {
            let rule = Document::<RuleSpec>::from_json(json);
            rule.map(|rule| check_rule(id, &rule.spec, catalog)).unwrap_or_default()
        }
        Kind::Policy => {
            let policy = Document::<TwinPolicySpec>::from_json(json);
            policy.map(|policy| change::check_policy(id, &policy.spec, catalog)).unwrap_or_default()
        }
        Kind::Model => {
            let model = Document::from_json(json);
            model.map(|model| change::check_model(id, &model.spec, catalog)).unwrap_or_default()
        }
        Kind::Device => Vec::new(),
    };
    if kind != Kind::Rule {
        errors.extend(change::broken_rules(kind, id, json, catalog));
    }
    errors.truncate(MAX_ERRORS);
    errors
}

#[cfg(test)]
mod tests;

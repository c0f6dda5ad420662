//! What several modules' tests start from.

use bus::ValueType;
use bus::twin::{Json, PropertyConfig};

/// A writable float, read each second.
pub(crate) fn property(name: &str) -> PropertyConfig {
    PropertyConfig {
        name: name.into(),
        value_type: ValueType::Float,
        writable: true,
        address: Json::Text(name.into()),
        poll_ms: 1000,
        minimum: None,
        maximum: None,
        unit: None,
        deadband: None,
        max_age_ms: None,
    }
}

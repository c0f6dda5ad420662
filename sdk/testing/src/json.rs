//! Between the JSON of vendors and that of the contract.

use serde_json::Value as Json;

pub(crate) fn to_bus(json: &Json) -> bus::twin::Json {
    serde_json::from_value(json.clone()).unwrap_or_default()
}

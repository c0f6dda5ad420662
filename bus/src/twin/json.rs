//! JSON whose meaning is the mapper's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Any JSON value, objects ordered by key: a type of its own, so that the bus needs no JSON parser.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Json {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Self>),
    Object(BTreeMap<String, Self>),
}

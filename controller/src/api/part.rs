//! The parts of a device by which it is steered: its subresources `desired`, `commands` and `authority`.
//!
//! | part | read | written |
//! |---|---|---|
//! | `desired` | the desired values, by property, with version, author and outcome | put or patched: wishes |
//! | `commands` | the commands that are remembered, and their ends | posted: one more |
//! | `authority` | who has the say: the cloud, or the device's edge | put or patched: it moves |
//!
//! They are orders and no objects: nothing of them lies in the device's manifest, and what is written is answered by what is
//! in force then.

pub mod authority;
pub mod commands;
pub mod desired;
pub mod table;

use std::fmt;

use serde_json::{Value, json};

use super::refusal::Cause;
use super::{Id, Kind, Refusal, Verb};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Desired,
    Commands,
    Authority,
}

impl Part {
    pub const ALL: [Self; 3] = [Self::Desired, Self::Commands, Self::Authority];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Desired => "desired",
            Self::Commands => "commands",
            Self::Authority => "authority",
        }
    }

    /// What kind of object it is made of.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Desired => "DeviceDesired",
            Self::Commands => "DeviceCommand",
            Self::Authority => "DeviceAuthority",
        }
    }

    pub fn verbs(self) -> &'static [Verb] {
        match self {
            Self::Desired | Self::Authority => &[Verb::Get, Verb::Patch, Verb::Update],
            Self::Commands => &[Verb::Create, Verb::Get],
        }
    }

    pub(super) fn verb_names(self) -> Vec<&'static str> {
        self.verbs().iter().map(|verb| verb.as_str()).collect()
    }

    /// The part of that name, where the kind has it.
    pub fn of(kind: Kind, name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| kind == Kind::Device && part.as_str() == name)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The head of such an object.
fn head(part: Part, id: &Id, name: &str) -> Value {
    let mut object = json!({
        "apiVersion": Kind::Device.api_version(), "kind": part.kind(), "metadata": { "name": name },
    });
    if let Some(namespace) = id.namespace() {
        object["metadata"]["namespace"] = namespace.into();
    }
    object
}

/// One field that is wrong.
fn wrong(part: Part, id: &Id, field: impl Into<String>, why: impl fmt::Display) -> Refusal {
    let causes = vec![Cause::invalid(field, format!("Invalid value: {why}"))];
    Refusal::invalid(Kind::Device.info().group, part.kind(), id.name(), causes)
}

/// What was sent must be about this device, if it says what it is about: its own kind, or the device's, as
/// `kubectl replace --subresource` sends it.
fn check_head(part: Part, id: &Id, body: &Value) -> Result<(), Refusal> {
    if !body.is_object() {
        return Err(Refusal::bad_request("the body is no object"));
    }
    let given = |value: &Value, known: &[&str]| value.as_str().is_none_or(|given| known.contains(&given));
    for (field, value, known) in [
        ("apiVersion", &body["apiVersion"], &[&*Kind::Device.api_version()][..]),
        ("kind", &body["kind"], &[part.kind(), Kind::Device.info().kind][..]),
        ("metadata.namespace", &body["metadata"]["namespace"], &[id.namespace().unwrap_or_default(), ""][..]),
    ] {
        if !given(value, known) {
            return Err(wrong(part, id, field, format!("this is {}", known[0])));
        }
    }
    Ok(())
}

//! An object as the owner loop hands it out: bytes and revisions, decoded by whoever shows it.

use std::fmt;
use std::sync::Arc;

use bus::Name;
use bus::twin::DeviceId;
use bytes::Bytes;
use device_twin::TwinView;
use metadata::Revision;
use serde_json::Value;

use super::Layout;

/// What an object is called in its kind: `<namespace>/<name>`, or `<name>` where the kind has no namespaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(Arc<str>);

impl Id {
    pub fn new(namespace: Option<&str>, name: &str) -> Self {
        Self(match namespace {
            Some(namespace) => format!("{namespace}/{name}").into(),
            None => name.into(),
        })
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn namespace(&self) -> Option<&str> {
        self.0.split_once('/').map(|(namespace, _)| namespace)
    }

    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(_, name)| name)
    }

    /// As manifests and devices are called.
    pub fn device(&self) -> Option<DeviceId> {
        self.0.parse().ok()
    }

    /// Where its name is one of ours.
    pub fn checked_name(&self) -> Option<Name> {
        Name::new(self.name()).ok()
    }
}

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<&DeviceId> for Id {
    fn from(id: &DeviceId) -> Self {
        Self(id.to_string().into())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which objects of a kind, as far as their names tell: others are not even handed out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// `None`: of all.
    pub namespace: Option<String>,
    pub name: Option<String>,
}

impl Scope {
    pub fn has(&self, id: &Id) -> bool {
        let is =
            |wanted: &Option<String>, given: Option<&str>| wanted.is_none() || wanted.as_deref() == given;
        is(&self.namespace, id.namespace()) && is(&self.name, Some(id.name()))
    }
}

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub id: Id,
    /// What is shown as its resourceVersion.
    pub revision: Revision,
    pub content: Content,
}

/// Bytes of one without its content.
const BARE: usize = 256;

/// Bytes of a view without what is in its values: a structure of some 500, and short texts.
const VIEW: usize = 768;

impl Item {
    /// About how many bytes of memory it takes, so that who keeps many knows when to stop.
    pub fn weight(&self) -> usize {
        let content = match &self.content {
            Content::Manifest { json, meta, twins, .. } => {
                let meta = meta.as_ref().map_or(0, Bytes::len);
                json.len() + meta + twins.iter().map(view_weight).sum::<usize>()
            }
            // Decoded, JSON takes about four times as much.
            Content::Made(value) => 4 * super::size::len(value),
            Content::Last(json) => json.len(),
        };
        BARE + self.id.as_str().len() + content
    }
}

fn view_weight(view: &TwinView) -> usize {
    let reported = view.reported.as_ref().map(|sample| &sample.value);
    VIEW + view
        .desired
        .iter()
        .chain(reported)
        .chain(view.values.iter().flatten())
        .map(value_weight)
        .sum::<usize>()
}

fn value_weight(value: &bus::Value) -> usize {
    match value {
        bus::Value::Bool(_) | bus::Value::Int(_) | bus::Value::Float(_) => 0,
        bus::Value::Text(text) => text.len(),
        bus::Value::Struct(fields) => {
            fields.iter().map(|(name, value)| 64 + name.len() + value_weight(value)).sum()
        }
    }
}

/// What it is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Manifest {
        json: Bytes,
        /// What of its metadata stays at the cloud: [`super::object::Meta`].
        meta: Option<Bytes>,
        /// Of a device.
        twins: Vec<TwinView>,
        /// Where it is in force, or what it waits for.
        placement: Option<String>,
        /// Of which kind of node. An edge shows as `desired` of a device what is in force: it may have wished otherwise
        /// since the manifest was written, and never writes that.
        layout: Layout,
    },
    /// Whole already.
    Made(Value),
    /// What it was before it went, as JSON.
    Last(Bytes),
}

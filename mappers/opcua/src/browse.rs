//! What a server has below its Objects folder, as one device.

use std::collections::{BTreeMap, HashSet};

use kubebus_sdk::{Error, Found, FoundProperty, ValueType};
use opcua::types::{
    AccessLevelExType, AttributeId, BrowseDescription, BrowseDirection, BrowseResult, BrowseResultMask,
    DataValue, NodeClass, NodeClassMask, NodeId, ObjectId, ReadValueId, ReferenceDescription,
    ReferenceTypeId, Variant, VariantScalarTypeId as Type,
};

use crate::config::Config;
use crate::link::Link;
use crate::read::{Server, read};
use crate::status;
use crate::write::built_in;

/// Folders within folders that are looked into.
const MAX_DEPTH: usize = 8;
/// Variables that are told; a server with more is one for whom somebody chooses.
const MAX_VARIABLES: usize = 1000;
/// Nodes that are looked at, so that a server full of references to itself comes to an end.
const MAX_NODES: usize = 20_000;
/// References that are asked for at once.
const REFERENCES: u32 = 1000;
/// Attributes that say what a variable is.
const ATTRIBUTES: [AttributeId; 4] =
    [AttributeId::DataType, AttributeId::ValueRank, AttributeId::UserAccessLevel, AttributeId::Value];

/// A variable and the names on the way to it.
struct Variable {
    node: NodeId,
    path: String,
}

/// The server as a device, with its variables that a property can be.
pub(crate) async fn device(link: &Link, server: &Server, config: &Config) -> Result<Found, Error> {
    let variables = variables(link, server).await?;
    let mut properties = BTreeMap::new();
    for portion in variables.chunks((server.nodes_per_read / ATTRIBUTES.len()).max(1)) {
        let wanted = portion.iter().flat_map(|v| ATTRIBUTES.map(|a| ReadValueId::new(v.node.clone(), a)));
        let answers = read(link, wanted.collect()).await?;
        for (variable, attributes) in portion.iter().zip(answers.chunks(ATTRIBUTES.len())) {
            if let Some(property) = property(variable, attributes) {
                insert(&mut properties, property);
            }
        }
    }
    let application = &link.endpoint.server;
    let name = application.application_name.text.as_ref();
    let connection = serde_json::to_value(config).map_err(|e| Error::Bug(e.to_string()))?;
    Ok(Found {
        name: device_name(name),
        about: format!("{name} ({})", application.application_uri),
        connection,
        properties: properties.into_values().collect(),
    })
}

/// Two of one name: the second and the next get a number.
fn insert(properties: &mut BTreeMap<String, FoundProperty>, mut property: FoundProperty) {
    let name = property.name.clone();
    let mut number = 2;
    while properties.contains_key(&property.name) {
        property.name = format!("{name}-{number}");
        number += 1;
    }
    properties.insert(property.name.clone(), property);
}

/// Level by level from Objects down, without what the standard itself puts there (namespace 0: the server's own state).
async fn variables(link: &Link, server: &Server) -> Result<Vec<Variable>, Error> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let mut level = vec![Variable { node: ObjectId::ObjectsFolder.into(), path: String::new() }];
    for _ in 0..MAX_DEPTH {
        let mut next = Vec::new();
        for parents in level.chunks(server.nodes_per_browse) {
            for (parent, references) in parents.iter().zip(children(link, parents).await?) {
                for reference in references {
                    let node = reference.node_id.node_id.clone();
                    let elsewhere =
                        reference.node_id.server_index != 0 || !reference.node_id.namespace_uri.is_null();
                    if elsewhere
                        || node.namespace == 0
                        || seen.len() >= MAX_NODES
                        || !seen.insert(node.clone())
                    {
                        continue;
                    }
                    let path = join(&parent.path, reference.browse_name.name.as_ref());
                    if reference.node_class == NodeClass::Variable {
                        found.push(Variable { node, path });
                        if found.len() == MAX_VARIABLES {
                            return Ok(found);
                        }
                    } else {
                        next.push(Variable { node, path });
                    }
                }
            }
        }
        level = next;
    }
    Ok(found)
}

/// What hangs below each of these nodes. A node that cannot be looked into has nothing below it.
async fn children(link: &Link, parents: &[Variable]) -> Result<Vec<Vec<ReferenceDescription>>, Error> {
    let questions: Vec<_> = parents.iter().map(|parent| question(&parent.node)).collect();
    let answers = link.session.browse(&questions, REFERENCES, None).await.map_err(|e| status::call(&e))?;
    if answers.len() != parents.len() {
        return Err(Error::transient(format!(
            "browsed {} nodes, the server answered {}",
            parents.len(),
            answers.len()
        )));
    }
    let mut all = Vec::with_capacity(answers.len());
    for answer in answers {
        all.push(complete(link, answer).await?);
    }
    Ok(all)
}

async fn complete(link: &Link, answer: BrowseResult) -> Result<Vec<ReferenceDescription>, Error> {
    let mut references = answer.references.unwrap_or_default();
    let mut more = answer.continuation_point;
    while !more.is_null_or_empty() {
        let enough = references.len() >= MAX_NODES;
        let next = link.session.browse_next(enough, &[more]).await.map_err(|e| status::call(&e))?;
        let Some(next) = next.into_iter().next().filter(|_| !enough) else { break };
        references.extend(next.references.unwrap_or_default());
        more = next.continuation_point;
    }
    Ok(references)
}

fn question(node: &NodeId) -> BrowseDescription {
    BrowseDescription {
        node_id: node.clone(),
        browse_direction: BrowseDirection::Forward,
        reference_type_id: ReferenceTypeId::HierarchicalReferences.into(),
        include_subtypes: true,
        node_class_mask: (NodeClassMask::OBJECT | NodeClassMask::VARIABLE).bits(),
        result_mask: BrowseResultMask::All as u32,
    }
}

/// `None` for what no property can be: arrays, structures, what may not be read.
fn property(variable: &Variable, attributes: &[DataValue]) -> Option<FoundProperty> {
    let [kind, rank, access, value] = attributes else { return None };
    if matches!(rank.value, Some(Variant::Int32(rank)) if rank >= 0) {
        return None;
    }
    let access = match access.value {
        Some(Variant::Byte(bits)) => AccessLevelExType::from_bits_truncate(bits.into()),
        _ => AccessLevelExType::CurrentRead,
    };
    if !access.contains(AccessLevelExType::CurrentRead) {
        return None;
    }
    let declared = kind.value.as_ref().and_then(built_in);
    let kind = declared.or_else(|| value.value.as_ref().and_then(Variant::scalar_type_id))?;
    Some(FoundProperty {
        name: variable.path.clone(),
        value_type: value_type(kind)?,
        writable: access.contains(AccessLevelExType::CurrentWrite),
        address: serde_json::json!({ "nodeID": variable.node.to_string() }),
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "there are dozens, and these are ours")]
fn value_type(kind: Type) -> Option<ValueType> {
    match kind {
        Type::Boolean => Some(ValueType::Bool),
        Type::SByte
        | Type::Byte
        | Type::Int16
        | Type::UInt16
        | Type::Int32
        | Type::UInt32
        | Type::Int64
        | Type::UInt64 => Some(ValueType::Int),
        Type::Float | Type::Double => Some(ValueType::Float),
        Type::String | Type::DateTime | Type::Guid | Type::LocalizedText => Some(ValueType::String),
        Type::ByteString => Some(ValueType::Bytes),
        _ => None,
    }
}

/// `Line1.Pressure`; what is neither letter nor digit becomes `-`.
fn join(parent: &str, name: &str) -> String {
    let clean: String =
        name.chars().take(64).map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    if parent.is_empty() { clean } else { format!("{parent}.{clean}") }
}

fn device_name(application: &str) -> String {
    let lower = application
        .chars()
        .take(40)
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    let name: String = lower.collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "opcua-server".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_such_as_a_device_may_have() {
        assert_eq!(device_name("ACME Press #7 "), "acme-press--7");
        assert_eq!(device_name("Ω"), "opcua-server");
        assert_eq!(join("Line1", "Öl druck"), "Line1.-l-druck");
    }
}

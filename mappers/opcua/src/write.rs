//! Writing one value in the type that its node has.

use std::collections::HashMap;

use kubebus_sdk::{Error, Value, WriteOutcome, WritePermit};
use opcua::client::{UARequest, services};
use opcua::types::{
    AttributeId, DataTypeId, DataValue, NodeId, ReadValueId, StatusCode, Variant,
    VariantScalarTypeId as Type, WriteValue,
};

use crate::link::Link;
use crate::read::read;
use crate::status;
use crate::value::to_variant;

/// The types of the nodes that were written to in this session.
#[derive(Default)]
pub(crate) struct Types(HashMap<NodeId, Type>);

impl Types {
    /// Asked of the server before the first write.
    async fn of(&mut self, node: &NodeId, link: &Link) -> Result<Type, Error> {
        if let Some(kind) = self.0.get(node) {
            return Ok(*kind);
        }
        let kind = ask(node, link).await?;
        self.0.insert(node.clone(), kind);
        Ok(kind)
    }
}

/// The node's declared type if it is one of the built-in ones, else that of its present value: an enumeration is an Int32, a
/// vendor's own number is whatever it is.
async fn ask(node: &NodeId, link: &Link) -> Result<Type, Error> {
    let attributes = [AttributeId::DataType, AttributeId::ValueRank, AttributeId::Value];
    let wanted = attributes.map(|attribute| ReadValueId::new(node.clone(), attribute));
    let answers = read(link, wanted.to_vec()).await?;
    let [kind, rank, value] = answers.as_slice() else {
        return Err(Error::Bug("three attributes were asked for".to_owned()));
    };
    if kind.status().is_bad() {
        return Err(Error::Unsupported(format!("writing {node}: {}", kind.status())));
    }
    let is_array = matches!(rank.value, Some(Variant::Int32(rank)) if rank >= 0)
        || matches!(value.value, Some(Variant::Array(_)));
    if is_array {
        return Err(Error::Unsupported(format!("writing {node}: it is an array")));
    }
    let declared = kind.value.as_ref().and_then(built_in);
    declared.or_else(|| value.value.as_ref().and_then(Variant::scalar_type_id)).ok_or_else(|| {
        Error::Unsupported(format!(
            "writing {node}: its type is none of ours and it has no value to copy the type of"
        ))
    })
}

/// The built-in types that we write (OPC 10000-6 §5.1.2).
#[expect(clippy::wildcard_enum_match_arm, reason = "there are dozens, and these are ours")]
pub(crate) fn built_in(kind: &Variant) -> Option<Type> {
    let Variant::NodeId(kind) = kind else { return None };
    Some(match kind.as_data_type_id().ok()? {
        DataTypeId::Boolean => Type::Boolean,
        DataTypeId::SByte => Type::SByte,
        DataTypeId::Byte => Type::Byte,
        DataTypeId::Int16 => Type::Int16,
        DataTypeId::UInt16 => Type::UInt16,
        DataTypeId::Int32 | DataTypeId::Enumeration => Type::Int32,
        DataTypeId::UInt32 => Type::UInt32,
        DataTypeId::Int64 => Type::Int64,
        DataTypeId::UInt64 => Type::UInt64,
        DataTypeId::Float => Type::Float,
        DataTypeId::Double | DataTypeId::Duration => Type::Double,
        DataTypeId::String => Type::String,
        DataTypeId::DateTime | DataTypeId::UtcTime => Type::DateTime,
        DataTypeId::Guid => Type::Guid,
        DataTypeId::ByteString => Type::ByteString,
        DataTypeId::LocalizedText => Type::LocalizedText,
        _ => return None,
    })
}

/// Asks what there is to ask, then looks at the permit, then writes, once.
pub(crate) async fn write(
    link: &Link,
    types: &mut Types,
    node: &NodeId,
    value: &Value,
    permit: WritePermit,
) -> Result<WriteOutcome, Error> {
    let kind = types.of(node, link).await?;
    let variant = to_variant(value, kind).map_err(Error::Unsupported)?;
    if link.keys_are_old() {
        // The library renews them before it sends anything: not between permit and write.
        ask(node, link).await?;
    }
    // Without times and status: many servers refuse those.
    let value = WriteValue {
        node_id: node.clone(),
        attribute_id: AttributeId::Value as u32,
        value: DataValue { value: Some(variant), ..DataValue::default() },
        ..WriteValue::default()
    };
    // A server that comes to it later than this need not begin (OPC 10000-4 §7.32, timeoutHint).
    let request = services::Write::new(&link.session).node(value).timeout(permit.left().min(link.timeout));
    let consumed = permit.consume()?;
    let answer = request.send(link.session.channel()).await.map_err(|error| status::call(&error))?;
    match answer.results.as_deref() {
        Some([StatusCode::GoodCompletesAsynchronously]) => Ok(consumed.accepted()),
        Some([status]) if status.is_bad() => Err(status::write(&node.to_string(), *status)),
        Some([_]) => Ok(consumed.applied()),
        _ => Err(Error::transient(format!("the server's answer to the write of {node} has no status"))),
    }
}

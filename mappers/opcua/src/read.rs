//! The Read service, in portions that the server takes.

use opcua::types::{DataValue, NamespaceMap, NodeId, ReadValueId, TimestampsToReturn, VariableId, Variant};

use kubebus_sdk::Error;

use crate::link::Link;
use crate::status;

/// What a server is asked at once if it names no limit.
const DEFAULT_LIMIT: usize = 1000;

/// What a server says of itself.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) namespaces: NamespaceMap,
    pub(crate) nodes_per_read: usize,
    pub(crate) nodes_per_browse: usize,
    pub(crate) items_per_call: usize,
}

impl Server {
    pub(crate) async fn ask(link: &Link) -> Result<Self, Error> {
        let wanted = [
            VariableId::Server_NamespaceArray,
            VariableId::Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
            VariableId::Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse,
            VariableId::Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
        ];
        let nodes = wanted.iter().map(|node| ReadValueId::new_value(NodeId::from(node))).collect();
        let answers = read(link, nodes).await?;
        let limit = |i: usize| match answers.get(i).and_then(|answer| answer.value.as_ref()) {
            Some(Variant::UInt32(limit)) if *limit > 0 => {
                usize::try_from(*limit).unwrap_or(DEFAULT_LIMIT).min(DEFAULT_LIMIT)
            }
            _ => DEFAULT_LIMIT,
        };
        let namespaces = match answers.first().and_then(|answer| answer.value.as_ref()) {
            Some(Variant::Array(names)) => NamespaceMap::new_from_variant_array(&names.values).ok(),
            _ => None,
        };
        Ok(Self {
            namespaces: namespaces.unwrap_or_default(),
            nodes_per_read: limit(1),
            nodes_per_browse: limit(2),
            items_per_call: limit(3),
        })
    }
}

/// One call. As many answers as questions, in their order, from the device itself and not from the server's memory.
pub(crate) async fn read(link: &Link, nodes: Vec<ReadValueId>) -> Result<Vec<DataValue>, Error> {
    let answers = link.session.read(&nodes, TimestampsToReturn::Source, 0.0).await;
    let answers = answers.map_err(|error| status::call(&error))?;
    if answers.len() != nodes.len() {
        return Err(Error::transient(format!(
            "asked for {} values, the server sent {}",
            nodes.len(),
            answers.len()
        )));
    }
    Ok(answers)
}

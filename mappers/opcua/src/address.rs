//! Which node of the server a property is.

use std::str::FromStr;

use kubebus_sdk::JsonSchema;
use opcua::types::{NamespaceMap, NodeId};
use serde::Deserialize;
use thiserror::Error;

/// `{"nodeID": "ns=2;s=Line1.Pressure"}`; `node` is the same.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
pub struct Address {
    /// OPC 10000-6 §5.3.1.10: `ns=2;s=Line1.Pressure`, `ns=2;i=1005`, or with the namespace's name, which stays when a server
    /// numbers its namespaces anew: `nsu=urn:acme:press;s=Line1.Pressure`.
    #[serde(rename = "nodeID", alias = "node", alias = "nodeId")]
    #[schemars(with = "String", example = "ns=2;s=Line1.Pressure")]
    pub node: Node,
}

/// A node's name, by the namespace's index or URI.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Node {
    namespace_uri: Option<String>,
    id: NodeId,
}

/// What is no node's name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is no node id: it looks like ns=2;s=Line1.Pressure or ns=2;i=1005")]
pub struct InvalidNode(String);

impl Node {
    /// The node's id on a server with these namespaces; `None` if it has no such namespace.
    pub(crate) fn on(&self, namespaces: &NamespaceMap) -> Option<NodeId> {
        let namespace = match &self.namespace_uri {
            Some(uri) => namespaces.get_index(uri)?,
            None => self.id.namespace,
        };
        Some(NodeId { namespace, identifier: self.id.identifier.clone() })
    }

    /// For errors: what is missing where [`Self::on`] says `None`.
    pub(crate) fn namespace_uri(&self) -> &str {
        self.namespace_uri.as_deref().unwrap_or_default()
    }
}

impl FromStr for Node {
    type Err = InvalidNode;

    fn from_str(text: &str) -> Result<Self, InvalidNode> {
        let invalid = || InvalidNode(text.chars().take(80).collect());
        let (namespace_uri, id) = match text.strip_prefix("nsu=") {
            Some(rest) => {
                let (uri, id) =
                    rest.split_once(';').filter(|(uri, _)| !uri.is_empty()).ok_or_else(invalid)?;
                // `;` and `%` are escaped in it.
                (Some(uri.replace("%3B", ";").replace("%3b", ";").replace("%25", "%")), id)
            }
            None => (None, text),
        };
        let id = NodeId::from_str(id).map_err(|_| invalid())?;
        if namespace_uri.is_some() && id.namespace != 0 {
            return Err(invalid());
        }
        Ok(Self { namespace_uri, id })
    }
}

impl TryFrom<String> for Node {
    type Error = InvalidNode;

    fn try_from(text: String) -> Result<Self, InvalidNode> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(json: &str) -> Result<Address, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn kubeedges_key_and_ours_name_the_same_node() {
        let node = "ns=2;s=Line1.Pressure".parse().unwrap();
        for json in [r#"{"nodeID":"ns=2;s=Line1.Pressure"}"#, r#"{"node":"ns=2;s=Line1.Pressure"}"#] {
            assert_eq!(address(json), Ok(Address { node: Node::clone(&node) }));
        }
    }

    #[test]
    fn what_is_no_node_is_refused_with_an_example() {
        for bad in
            ["", "Pressure", "ns=2", "ns=70000;i=1", "ns=1,i=1005", "ns=1;i=-1", "nsu=;i=1", "nsu=a;ns=1;i=1"]
        {
            let error = address(&format!(r#"{{"node":"{bad}"}}"#)).unwrap_err();
            assert!(error.contains("looks like ns=2;s=Line1.Pressure"), "{bad}: {error}");
        }
        assert!(address("{}").unwrap_err().contains("nodeID"));
    }

    #[test]
    fn a_namespaces_name_is_looked_up_on_the_server() {
        let mut namespaces = NamespaceMap::new();
        let index = namespaces.add_namespace("urn:a;b");
        let named: Node = "nsu=urn:a%3Bb;i=7".parse().unwrap();
        assert_eq!(named.on(&namespaces), Some(NodeId::new(index, 7u32)));
        let unknown: Node = "nsu=urn:c;i=7".parse().unwrap();
        assert_eq!((unknown.on(&namespaces), unknown.namespace_uri()), (None, "urn:c"));
        let numbered: Node = "ns=9;i=7".parse().unwrap();
        assert_eq!(numbered.on(&namespaces), Some(NodeId::new(9, 7u32)));
    }
}

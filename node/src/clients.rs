//! What is asked about certificates of mappers and apps, and the answers.

use bus::{KeyHash, NodeId, UnixMillis};
use controller::client::{self, Certificate, Client, ClientError};
use metadata::Keyspace;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::admin::{AdminError, AdminResponse, describe};
use crate::users::{read_key, shown_key};

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientRequest {
    List,
    Put { who: NodeId, order: ClientOrder },
    Revoke { who: NodeId, order: RevokeOrder },
}

impl ClientRequest {
    pub(crate) fn writes(&self) -> bool {
        !matches!(self, Self::List)
    }
}

/// A certificate that was just issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientOrder {
    /// SHA-256 of its key's SubjectPublicKeyInfo, in hexadecimal.
    pub key: String,
    /// When it ends, in milliseconds since 1970.
    pub not_after_ms: u64,
}

/// Which certificates count no more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeOrder {
    /// How the hash of its key begins; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// At the cloud, where the lists are kept.
pub(crate) fn at_cloud(request: ClientRequest, ks: &mut Keyspace, now: UnixMillis) -> AdminResponse {
    let done = match request {
        ClientRequest::List => return listed(client::PREFIX, ks),
        ClientRequest::Put { who, order } => {
            client::put(&who, key(&order.key)?, UnixMillis(order.not_after_ms), ks, now)
        }
        ClientRequest::Revoke { who, order } => client::revoke(&who, order.certificate.as_deref(), ks, now),
    };
    done.map(|client| shown(&client)).map_err(|error| refused(&error))
}

/// At an edge, which was told.
pub(crate) fn at_edge(request: &ClientRequest, ks: &Keyspace) -> AdminResponse {
    match request {
        ClientRequest::List => listed(client::TOLD, ks),
        ClientRequest::Put { .. } | ClientRequest::Revoke { .. } => Err(AdminError::CloudOnly),
    }
}

fn key(text: &str) -> Result<KeyHash, AdminError> {
    read_key(text).ok_or_else(|| AdminError::Invalid("key: 64 hexadecimal digits".to_owned()))
}

fn listed(prefix: &str, ks: &Keyspace) -> AdminResponse {
    let clients = client::list(prefix, ks).map_err(|error| AdminError::Invalid(describe(&error)))?;
    Ok(clients.iter().map(shown).collect())
}

fn shown(client: &Client) -> Value {
    let Client { who, certificates, revoked } = client;
    let certificate = |one: &Certificate| {
        let Certificate { key, issued, not_after, revoked } = one;
        json!({ "key": shown_key(key), "issued": issued, "not_after": not_after, "revoked": revoked })
    };
    let certificates: Vec<Value> = certificates.iter().map(certificate).collect();
    json!({ "client": who.to_string(), "certificates": certificates, "revoked": revoked })
}

fn refused(error: &ClientError) -> AdminError {
    let text = describe(error);
    match error {
        ClientError::Unknown { .. } => AdminError::NotFound(text),
        ClientError::IsUser(_)
        | ClientError::Ambiguous { .. }
        | ClientError::TooMany(_)
        | ClientError::TooManyRevoked(_)
        | ClientError::Revoked(_)
        | ClientError::Full => AdminError::Conflict(text),
        ClientError::NoClient(_) | ClientError::Damaged(_) => AdminError::Invalid(text),
    }
}

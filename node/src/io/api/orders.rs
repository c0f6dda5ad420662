//! What a path, a method and a body under `/kubebus/v1/` ask of the owner loop.

use std::time::Duration;

use bus::id::InvalidIdentity;
use bus::twin::{DesiredVersion, DeviceId};
use bus::{Name, NodeId, Value};
use controller::label::{Change, InvalidLabel, Labelled, Labels};
use device_twin::PropertyId;
use device_twin::cloud::{Wish, Wishes};
use device_twin::command::CommandId;
use device_twin::condition::Condition;
use device_twin::twin::SetBody;
use hyper::Method;
use serde::{Deserialize, Serialize};

use crate::admin::{AdminError, AdminRequest, AuthorityChange, TokenOrder};
use crate::clients::ClientRequest;
use crate::users::{UserRequest, read_role};
use crate::wireguard::WireguardOrder;

pub(super) fn parse(method: &Method, path: &str, body: &[u8]) -> Result<AdminRequest, AdminError> {
    let unknown = || AdminError::NotFound(format!("no such path: {method} {path}"));
    let rest = path.strip_prefix("/kubebus/v1/").ok_or_else(unknown)?;
    let levels: Vec<&str> = rest.split('/').collect();
    Ok(match (method.as_str(), levels.as_slice()) {
        ("GET", ["status"]) => AdminRequest::Status,
        ("GET", ["nodes"]) => AdminRequest::ListNodes,
        ("DELETE", ["nodes", node]) => AdminRequest::DeleteNode { name: name(node)? },
        ("POST", ["tokens"]) => create_token(body)?,
        ("GET", ["tokens"]) => AdminRequest::ListTokens,
        ("DELETE", ["tokens", id]) => AdminRequest::RevokeToken { id: (*id).to_owned() },
        ("POST", ["resources"]) => AdminRequest::Apply { manifest: json_body(body)? },
        ("GET", ["resources", kind]) => AdminRequest::List { kind: (*kind).to_owned() },
        ("DELETE", ["resources", kind, namespace, name]) => {
            AdminRequest::Delete { kind: (*kind).to_owned(), device: device(namespace, name)? }
        }
        ("GET", ["twins"]) => AdminRequest::Twins { device: None },
        ("GET", ["twins", namespace, name]) => AdminRequest::Twins { device: Some(device(namespace, name)?) },
        ("PUT", ["twins", namespace, name, "desired", property]) => AdminRequest::SetTwin {
            device: device(namespace, name)?,
            property: (*property).to_owned(),
            value: json_body(body)?,
        },
        ("PATCH", ["twins", namespace, name, "desired"]) => {
            AdminRequest::PatchTwin { device: device(namespace, name)?, patch: json_body(body)? }
        }
        ("POST", ["changes"]) => {
            AdminRequest::Change { wishes: json_body::<ChangeOrder>(body)?.into_wishes()? }
        }
        ("POST", ["twins", namespace, name, "commands", command]) => AdminRequest::Command {
            device: device(namespace, name)?,
            name: (*command).to_owned(),
            order: json_body(body)?,
        },
        ("GET", ["rules"]) => AdminRequest::Rules,
        ("POST", ["policy", "test"]) => AdminRequest::PolicyTest(json_body(body)?),
        ("GET", ["routes"]) => AdminRequest::Routes,
        ("POST", ["routes", "approve"]) => AdminRequest::ApproveLan(json_body(body)?),
        ("POST", ["routes", "revoke"]) => AdminRequest::RevokeLan(json_body(body)?),
        ("GET", ["labels", kind, name]) => AdminRequest::Labels { of: labelled(kind, name)? },
        ("POST", ["labels", kind, name]) => {
            let LabelOrder { set, remove } = json_body(body)?;
            AdminRequest::Label { of: labelled(kind, name)?, change: Change { set, remove } }
        }
        ("POST", ["route"]) => AdminRequest::Route(json_body(body)?),
        ("GET", ["wireguard"]) => AdminRequest::ListWireguard,
        ("POST", ["wireguard"]) => AdminRequest::AddWireguard(json_body::<WireguardOrder>(body)?),
        ("PUT", ["wireguard", client, "keys"]) => {
            AdminRequest::RotateWireguard { name: name(client)?, keys: json_body(body)? }
        }
        ("DELETE", ["wireguard", client]) => AdminRequest::RemoveWireguard { name: name(client)? },
        ("GET", ["users"]) => AdminRequest::Users(UserRequest::List),
        ("PUT", ["users", user]) => {
            AdminRequest::Users(UserRequest::Put { name: name(user)?, order: json_body(body)? })
        }
        ("PUT", ["users", user, "role"]) => {
            let role = read_role(&json_body::<RoleOrder>(body)?.role)?;
            AdminRequest::Users(UserRequest::SetRole { name: name(user)?, role })
        }
        ("POST", ["users", user, "revoke"]) => AdminRequest::Users(UserRequest::Revoke { name: name(user)? }),
        ("DELETE", ["users", user]) => AdminRequest::Users(UserRequest::Remove { name: name(user)? }),
        ("GET", ["clients"]) => AdminRequest::Clients(ClientRequest::List),
        ("PUT", ["clients", kind, client]) => {
            AdminRequest::Clients(ClientRequest::Put { who: who(kind, client)?, order: json_body(body)? })
        }
        ("POST", ["clients", kind, client, "revoke"]) => {
            AdminRequest::Clients(ClientRequest::Revoke { who: who(kind, client)?, order: json_body(body)? })
        }
        ("POST", ["nodes", node, "checks"]) => AdminRequest::Examine { node: name(node)? },
        ("GET", ["upstream"]) => AdminRequest::Upstream,
        ("GET", ["commands"]) => AdminRequest::Commands { device: None, id: None },
        ("GET", ["commands", namespace, name]) => {
            AdminRequest::Commands { device: Some(device(namespace, name)?), id: None }
        }
        ("GET", ["commands", namespace, name, id]) => {
            AdminRequest::Commands { device: Some(device(namespace, name)?), id: Some(command_id(id)?) }
        }
        ("PUT", ["twins", namespace, name, "authority"]) => AdminRequest::Authority {
            device: device(namespace, name)?,
            change: json_body::<AuthorityOrder>(body)?.into_change(),
        },
        ("DELETE", ["twins", namespace, name, "authority"]) => AdminRequest::Authority {
            device: device(namespace, name)?,
            change: AuthorityChange::HandBack { reason: String::new() },
        },
        _ => return Err(unknown()),
    })
}

/// A role by its name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::io) struct RoleOrder {
    pub(in crate::io) role: String,
}

/// Several wishes as one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeOrder {
    pub wishes: Vec<WishOrder>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Condition>,
}

/// One of them; without a value the present wish is taken back.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WishOrder {
    /// `<namespace>/<name>`.
    pub device: String,
    pub property: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// UCUM code of what the value is counted in; absent: the property's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<DesiredVersion>,
}

impl ChangeOrder {
    fn into_wishes(self) -> Result<Wishes, AdminError> {
        let wish = |WishOrder { device, property, value, unit, if_version }| {
            let value = value.map(|value| SetBody::Full { value, unit });
            let device = device.parse().map_err(|error| AdminError::Invalid(format!("{error}")))?;
            Ok(Wish { id: PropertyId::new(&device, &property), value, if_version })
        };
        let wishes = self.wishes.into_iter().map(wish).collect::<Result<_, AdminError>>()?;
        Ok(Wishes { wishes, when: self.when, by: "kubebus twin set".to_owned() })
    }
}

/// Which labels are to be other ones.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelOrder {
    #[serde(default)]
    pub set: Labels,
    #[serde(default)]
    pub remove: Vec<String>,
}

fn who(kind: &str, name: &str) -> Result<NodeId, AdminError> {
    format!("{kind}/{name}").parse().map_err(|error: InvalidIdentity| AdminError::Invalid(error.to_string()))
}

fn labelled(kind: &str, name: &str) -> Result<Labelled, AdminError> {
    format!("{kind}/{name}").parse().map_err(|error: InvalidLabel| AdminError::Invalid(error.to_string()))
}

/// Why the authority is taken, and for how long.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorityOrder {
    #[serde(default)]
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasting_ms: Option<u64>,
}

impl AuthorityOrder {
    fn into_change(self) -> AuthorityChange {
        let lasting = self.lasting_ms.map(Duration::from_millis);
        AuthorityChange::Take { reason: self.reason, lasting }
    }
}

fn command_id(text: &str) -> Result<CommandId, AdminError> {
    CommandId::new(text).map_err(|error| AdminError::Invalid(error.to_string()))
}

fn create_token(body: &[u8]) -> Result<AdminRequest, AdminError> {
    let order: TokenOrder = json_body(body)?;
    let mut secret = [0; bus::JoinToken::SECRET_LEN];
    getrandom::fill(&mut secret).map_err(|e| AdminError::Invalid(format!("no randomness: {e}")))?;
    Ok(AdminRequest::CreateToken { order, secret })
}

fn json_body<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, AdminError> {
    serde_json::from_slice(body).map_err(|e| AdminError::Invalid(format!("body: {e}")))
}

fn name(text: &str) -> Result<Name, AdminError> {
    Name::new(text).map_err(|error| AdminError::Invalid(error.to_string()))
}

fn device(namespace: &str, device: &str) -> Result<DeviceId, AdminError> {
    Ok(DeviceId { namespace: name(namespace)?, name: name(device)? })
}

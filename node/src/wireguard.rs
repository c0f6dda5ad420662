//! `kubebus wireguard`: who comes in as a stock WireGuard client, at the cloud and at a gateway edge.

use bus::{Name, NodeId, WireguardKey, WireguardPeer};
use controller::wireguard::{self, Client, ClientError, Keys, Order};
use controller::{Cluster, site};
use metadata::Keyspace;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::admin::{AdminError, AdminResponse, describe};

/// What is asked of the cloud for a new client. Its private key stays with who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireguardOrder {
    pub name: Name,
    #[serde(default)]
    pub site: Option<Name>,
    /// `cloud/<name>` or `edge/<name>`.
    #[serde(default)]
    pub gateway: Option<String>,
    pub public_key: WireguardKey,
    pub preshared_key: WireguardKey,
}

/// Other keys for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireguardKeys {
    pub public_key: WireguardKey,
    pub preshared_key: WireguardKey,
}

impl From<WireguardKeys> for Keys {
    fn from(WireguardKeys { public_key, preshared_key }: WireguardKeys) -> Self {
        Self { public: public_key, preshared: preshared_key }
    }
}

impl WireguardOrder {
    pub(crate) fn order(self) -> Result<Order, AdminError> {
        let Self { name, site, gateway, public_key, preshared_key } = self;
        let node = |text: String| -> Result<NodeId, AdminError> {
            let wrong = |why: &dyn std::fmt::Display| {
                AdminError::Invalid(format!("'{text}' is no gateway: {why}; write edge/NAME or cloud/NAME"))
            };
            text.parse().map_err(|error: bus::id::InvalidIdentity| wrong(&error))
        };
        let gateway = gateway.map(node).transpose()?;
        Ok(Order { name, site, gateway, keys: Keys { public: public_key, preshared: preshared_key } })
    }
}

pub(crate) fn refused(error: &ClientError) -> AdminError {
    let text = describe(error);
    match error {
        ClientError::Unknown(_) => AdminError::NotFound(text),
        ClientError::Exists(_)
        | ClientError::NameOfNode(_)
        | ClientError::SiteExists(_)
        | ClientError::KeyTaken(_)
        | ClientError::NoGateway
        | ClientError::Exhausted(_) => AdminError::Conflict(text),
        ClientError::NotAGateway { .. } | ClientError::WhichGateway(_) | ClientError::Damaged(_) => {
            AdminError::Invalid(text)
        }
    }
}

/// All that a client's configuration is made of, but for its private key.
pub(crate) fn invitation(client: &Client, cluster: &Cluster, ks: &Keyspace) -> AdminResponse {
    let damaged = |error| AdminError::Invalid(describe(&error));
    let peer = &client.peer;
    let allowed = wireguard::allowed_ips(&peer.name, &cluster.plan, ks).map_err(damaged)?;
    let gateway = wireguard::gateway(&client.gateway, ks);
    let gateway = gateway.ok_or_else(|| refused(&ClientError::NoGateway))?;
    let mut document = shown(peer, &client.gateway, Some(&client.site));
    document["cluster"] = json!(cluster.name);
    document["preshared_key"] = json!(peer.preshared_key);
    document["allowed_ips"] = allowed.iter().map(ToString::to_string).collect();
    document["gateway_key"] = json!(gateway.public_key);
    document["gateway_endpoint"] = json!(gateway.endpoint);
    Ok(document)
}

/// The clients that a cloud knows, or that an edge was told to let in, under [`CLIENTS`]. What is known of their tunnels
/// the shell adds.
pub(crate) fn listed(clients: impl IntoIterator<Item = Value>) -> Value {
    json!({ CLIENTS: clients.into_iter().collect::<Vec<_>>() })
}

/// Where [`listed`] puts them.
pub(crate) const CLIENTS: &str = "wireguard_clients";

pub(crate) fn at_cloud(ks: &Keyspace) -> AdminResponse {
    let clients = wireguard::list(ks).map_err(|error| AdminError::Invalid(describe(&error)))?;
    Ok(listed(clients.iter().map(|client| shown(&client.peer, &client.gateway, Some(&client.site)))))
}

pub(crate) fn at_edge(me: &NodeId, ks: &Keyspace) -> Value {
    let sites = site::list(site::TOLD, ks);
    let told = wireguard::told(ks);
    listed(told.iter().map(|peer| shown(peer, me, sites.get(&NodeId::wireguard(peer.name.clone())))))
}

fn shown(peer: &WireguardPeer, gateway: &NodeId, site: Option<&Name>) -> Value {
    json!({
        "name": peer.name, "site": site, "gateway": gateway.to_string(), "public_key": peer.public_key,
        "addresses": [peer.v4.to_string(), peer.v6.to_string()],
    })
}

//! What administrators ask of the cloud.

use std::time::Duration;

use bus::token::JoinToken;
use bus::twin::DeviceId;
use bus::{Identity, Name, NodeId, Now, Value};
use controller::resource::{self, Applied, InvalidManifest, Manifest};
use controller::token::{self, TokenSpec};
use controller::{lease, nodes};
use device_twin::cloud::SetError;
use device_twin::model::Kind;
use metadata::{Key, epoch};
use serde_json::json;

use super::{Cloud, nodes_of};
use crate::admin::{self, AdminError, AdminRequest, AdminResponse, Fault, Snapshot, TokenOrder};

impl Cloud {
    pub(super) fn answer(&mut self, request: AdminRequest, now: Now) -> AdminResponse {
        match request {
            AdminRequest::CreateToken { order, secret } => self.create_token(order, secret, now),
            AdminRequest::ListTokens => self.list_tokens(now),
            AdminRequest::RevokeToken { id } => self.revoke_token(&id),
            AdminRequest::ListNodes => self.list_nodes(),
            AdminRequest::DeleteNode { name } => self.delete_node(&name, now),
            AdminRequest::Apply { manifest } => self.apply(&manifest, now),
            AdminRequest::Delete { kind, device } => self.delete(&kind, &device, now),
            AdminRequest::List { kind } => self.list(&kind),
            AdminRequest::Twins { device } => admin::twins(self.twins.views(now), device.as_ref()),
            AdminRequest::SetTwin { device, property, value } => {
                self.set_twin(&device, &property, value, now)
            }
            AdminRequest::Status => Ok(self.status()),
        }
    }

    /// All that is sealed: each cycle ends with that, so nothing is left out between two.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            identity: Identity { cluster: self.cluster.name.clone(), node: self.me.clone() },
            revision: self.keyspace.revision(),
            epoch: epoch::get(&self.keyspace),
            rows: self.keyspace.rows().collect(),
        }
    }

    fn create_token(
        &mut self,
        order: TokenOrder,
        secret: [u8; JoinToken::SECRET_LEN],
        now: Now,
    ) -> AdminResponse {
        let TokenOrder { site, lans, ttl_seconds, uses } = order;
        let spec = TokenSpec { site, lans, ttl: Duration::from_secs(ttl_seconds), uses };
        token::create(&spec, &secret, &self.cluster.plan, &mut self.keyspace, now)
            .map_err(|error| AdminError::Invalid(admin::describe(&error)))?;
        Ok(json!({ "token": JoinToken::new(self.ca, secret).to_string() }))
    }

    fn list_tokens(&self, now: Now) -> AdminResponse {
        let tokens =
            token::list(&self.keyspace).map_err(|error| AdminError::Invalid(admin::describe(&error)))?;
        let rows = tokens.iter().map(|token| {
            let lans: Vec<String> = token.lans.iter().map(ToString::to_string).collect();
            json!({
                "id": token.id().to_string(), "site": token.site, "lans": lans, "uses": token.uses,
                "used_by": token.used_by, "expires": token.expires, "expired": token.is_expired(now),
            })
        });
        Ok(rows.collect())
    }

    fn revoke_token(&mut self, id: &str) -> AdminResponse {
        let tokens =
            token::list(&self.keyspace).map_err(|error| AdminError::Invalid(admin::describe(&error)))?;
        let meant: Vec<_> =
            tokens.iter().map(|token| token.id()).filter(|t| t.to_string().starts_with(id)).collect();
        match meant.as_slice() {
            [one] => {
                token::revoke(one, &mut self.keyspace);
                Ok(json!({ "id": one.to_string(), "revoked": true }))
            }
            [] => Err(AdminError::NotFound(format!("there is no token '{id}'; see 'kubebus token list'"))),
            _ => Err(AdminError::Conflict(format!("several tokens begin with '{id}': give more of it"))),
        }
    }

    /// Forgets a node: its link ends, its certificate lets it in no more, its devices wait for a node of that name.
    fn delete_node(&mut self, name: &Name, now: Now) -> AdminResponse {
        let before = nodes_of(&self.keyspace);
        nodes::remove(name, &mut self.keyspace, now)
            .map_err(|error| AdminError::NotFound(admin::describe(&error)))?;
        self.on_membership(&before);
        let node = NodeId::edge(name.clone());
        let packets = self.packets.remove(&node);
        for link in self.bus.link_of(&node).into_iter().chain(packets) {
            self.close(link, "removed from the cluster");
        }
        Ok(json!({ "name": name, "deleted": true }))
    }

    fn list_nodes(&self) -> AdminResponse {
        let records =
            nodes::list(&self.keyspace).map_err(|error| AdminError::Invalid(admin::describe(&error)))?;
        let rows = records.iter().map(|record| {
            let held = lease::of(&record.id(), &self.keyspace).ok().flatten();
            json!({
                "name": record.name, "site": record.site, "lans": record.lans.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "connected": self.bus.link_of(&record.id()).is_some(),
                "address": held.as_ref().map(|lease| lease.v4.to_string()),
                "containers": held.map(|lease| lease.container_v4.to_string()),
            })
        });
        Ok(rows.collect())
    }

    fn apply(&mut self, document: &serde_json::Value, now: Now) -> AdminResponse {
        let manifest = Manifest::parse(document).map_err(|error| faulty(&[error]))?;
        let faults = manifest.check(self.twins.catalog());
        if !faults.is_empty() {
            return Err(faulty(&faults));
        }
        let applied = manifest.apply(&mut self.keyspace);
        self.on_resources(&[manifest.key()], now);
        let placement = match manifest.kind() {
            Kind::Device => self.binder.device(manifest.id()),
            Kind::Rule => self.binder.rule(manifest.id()),
            Kind::Model | Kind::Policy => None,
        };
        Ok(json!({
            "kind": kind_name(manifest.kind()), "name": manifest.id().to_string(), "applied": applied_word(applied),
            "placement": placement.map(|p| p.to_string()),
        }))
    }

    fn delete(&mut self, kind: &str, id: &DeviceId, now: Now) -> AdminResponse {
        let kind = kind_named(kind)?;
        if !resource::delete(kind, id, &mut self.keyspace) {
            return Err(AdminError::NotFound(format!("there is no {} {id}", kind_name(kind))));
        }
        self.on_resources(&[resource::key(kind, id)], now);
        Ok(json!({ "kind": kind_name(kind), "name": id.to_string(), "applied": "deleted" }))
    }

    fn list(&self, kind: &str) -> AdminResponse {
        let all = resource::list(kind_named(kind)?, None, &self.keyspace);
        Ok(all.filter_map(|(_, json)| serde_json::from_slice::<serde_json::Value>(json).ok()).collect())
    }

    fn on_resources(&mut self, keys: &[Key], now: Now) {
        self.binder.handle_changes(keys, &mut self.keyspace);
        self.twins.handle_changed(keys, &mut self.keyspace, now);
    }

    fn set_twin(&mut self, device: &DeviceId, property: &str, value: Value, now: Now) -> AdminResponse {
        let version = self
            .twins
            .set_desired(device, property, value, "kubebus twin set", &mut self.keyspace, now)
            .map_err(|error| match &error {
                SetError::Lookup(_) => AdminError::NotFound(admin::describe(&error)),
                SetError::Unbound(_) | SetError::Value(..) => AdminError::Invalid(admin::describe(&error)),
            })?;
        Ok(json!({ "device": device.to_string(), "property": property, "version": version }))
    }

    fn status(&self) -> serde_json::Value {
        let edges: Vec<_> = self
            .feed
            .edges(&self.keyspace)
            .map(|(edge, in_step)| json!({ "edge": edge, "in_step": in_step }))
            .collect();
        let stats = self.feed.stats();
        json!({
            "node": Identity { cluster: self.cluster.name.clone(), node: self.me.clone() }.to_string(),
            "connected": edges,
            "disk": self.journal.status(),
            "metadata": { "revision": self.keyspace.revision().0, "epoch": epoch::get(&self.keyspace),
                          "superseded_by": self.superseded, "snapshots": stats.snapshots,
                          "repairs": stats.repairs, "renewals": stats.renewals, "nacks": stats.nacks,
                          "stalls": stats.stalls },
        })
    }
}

fn faulty(errors: &[InvalidManifest]) -> AdminError {
    let fault = |error: &InvalidManifest| Fault {
        message: admin::describe(error),
        field: error.field().unwrap_or_default().to_owned(),
    };
    AdminError::Manifest(errors.iter().map(fault).collect())
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Device => "device",
        Kind::Model => "devicemodel",
        Kind::Policy => "twinpolicy",
        Kind::Rule => "rule",
    }
}

fn applied_word(applied: Applied) -> &'static str {
    match applied {
        Applied::Created => "created",
        Applied::Changed => "configured",
        Applied::Unchanged => "unchanged",
    }
}

fn kind_named(text: &str) -> Result<Kind, AdminError> {
    resource::kind_named(text).ok_or_else(|| AdminError::NotFound(format!("there is no kind '{text}'")))
}

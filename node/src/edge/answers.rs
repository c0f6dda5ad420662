//! What people and programs ask of an edge.

use bus::twin::DeviceId;
use bus::{Now, Value};
use controller::site;
use device_twin::PropertyId;
use device_twin::command::Order;
use metadata::epoch;
use serde_json::json;

use super::Edge;
use crate::admin::{self, AdminError, AdminRequest, AdminResponse, AuthorityChange};
use crate::clients;
use crate::policy_test::PolicyTest;
use crate::route_query::Overlay;
use crate::users;

impl Edge {
    pub(super) fn answer(&mut self, request: AdminRequest, now: Now) -> AdminResponse {
        match request {
            AdminRequest::Status => Ok(self.status(now)),
            AdminRequest::Page(query) => crate::page::answer(&query, self, now),
            AdminRequest::Twins { device } => admin::twins(self.twins.views(now), device.as_ref()),
            AdminRequest::SetTwin { device, property, value } => {
                self.set_twin(&PropertyId::new(&device, &property), value, now)
            }
            AdminRequest::PatchTwin { device, patch } => self.patch_twin(&device, &patch, now),
            AdminRequest::Command { device, name, order } => self.order(&device, &name, order, now),
            AdminRequest::Commands { device, id } => {
                admin::commands(self.twins.commands(device.as_ref(), now), id.as_ref())
            }
            AdminRequest::Rules => admin::document(&self.twins.rule_views(now)),
            AdminRequest::PolicyTest(asked) => self.test_policy(&asked),
            AdminRequest::Routes => Ok(self.overlay().list()),
            AdminRequest::Route(asked) => {
                let by_cloud = self.lines.packets().is_some();
                self.overlay().find(&asked, |node| by_cloud || self.neighbours.is_direct(node))
            }
            AdminRequest::Authority { device, change } => self.change_authority(&device, change, now),
            AdminRequest::Users(asked) => users::at_edge(&asked, &self.keyspace),
            AdminRequest::Clients(asked) => clients::at_edge(&asked, &self.keyspace),
            AdminRequest::ListWireguard => Ok(crate::wireguard::at_edge(&self.identity.node, &self.keyspace)),
            // It is answered when the cloud was heard.
            AdminRequest::Upstream
            | AdminRequest::Examine { .. }
            | AdminRequest::CreateToken { .. }
            | AdminRequest::AddWireguard(_)
            | AdminRequest::RotateWireguard { .. }
            | AdminRequest::RemoveWireguard { .. }
            | AdminRequest::ListTokens
            | AdminRequest::RevokeToken { .. }
            | AdminRequest::ListNodes
            | AdminRequest::DeleteNode { .. }
            | AdminRequest::Apply { .. }
            | AdminRequest::Delete { .. }
            | AdminRequest::List { .. }
            | AdminRequest::ApproveLan { .. }
            | AdminRequest::RevokeLan { .. }
            | AdminRequest::Labels { .. }
            | AdminRequest::Label { .. }
            | AdminRequest::Change { .. }
            | AdminRequest::History(_) => Err(AdminError::CloudOnly),
        }
    }

    /// An edge knows what may come in to it, and nothing else.
    fn test_policy(&self, asked: &PolicyTest) -> AdminResponse {
        let test = asked.on(&self.routes())?;
        match &test.receiver {
            Some(node) if *node == self.identity.node => Ok(test.answer(None, &test.at(&self.policy))),
            Some(_) | None => Err(AdminError::CloudOnly),
        }
    }

    fn overlay(&self) -> Overlay<'_> {
        Overlay {
            me: &self.identity.node,
            via: Some(&self.cloud),
            neighbours: self.neighbours.direct().cloned().collect(),
            routes: self.routes(),
            pending: self.pending(),
            sites: site::list(site::TOLD, &self.keyspace),
            policy: &self.policy,
        }
    }

    /// Somebody at the edge's own console: an operator.
    fn set_twin(&mut self, id: &PropertyId, value: Value, now: Now) -> AdminResponse {
        self.known(&id.device)?;
        let by = self.by();
        let taken = self.twins.set(id, value, &by, &mut self.keyspace, now);
        let version = taken.map_err(AdminError::Invalid)?;
        Ok(json!({ "device": id.device.to_string(), "property": &*id.property, "version": version }))
    }

    /// Who asks, for whoever reads it later.
    pub(super) fn by(&self) -> String {
        self.asker.as_ref().map_or_else(|| admin::OPERATOR.to_owned(), ToString::to_string)
    }

    pub(super) fn known(&self, device: &DeviceId) -> Result<(), AdminError> {
        let known = self.twins.catalog().device(device).map(|_| ());
        known.ok_or_else(|| admin::unknown_device(device))
    }

    fn order(&mut self, device: &DeviceId, name: &str, order: Order, now: Now) -> AdminResponse {
        self.known(device)?;
        let by = self.by();
        let id = self.twins.order(device, name, order, &by, &mut self.keyspace, now);
        let id = id.map_err(AdminError::Invalid)?;
        admin::commands(self.twins.commands(Some(device), now), Some(&id))
    }

    fn change_authority(&mut self, device: &DeviceId, change: AuthorityChange, now: Now) -> AdminResponse {
        let by = self.by();
        let done = match change {
            AuthorityChange::Take { reason, lasting } => {
                let who = (by.as_str(), reason.as_str());
                self.twins.take_authority(device, who, lasting, &mut self.keyspace, now)
            }
            AuthorityChange::HandBack { reason } => {
                self.twins.hand_back(device, (&by, &reason), &mut self.keyspace, now)
            }
        };
        let authority = done.map_err(|error| AdminError::Conflict(admin::describe(&error)))?;
        Ok(admin::authority(device, &authority))
    }

    fn status(&self, now: Now) -> serde_json::Value {
        let connected = self.bus.link_of(&self.cloud).is_some();
        let clock = self.bus.clock_of(&self.cloud, now);
        let stats = self.replica.stats();
        let mut status = json!({
            "node": self.identity.to_string(),
            "cloud": { "name": self.cloud.to_string(), "connected": connected,
                       "clock_offset_ms": clock.map(|c| c.offset_ms) },
            "disk": self.journal.status(),
            "metadata": { "applied": self.replica.applied().revision.0, "outbox": self.replica.outbox_len(),
                          "epoch": epoch::get(&self.keyspace), "snapshots": stats.snapshots,
                          "repairs": stats.repairs, "nacks": stats.nacks },
            "mesh": self.mesh.status(),
            "certificate": self.renewal.status(self.cloud_wall(now)),
        });
        status["mesh"]["waiting"] = json!(self.replica.messages_len());
        if let Some(state) = self.lines.standby() {
            status["standby"] = json!({ "state": state });
        }
        status["paths"] = self.neighbours.views().into_iter().map(admin::path).collect();
        if !self.lans.is_empty() {
            status["lans"] = self.lans();
        }
        if !self.damaged_stores.is_empty() {
            status["damaged_stores"] = json!(self.damaged_stores);
        }
        status
    }
}

//! What administrators ask of the cloud.

use std::time::Duration;

use bus::token::JoinToken;
use bus::twin::{DesiredVersion, DeviceId};
use bus::{Name, NodeId, NodeKind, Now, Route, Value};
use controller::advert::ApproveError;
use controller::label::{LabelError, Labelled, Labels};
use controller::resource::{self, Applied, InvalidManifest, Manifest, ResourceKind};
use controller::token::{self, TokenSpec};
use controller::wireguard::{self, Client, ClientError};
use controller::{Cluster, Lan, access, advert, api, clash, host, label, lease, nodes, route, site};
use device_twin::PropertyId;
use device_twin::cloud::{OrderError, SetError, Wishes};
use device_twin::command::Order;
use device_twin::model::{Kind, Layout};
use ipnet::IpNet;
use metadata::{Key, Keyspace, epoch};
use router::Policy;
use serde_json::json;

use super::Cloud;
use super::membership::nodes_of;
use super::resources::own_write;
use crate::admin::{
    self, AdminError, AdminRequest, AdminResponse, AuthorityChange, Fault, LanOrder, Snapshot, TokenOrder,
};
use crate::clients;
use crate::page;
use crate::policy_test::PolicyTest;
use crate::resources::as_admin;
use crate::route_query::Overlay;
use crate::users;
use crate::wireguard::{WireguardOrder, refused};

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
            AdminRequest::Change { wishes } => self.change(wishes, now),
            AdminRequest::PatchTwin { device, patch } => {
                let by = self.by("kubebus twin patch");
                let done = self.twins.patch(&device, &patch, &by, &mut self.keyspace, now);
                changed(done)
            }
            AdminRequest::Command { device, name, order } => self.order(&device, &name, order, now),
            AdminRequest::Commands { device, id } => {
                admin::commands(self.twins.commands(device.as_ref(), now), id.as_ref())
            }
            AdminRequest::Rules => admin::document(&self.twins.rule_views()),
            AdminRequest::PolicyTest(asked) => self.test_policy(&asked),
            AdminRequest::Routes => Ok(self.overlay()?.list()),
            AdminRequest::Route(asked) => {
                self.overlay()?.find(&asked, |node| self.packets.contains_key(node))
            }
            AdminRequest::ApproveLan(LanOrder { node, lan }) => {
                self.change_lans(&node, lan, advert::approve, now)
            }
            AdminRequest::RevokeLan(LanOrder { node, lan }) => {
                self.change_lans(&node, lan, advert::revoke, now)
            }
            AdminRequest::Labels { of } => {
                let labels = label::of(&of, &self.keyspace);
                labels
                    .map(|labels| labelled(&of, &labels))
                    .map_err(|error| AdminError::Invalid(error.to_string()))
            }
            AdminRequest::Label { of, change } => self.label(&of, change),
            AdminRequest::Authority { device, change } => self.take_authority(&device, &change, now),
            AdminRequest::AddWireguard(asked) => self.add_wireguard(asked, now),
            AdminRequest::RotateWireguard { name, keys } => {
                let done = wireguard::rotate(&name, keys.into(), &mut self.keyspace, now);
                self.invite(done)
            }
            AdminRequest::RemoveWireguard { name } => self.remove_wireguard(&name, now),
            AdminRequest::ListWireguard => crate::wireguard::at_cloud(&self.keyspace),
            AdminRequest::Page(query) => page::answer(&query, self, now),
            // That an edge looks at itself is answered when it was heard: `Cloud::examine`.
            AdminRequest::Upstream | AdminRequest::Examine { .. } => {
                Err(AdminError::Invalid("a cloud has no cloud: ask an edge".to_owned()))
            }
            AdminRequest::Users(asked) => {
                let done = users::at_cloud(asked, &mut self.keyspace, now.wall);
                self.say_users();
                done
            }
            AdminRequest::Clients(asked) => {
                let done = clients::at_cloud(asked, &mut self.keyspace, now.wall);
                self.say_users();
                done
            }
            // It is answered when the edge has answered.
            AdminRequest::History(_) => Err(AdminError::Invalid("history: ask for it by itself".to_owned())),
            AdminRequest::Status => Ok(self.status(now)),
        }
    }

    fn change(&mut self, wishes: Wishes, now: Now) -> AdminResponse {
        let wishes = Wishes { by: self.by(&wishes.by), ..wishes };
        changed(self.twins.change(&wishes, &mut self.keyspace, now))
    }

    fn order(&mut self, device: &DeviceId, name: &str, order: Order, now: Now) -> AdminResponse {
        let by = self.by("kubebus twin command");
        let taken = self.twins.order(device, name, order, &by, &mut self.keyspace, now);
        let view = taken.map_err(|error| match &error {
            OrderError::Lookup(_) => AdminError::NotFound(admin::describe(&error)),
            OrderError::Known(_) | OrderError::Busy(_) | OrderError::Full(_) => {
                AdminError::Conflict(admin::describe(&error))
            }
            OrderError::Unbound(_) | OrderError::Order(_) | OrderError::Unfit(_) => {
                AdminError::Invalid(admin::describe(&error))
            }
        })?;
        admin::document(&view)
    }

    fn take_authority(&mut self, device: &DeviceId, change: &AuthorityChange, now: Now) -> AdminResponse {
        let AuthorityChange::Take { reason, lasting: None } = change else {
            return Err(AdminError::Invalid(
                "the cloud holds the authority until an edge takes it".to_owned(),
            ));
        };
        let by = self.by("kubebus twin take");
        let who = (by.as_str(), reason.as_str());
        let taken = self.twins.take_authority(device, who, &mut self.keyspace, now).map_err(set_error)?;
        Ok(admin::authority(device, &taken))
    }

    /// All that is sealed: each cycle ends with that, so nothing is left out between two.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            identity: self.identity(),
            revision: self.keyspace.revision(),
            epoch: epoch::get(&self.keyspace),
            rows: self.keyspace.rows().collect(),
        }
    }

    pub(super) fn create_token(
        &mut self,
        order: TokenOrder,
        secret: [u8; JoinToken::SECRET_LEN],
        now: Now,
    ) -> AdminResponse {
        let TokenOrder { site, lans, ttl_seconds, uses } = order;
        let spec = TokenSpec { site, lans, ttl: Duration::from_secs(ttl_seconds), uses };
        token::create(&spec, &secret, &self.cluster.plan, &mut self.keyspace, now)
            .map_err(|error| AdminError::Invalid(admin::describe(&error)))?;
        let warnings = clash::forecast(&spec.lans, &spec.site, &self.keyspace).unwrap_or_default();
        Ok(json!({ "token": JoinToken::new(self.ca, secret).to_string(), "warnings": warnings }))
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

    pub(super) fn revoke_token(&mut self, id: &str) -> AdminResponse {
        if id.to_ascii_lowercase().starts_with("kb1.") {
            // Not repeated: answers and the audit log are read by others.
            let why =
                "this is a token, not its id: use 'kubebus token revoke', or the id of 'kubebus token list'";
            return Err(AdminError::Invalid(why.to_owned()));
        }
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
    pub(super) fn delete_node(&mut self, name: &Name, now: Now) -> AdminResponse {
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

    /// Policies that select by labels mean others from here on.
    pub(super) fn label(&mut self, of: &Labelled, change: label::Change) -> AdminResponse {
        let labels = label::change(of, change, &mut self.keyspace).map_err(|error| {
            let text = error.to_string();
            match error {
                LabelError::UnknownEdge(_) => AdminError::NotFound(text),
                LabelError::TooMany(_) | LabelError::TooManySites => AdminError::Conflict(text),
                LabelError::Invalid(_) | LabelError::Damaged(_) => AdminError::Invalid(text),
            }
        })?;
        let told = access::tell_changed([], &mut self.keyspace);
        self.say_policy();
        told.map_err(|error| AdminError::Invalid(admin::describe(&error)))?;
        Ok(labelled(of, &labels))
    }

    /// What lies behind the edge, and what leads there, is other from here on.
    fn change_lans(&mut self, node: &Name, lan: IpNet, change: ChangeLans, now: Now) -> AdminResponse {
        let lan = Lan::new(lan).map_err(|error| AdminError::Invalid(error.to_string()))?;
        let before = nodes_of(&self.keyspace);
        let known = route::translated(&self.keyspace).unwrap_or_default();
        change(&self.cluster, node, lan, &mut self.keyspace, now).map_err(|error| {
            let text = admin::describe(&error);
            match error {
                ApproveError::UnknownNode(_)
                | ApproveError::NotPending { .. }
                | ApproveError::NotGranted { .. } => AdminError::NotFound(text),
                ApproveError::Twice { .. }
                | ApproveError::InPool { .. }
                | ApproveError::TooMany(_)
                | ApproveError::Clash(_) => AdminError::Conflict(text),
                ApproveError::Damaged(_) => AdminError::Invalid(text),
            }
        })?;
        self.on_membership(&before);
        self.note_translated(&known);
        let translated = route::translated(&self.keyspace).unwrap_or_default();
        let id = NodeId::edge(node.clone());
        let known_as = translated.iter().find(|route| route.owner == id && route.behind() == lan.net());
        Ok(json!({
            "node": id.to_string(), "lan": lan.to_string(),
            "prefix": known_as.map_or(lan.net(), |route| route.prefix).to_string(),
        }))
    }

    fn list_nodes(&self) -> AdminResponse {
        let records =
            nodes::list(&self.keyspace).map_err(|error| AdminError::Invalid(admin::describe(&error)))?;
        let translated = route::translated(&self.keyspace).unwrap_or_default();
        let rows = records.iter().map(|record| {
            let lans: Vec<_> =
                record.lans.iter().map(|lan| shown_lan(*lan, &record.id(), &translated)).collect();
            let held = lease::of(&record.id(), &self.keyspace).ok().flatten();
            json!({
                "name": record.name, "site": record.site, "lans": lans,
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
        self.check_room(manifest.kind(), manifest.id())?;
        let (write, body) = self.order_of_manifest(&manifest, document);
        let stored = self.write_manifest(&write, &body, now).map_err(|refusal| as_admin(&refusal))?;
        Ok(json!({
            "kind": kind_name(manifest.kind()), "name": manifest.id().to_string(), "applied": applied_word(stored.applied),
            "placement": self.placement(manifest.kind(), manifest.id()),
        }))
    }

    /// Whether there can be one more of the kind, and of its name.
    pub(super) fn check_room(&self, kind: ResourceKind, id: &DeviceId) -> Result<(), AdminError> {
        let full = |max: usize, what: &str| {
            Err(AdminError::Conflict(format!("there are {max} {what}, the most that fit")))
        };
        match kind {
            ResourceKind::Access if !access::has_room(id, &self.keyspace) => {
                full(access::MAX_POLICIES, "access policies")
            }
            ResourceKind::Host if !host::has_room(id, &self.keyspace) => full(host::MAX_HOSTS, "hosts"),
            ResourceKind::Host => match host::namesake(id, &self.keyspace) {
                Some(node) => Err(AdminError::Conflict(format!(
                    "{node} is in site {} and has that name there: give the host another one",
                    id.namespace
                ))),
                None => Ok(()),
            },
            ResourceKind::Twin(_) | ResourceKind::Access => Ok(()),
        }
    }

    /// Where what was applied is in force, or what it waits for.
    pub(super) fn placement(&self, kind: ResourceKind, id: &DeviceId) -> Option<String> {
        match kind {
            ResourceKind::Twin(Kind::Device) => self.binder.device(id).map(|place| place.to_string()),
            ResourceKind::Twin(Kind::Rule) => self.binder.rule(id).map(|place| place.to_string()),
            ResourceKind::Twin(Kind::Model | Kind::Policy) => None,
            ResourceKind::Access => match access::waits_for(id, &self.keyspace).as_slice() {
                [] => None,
                missing => Some(format!("nobody has joined yet as {}", missing.join(", "))),
            },
            ResourceKind::Host => match host::waits_for(id, &self.keyspace).ok()?.as_slice() {
                [] => None,
                missing => Some(missing.join("; ")),
            },
        }
    }

    fn delete(&mut self, kind: &str, id: &DeviceId, now: Now) -> AdminResponse {
        let kind = kind_named(kind)?;
        if resource::get(kind, id, &self.keyspace).is_none() {
            return Err(AdminError::NotFound(format!("there is no {} {id}", kind_name(kind))));
        }
        let write = own_write(api::Kind::of_manifest(kind), &api::Id::from(id), api::Verb::Delete);
        self.write_manifest(&write, &serde_json::Value::Null, now).map_err(|refusal| as_admin(&refusal))?;
        let gone = resource::get(kind, id, &self.keyspace).is_none();
        let word = if gone { "deleted" } else { "waits for its finalizers" };
        Ok(json!({ "kind": kind_name(kind), "name": id.to_string(), "applied": word }))
    }

    fn list(&self, kind: &str) -> AdminResponse {
        let all = resource::list(kind_named(kind)?, None, &self.keyspace);
        Ok(all.filter_map(|(_, json)| serde_json::from_slice::<serde_json::Value>(json).ok()).collect())
    }

    pub(super) fn on_resource(
        &mut self,
        kind: ResourceKind,
        id: &DeviceId,
        now: Now,
    ) -> Result<(), AdminError> {
        match kind {
            ResourceKind::Twin(_) => self.on_twin_resources(&[resource::key(kind, id)], now),
            ResourceKind::Access => {
                let told = access::tell_policy(id, &mut self.keyspace);
                self.say_policy();
                told.map_err(|error| AdminError::Invalid(admin::describe(&error)))?;
            }
            ResourceKind::Host => {
                host::tell(id, &mut self.keyspace);
                self.say_names();
            }
        }
        Ok(())
    }

    /// What the cloud enforces, and what it told the edge that the packet would come to.
    fn test_policy(&self, asked: &PolicyTest) -> AdminResponse {
        let damaged = |error| AdminError::Invalid(admin::describe(&error));
        let routes = route::list(&self.keyspace).map_err(damaged)?;
        let test = asked.on(&routes)?;
        let receiver = match &test.receiver {
            Some(node) if node.kind == NodeKind::Edge => {
                let rules = access::told_to(&node.name, &self.keyspace);
                let sites = site::list(site::PREFIX, &self.keyspace);
                test.at(&Policy::for_edge(&routes, &sites, &rules))
            }
            Some(_) | None => test.at(&self.policy),
        };
        Ok(test.answer(Some(&test.at(&self.policy)), &receiver))
    }

    fn add_wireguard(&mut self, asked: WireguardOrder, now: Now) -> AdminResponse {
        let done = wireguard::add(asked.order()?, &self.cluster, &mut self.keyspace, now);
        self.invite(done)
    }

    /// What the client's configuration is made of.
    pub(super) fn invite(&mut self, done: Result<Client, ClientError>) -> AdminResponse {
        let client = done.map_err(|error| refused(&error))?;
        self.on_wireguard();
        crate::wireguard::invitation(&client, &self.cluster, &self.keyspace)
    }

    pub(super) fn remove_wireguard(&mut self, name: &Name, now: Now) -> AdminResponse {
        let removed = wireguard::remove(name, &mut self.keyspace, now).map_err(|error| refused(&error))?;
        self.on_wireguard();
        Ok(json!({ "name": name, "gateway": removed.gateway.to_string(), "deleted": true }))
    }

    /// Clients came, changed or went.
    fn on_wireguard(&mut self) {
        self.say_wireguard();
        self.say_policy();
        self.say_overlay();
        self.say_names();
    }

    fn overlay(&self) -> Result<Overlay<'_>, AdminError> {
        let routes = route::list(&self.keyspace);
        Ok(Overlay {
            me: &self.me,
            via: None,
            neighbours: Vec::new(),
            routes: routes.map_err(|error| AdminError::Invalid(admin::describe(&error)))?,
            pending: advert::list(&self.keyspace),
            sites: site::list(site::PREFIX, &self.keyspace),
            policy: &self.policy,
        })
    }

    fn on_twin_resources(&mut self, keys: &[Key], now: Now) {
        let devices = keys.iter().filter_map(|key| match Kind::of_key(Layout::Cloud, key.as_str())? {
            (Kind::Device, id) => Some((self.binder.device(&id), id)),
            (Kind::Model | Kind::Policy | Kind::Rule, _) => None,
        });
        let before: Vec<_> = devices.collect();
        self.binder.handle_changes(keys, &mut self.keyspace);
        for (place, device) in before {
            if self.binder.device(&device) != place {
                self.forget_relayed(&device);
            }
        }
        self.twins.handle_changed(keys, &mut self.keyspace, now);
    }

    fn set_twin(&mut self, device: &DeviceId, property: &str, value: Value, now: Now) -> AdminResponse {
        let by = self.by("kubebus twin set");
        let version = self
            .twins
            .set_desired(device, property, value, &by, &mut self.keyspace, now)
            .map_err(set_error)?;
        Ok(json!({ "device": device.to_string(), "property": property, "version": version }))
    }

    fn status(&self, now: Now) -> serde_json::Value {
        let edges: Vec<_> = self
            .feed
            .edges(&self.keyspace)
            .map(|(edge, in_step)| json!({ "edge": edge, "in_step": in_step }))
            .collect();
        let stats = self.feed.stats();
        let mut status = json!({
            "node": self.identity().to_string(),
            "connected": edges,
            "disk": self.journal.status(),
            "metadata": { "revision": self.keyspace.revision().0, "epoch": epoch::get(&self.keyspace),
                          "superseded_by": self.superseded, "snapshots": stats.snapshots,
                          "repairs": stats.repairs, "renewals": stats.renewals, "nacks": stats.nacks,
                          "stalls": stats.stalls },
            "mesh": self.mesh.status(),
            "certificate": self.renewal.status(now.wall),
        });
        if let Some(term) = self.term {
            status["replica"] = json!({ "state": "leads", "term": term, "standbys": self.standbys.len() });
        }
        status
    }
}

/// [`advert::approve`], or [`advert::revoke`].
type ChangeLans = fn(&Cluster, &Name, Lan, &mut Keyspace, Now) -> Result<(), ApproveError>;

fn labelled(of: &Labelled, labels: &Labels) -> serde_json::Value {
    json!({ "name": of.to_string(), "labels": labels })
}

fn changed(done: Result<Vec<(PropertyId, Option<DesiredVersion>)>, SetError>) -> AdminResponse {
    let row = |(id, version): (PropertyId, Option<DesiredVersion>)| json!({ "device": id.device.to_string(), "property": &*id.property, "version": version });
    Ok(done.map_err(set_error)?.into_iter().map(row).collect())
}

pub(super) fn set_error(error: SetError) -> AdminError {
    let text = admin::describe(&error);
    match error {
        SetError::Lookup(_) => AdminError::NotFound(text),
        SetError::Authority { .. } | SetError::Version { .. } | SetError::Condition(_) => {
            AdminError::Conflict(text)
        }
        SetError::Unbound(_)
        | SetError::Value(..)
        | SetError::Former(_)
        | SetError::Nothing
        | SetError::TooMany
        | SetError::Twice(_)
        | SetError::Split(..)
        | SetError::Patch(_) => AdminError::Invalid(text),
    }
}

fn faulty(errors: &[InvalidManifest]) -> AdminError {
    let fault = |error: &InvalidManifest| Fault {
        message: admin::describe(error),
        field: error.field().unwrap_or_default().to_owned(),
    };
    AdminError::Manifest(errors.iter().map(fault).collect())
}

fn kind_name(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Twin(Kind::Device) => "device",
        ResourceKind::Twin(Kind::Model) => "devicemodel",
        ResourceKind::Twin(Kind::Policy) => "twinpolicy",
        ResourceKind::Twin(Kind::Rule) => "rule",
        ResourceKind::Access => "accesspolicy",
        ResourceKind::Host => "host",
    }
}

fn applied_word(applied: Applied) -> &'static str {
    match applied {
        Applied::Created => "created",
        Applied::Changed => "configured",
        Applied::Unchanged => "unchanged",
    }
}

fn kind_named(text: &str) -> Result<ResourceKind, AdminError> {
    resource::kind_named(text).ok_or_else(|| AdminError::NotFound(format!("there is no kind '{text}'")))
}

/// A LAN, and what the overlay knows it by if that is another prefix.
fn shown_lan(lan: Lan, owner: &NodeId, translated: &[Route]) -> String {
    let is_it = |route: &&Route| route.owner == *owner && route.behind() == lan.net();
    match translated.iter().find(is_it) {
        Some(route) => format!("{lan} as {}", route.prefix),
        None => lan.to_string(),
    }
}

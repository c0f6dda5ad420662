//! What the cloud told an edge, for its shell: it goes by that whether or not the cloud is there now.

use std::collections::BTreeSet;
use std::sync::Arc;

use bus::{Lease, NodeId, Now, Route};
use controller::user::{self, Users};
use controller::{access, client, endpoints, host, site, wireguard};
use metadata::Key;
use router::Policy;

use super::Edge;
use crate::names::{Facts, Names};
use crate::seam::Output;

const LEASE: &str = "/m/lease";
const ROUTES: &str = "/m/route/";

impl Edge {
    pub(super) fn on_metadata(&mut self, keys: &[Key], now: Now) {
        self.twins.handle_changed(keys, &mut self.keyspace, now);
        if let Some(dmi) = &mut self.dmi {
            dmi.handle_changed(keys, self.twins.catalog(), &self.keyspace);
        }
        let theirs = self.cloud_wall(now);
        self.mesh.handle_changed(keys, &mut self.keyspace, theirs, now.wall);
        let changed = |prefix: &str| keys.iter().any(|key| key.as_str().starts_with(prefix));
        if changed(ROUTES) || changed(site::TOLD) || changed(access::TOLD) {
            self.say_policy();
        }
        if changed(LEASE) || changed(ROUTES) {
            self.say_overlay();
        }
        if changed(ROUTES) {
            let members: BTreeSet<NodeId> = self.routes().into_iter().map(|route| route.owner).collect();
            self.neighbours.retain(|node| members.contains(node));
        }
        if [LEASE, ROUTES, site::TOLD, host::TOLD].into_iter().any(changed) {
            self.say_names();
        }
        if [user::TOLD, client::TOLD].into_iter().any(changed) {
            self.say_users();
        }
        if changed(wireguard::TOLD) {
            self.say_wireguard();
        }
        if keys.iter().any(|key| key.as_str() == endpoints::TOLD) {
            self.say_endpoints();
        }
    }

    pub(super) fn say_overlay(&mut self) {
        let Some(lease) = self.lease() else { return };
        self.said.push_back(Output::Overlay { lease, routes: self.routes() });
    }

    pub(super) fn say_users(&mut self) {
        let users = Users::load(user::TOLD, &self.keyspace);
        self.said.push_back(Output::Users(Arc::new(users)));
    }

    pub(super) fn say_names(&mut self) {
        let Some(lease) = self.lease() else { return };
        let names = Names::new(Facts {
            me: &self.identity,
            lease: &lease,
            routes: &self.routes(),
            sites: &site::list(site::TOLD, &self.keyspace),
            hosts: &host::list(host::TOLD, &self.keyspace),
            revision: self.replica.applied().revision,
        });
        self.said.push_back(Output::Names(Arc::new(names)));
    }

    fn lease(&self) -> Option<Lease> {
        self.keyspace.get(LEASE).and_then(|bytes| minicbor::decode(bytes).ok())
    }

    pub(super) fn routes(&self) -> Vec<Route> {
        self.keyspace.range(ROUTES).filter_map(|(_, b)| minicbor::decode::<Route>(b).ok()).collect()
    }

    /// Of what the cloud told last, whether or not it is there now.
    pub(super) fn say_policy(&mut self) {
        let (sites, rules) = (site::list(site::TOLD, &self.keyspace), access::told(&self.keyspace));
        self.policy = Arc::new(Policy::for_edge(&self.routes(), &sites, &rules));
        self.said.push_back(Output::Policy(Arc::clone(&self.policy)));
    }

    pub(super) fn say_endpoints(&mut self) {
        let told = endpoints::told(&self.keyspace);
        self.lines.handle_endpoints(told.len());
        self.said.push_back(Output::Endpoints(told));
    }

    pub(super) fn say_wireguard(&mut self) {
        self.said.push_back(Output::Wireguard(wireguard::told(&self.keyspace)));
    }
}

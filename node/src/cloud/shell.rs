//! What a cloud's shell goes by: overlay, names, access, users and WireGuard clients.

use std::sync::Arc;

use controller::user::{self, Users};
use controller::{access, host, lease, route, site, wireguard};
use router::Policy;

use super::Cloud;
use crate::admin::describe;
use crate::names::{Facts, Names};
use crate::seam::Output;

impl Cloud {
    pub(super) fn say_overlay(&mut self) {
        let lease = lease::of(&self.me, &self.keyspace).ok().flatten();
        let routes = route::list(&self.keyspace).ok();
        if let (Some(lease), Some(routes)) = (lease, routes) {
            self.said.push_back(Output::Overlay { lease, routes });
        }
    }

    pub(super) fn say_names(&mut self) {
        let lease = lease::of(&self.me, &self.keyspace).ok().flatten();
        let (Some(lease), Ok(routes)) = (lease, route::list(&self.keyspace)) else { return };
        let names = Names::new(Facts {
            me: &self.identity(),
            lease: &lease,
            routes: &routes,
            sites: &site::list(site::PREFIX, &self.keyspace),
            hosts: &host::list(host::PREFIX, &self.keyspace),
            revision: self.keyspace.revision(),
        });
        self.said.push_back(Output::Names(Arc::new(names)));
    }

    pub(super) fn say_policy(&mut self) {
        // Without its routes a cloud passes nothing on anyway.
        let routes = route::list(&self.keyspace).unwrap_or_default();
        let sites = site::list(site::PREFIX, &self.keyspace);
        self.policy = Arc::new(Policy::for_hub(&routes, &sites, &access::rules(&self.keyspace)));
        self.said.push_back(Output::Policy(Arc::clone(&self.policy)));
    }

    pub(super) fn say_users(&mut self) {
        let users = Users::load(user::PREFIX, &self.keyspace);
        self.said.push_back(Output::Users(Arc::new(users)));
    }

    pub(super) fn say_wireguard(&mut self) {
        match wireguard::behind(&self.me, &self.keyspace) {
            Ok(clients) => self.said.push_back(Output::Wireguard(clients)),
            Err(damaged) => self.note(format!("WireGuard clients are not let in: {}", describe(&damaged))),
        }
    }
}

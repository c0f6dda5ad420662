//! Networks that an edge's configuration names, and what became of them.

use bus::{Class, NodeId, Now};
use bytes::Bytes;
use controller::{Lan, advert};
use metadata::Key;
use serde_json::json;

use super::Edge;

impl Edge {
    /// Which networks the configuration names, if the cloud was told others or is told everything `again`. What the token
    /// does not grant waits there for somebody's approval.
    pub(super) fn tell_lans(&mut self, again: bool, now: Now) {
        let wanted = Bytes::from(advert::encode(&self.lans));
        let told = self.keyspace.get(told_lans().as_str());
        let is_known = if told.is_none() { self.lans.is_empty() } else { told == Some(&wanted) && !again };
        if !is_known {
            self.keyspace.put(told_lans(), wanted.clone());
            self.tell_cloud(Class::State, advert::UP.to_owned(), wanted, now);
        }
    }

    pub(super) fn pending(&self) -> Vec<(NodeId, Lan)> {
        let (me, routes) = (&self.identity.node, self.routes());
        let is_active =
            |lan: &Lan| routes.iter().any(|route| route.owner == *me && route.behind() == lan.net());
        self.lans.iter().filter(|lan| !is_active(lan)).map(|lan| (me.clone(), *lan)).collect()
    }

    /// What became of the networks that the configuration names.
    pub(super) fn lans(&self) -> serde_json::Value {
        let pending = self.pending();
        let state = |lan: &Lan| {
            let is_pending = pending.iter().any(|(_, pending)| pending == lan);
            let because = is_pending.then(|| {
                let me = &self.identity.node.name;
                format!("nobody has approved it: at the cloud, kubebus route approve {me} {lan}")
            });
            let state = if is_pending { "pending" } else { "active" };
            (lan.to_string(), json!({ "state": state, "because": because }))
        };
        serde_json::Value::Object(self.lans.iter().map(state).collect())
    }
}

/// What the cloud was told of [`super::EdgeSettings::lans`].
fn told_lans() -> Key {
    Key::new("/local/lans").expect("a short and printable key")
}

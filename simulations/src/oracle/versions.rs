//! No version goes back.

use std::collections::BTreeMap;

use bus::Mono;
use bus::twin::{DesiredVersion, ReportedVersion};
use bytes::Bytes;
use device_twin::PropertyId;
use device_twin::twin::{Desired, Handled, Reported, ReportedBody};
use metadata::{Commit, Position};

use super::Oracle;
use crate::faults::Machine;
use crate::manifests;

const INVARIANT: &str = "no version goes back";

/// Values of another site come on two ways, directly and by the cloud's copy, and the hub does not order them.
const REMOTE_VALUES_MAY_GO_BACK: bool = true;

/// The last revision that each subscriber saw of a remote property.
#[derive(Debug, Default)]
pub(super) struct Subscribers(BTreeMap<(Machine, PropertyId), u64>);

pub(super) fn reported(bytes: &Bytes) -> Option<ReportedVersion> {
    minicbor::decode::<Reported>(bytes).ok().map(|reported| reported.version)
}

pub(super) fn desired(bytes: &Bytes) -> Option<DesiredVersion> {
    minicbor::decode::<Desired>(bytes).ok().map(|desired| desired.version)
}

/// What orders the values under a key; `None` if nothing does.
fn order_of(key: &str, bytes: &Bytes) -> Option<(u64, u64)> {
    let version = |v: DesiredVersion| (v.epoch, v.seq);
    if key.starts_with("/m/desired/") || (key.starts_with("/e/") && key.contains("/desired/")) {
        desired(bytes).map(version)
    } else if key.starts_with("/t/desired/") {
        minicbor::decode::<Handled>(bytes).ok().map(|handled| version(handled.version))
    } else if key.starts_with("/c/version/") {
        minicbor::decode(bytes).ok().map(version)
    } else if key == "/sync/applied" {
        minicbor::decode::<Position>(bytes).ok().map(|position| (0, position.revision.0))
    } else {
        None
    }
}

impl Oracle {
    /// Each write of a commit against what the node held before.
    pub(super) fn check_versions(&mut self, machine: Machine, commit: &Commit, now: Mono) {
        for write in &commit.writes {
            let key = write.key.as_str();
            let before = self.held.get(&machine).and_then(|held| held.get(key)).cloned();
            let (Some(before), Some(after)) = (before, &write.value) else { continue };
            if let (Some(before), Some(after)) = (order_of(key, &before), order_of(key, after)) {
                self.verdict.ask(now, INVARIANT, before <= after, || {
                    format!("{machine} {key}: {before:?} became {after:?}")
                });
            }
            if key.starts_with("/t/reported/") || key.starts_with("/c/reported/") {
                self.check_reported(machine, key, &before, after, now);
            }
        }
        if let Machine::Edge(site) = machine
            && !self.aged.contains_key(&site)
        {
            self.check_against_cloud(machine, commit, now);
        }
    }

    fn check_reported(&mut self, machine: Machine, key: &str, before: &Bytes, after: &Bytes, now: Mono) {
        let (Some(was), Some(is)) = (reported(before), reported(after)) else { return };
        let site = device_of(key).and_then(|id| manifests::site_of(&id.device));
        let lives = site.and_then(|site| self.lives.get(&site));
        let life = |v: ReportedVersion| lives.and_then(|l| l.iter().rposition(|i| *i == v.incarnation));
        let holds = if was.incarnation == is.incarnation { was.rev < is.rev } else { life(was) < life(is) };
        self.verdict.ask(now, INVARIANT, holds, || format!("{machine} {key}: {was:?} became {is:?}"));
    }

    /// A revision that the cloud knows is not given to another value after a restart.
    fn check_against_cloud(&mut self, machine: Machine, commit: &Commit, now: Mono) {
        for write in &commit.writes {
            let Some(rest) = write.key.as_str().strip_prefix("/t/reported/") else { continue };
            let cloud = self.held.get(&Machine::Cloud);
            let known = cloud.and_then(|held| held.get(&format!("/c/reported/{rest}"))).and_then(reported);
            if let (Some(known), Some(is)) = (known, write.value.as_ref().and_then(reported)) {
                let holds = known.incarnation != is.incarnation || known.rev < is.rev;
                self.verdict.ask(now, INVARIANT, holds, || {
                    format!("{machine} gives {rest} {is:?}, and the cloud knows {known:?} already")
                });
            }
        }
    }

    /// The broker at `machine` shows a reported value to its clients.
    pub fn on_seen(&mut self, machine: Machine, id: &PropertyId, payload: &[u8], now: Mono) {
        // A revision counts within one life of a disk, and what subscribers get does not name the life.
        if manifests::site_of(&id.device).is_some_and(|site| self.wiped.contains(&site)) {
            return;
        }
        let is_remote = |site: usize| machine != Machine::Cloud && machine != Machine::Edge(site);
        if REMOTE_VALUES_MAY_GO_BACK && manifests::site_of(&id.device).is_some_and(is_remote) {
            return;
        }
        let Ok(body) = serde_json::from_slice::<ReportedBody>(payload) else { return };
        let last = self.subscribers.0.insert((machine, id.clone()), body.rev).unwrap_or_default();
        self.verdict.ask(now, "no subscriber sees a version go back", last <= body.rev, || {
            format!("{machine} saw {id} at revision {last}, then {}", body.rev)
        });
    }
}

fn device_of(key: &str) -> Option<PropertyId> {
    PropertyId::parse(key.splitn(4, '/').nth(3)?)
}

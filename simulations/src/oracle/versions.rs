//! No version goes back.

use std::collections::BTreeMap;

use bus::Mono;
use bus::twin::{DesiredVersion, Incarnation, ReportedVersion};
use bytes::Bytes;
use device_twin::twin::{Desired, Handled, Reported, ReportedBody};
use device_twin::{Authority, PropertyId};
use metadata::{Commit, Position};
use minicbor::Decode;

use super::Oracle;
use crate::machine::{Machine, Seat};
use crate::manifests;

const INVARIANT: &str = "no version goes back";
const APPLIED: &str = "/sync/applied";
/// Up to which version wishes are over at an edge.
pub(super) const OUTRANKED: &str = "/t/outranked/";
/// What an edge takes back with a cloud that was put back.
const FOLLOWED: [&str; 3] = ["/m/desired/", "/t/desired/", "/m/authority/"];

/// The last revision that each subscriber saw of a property, and the number of cloud crashes that this may not be
/// excused with any more.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    last: BTreeMap<(Machine, PropertyId), (u64, u64)>,
    cloud_crashes: u64,
}

impl Subscribers {
    /// What went straight from site to site was in the cloud's memory only. After a crash it knows the copy that came
    /// through the outbox, which may be older, and replays that: a value may go back once.
    pub(super) fn on_cloud_crash(&mut self) {
        self.cloud_crashes += 1;
    }

    /// What was seen before, if going back to `rev` from it is not excused.
    fn see(&mut self, subscriber: (Machine, PropertyId), rev: u64) -> u64 {
        let crashes = self.cloud_crashes;
        let (last, excused) = self.last.entry(subscriber).or_insert((rev, crashes));
        let before = std::mem::replace(last, rev);
        if rev < before && *excused < crashes {
            *excused = crashes;
            return rev;
        }
        before
    }
}

pub(super) fn reported(bytes: &Bytes) -> Option<ReportedVersion> {
    minicbor::decode::<Reported>(bytes).ok().map(|reported| reported.version)
}

pub(super) fn desired(bytes: &Bytes) -> Option<DesiredVersion> {
    minicbor::decode::<Desired>(bytes).ok().map(|desired| desired.version)
}

/// What is in force at an edge, as the cloud keeps it.
#[derive(Debug, Decode)]
struct InForce {
    /// Of the edge's disk.
    #[n(1)]
    life: Incarnation,
    #[n(2)]
    desired: Desired,
}

/// What is in force at an edge is what its present disk says.
fn is_of_another_disk(before: &Bytes, after: &Bytes) -> bool {
    let life = |bytes: &Bytes| minicbor::decode::<InForce>(bytes).ok().map(|kept| kept.life);
    life(before) != life(after)
}

pub(super) fn in_force(bytes: &Bytes) -> Option<Desired> {
    minicbor::decode::<InForce>(bytes).ok().map(|kept| kept.desired)
}

/// What orders the values under a key; `None` if nothing does.
fn order_of(key: &str, bytes: &Bytes) -> Option<(u64, u64)> {
    let version = |v: DesiredVersion| (v.epoch, v.seq);
    if key.starts_with("/m/desired/") || (key.starts_with("/e/") && key.contains("/desired/")) {
        desired(bytes).map(version)
    } else if key.starts_with("/t/desired/") {
        minicbor::decode::<Handled>(bytes).ok().map(|handled| version(handled.version))
    } else if ["/t/authority/", "/m/authority/"].iter().any(|prefix| key.starts_with(prefix))
        || (key.starts_with("/e/") && key.contains("/authority/"))
    {
        minicbor::decode::<Authority>(bytes).ok().map(|authority| (authority.epoch, 0))
    } else if key.starts_with("/t/own/") {
        desired(bytes).map(version)
    } else if key.starts_with("/c/desired/") {
        in_force(bytes).map(|desired| version(desired.version))
    } else if key.starts_with("/c/version/") || key.starts_with(OUTRANKED) {
        minicbor::decode(bytes).ok().map(version)
    } else if key == "/sync/epoch" {
        Some((u64::from_be_bytes(bytes[..].try_into().ok()?), 0))
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
            if key == APPLIED {
                self.check_position(machine, &before, after, now);
            }
            let goes_back = (self.put_back && FOLLOWED.iter().any(|prefix| key.starts_with(prefix)))
                || (key.starts_with("/c/desired/")
                    && (self.was_cloned(key) || is_of_another_disk(&before, after)));
            if let (Some(before), Some(after), false) =
                (order_of(key, &before), order_of(key, after), goes_back)
            {
                self.verdict.ask(now, INVARIANT, before <= after, || {
                    format!("{machine} {key}: {before:?} became {after:?}")
                });
            }
            if key.starts_with("/t/reported/") || key.starts_with("/c/reported/") {
                self.check_reported(machine, key, &before, after, now);
            }
        }
        if let Machine::Edge(seat) = machine
            && !self.aged.contains_key(&seat)
            && !self.refused.contains(&seat)
        {
            self.check_against_cloud(machine, commit, now);
        }
    }

    /// Whether two disks, which shared a life for a while, said in turns what is under `key`.
    fn was_cloned(&self, key: &str) -> bool {
        let site = device_of(key).and_then(|id| manifests::site_of(&id.device));
        site.is_some_and(|site| self.cloned.contains(&site))
    }

    fn check_position(&mut self, machine: Machine, before: &Bytes, after: &Bytes, now: Mono) {
        let position = |bytes: &Bytes| minicbor::decode::<Position>(bytes).unwrap_or_default();
        let (before, after) = (position(before), position(after));
        let holds = before.revision <= after.revision || !self.copies.are_of_one(before, after);
        self.verdict
            .ask(now, INVARIANT, holds, || format!("{machine} stood at {before:?}, then at {after:?}"));
    }

    fn check_reported(&mut self, machine: Machine, key: &str, before: &Bytes, after: &Bytes, now: Mono) {
        let (Some(was), Some(is)) = (reported(before), reported(after)) else { return };
        let site = device_of(key).and_then(|id| manifests::site_of(&id.device));
        let in_turns = self.was_cloned(key);
        let lives = site.and_then(|site| self.lives.get(&Seat::of(site)));
        let life = |v: ReportedVersion| lives.and_then(|l| l.iter().rposition(|i| *i == v.incarnation));
        let holds = match was.incarnation == is.incarnation {
            true => was.rev < is.rev,
            false => in_turns || life(was) < life(is),
        };
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
        let Ok(body) = serde_json::from_slice::<ReportedBody>(payload) else { return };
        let last = self.subscribers.see((machine, id.clone()), body.rev);
        self.verdict.ask(now, "no subscriber sees a version go back", last <= body.rev, || {
            format!("{machine} saw {id} at revision {last}, then {}", body.rev)
        });
    }
}

fn device_of(key: &str) -> Option<PropertyId> {
    PropertyId::parse(key.splitn(4, '/').nth(3)?)
}

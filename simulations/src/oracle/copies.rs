//! An edge's copy is a state that the cloud went through: each batch is visible whole or not at all.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use bus::Mono;
use metadata::{Commit, Position, Revision};

use super::Verdict;
use crate::disk::Image;
use crate::machine::Seat;
use crate::manifests;

/// What the cloud meant each edge to know, by site and revision, as hashes.
type History = BTreeMap<usize, BTreeMap<Revision, u64>>;

/// The histories that the cloud went through. One ends when its disk is put back to an older copy, and the next begins
/// with that copy's past.
#[derive(Debug, Default)]
pub(super) struct Copies {
    past: Vec<History>,
    present: History,
    /// Each run of the cloud by its term, and the number of its history.
    terms: BTreeMap<u64, usize>,
}

/// `/m/x` is the cloud's `/e/<edge>/x`, or where there is none `/all/x`.
pub(super) fn meant_for(site: usize, cloud: &Image) -> BTreeMap<String, bytes::Bytes> {
    let own = format!("/e/{}/", manifests::edge_name(site));
    let shared = cloud.under("/all/").map(|(name, value)| (name.to_owned(), value.clone()));
    let mut all: BTreeMap<String, bytes::Bytes> = shared.collect();
    all.extend(cloud.under(&own).map(|(name, value)| (name.to_owned(), value.clone())));
    all
}

fn hash<'a>(rows: impl Iterator<Item = (&'a str, &'a bytes::Bytes)>) -> u64 {
    let mut hasher = DefaultHasher::new();
    rows.for_each(|row| row.hash(&mut hasher));
    hasher.finish()
}

impl Copies {
    pub(super) fn begin_term(&mut self, term: u64) {
        self.terms.insert(term, self.past.len());
    }

    pub(super) fn on_cloud_put_back(&mut self, durable: Revision) {
        self.past.push(self.present.clone());
        self.on_cloud_crash(durable);
    }

    /// Whether two positions are of one history, so that their order says something.
    pub(super) fn are_of_one(&self, one: Position, other: Position) -> bool {
        self.terms.get(&one.term) == self.terms.get(&other.term)
    }

    pub(super) fn on_cloud_commit(&mut self, commit: &Commit, held: &Image) {
        let touched = |site: usize| {
            let own = format!("/e/{}/", manifests::edge_name(site));
            commit
                .writes
                .iter()
                .any(|w| w.key.as_str().starts_with("/all/") || w.key.as_str().starts_with(&own))
        };
        for site in (0..crate::world::MAX_SITES).filter(|site| touched(*site)) {
            let meant = meant_for(site, held);
            let hash = hash(meant.iter().map(|(name, value)| (name.as_str(), value)));
            self.present.entry(site).or_default().insert(commit.revision, hash);
        }
    }

    /// What was not durable never was.
    pub(super) fn on_cloud_crash(&mut self, durable: Revision) {
        for history in self.present.values_mut() {
            history.retain(|revision, _| *revision <= durable);
        }
    }

    pub(super) fn check_edge(
        &self,
        seat: Seat,
        commit: &Commit,
        held: &Image,
        verdict: &mut Verdict,
        now: Mono,
    ) {
        let concerns = |key: &str| key.starts_with("/m/") || key == "/sync/applied";
        let mut keys = commit.writes.iter().map(|write| &write.key).chain(&commit.forgotten);
        if !keys.any(|key| concerns(key.as_str())) {
            return;
        }
        let applied = held.get("/sync/applied").and_then(|b| minicbor::decode::<Position>(b).ok());
        let applied = applied.unwrap_or_default();
        let copy = hash(held.under("/m/"));
        let of = self.terms.get(&applied.term);
        let history = of.and_then(|number| self.past.get(*number)).unwrap_or(&self.present).get(&seat.site);
        let meant = history.and_then(|h| h.range(..=applied.revision).next_back()).map(|(_, hash)| *hash);
        let meant = meant.unwrap_or_else(|| hash(std::iter::empty()));
        verdict.ask(now, "a batch is visible whole or not at all", copy == meant, || {
            format!("{seat} stands at {applied:?} and holds what the cloud never meant it to know there")
        });
        let known = applied.term == 0 || self.terms.contains_key(&applied.term);
        verdict.ask(now, "positions are of a run of the cloud", known, || format!("{seat}: {applied:?}"));
    }
}

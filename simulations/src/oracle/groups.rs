//! What is changed as one is carried out as one.

use std::collections::BTreeMap;

use bus::Mono;
use bus::twin::Outcome;
use device_twin::PropertyId;
use device_twin::twin::{Desired, Group};

use super::authority::Decided;
use super::{Oracle, decode};
use crate::disk::Image;
use crate::machine::{Machine, Seat};

/// Whether it goes on: what ends at once was not carried out.
fn goes_on(decided: &Decided) -> bool {
    decided.handled.ack.as_ref().is_none_or(|ack| ack.outcome == Outcome::Succeeded)
}

fn group_of(held: &Image, Decided { id, handled }: &Decided) -> Option<Group> {
    let desired = decode::<Desired>(held.get(&format!("/m/desired/{id}")))?;
    desired.group.filter(|_| desired.version == handled.version)
}

impl Oracle {
    /// With the commit counted as held that decides on these: whoever goes on does so with all others of its group.
    pub(super) fn check_groups(&mut self, seat: Seat, decided: &[Decided], now: Mono) {
        let Some(held) = self.held.get(&Machine::Edge(seat)) else { return };
        let mut groups: BTreeMap<Group, Vec<&Decided>> = BTreeMap::new();
        for one in decided {
            if let Some(group) = group_of(held, one) {
                groups.entry(group).or_default().push(one);
            }
        }
        for (group, members) in groups {
            let going: Vec<&PropertyId> =
                members.iter().filter(|one| goes_on(one)).map(|one| &one.id).collect();
            let holds = going.is_empty() || going.len() == group.members.len();
            self.verdict.ask(now, "what is changed as one goes on as one, or not at all", holds, || {
                format!("{seat}: of {group:?} only {going:?} go on: {members:?}")
            });
        }
    }
}

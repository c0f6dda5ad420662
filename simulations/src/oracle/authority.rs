//! One side at a time says what is desired of a device: nothing is decided on under an authority that is over, and in
//! the end both sides name the same one and the cloud knows what sites wished.

use bus::Mono;
use bus::twin::{DeviceId, Outcome};
use device_twin::twin::{Desired, Handled};
use device_twin::{Authority, PropertyId};
use metadata::Commit;

use super::{Oracle, decode, versions};
use crate::disk::Image;
use crate::machine::{Machine, Seat};
use crate::manifests;

/// A desired value that a commit decides on.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) id: PropertyId,
    pub(super) handled: Handled,
}

impl Decided {
    /// The versions that `commit` puts and `before` does not hold.
    pub(super) fn in_commit(before: Option<&Image>, commit: &Commit) -> Vec<Self> {
        let put = commit.writes.iter().filter_map(|write| {
            let key = write.key.as_str();
            let id = PropertyId::parse(key.strip_prefix("/t/desired/")?)?;
            let handled = decode::<Handled>(write.value.as_ref())?;
            let known = decode::<Handled>(before.and_then(|held| held.get(key)));
            known.is_none_or(|known| known.version != handled.version).then_some(Self { id, handled })
        });
        put.collect()
    }
}

/// The highest epoch that an edge knows of, as stored.
pub(super) fn epoch_at(edge: &Image, device: &DeviceId) -> u64 {
    let told = |prefix: &str| decode::<Authority>(edge.get(&format!("{prefix}{device}")));
    let both = [told("/t/authority/"), told("/m/authority/")];
    both.into_iter().flatten().map(|authority| authority.epoch).max().unwrap_or_default()
}

impl Oracle {
    /// With `commit` counted as held.
    pub(super) fn check_decided(&mut self, seat: Seat, decided: &[Decided], now: Mono) {
        let Some(held) = self.held.get(&Machine::Edge(seat)) else { return };
        for Decided { id, handled } in decided {
            let epoch = epoch_at(held, &id.device);
            let ended = handled.ack.as_ref().map(|ack| ack.outcome);
            let holds = handled.version.epoch >= epoch || ended == Some(Outcome::Superseded);
            self.verdict.ask(now, "nothing is decided on under an authority that is over", holds, || {
                format!("{seat} takes {id} {} on, and knows of epoch {epoch}", handled.version)
            });
        }
    }

    pub(super) fn check_authorities(&mut self, site: usize, cloud: &Image, edge: &Image, now: Mono) {
        let prefix = format!("/e/{}/authority/", manifests::edge_name(site));
        let devices =
            edge.under("/t/authority/").chain(cloud.under(&prefix)).map(|(rest, _)| rest.to_owned());
        for device in devices.collect::<std::collections::BTreeSet<_>>() {
            let Ok(id) = device.parse::<DeviceId>() else { continue };
            let known = decode::<Authority>(cloud.get(&format!("{prefix}{device}"))).map(|a| a.epoch);
            let epoch = epoch_at(edge, &id);
            self.verdict.ask(now, "in the end both sides name one authority", known == Some(epoch), || {
                format!("edge-{site} {device}: epoch {epoch}, the cloud: {known:?}")
            });
        }
        self.check_own_wishes(site, cloud, edge, now);
    }

    fn check_own_wishes(&mut self, site: usize, cloud: &Image, edge: &Image, now: Mono) {
        for (rest, bytes) in edge.under("/t/own/") {
            let own = decode::<Desired>(Some(bytes));
            let told = cloud.get(&format!("/c/desired/{rest}")).and_then(versions::in_force);
            let clouds = edge.get(&format!("/m/desired/{rest}"));
            let replaced = decode::<Desired>(clouds).map(|desired| desired.version);
            let Some(own) = own.filter(|own| replaced < Some(own.version)) else { continue };
            let is_newer = told.as_ref().is_some_and(|told| told.version > own.version);
            if is_newer && self.wiped.contains(&site) {
                self.verdict.excuse("(a site's wish that was lost with its disk, and the cloud knows)");
                continue;
            }
            let same = told.as_ref() == Some(&own) || (self.cloned.contains(&site) && told.is_some());
            self.verdict.ask(now, "in the end the cloud knows what a site wished", same, || {
                format!("edge-{site} {rest}: wished here is {own:?}, the cloud knows {told:?}")
            });
        }
    }
}

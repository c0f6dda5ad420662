//! Once faults have ended and all had time: is everything where it belongs.

use std::collections::BTreeMap;

use bus::Mono;
use bus::twin::{DesiredVersion, Outcome};
use device_twin::PropertyId;
use device_twin::twin::{Ack, Desired, Reported};

use super::{Oracle, authority, copies, versions};
use crate::disk::Image;
use crate::machine::{Machine, Seat};
use crate::manifests::{self, SETTING};

/// What the world shows of a site at rest.
#[derive(Debug)]
pub struct Settled {
    pub site: usize,
    /// Where its devices really stand.
    pub positions: BTreeMap<PropertyId, f64>,
    /// Its mapper once claimed to have done what it had not.
    pub lied: bool,
}

impl Oracle {
    /// Asks everything that must hold in the end.
    pub fn check_settled(&mut self, sites: &[Settled], now: Mono) {
        let cloud = self.held.get(&Machine::Cloud).cloned().unwrap_or_default();
        for settled in sites {
            let edge = self.held.get(&Machine::edge(settled.site)).cloned().unwrap_or_default();
            self.check_copy(settled.site, &cloud, &edge, now);
            self.check_reports(settled.site, &cloud, &edge, now);
            self.check_wishes(settled, &cloud, &edge, now);
            self.check_authorities(settled.site, &cloud, &edge, now);
            self.check_ended(settled.site, &cloud, &edge, now);
            self.check_tripped(settled, &edge, now);
            let waiting = edge.under("/o/").count();
            let keys = || edge.under("/o/").map(|(key, _)| key.to_owned()).collect::<Vec<_>>();
            self.verdict.ask(now, "in the end nothing waits to go up", waiting == 0, || {
                format!("edge-{}: {waiting} entries: {:?}", settled.site, keys())
            });
        }
    }

    fn check_copy(&mut self, site: usize, cloud: &Image, edge: &Image, now: Mono) {
        let meant = copies::meant_for(site, cloud);
        let copy: BTreeMap<String, bytes::Bytes> =
            edge.under("/m/").map(|(name, value)| (name.to_owned(), value.clone())).collect();
        let differ = || {
            let names = meant.keys().chain(copy.keys());
            names.filter(|name| meant.get(*name) != copy.get(*name)).cloned().collect::<Vec<_>>()
        };
        self.verdict.ask(now, "in the end both copies are equal", meant == copy, || {
            format!("edge-{site} differs from the cloud in {:?}", differ())
        });
    }

    fn check_reports(&mut self, site: usize, cloud: &Image, edge: &Image, now: Mono) {
        for (rest, reported) in edge.under("/t/reported/") {
            let known = cloud.get(&format!("/c/reported/{rest}"));
            let show = |bytes: &bytes::Bytes| format!("{:?}", minicbor::decode::<Reported>(bytes).ok());
            self.verdict.ask(now, "in the end the cloud knows each report", known == Some(reported), || {
                format!("edge-{site} {rest}: {}, the cloud: {:?}", show(reported), known.map(show))
            });
        }
        let reports = self.promises.reports.iter().filter(|((seat, _), _)| *seat == Seat::of(site));
        for ((_, id), told) in reports {
            let known = cloud.get(&format!("/c/reported/{id}")).and_then(versions::reported);
            let holds =
                known.is_some_and(|known| known.incarnation == told.incarnation && known.rev >= told.rev);
            self.verdict.ask(now, "in the end no accepted report is lost", holds, || {
                format!("{id}: accepted {told:?}, the cloud has {known:?}")
            });
        }
    }

    fn check_wishes(&mut self, settled: &Settled, cloud: &Image, edge: &Image, now: Mono) {
        let site = settled.site;
        let of_site = |id: &PropertyId| manifests::site_of(&id.device) == Some(site);
        for (id, told) in self.promises.wishes.iter().filter(|(id, _)| of_site(id)) {
            let held = edge.get(&format!("/m/desired/{id}")).and_then(versions::desired);
            let holds = held >= Some(*told) || self.is_replaced(cloud, id, *told);
            self.verdict.ask(now, "in the end no accepted wish is lost", holds, || {
                format!("{id}: accepted {told}, edge-{site} has {held:?}")
            });
        }
        let prefix = format!("/e/{}/desired/", manifests::edge_name(site));
        for (rest, bytes) in cloud.under(&prefix) {
            let (Some(id), Ok(desired)) = (PropertyId::parse(rest), minicbor::decode::<Desired>(bytes))
            else {
                continue;
            };
            let reported = cloud.get(&format!("/c/reported/{rest}"));
            let ack = reported.and_then(|b| minicbor::decode::<Reported>(b).ok()).and_then(|r| r.ack);
            let epoch = authority::epoch_at(edge, &id.device);
            let told = ack
                .as_ref()
                .is_some_and(|ack| ack.version == desired.version && ack.outcome == Outcome::Superseded);
            if desired.version.epoch < epoch && told {
                self.verdict.excuse("(a wish under an authority that was over, and its author was told)");
                continue;
            }
            self.check_acked(settled, &id, &desired, ack.as_ref(), now);
        }
    }

    fn check_acked(
        &mut self,
        settled: &Settled,
        id: &PropertyId,
        desired: &Desired,
        ack: Option<&Ack>,
        now: Mono,
    ) {
        let answered: Option<DesiredVersion> = ack.map(|ack| ack.version);
        if self.lost_wishes.get(id).is_some_and(|lost| desired.version <= *lost) {
            return self
                .verdict
                .excuse("(a wish numbered at or below one that was lost with the cloud's disk)");
        }
        let is_setting = &*id.property == SETTING;
        let succeeded = ack.is_some_and(|ack| ack.outcome == Outcome::Succeeded);
        // What was to be changed with an actuator is given up with it.
        let must_succeed = is_setting && !self.grouped.contains(&(id.clone(), desired.version));
        let done = succeeded || (ack.is_some() && !must_succeed);
        self.verdict.ask(
            now,
            "in the end each wish is answered",
            answered == Some(desired.version) && done,
            || format!("{id}: the cloud wishes {}, the answer is {ack:?}", desired.version),
        );
        if is_setting && succeeded && !settled.lied && !self.moved.contains(&settled.site) {
            let stands = settled.positions.get(id).copied();
            self.verdict.ask(
                now,
                "in the end devices stand where they shall",
                stands == desired.value.as_f64(),
                || format!("{id} stands at {stands:?}, wished is {:?}", desired.value),
            );
        }
    }
}

//! How an edge is, for its cloud and for people.

use std::sync::Arc;
use std::time::Duration;

use bus::bus::LinkId;
use bus::{Channel, Class, Frame, Mono, Now};
use controller::site;
use device_twin::Tally;

use super::Edge;
use crate::health::fleet::Known;
use crate::health::{Facts, Fleet, Measured, Presence, Series, Values};
use crate::seam::{DialLane, Output};

/// For how long the oldest entry of the outbox has waited: told by one mark, which moves on when all before it is gone.
#[derive(Debug, Default)]
pub(super) struct OutboxAge {
    /// When it was set, and the number that the next entry of each lane got then.
    mark: Option<(Mono, [u64; 3])>,
}

impl OutboxAge {
    /// `ends` are the outbox' own. At most one interval less than the truth.
    fn handle_ends(&mut self, ends: [(u64, u64); 3], now: Mono) -> Duration {
        let waits = |(at, marked): &(Mono, [u64; 3])| {
            let is_older = ends.iter().zip(marked).any(|((first, _), marked)| first < marked);
            is_older.then(|| now.since(*at))
        };
        if let Some(age) = self.mark.as_ref().and_then(waits) {
            return age;
        }
        self.mark = Some((now, ends.map(|(_, next)| next)));
        Duration::ZERO
    }
}

impl Edge {
    pub(super) fn handle_measured(&mut self, mut measured: Measured, now: Now) {
        let followed = self.bus.link_of(&self.cloud);
        for link in measured.links.iter_mut().filter(|link| link.peer == self.cloud) {
            // To a replica that stands by.
            link.in_reserve |= link.lane == DialLane::Bus && followed != Some(link.link);
        }
        let own = self.own_values(now);
        let disk = self.journal.degraded().map(str::to_owned);
        self.monitor.handle_measured(measured, &own, disk.as_deref(), now.mono);
        self.monitor.set_paths(self.neighbours.views());
        self.tell_health(now);
    }

    fn own_values(&mut self, now: Now) -> Values {
        let (tally, sync) = (self.twins.tally(), self.replica.stats());
        let oldest = self.outbox_age.handle_ends(self.replica.outbox_ends(), now.mono);
        let Tally { devices, offline, rules, rules_tripped } = tally;
        let mut values = Values::default();
        for (series, value) in [
            (Series::OutboxEntries, self.replica.outbox_len() as u64),
            (Series::OutboxOldest, oldest.as_millis() as u64),
            (Series::MeshWaiting, self.replica.messages_len() as u64),
            (Series::Devices, devices as u64),
            (Series::DevicesOffline, offline as u64),
            (Series::Rules, rules as u64),
            (Series::RulesTripped, rules_tripped as u64),
            (Series::HealthSent, self.teller.sent_bytes()),
            (Series::SyncSnapshots, sync.snapshots),
            (Series::SyncRepairs, sync.repairs),
            (Series::SyncNacks, sync.nacks),
            (Series::CheckupsDropped, self.asked.dropped()),
            (Series::RenewalsFailed, self.renewal.failed()),
        ] {
            values.set(series, value);
        }
        if let Some(until) = self.renewal.until() {
            values.set(Series::CertificateEnds, until.0);
        }
        values
    }

    /// Of class telemetry: whatever twins have to say goes first.
    fn tell_health(&mut self, now: Now) {
        let Some(link) = self.bus.link_of(&self.cloud).filter(|_| self.bus.takes_health(&self.cloud)) else {
            return;
        };
        if let Some(payload) = self.teller.handle_condition(self.monitor.condition(), now.mono) {
            let frame = Frame::new(Channel::Health, payload);
            self.said.push_back(Output::Send { link, class: Class::Telemetry, frame });
        }
    }

    pub(super) fn handle_health(&mut self, link: LinkId, payload: &[u8]) {
        // A frame that crossed with a close, or a neighbour's.
        if self.bus.link_of(&self.cloud) != Some(link) {
            return;
        }
        self.teller.handle_frame(payload);
    }

    pub(super) fn handle_cloud_change(&mut self, now: Now) {
        self.teller.handle_link();
        self.monitor.handle_change(now.mono);
        self.cloud_since = Some(now.wall);
    }

    /// Itself, and the cloud as far as it knows it.
    pub(super) fn say_fleet(&mut self, id: u64, now: Now) {
        let is_connected = self.bus.link_of(&self.cloud).is_some();
        let cloud_state = match (is_connected, self.cloud_since) {
            (true, _) => Presence::Connected,
            (false, Some(_)) => Presence::Lost,
            (false, None) => Presence::Never,
        };
        let clock = self.bus.clock_of(&self.cloud, now).map(|clock| clock.offset_ms);
        let site = site::list(site::TOLD, &self.keyspace).remove(&self.identity.node);
        let age = self.monitor.age(now.mono).map(|age| age.as_millis() as u64);
        let me = Known {
            is_me: true,
            node: self.identity.node.clone(),
            site,
            state: Presence::Connected,
            is_cut_off: !is_connected,
            since: Some(self.monitor.started()),
            heard_ms_ago: age,
            // As the cloud has it: how far ahead of its clock this one is.
            clock_offset_ms: clock.map(|offset| offset.saturating_neg()),
            behind: None,
        };
        let cloud = Known {
            is_me: false,
            node: self.cloud.clone(),
            site: None,
            state: cloud_state,
            is_cut_off: false,
            since: self.cloud_since,
            heard_ms_ago: None,
            clock_offset_ms: clock,
            behind: None,
        };
        let own = Some(Arc::clone(self.monitor.condition()));
        let nodes = vec![Facts { known: me, condition: own }, Facts { known: cloud, condition: None }];
        let fleet = Box::new(Fleet::new(&self.identity, now.wall, nodes));
        self.said.push_back(Output::Fleet { id, fleet });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_as_old_as_the_oldest_of_it_is_known_to_be() {
        let mut age = OutboxAge::default();
        let mut look = |seconds, first, next| {
            let now = Mono::ZERO + Duration::from_secs(seconds);
            age.handle_ends([(1, 1), (first, next), (1, 1)], now).as_secs()
        };
        assert_eq!(look(0, 1, 1), 0);
        assert_eq!(look(10, 1, 3), 0, "the mark is from before: both are newer");
        assert_eq!(look(20, 1, 5), 10);
        assert_eq!(look(300, 2, 9), 290);
        // All that waited then is gone; what waits now is newer.
        assert_eq!(look(310, 3, 9), 0);
        assert_eq!(look(320, 9, 9), 0);
    }
}

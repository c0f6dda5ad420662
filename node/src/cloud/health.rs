//! How the cloud and its edges are.

use std::sync::Arc;

use bus::bus::LinkId;
use bus::{Channel, Class, Frame, Now};
use controller::nodes::{self, NodeRecord};
use metadata::Feed;

use super::Cloud;
use crate::health::fleet::{Known, MAX_BEHIND};
use crate::health::ledger::Member;
use crate::health::{Facts, Fleet, Measured, Presence, Series, Values};
use crate::seam::Output;

impl Cloud {
    pub(super) fn handle_measured(&mut self, measured: Measured, now: Now) {
        let stats = self.feed.stats();
        let mut own = Values::default();
        own.set(Series::SyncSnapshots, stats.snapshots);
        own.set(Series::SyncRepairs, stats.repairs);
        own.set(Series::SyncNacks, stats.nacks);
        own.set(Series::CheckupsDropped, self.asking.dropped());
        own.set(Series::RenewalsFailed, self.renewal.failed());
        if let Some(until) = self.renewal.until() {
            own.set(Series::CertificateEnds, until.0);
        }
        let disk = self.journal.degraded().map(str::to_owned);
        self.monitor.handle_measured(measured, &own, disk.as_deref(), now.mono);
    }

    /// An edge says how it is.
    pub(super) fn handle_health(&mut self, link: LinkId, payload: &[u8], now: Now) {
        // A frame that crossed with a close finds no peer.
        let Some(edge) = self.bus.peer_of(link).map(|peer| peer.name.clone()) else { return };
        if let Some(ack) = self.ledger.handle_frame(&edge, payload, now) {
            let frame = Frame::new(Channel::Health, ack);
            self.said.push_back(Output::Send { link, class: Class::Telemetry, frame });
        }
    }

    pub(super) fn say_fleet(&mut self, id: u64, now: Now) {
        let records = nodes::list(&self.keyspace).unwrap_or_default();
        let me = Facts { known: self.known(now), condition: Some(Arc::clone(self.monitor.condition())) };
        let edges = records.into_iter().map(|record| self.ledger.facts(self.member(record, now), now.mono));
        let nodes = std::iter::once(me).chain(edges).collect();
        let fleet = Box::new(Fleet::new(&self.identity(), now.wall, nodes));
        self.said.push_back(Output::Fleet { id, fleet });
    }

    fn known(&self, now: Now) -> Known {
        Known {
            is_me: true,
            node: self.me.clone(),
            site: None,
            state: Presence::Connected,
            is_cut_off: false,
            since: Some(self.monitor.started()),
            heard_ms_ago: self.monitor.age(now.mono).map(|age| age.as_millis() as u64),
            clock_offset_ms: None,
            behind: None,
        }
    }

    pub(super) fn member(&self, record: NodeRecord, now: Now) -> Member {
        let clock = self.bus.clock_of(&record.id(), now);
        Member {
            is_known: Feed::has_heard(&record.name, &self.keyspace),
            clock_offset_ms: clock.map(|clock| clock.offset_ms),
            behind: self.feed.behind(&record.name, MAX_BEHIND, &self.keyspace).map(|keys| keys as u64),
            name: record.name,
            site: record.site,
        }
    }
}

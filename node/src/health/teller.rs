//! What an edge tells its cloud of itself, and when.

use std::time::Duration;

use bus::Mono;
use bytes::Bytes;

use super::links::{LinkHead, LinkState};
use super::report::{Ack, Condition, Report};
use super::series::{LinkSeries, Series};

/// A quiet edge is heard this often: a little less than every third look at itself, so that one which comes early is
/// not left out.
pub const QUIET: Duration = Duration::from_secs(28);

/// News wait at most this long: every look, if it has some.
pub const NEWS: Duration = Duration::from_secs(8);

/// Below this many bytes a second, what a link carries is no news.
const LITTLE: u64 = 4_096;

/// The edge's half.
#[derive(Debug, Default)]
pub struct Teller {
    seq: u64,
    /// What the cloud has on the present link.
    acked: Option<(u64, Condition)>,
    /// What it was told last, and has not acknowledged.
    pending: Option<(u64, Condition)>,
    told: Option<Mono>,
    /// Payloads so far, frames' heads included.
    sent_bytes: u64,
}

/// Before each payload: its length and channel.
const FRAME_HEAD: u64 = 5;

impl Teller {
    /// The link to the cloud is new, or gone: nobody knows what it has.
    pub fn handle_link(&mut self) {
        (self.acked, self.pending, self.told) = (None, None, None);
    }

    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// The edge has looked at itself while the cloud listens; what to tell it, if it is time.
    pub fn handle_condition(&mut self, condition: &Condition, now: Mono) -> Option<Bytes> {
        if !self.is_due(condition, now) {
            return None;
        }
        // What was told before and not acknowledged may be lost: this one says all.
        if self.pending.take().is_some() {
            self.acked = None;
        }
        self.seq += 1;
        let base = self.acked.as_ref().map(|(seq, condition)| (*seq, condition));
        let payload = minicbor::to_vec(Report::new(self.seq, condition, base)).unwrap_or_default();
        self.pending = Some((self.seq, condition.clone()));
        self.told = Some(now);
        self.sent_bytes += payload.len() as u64 + FRAME_HEAD;
        Some(payload.into())
    }

    fn is_due(&self, condition: &Condition, now: Mono) -> bool {
        let Some(told) = self.told else { return true };
        let since = now.since(told);
        let last = self.pending.as_ref().or(self.acked.as_ref());
        since >= QUIET || since >= NEWS && last.is_none_or(|(_, last)| is_news(last, condition))
    }

    /// An answer that cannot be read is none: the next report says all.
    pub fn handle_frame(&mut self, payload: &[u8]) {
        let Ok(Ack { seq }) = minicbor::decode(payload) else { return };
        match self.pending.take() {
            Some(pending) if pending.0 == seq => self.acked = Some(pending),
            _ if seq == 0 => self.handle_link(),
            // Late: of a report that another one has followed.
            pending => self.pending = pending,
        }
    }
}

/// Whether people should not wait for it.
fn is_news(before: &Condition, after: &Condition) -> bool {
    const WATCHED: [Series; 5] =
        [Series::DiskDegraded, Series::Devices, Series::DevicesOffline, Series::Rules, Series::RulesTripped];
    // Of a new link its rates are not known at the first look.
    let links = |condition: &Condition| -> Vec<(LinkHead, bool)> {
        let known = |link: &LinkState| link.get(LinkSeries::SentRate).is_some();
        condition.links.iter().map(|link| (link.head.clone(), known(link))).collect()
    };
    before.about != after.about
        || WATCHED.iter().any(|series| before.values.get(*series) != after.values.get(*series))
        || links(before) != links(after)
        || has_moved(traffic(before), traffic(after))
        || has_moved(waiting(before), waiting(after))
}

fn traffic(condition: &Condition) -> u64 {
    condition.links.iter().map(|link| link.throughput()).sum()
}

/// Entries of the outbox weigh as much as a full packet.
fn waiting(condition: &Condition) -> u64 {
    condition.values.get(Series::OutboxEntries).unwrap_or_default().saturating_mul(1_500)
}

/// By half or to the double, and more than a little.
fn has_moved(before: u64, after: u64) -> bool {
    let (less, more) = (before.min(after), before.max(after));
    more > LITTLE && more / 2 >= less
}

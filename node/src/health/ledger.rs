//! What the cloud has heard of its edges.

use std::collections::BTreeMap;
use std::sync::Arc;

use bus::{Mono, Name, NodeId, Now, UnixMillis};
use bytes::Bytes;

use super::fleet::{Facts, Known, Presence};
use super::report::{Ack, Condition, MAX_REPORT, Report};

/// One entry a member that was seen since the cloud's start: under 2 KiB each.
#[derive(Debug, Default)]
pub struct Ledger {
    edges: BTreeMap<Name, Entry>,
}

#[derive(Debug)]
struct Entry {
    is_connected: bool,
    since: UnixMillis,
    /// The report that `heard` has come to; 0: none on the present link.
    seq: u64,
    heard: Option<(Mono, Arc<Condition>)>,
}

/// What the cloud knows of an edge besides.
#[derive(Debug, Clone)]
pub struct Member {
    pub name: Name,
    pub site: Name,
    /// Whether it has ever been heard, before this cloud's start too.
    pub is_known: bool,
    pub clock_offset_ms: Option<i64>,
    pub behind: Option<u64>,
}

impl Ledger {
    pub fn handle_up(&mut self, edge: &Name, now: Now) {
        self.handle_link(edge, true, now);
    }

    pub fn handle_down(&mut self, edge: &Name, now: Now) {
        self.handle_link(edge, false, now);
    }

    fn handle_link(&mut self, edge: &Name, is_connected: bool, now: Now) {
        let heard = self.edges.remove(edge).and_then(|entry| entry.heard);
        self.edges.insert(edge.clone(), Entry { is_connected, since: now.wall, seq: 0, heard });
    }

    /// Forgets who is no member any more.
    pub fn retain(&mut self, is_member: impl Fn(&Name) -> bool) {
        self.edges.retain(|edge, _| is_member(edge));
    }

    /// A report; the answer to it. One that cannot be read is left alone: a link that carries twins is not ended for it,
    /// and that the edge was not heard for long shows by itself. Unanswered, the edge's next one says all.
    pub fn handle_frame(&mut self, edge: &Name, payload: &[u8], now: Now) -> Option<Bytes> {
        // A later version may have more rows.
        if payload.len() > 2 * MAX_REPORT {
            return None;
        }
        let report: Report = minicbor::decode(payload).ok()?;
        let nothing = Condition::default();
        let Some(entry) = self.edges.get_mut(edge) else { return Some(ack(0)) };
        let base = match (report.base, &entry.heard) {
            (0, _) => &nothing,
            (base, Some((_, heard))) if base == entry.seq => heard,
            (_, _) => return Some(ack(0)),
        };
        let seq = report.seq;
        let condition = report.apply(base)?;
        (entry.seq, entry.heard) = (seq, Some((now.mono, Arc::new(condition))));
        Some(ack(seq))
    }

    /// How a member is, as far as was heard.
    pub fn facts(&self, member: Member, now: Mono) -> Facts {
        let Member { name, site, is_known, clock_offset_ms, behind } = member;
        let entry = self.edges.get(&name);
        let heard = entry.and_then(|entry| entry.heard.as_ref());
        let state = match entry {
            Some(entry) if entry.is_connected => Presence::Connected,
            Some(_) => Presence::Lost,
            None if is_known => Presence::Lost,
            None => Presence::Never,
        };
        let known = Known {
            is_me: false,
            node: NodeId::edge(name),
            site: Some(site),
            state,
            is_cut_off: false,
            since: entry.map(|entry| entry.since),
            heard_ms_ago: heard.map(|(at, _)| now.since(*at).as_millis() as u64),
            clock_offset_ms,
            behind,
        };
        Facts { known, condition: heard.map(|(_, condition)| Arc::clone(condition)) }
    }
}

fn ack(seq: u64) -> Bytes {
    minicbor::to_vec(Ack { seq }).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::links::{LinkHead, LinkState, MAX_LINKS, Path};
    use crate::health::series::LinkSeries;
    use crate::health::{Trouble, TroubleKind};

    /// What 100,000 edges cost follows from it: 200 MB at the very most, and 100 MB as most of them are.
    #[test]
    fn an_edge_takes_less_than_two_kilobytes() {
        let name = Name::new("pump-house-north").unwrap();
        let head = LinkHead {
            path: Path::Direct,
            peer: NodeId::edge(name),
            is_packets: true,
            in_reserve: false,
            remote: Some("[2001:db8::1]:10001".parse().unwrap()),
        };
        let links = vec![LinkState { head, numbers: [0; LinkSeries::ALL.len()] }; MAX_LINKS];
        let kind = TroubleKind::Disk;
        let trouble = Trouble { kind, detail: "x".repeat(160), at: UnixMillis(0) };
        let mut condition = Condition { links, ..Condition::default() };
        condition.about.trouble = Some(trouble);
        condition.about.version = "0.1.0".to_owned();
        let bytes = size_of::<Entry>()
            + size_of::<Condition>()
            + condition.links.len() * (size_of::<LinkState>() + 32)
            + 160
            + condition.about.version.len();
        assert!(bytes < 2048, "{bytes}");
        let usual = size_of::<Entry>() + size_of::<Condition>() + 2 * (size_of::<LinkState>() + 32);
        assert!(usual < 1024, "{usual}");
    }
}

//! The figures of a process: what its shard, broker, store and recorder count.

use bus::UnixMillis;
use device_twin::io::{self, recorder};
use router::DropReason;
use router::io::device::Overlay;
use router::io::shard::{DialError, Lane, LinkReport, PacketStats, Stats};

use super::super::store;
use crate::health::{Measured, MeasuredLink, Series, Trouble, TroubleKind, Values};
use crate::seam::DialLane;

/// What is asked.
#[derive(Debug)]
pub(in crate::io) struct Parts<'a> {
    pub(in crate::io) shard: Stats,
    pub(in crate::io) broker: io::Stats,
    pub(in crate::io) store: store::Stats,
    pub(in crate::io) recorder: recorder::Stats,
    pub(in crate::io) overlay: Option<&'a Overlay>,
    pub(in crate::io) trouble: Option<Trouble>,
}

pub(in crate::io) fn measured(parts: Parts<'_>, links: &[LinkReport]) -> Measured {
    let mut values = Values::default();
    counted(&parts, &mut values);
    dropped(&parts.shard.packets, &mut values);
    if let Some(bytes) = resident() {
        values.set(Series::ResidentMemory, bytes);
    }
    Measured {
        values,
        links: links.iter().filter_map(link).collect(),
        trouble: parts.trouble,
        offload: parts.overlay.map(|overlay| (overlay.offload().tcp, overlay.offload().udp)),
    }
}

fn counted(parts: &Parts<'_>, values: &mut Values) {
    let Parts { shard, broker, store, recorder, .. } = parts;
    let (kept, lost, dropped) = (&recorder.recorded, &recorder.lost, &recorder.dropped);
    let packets = &shard.packets;
    for (series, value) in [
        (Series::Links, shard.links),
        (Series::DialsFailed, shard.dials_failed),
        (Series::LinksUp, shard.links_up),
        (Series::HistorySamples, kept.samples),
        (Series::HistorySamplesLost, dropped.samples + lost.samples),
        (Series::AuditEntries, kept.audit),
        (Series::AuditEntriesLost, dropped.audit + lost.audit),
        (Series::RuleLogLines, kept.rules),
        (Series::RuleLogLinesLost, dropped.rules + lost.rules),
        (Series::StoreCommits, store.commits),
        (Series::StoreTransactions, store.transactions),
        (Series::FramesSent, shard.frames_sent),
        (Series::FramesReceived, shard.frames_received),
        (Series::FramesDropped, shard.frames_dropped),
        (Series::PeerFaults, shard.peer_faults),
        (Series::HandshakesRefused, shard.refused + shard.refused_busy),
        (Series::UdpSent, shard.udp_sent),
        (Series::UdpReceived, shard.udp_received),
        (Series::UdpErrors, shard.udp_errors),
        (Series::PacketsSent, packets.sent),
        (Series::PacketsReceived, packets.received),
        (Series::PacketsForwarded, packets.forwarded),
        (Series::MqttReceived, broker.received),
        (Series::MqttSent, broker.sent),
        (Series::MqttRefused, broker.refused),
        (Series::MqttNotAdmitted, broker.not_admitted),
        (Series::MqttHandshakesFailed, broker.handshakes_failed),
        (Series::MqttMalformed, broker.malformed),
        (Series::MqttTooSlow, broker.too_slow),
        (Series::MqttDropped, broker.dropped),
        (Series::MqttDroppedKept, broker.dropped_kept),
        (Series::MqttExpired, broker.expired),
    ] {
        values.set(series, value);
    }
}

/// Packets by the reason why they went no further.
pub(in crate::io) fn drops(packets: &PacketStats) -> impl Iterator<Item = (&'static str, u64)> {
    let ruled = DropReason::ALL.iter().zip(packets.dropped).map(|(reason, count)| (reason.as_str(), count));
    let unsent = [
        ("not_admitted", packets.not_admitted),
        ("no_table", packets.no_table),
        ("no_lane", packets.no_lane),
        ("too_big", packets.too_big),
        ("queue_full", packets.queue_full),
    ];
    ruled.chain(unsent)
}

fn dropped(packets: &PacketStats, values: &mut Values) {
    for (reason, count) in drops(packets) {
        if let Some(series) = Series::labelled(Series::DroppedNoRoute.row().metric, reason) {
            values.set(series, count);
        }
    }
}

/// A client that joins has no name yet, and is gone in a second.
fn link(report: &LinkReport) -> Option<MeasuredLink> {
    let lane = match report.lane {
        Lane::Bus => DialLane::Bus,
        Lane::Packets => DialLane::Packets,
        Lane::Join | Lane::Renew => return None,
    };
    let queued = report.queue.as_ref().map_or(0, |queue| queue.classes.iter().map(|class| class.bytes).sum());
    Some(MeasuredLink {
        link: report.link,
        peer: report.peer.clone()?,
        lane,
        in_reserve: report.in_reserve,
        remote: report.remote,
        rtt: report.rtt,
        mtu: report.mtu,
        segments: report.segments,
        queued,
        sent: report.sent,
        lost: report.lost,
        sent_bytes: report.sent_bytes,
        received_bytes: report.received_bytes,
    })
}

/// Of this process, in bytes (proc(5)).
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// Why the cloud cannot be reached, as people see it.
pub(in crate::io) fn trouble_of_dial(why: &DialError, at: UnixMillis) -> Trouble {
    let kind = match why {
        DialError::NoAnswer | DialError::Address { .. } => TroubleKind::Unreachable,
        DialError::Busy => TroubleKind::Busy,
        DialError::Server(_) => TroubleKind::Stranger,
        DialError::Refused(_) | DialError::Expired => TroubleKind::Refused,
        DialError::NoCredentials | DialError::Failed(_) => TroubleKind::Other,
    };
    Trouble { kind, detail: format!("cannot reach the cloud: {why}"), at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_for_a_drop_has_a_row() {
        let metric = Series::DroppedNoRoute.row().metric;
        for (reason, _) in drops(&PacketStats::default()) {
            assert!(Series::labelled(metric, reason).is_some(), "{reason}");
        }
    }
}

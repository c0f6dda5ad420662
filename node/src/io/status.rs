//! What the parts of a process say of themselves in `kubebus status`.

use std::time::Duration;

use bus::overlay::Lease;
use device_twin::io::{self, recorder};
use router::io::device::Overlay;
use router::io::shard::{LinkReport, PacketStats, Stats};
use router::queue::{self, Class};
use serde_json::{Map, Value, json};

use super::{metrics, store};

/// The overlay interface.
pub(super) fn overlay(overlay: Option<&Overlay>, lease: Option<&Lease>) -> Value {
    let Some(overlay) = overlay else { return json!({ "interface": "off" }) };
    let Some(lease) = lease else { return json!({ "interface": "waiting for the first lease" }) };
    let offload = overlay.offload();
    json!({
        "interface": overlay.name(),
        "addresses": [lease.v4.to_string(), lease.v6.to_string()],
        "containers": [lease.container_v4.to_string(), lease.container_v6.to_string()],
        "offload": { "tcp": offload.tcp, "udp": offload.udp },
    })
}

/// Each link that is up.
pub(super) fn links(links: &[LinkReport]) -> Value {
    links.iter().map(link).collect()
}

fn link(link: &LinkReport) -> Value {
    let LinkReport {
        lane,
        in_reserve,
        peer,
        remote,
        rtt,
        min_rtt,
        mtu,
        sent,
        lost,
        black_holes,
        segments,
        queue,
        link: _,
        sent_bytes,
        received_bytes,
    } = link;
    json!({
        "lane": lane.to_string(),
        "in_reserve": in_reserve,
        "peer": peer.as_ref().map(ToString::to_string),
        "remote": remote.to_string(),
        "rtt_ms": millis(*rtt),
        "min_rtt_ms": millis(*min_rtt),
        "loss_percent": if *sent > 0 { hundredths(100.0 * *lost as f64 / *sent as f64) } else { 0.0 },
        "mtu": mtu,
        "black_holes": black_holes,
        "packets_per_send": segments,
        "sent_bytes": sent_bytes,
        "received_bytes": received_bytes,
        "queue": queue.as_ref().map(waiting),
    })
}

/// What waits for a thin link; a fast one is held to nothing.
fn waiting(queue: &queue::Stats) -> Value {
    let queue::Stats { classes, rate, base_rtt, bound } = queue;
    let classes: Map<String, Value> = Class::ALL
        .iter()
        .zip(classes)
        .filter(|(_, class)| class.enqueued > 0)
        .map(|(class, stats)| (class.as_str().to_owned(), class_stats(stats)))
        .collect();
    json!({
        "held_to_kbit": rate.map(|rate| rate.bits_per_s() / 1000),
        "base_rtt_ms": base_rtt.map(millis),
        "bound_bytes": bound,
        "classes": classes,
    })
}

fn class_stats(stats: &queue::ClassStats) -> Value {
    json!({
        "waiting_bytes": stats.bytes,
        "sent": stats.sent,
        "marked": stats.marked,
        "dropped_codel": stats.dropped_codel,
        "dropped_full": stats.dropped_full,
        "sojourn_ms": millis(stats.sojourn),
        "sojourn_max_ms": millis(stats.sojourn_max),
    })
}

fn millis(duration: Duration) -> f64 {
    hundredths(duration.as_secs_f64() * 1000.0)
}

fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// Packets by the reason why they went no further; `docs/network.md` tells people what to do about each.
fn dropped(packets: &PacketStats) -> Map<String, Value> {
    metrics::drops(packets).map(|(reason, count)| (reason.to_owned(), count.into())).collect()
}

/// All counters, by the names of their metrics.
pub(super) fn counters(
    shard: &Stats,
    mqtt: &io::Stats,
    store: &store::Stats,
    kept: &recorder::Stats,
) -> Value {
    let packets = &shard.packets;
    json!({
        "history_samples": kept.recorded.samples,
        "history_samples_lost": kept.dropped.samples + kept.lost.samples,
        "audit_entries": kept.recorded.audit,
        "audit_entries_lost": kept.dropped.audit + kept.lost.audit,
        "rule_log_lines": kept.recorded.rules,
        "rule_log_lines_lost": kept.dropped.rules + kept.lost.rules,
        "store_commits": store.commits,
        "store_transactions": store.transactions,
        "link_frames_sent": shard.frames_sent,
        "link_frames_received": shard.frames_received,
        "link_frames_dropped": shard.frames_dropped,
        "link_peer_faults": shard.peer_faults,
        "link_handshakes_refused": shard.refused + shard.refused_busy,
        "router_packets_sent": packets.sent,
        "router_packets_received": packets.received,
        "router_packets_forwarded": packets.forwarded,
        "router_packets_dropped": dropped(packets),
        "mqtt_received": mqtt.received,
        "mqtt_sent": mqtt.sent,
        "mqtt_refused": mqtt.refused,
        "mqtt_not_admitted": mqtt.not_admitted,
        "mqtt_handshakes_failed": mqtt.handshakes_failed,
        "mqtt_malformed": mqtt.malformed,
        "mqtt_too_slow": mqtt.too_slow,
        "mqtt_dropped": mqtt.dropped,
        "mqtt_dropped_kept": mqtt.dropped_kept,
        "mqtt_expired": mqtt.expired,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use router::DropReason;
    use std::collections::BTreeSet;

    /// The table's rows: a reason and what it means.
    fn documented() -> Vec<(&'static str, &'static str)> {
        let page = include_str!("../../../docs/network.md");
        let (_, table) = page.split_once("| reason | means | what to do |").unwrap();
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        let cells = |row: &'static str| {
            let mut cells = row.split('|').skip(1).map(str::trim);
            (cells.next().unwrap().trim_matches('`'), cells.next().unwrap())
        };
        rows.map(cells).collect()
    }

    #[test]
    fn the_page_for_network_admins_has_every_reason_for_a_drop() {
        let counted = dropped(&PacketStats::default());
        let documented = documented();
        let reasons: BTreeSet<&str> = documented.iter().map(|(reason, _)| *reason).collect();
        assert_eq!(reasons, counted.keys().map(String::as_str).collect());
        for reason in DropReason::ALL {
            assert!(documented.contains(&(reason.as_str(), reason.to_string().as_str())), "{reason:?}");
        }
    }
}

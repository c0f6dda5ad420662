//! What is counted and measured at every node: the one table of metrics.
//!
//! A row's place is its number on the wire between an edge and its cloud ([`super::report`]): rows are only ever added
//! at the end, and one that is gone leaves a number that nobody uses again. The exporter, `docs/metrics.md` and the
//! dashboards go by the same rows.

use super::report::UNKNOWN;

/// How a number behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Grows from the start of its process, or of its link.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// What one kept number is in the metric's base unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    One,
    /// Thousandths: milliseconds of a metric in seconds.
    Milli,
    /// Millionths.
    Micro,
}

impl Scale {
    /// How many kept units make one of the metric's.
    pub fn divisor(self) -> u64 {
        match self {
            Self::One => 1,
            Self::Milli => 1_000,
            Self::Micro => 1_000_000,
        }
    }
}

/// One row: a metric, or one value of its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub metric: &'static str,
    pub kind: Kind,
    pub scale: Scale,
    /// Its own label and value, beside `node` and `site`.
    pub label: Option<(&'static str, &'static str)>,
    pub help: &'static str,
}

macro_rules! table {
    ($(#[$meta:meta])* $name:ident, $rows:ident:
     $($series:ident $kind:ident $scale:ident $metric:literal $([$label:literal $value:literal])? $help:literal;)*) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($series),* }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$series),*];

            pub fn row(self) -> &'static Row {
                &$rows[self as usize]
            }
        }

        static $rows: [Row; $name::ALL.len()] = [$(Row {
            metric: $metric,
            kind: Kind::$kind,
            scale: Scale::$scale,
            label: table!(@label $([$label $value])?),
            help: $help,
        }),*];
    };
    (@label) => { None };
    (@label [$label:literal $value:literal]) => { Some(($label, $value)) };
}

table! {
    /// What a node says of itself.
    Series, SERIES:
    DiskDegraded Gauge One "kubebus_disk_degraded" "1 while the disk refuses writes and the node goes on in memory.";
    OutboxEntries Gauge One "kubebus_outbox_entries" "Entries that wait at an edge for the cloud to store them.";
    OutboxOldest Gauge Milli "kubebus_outbox_oldest_seconds" "The oldest entry of the outbox has waited for at least this long.";
    MeshWaiting Gauge One "kubebus_mesh_messages_waiting" "Messages of apps for other sites that wait at an edge for the cloud.";
    Devices Gauge One "kubebus_devices" "Devices of the node.";
    DevicesOffline Gauge One "kubebus_devices_offline" "Devices that nobody can read or write at present.";
    Rules Gauge One "kubebus_rules" "Rules that run on the node.";
    RulesTripped Gauge One "kubebus_rules_tripped" "Rules of which a case is latched.";
    ResidentMemory Gauge One "kubebus_resident_memory_bytes" "Memory of the node's process, as the kernel counts it.";
    Links Gauge One "kubebus_links" "Links that are up.";
    DialsFailed Counter One "kubebus_dials_failed_total" "Dials that made no link.";
    LinksUp Counter One "kubebus_links_up_total" "Links that came up.";
    HistorySamples Counter One "kubebus_history_samples_total" "Samples that were recorded.";
    HistorySamplesLost Counter One "kubebus_history_samples_lost_total" "Samples that the recorder had no room for, or could not write.";
    AuditEntries Counter One "kubebus_audit_entries_total" "Entries of the audit.";
    AuditEntriesLost Counter One "kubebus_audit_entries_lost_total" "Entries of the audit that the recorder had no room for, or could not write.";
    RuleLogLines Counter One "kubebus_rule_log_lines_total" "Lines of the rules' log.";
    RuleLogLinesLost Counter One "kubebus_rule_log_lines_lost_total" "Lines of the rules' log that were lost.";
    StoreCommits Counter One "kubebus_store_commits_total" "Commits that are durable.";
    StoreTransactions Counter One "kubebus_store_transactions_total" "Transactions of the store; one may carry several commits.";
    FramesSent Counter One "kubebus_link_frames_sent_total" "Frames sent over bus lanes.";
    FramesReceived Counter One "kubebus_link_frames_received_total" "Frames received over bus lanes.";
    FramesDropped Counter One "kubebus_link_frames_dropped_total" "Events and samples for which a link's queue was full.";
    PeerFaults Counter One "kubebus_link_peer_faults_total" "Links closed because of what the peer sent.";
    HandshakesRefused Counter One "kubebus_link_handshakes_refused_total" "Connections that were not let in.";
    UdpSent Counter One "kubebus_udp_datagrams_sent_total" "UDP datagrams sent.";
    UdpReceived Counter One "kubebus_udp_datagrams_received_total" "UDP datagrams received.";
    UdpErrors Counter One "kubebus_udp_errors_total" "UDP datagrams that the kernel did not send.";
    PacketsSent Counter One "kubebus_router_packets_sent_total" "Overlay packets from this node's interface to a peer.";
    PacketsReceived Counter One "kubebus_router_packets_received_total" "Overlay packets from a peer to this node's interface.";
    PacketsForwarded Counter One "kubebus_router_packets_forwarded_total" "Overlay packets passed from one peer to another.";
    DroppedMalformed Counter One "kubebus_router_packets_dropped_total" ["reason" "malformed"] "Overlay packets that went no further; docs/network.md says what to do about each reason.";
    DroppedMulticast Counter One "kubebus_router_packets_dropped_total" ["reason" "multicast"] "Overlay packets that went no further; docs/network.md says what to do about each reason.";
    DroppedLinkLocal Counter One "kubebus_router_packets_dropped_total" ["reason" "link_local"] "Overlay packets that went no further; docs/network.md says what to do about each reason.";
    DroppedMartian Counter One "kubebus_router_packets_dropped_total" ["reason" "martian"] "Overlay packets that went no further; docs/network.md says what to do about each reason.";
    DroppedUnknownSource Counter One "kubebus_router_packets_dropped_total" ["reason" "unknown_source"] "Overlay packets that went no further; docs/network.md says what to do about each reason.";
    DroppedSpoofedSource Counter One "kubebus_router_packets_dropped_total" ["reason" "spoofed_source"] "Overlay packets that went no further; docs/network.md says what to do about each reason.";
    DroppedNoRoute Counter One "kubebus_router_packets_dropped_total" ["reason" "no_route"] "Overlay packets that went no further; docs/network.md says what to do about each reason.";
    DroppedLoop Counter One "kubebus_router_packets_dropped_total" ["reason" "loop"] "Overlay packets that went no further; docs/network.md says what to do about each reason.";
    DroppedNotOurs Counter One "kubebus_router_packets_dropped_total" ["reason" "not_ours"] "Overlay packets that went no further; docs/network.md says what to do about each reason.";
    DroppedDenied Counter One "kubebus_router_packets_dropped_total" ["reason" "denied"] "Overlay packets that went no further; docs/network.md says what to do about each reason.";
    DroppedNotAdmitted Counter One "kubebus_router_packets_dropped_total" ["reason" "not_admitted"] "Overlay packets that went no further; docs/network.md says what to do about each reason.";
    DroppedNoTable Counter One "kubebus_router_packets_dropped_total" ["reason" "no_table"] "Overlay packets that went no further; docs/network.md says what to do about each reason.";
    DroppedNoLane Counter One "kubebus_router_packets_dropped_total" ["reason" "no_lane"] "Overlay packets that went no further; docs/network.md says what to do about each reason.";
    DroppedTooBig Counter One "kubebus_router_packets_dropped_total" ["reason" "too_big"] "Overlay packets that went no further; docs/network.md says what to do about each reason.";
    DroppedQueueFull Counter One "kubebus_router_packets_dropped_total" ["reason" "queue_full"] "Overlay packets that went no further; docs/network.md says what to do about each reason.";
    MqttReceived Counter One "kubebus_mqtt_received_total" "Messages that clients of the broker published.";
    MqttSent Counter One "kubebus_mqtt_sent_total" "Messages that clients of the broker were sent.";
    MqttRefused Counter One "kubebus_mqtt_refused_total" "Messages that were refused.";
    MqttNotAdmitted Counter One "kubebus_mqtt_not_admitted_total" "Clients that were not let in.";
    MqttHandshakesFailed Counter One "kubebus_mqtt_handshakes_failed_total" "TLS handshakes with clients that failed.";
    MqttMalformed Counter One "kubebus_mqtt_malformed_total" "Clients cut off because of what they sent.";
    MqttTooSlow Counter One "kubebus_mqtt_too_slow_total" "Clients cut off because they took too little.";
    MqttDropped Counter One "kubebus_mqtt_dropped_total" "Messages of QoS 0 that a client had no room for.";
    MqttDroppedKept Counter One "kubebus_mqtt_dropped_kept_total" "Messages that a kept session had no room for.";
    MqttExpired Counter One "kubebus_mqtt_expired_total" "Messages that expired before their client came.";
    HealthSent Counter One "kubebus_health_sent_bytes_total" "Bytes of frames in which this node told its cloud how it is.";
    SyncSnapshots Counter One "kubebus_sync_snapshots_total" "Copies of all metadata: at an edge received, at the cloud sent.";
    SyncRepairs Counter One "kubebus_sync_repairs_total" "Times that metadata was not what had been sent, and was sent again.";
    SyncNacks Counter One "kubebus_sync_nacks_total" "Batches of metadata that did not follow on the one before.";
    CheckupsDropped Counter One "kubebus_checkups_dropped_total" "Messages about checks from the other end of a link that were dropped: who sent them may not, too often, too long or not to be read.";
    CertificateEnds Gauge Milli "kubebus_certificate_expiry_timestamp_seconds" "When the node's certificate ends, since 1970; it is renewed when a third of its validity is left.";
    RenewalsFailed Counter One "kubebus_certificate_renewals_failed_total" "Renewals of the node's certificate that failed; it tries again by itself.";
}

table! {
    /// What a node says of each of its links.
    LinkSeries, LINK_SERIES:
    Rtt Gauge Micro "kubebus_link_rtt_seconds" "Round trip of the link, smoothed.";
    Loss Gauge Micro "kubebus_link_loss_ratio" "Share of the link's QUIC packets that were lost, over about a minute, or 100 packets if that is longer.";
    Mtu Gauge One "kubebus_link_mtu_bytes" "The largest UDP payload that the link's path carries, as far as known.";
    Segments Gauge One "kubebus_link_packets_per_send" "QUIC packets that one system call sends: 1 without offload.";
    QueueBytes Gauge One "kubebus_link_queue_bytes" "Bytes of overlay packets that wait for the link.";
    Sent Counter One "kubebus_link_sent_bytes_total" "Bytes of UDP payloads sent since the link came up.";
    Received Counter One "kubebus_link_received_bytes_total" "Bytes of UDP payloads received since the link came up.";
    SentRate Gauge One "kubebus_link_sent_bytes_per_second" "Bytes of UDP payloads sent in a second, over the last measurement.";
    ReceivedRate Gauge One "kubebus_link_received_bytes_per_second" "Bytes of UDP payloads received in a second, over the last measurement.";
}

table! {
    /// What is known of a node besides its own word.
    NodeSeries, NODE_SERIES:
    Up Gauge One "kubebus_node_up" "1 while the node is connected; of a node that is not, all else is as it was heard last.";
    HeardAge Gauge Milli "kubebus_node_heard_age_seconds" "How old what is shown of the node is.";
    Info Gauge One "kubebus_node_info" "1; the label version is the node's.";
    Started Gauge Milli "kubebus_node_start_time_seconds" "When the node's process began, by its own clock, since 1970.";
    ClockOffset Gauge Milli "kubebus_node_clock_offset_seconds" "How far the node's clock is ahead of the cloud's.";
    SyncBehind Gauge One "kubebus_sync_behind_keys" "Keys of metadata that the edge has not acknowledged, counted up to 1000.";
    Problems Gauge One "kubebus_node_problems" "How many things are wrong with the node, as 'kubebus status' lists them.";
}

impl Series {
    /// Whether one scrape of the cloud has it of all edges. The others are there too, for the edges that a scrape names.
    pub fn is_federated(self) -> bool {
        matches!(
            self,
            Self::DiskDegraded
                | Self::OutboxEntries
                | Self::OutboxOldest
                | Self::MeshWaiting
                | Self::Devices
                | Self::DevicesOffline
                | Self::Rules
                | Self::RulesTripped
                | Self::ResidentMemory
                | Self::DialsFailed
                | Self::LinksUp
                | Self::HistorySamplesLost
                | Self::AuditEntriesLost
                | Self::FramesDropped
                | Self::PacketsSent
                | Self::PacketsReceived
                | Self::DroppedDenied
                | Self::DroppedNoRoute
                | Self::DroppedNoLane
                | Self::DroppedQueueFull
                | Self::MqttReceived
                | Self::MqttSent
                | Self::CertificateEnds
                | Self::RenewalsFailed
        )
    }

    /// The row of a metric with this value of its label.
    pub fn labelled(metric: &str, value: &str) -> Option<Self> {
        let is_it = |row: &Row| row.metric == metric && row.label.is_some_and(|(_, own)| own == value);
        Self::ALL.iter().copied().find(|series| is_it(series.row()))
    }
}

impl LinkSeries {
    /// Whether one scrape of the cloud has it of all edges' links.
    pub fn is_federated(self) -> bool {
        matches!(self, Self::Rtt | Self::Loss | Self::Mtu | Self::QueueBytes | Self::Sent | Self::Received)
    }
}

/// One number for each row of [`Series`]; what nobody has measured is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values(pub(super) [u64; Series::ALL.len()]);

impl Default for Values {
    fn default() -> Self {
        Self([UNKNOWN; Series::ALL.len()])
    }
}

impl Values {
    pub fn set(&mut self, series: Series, value: u64) {
        self.0[series as usize] = value;
    }

    pub fn get(&self, series: Series) -> Option<u64> {
        Some(self.0[series as usize]).filter(|value| *value != UNKNOWN)
    }

    /// What both know, `other` where it knows better.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0).filter(|(_, theirs)| *theirs != UNKNOWN) {
            *mine = theirs;
        }
    }
}

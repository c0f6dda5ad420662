//! What happened in the broker, counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::gate::{CloseReason, hub, session};

/// The broker's counters at one moment, each since its start unless said otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that did not get through their handshake: TLS or WebSocket.
    pub handshakes_failed: u64,
    /// Connections turned away because there were too many.
    pub turned_away: u64,
    /// Connections closed for malformed packets and protocol errors.
    pub malformed: u64,
    /// Clients disconnected because they were too slow for their QoS 1 and 2 messages.
    pub too_slow: u64,
    /// Clients disconnected because the node did not answer in time.
    pub node_busy: u64,
    /// Clients silent for longer than their keep-alive.
    pub silent: u64,
    /// Clients replaced by a newer connection of the same name.
    pub taken_over: u64,
    /// Connection tasks that panicked; each took its own connection with it.
    pub panics: u64,
    /// PUBLISH packets from clients.
    pub received: u64,
    /// PUBLISH packets to clients.
    pub sent: u64,
    /// Messages of clients that were refused.
    pub refused: u64,
    /// CONNECTs turned away for who they came from: wrong password, unknown user, nobody.
    pub not_admitted: u64,
    /// QoS 0 messages dropped because a client's queue was full.
    pub dropped: u64,
    /// QoS 0 messages dropped because the node's queue was full.
    pub dropped_for_node: u64,
    /// Messages that expired in a client's queue.
    pub expired: u64,
    /// Messages larger than their receiver takes.
    pub too_large: u64,
    /// Messages that a kept session was owed and that were dropped because there were too many.
    pub dropped_kept: u64,
    /// Bytes that kept sessions are owed now.
    pub kept_bytes: u64,
    /// Clients, filters and retained messages there are now.
    pub hub: hub::Stats,
}

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        /// The shared counters behind [`Stats`].
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)*
            pub(super) hub: std::sync::Mutex<hub::Stats>,
        }

        impl Counters {
            pub(super) fn stats(&self) -> Stats {
                let hub = *self.hub.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                Stats { $($name: self.$name.load(Relaxed),)* hub }
            }
        }
    };
}

counters!(
    accepted,
    handshakes_failed,
    turned_away,
    malformed,
    too_slow,
    node_busy,
    silent,
    taken_over,
    panics,
    received,
    sent,
    refused,
    not_admitted,
    dropped,
    dropped_for_node,
    expired,
    too_large,
    dropped_kept,
    kept_bytes,
);

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Counters {
    pub(super) fn add_session(&self, new: session::Stats, old: session::Stats) {
        let session::Stats { received, sent, refused, not_admitted, expired, too_large } = new;
        self.received.fetch_add(received - old.received, Relaxed);
        self.sent.fetch_add(sent - old.sent, Relaxed);
        self.refused.fetch_add(refused - old.refused, Relaxed);
        self.not_admitted.fetch_add(not_admitted - old.not_admitted, Relaxed);
        self.expired.fetch_add(expired - old.expired, Relaxed);
        self.too_large.fetch_add(too_large - old.too_large, Relaxed);
    }

    pub(super) fn add_close(&self, why: CloseReason) {
        match why {
            CloseReason::Malformed => count(&self.malformed),
            CloseReason::TooSlow => count(&self.too_slow),
            CloseReason::NodeBusy => count(&self.node_busy),
            CloseReason::KeepAlive => count(&self.silent),
            CloseReason::TakenOver => count(&self.taken_over),
            CloseReason::Disconnected
            | CloseReason::Gone
            | CloseReason::ConnectTimeout
            | CloseReason::Refused
            | CloseReason::Unkept
            | CloseReason::Full
            | CloseReason::Shutdown => {}
        }
    }

    /// What a queue dropped, and what expired in it.
    pub(super) fn add_losses(&self, (dropped, expired): (u64, u64)) {
        self.dropped_kept.fetch_add(dropped, Relaxed);
        self.expired.fetch_add(expired, Relaxed);
    }

    pub(super) fn set_hub(&self, stats: hub::Stats, kept_bytes: usize) {
        self.kept_bytes.store(kept_bytes as u64, Relaxed);
        *self.hub.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = stats;
    }
}

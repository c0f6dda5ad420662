//! A TCP sender that always has data: cubic (RFC 9438), without its timers' details. What is lost is not sent again,
//! but the next data in its place: the link sees the same.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::Mono;

/// RFC 9438 §5.
const C: f64 = 0.4;
const BETA: f64 = 0.7;

pub(super) struct Cubic {
    next: u64,
    /// By number: when it was sent.
    outstanding: BTreeMap<u64, Mono>,
    highest: u64,
    window: f64,
    threshold: f64,
    w_max: f64,
    epoch: Option<Mono>,
    w_est: f64,
    /// One reduction a round trip: losses before this number belong to the last one.
    recover: u64,
    rtt: Duration,
    heard: Mono,
}

impl Cubic {
    pub(super) fn new() -> Self {
        Self {
            next: 0,
            outstanding: BTreeMap::new(),
            highest: 0,
            window: 10.0,
            threshold: f64::MAX,
            w_max: 0.0,
            epoch: None,
            w_est: 0.0,
            recover: 0,
            rtt: Duration::from_secs(1),
            heard: Mono::ZERO,
        }
    }

    pub(super) fn poll_send(&mut self, now: Mono) -> Option<u64> {
        if self.outstanding.len() as f64 >= self.window {
            return None;
        }
        let seq = self.next;
        self.next += 1;
        self.outstanding.insert(seq, now);
        Some(seq)
    }

    pub(super) fn handle_ack(&mut self, seq: u64, marked: bool, now: Mono) {
        let Some(at) = self.outstanding.remove(&seq) else { return };
        self.heard = now;
        self.rtt = now.since(at);
        self.highest = self.highest.max(seq);
        let lost: Vec<u64> =
            self.outstanding.range(..self.highest.saturating_sub(2)).map(|one| *one.0).collect();
        for lost in &lost {
            self.outstanding.remove(lost);
        }
        if lost.iter().any(|lost| *lost >= self.recover) || (marked && seq >= self.recover) {
            self.reduce();
        } else {
            self.grow(now);
        }
    }

    /// The retransmission timeout.
    pub(super) fn handle_timer(&mut self, now: Mono) {
        let timeout = Duration::from_millis(400).max(self.rtt * 2);
        if !self.outstanding.is_empty() && now.since(self.heard) > timeout {
            let oldest = self.outstanding.values().next().copied().unwrap_or(now);
            if now.since(oldest) > timeout {
                self.outstanding.clear();
                self.reduce();
                self.window = 2.0;
                self.heard = now;
            }
        }
    }

    fn reduce(&mut self) {
        self.recover = self.next;
        // Fast convergence (RFC 9438 §4.7).
        self.w_max = if self.window < self.w_max { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.window = (self.window * BETA).max(2.0);
        self.threshold = self.window;
        self.epoch = None;
    }

    fn grow(&mut self, now: Mono) {
        if self.window < self.threshold {
            self.window += 1.0;
            return;
        }
        let fresh = self.epoch.is_none();
        let epoch = *self.epoch.get_or_insert(now);
        if fresh {
            self.w_est = self.window;
            self.w_max = self.w_max.max(self.window);
        }
        let k = (self.w_max * (1.0 - BETA) / C).cbrt();
        let t = (now.since(epoch) + self.rtt).as_secs_f64();
        let target = (C * (t - k).powi(3) + self.w_max).clamp(self.window, self.window * 1.5);
        self.w_est += 3.0 * (1.0 - BETA) / (1.0 + BETA) / self.window;
        self.window = (self.window + (target - self.window) / self.window).max(self.w_est);
    }
}

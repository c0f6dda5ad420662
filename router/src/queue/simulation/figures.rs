//! What a run showed, second by second.

use std::fmt;
use std::time::Duration;

use bus::Mono;

use super::super::{BitRate, Scheduler, Stats};
use super::Scenario;

#[derive(Debug, Clone)]
pub(super) struct Figures {
    rtt: Duration,
    pub(super) pings_sent: u64,
    /// When each came back, and how much later than on an empty link.
    rises: Vec<(Mono, Duration)>,
    /// Bytes on the wire that arrived in each second.
    data: Vec<u64>,
    flood: Vec<u64>,
    /// What each second ended with.
    rates: Vec<Option<BitRate>>,
    /// The longest queue at the bottleneck in each second.
    queues: Vec<Duration>,
    links: Vec<BitRate>,
    pub(super) overflowed: u64,
    pub(super) stats: Option<Stats>,
}

/// Of a part of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// TCP's part of what the link can carry, on the wire.
    pub(super) share: f64,
    pub(super) flood_share: f64,
    pub(super) median: Duration,
    pub(super) p99: Duration,
    pub(super) max: Duration,
    pub(super) pongs: usize,
}

impl Figures {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let seconds = scenario.length.as_secs() as usize;
        let link = |second: usize| {
            let begun = scenario.link.iter().take_while(|(at, _)| at.as_secs() <= second as u64);
            begun.last().unwrap().1
        };
        Self {
            rtt: scenario.rtt,
            pings_sent: 0,
            rises: Vec::new(),
            data: vec![0; seconds],
            flood: vec![0; seconds],
            rates: vec![None; seconds],
            queues: vec![Duration::ZERO; seconds],
            links: (0..seconds).map(link).collect(),
            overflowed: 0,
            stats: None,
        }
    }

    pub(super) fn pong(&mut self, at: Mono, now: Mono) {
        self.rises.push((now, now.since(at) - self.rtt));
    }

    pub(super) fn data(&mut self, wire: u64, now: Mono) {
        self.data[second(now)] += wire;
    }

    pub(super) fn flood(&mut self, wire: u64, now: Mono) {
        self.flood[second(now)] += wire;
    }

    pub(super) fn observe(&mut self, scheduler: &Scheduler<Vec<u8>>, queued: u64, rate: BitRate, now: Mono) {
        let stats = scheduler.stats();
        self.rates[second(now)] = stats.rate;
        let queue = &mut self.queues[second(now)];
        *queue = (*queue).max(rate.time_of(queued));
    }

    /// The figures of these seconds.
    pub(super) fn part(&self, seconds: std::ops::Range<usize>) -> Part {
        let sum = |bytes: &[u64]| bytes[seconds.clone()].iter().sum::<u64>() as f64 * 8.0;
        let whole: f64 = self.links[seconds.clone()].iter().map(|rate| rate.bits_per_s() as f64).sum();
        let mut rises: Vec<_> =
            self.rises.iter().filter(|(at, _)| seconds.contains(&second(*at))).map(|one| one.1).collect();
        rises.sort();
        let quantile =
            |q: f64| rises.get(((rises.len() - 1) as f64 * q) as usize).copied().unwrap_or_default();
        Part {
            share: sum(&self.data) / whole,
            flood_share: sum(&self.flood) / whole,
            median: quantile(0.5),
            p99: quantile(0.99),
            max: quantile(1.0),
            pongs: rises.len(),
        }
    }

    pub(super) fn rate_at(&self, second: usize) -> Option<BitRate> {
        self.rates[second]
    }

    /// Each second's rate in kbit/s, queue elsewhere in ms, and TCP's arrivals in kbit/s.
    pub(super) fn trace(&self) -> String {
        let one = |n: usize| {
            let rate = self.rates[n].map_or(0, |rate| rate.bits_per_s() / 1000);
            format!("{n}:{rate}/{}ms/{}", self.queues[n].as_millis(), self.data[n] / 125)
        };
        (0..self.rates.len()).map(one).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        write!(
            f,
            "{:5.1} % of the link, RTT +{:.1} ms median, +{:.1} p99, +{:.1} max of {}",
            self.share * 100.0,
            ms(self.median),
            ms(self.p99),
            ms(self.max),
            self.pongs,
        )
    }
}

fn second(at: Mono) -> usize {
    (at.0 / 1_000_000) as usize
}

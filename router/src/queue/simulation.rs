//! A thin link in virtual time: cubic senders, pings, and the scheduler between them and a bottleneck with a deep
//! buffer. Same seed, same figures.
//!
//! ```text
//!   cubic, pings -> Scheduler -> [buffer | rate] -> half an RTT, loss -> receiver
//!        ^              ^                                                   |
//!        |              +---- QUIC's acknowledgements, half an RTT ---------+
//!        +--------------------- TCP's, pongs, half an RTT ------------------+
//! ```

mod figures;
mod senders;
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use bus::Mono;
use bus::backoff::Jitter;

use self::figures::Figures;
use self::senders::Cubic;
use super::testing::{Build, tag, v4};
use super::{BitRate, LinkRate, Mark, OVERHEAD, PathSample, Scheduler};
use crate::Packet;
use crate::packet::{ICMP, TCP, UDP};

/// What is tried.
#[derive(Debug, Clone)]
struct Scenario {
    /// From when on the link has which rate.
    link: Vec<(Duration, BitRate)>,
    rtt: Duration,
    /// From half of the run on, the way is so much longer.
    detour: Duration,
    /// What the acknowledgements' way varies by.
    jitter: Duration,
    /// Of a thousand packets beyond the bottleneck.
    loss: u64,
    /// The bottleneck's buffer at its first rate.
    buffer: Duration,
    /// TCP flows that always have data.
    flows: usize,
    ecn: bool,
    /// A sender that heeds nothing, marked CS1.
    flood: Option<BitRate>,
    /// `None`: no scheduler at all, for comparison.
    scheduler: Option<LinkRate>,
    /// Whether the estimator sees only the smoothed round trip, or each.
    smoothed: bool,
    pings: Duration,
    length: Duration,
    seed: u64,
}

impl Scenario {
    /// 3 Mbit/s for a minute, a buffer of one second, one flow, a ping each 50 ms.
    fn thin(rtt_ms: u64) -> Self {
        Self {
            link: vec![(Duration::ZERO, BitRate::from_mbit(3))],
            rtt: Duration::from_millis(rtt_ms),
            detour: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0,
            buffer: Duration::from_secs(1),
            flows: 1,
            ecn: false,
            flood: None,
            scheduler: Some(LinkRate::Measured),
            smoothed: true,
            pings: Duration::from_millis(50),
            length: Duration::from_secs(60),
            seed: 7,
        }
    }
}

/// What a packet is to the one who sent it; its number is in the packet.
#[derive(Debug, Clone, Copy)]
enum Meta {
    Data { flow: usize, seq: u64 },
    Ping { at: Mono },
    Flood,
}

/// A packet on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Outer {
    meta: usize,
    wire: u64,
    marked: bool,
    at: Mono,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    LinkRate(BitRate),
    Detour,
    /// The shard's timer.
    Wake,
    /// The bottleneck has sent a packet.
    Passed,
    Arrived(Outer),
    /// The receiver waits no longer for a second packet.
    AckDelay,
    /// QUIC's acknowledgement of these, the last of which waited so long for it.
    Acked(Vec<Outer>, Duration),
    DataAcked {
        flow: usize,
        seq: u64,
        marked: bool,
    },
    Pong {
        at: Mono,
    },
    Ping,
    Flood,
    TcpTimer,
}

struct World {
    scenario: Scenario,
    now: Mono,
    events: BinaryHeap<Reverse<(Mono, u64, Event)>>,
    numbered: u64,
    random: Jitter,
    scheduler: Option<Scheduler<Vec<u8>>>,
    woken_at: Option<Mono>,
    metas: Vec<Meta>,
    rate: BitRate,
    buffer: u64,
    waiting: VecDeque<Outer>,
    waiting_bytes: u64,
    unacked: Vec<Outer>,
    ack_at: Mono,
    sample: PathSample,
    tcp: Vec<Cubic>,
    figures: Figures,
}

fn run(scenario: &Scenario) -> Figures {
    let rate = scenario.link[0].1;
    let mut world = World {
        now: Mono::ZERO,
        events: BinaryHeap::new(),
        numbered: 0,
        random: Jitter::new(scenario.seed),
        scheduler: scenario.scheduler.map(|rate| Scheduler::new(scenario.seed, rate, Mono::ZERO)),
        woken_at: None,
        metas: Vec::new(),
        rate,
        buffer: rate.bytes_in(scenario.buffer),
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        unacked: Vec::new(),
        ack_at: Mono::ZERO,
        sample: PathSample::default(),
        tcp: (0..scenario.flows).map(|_| Cubic::new()).collect(),
        figures: Figures::new(scenario),
        scenario: scenario.clone(),
    };
    for (at, rate) in scenario.link.iter().skip(1) {
        world.at(Mono::ZERO + *at, Event::LinkRate(*rate));
    }
    world.at(Mono::ZERO + scenario.length / 2, Event::Detour);
    // Pings come first, so that the way is known before it is full.
    world.at(Mono::ZERO, Event::Ping);
    world.at(Mono(1_000_000), Event::TcpTimer);
    world.at(Mono(1_000_000), Event::Flood);
    while let Some(Reverse((at, _, event))) = world.events.pop() {
        if at >= Mono::ZERO + scenario.length {
            break;
        }
        world.now = at;
        world.handle(event);
        world.pump();
    }
    world.figures.stats = world.scheduler.as_ref().map(Scheduler::stats);
    world.figures
}

impl World {
    fn at(&mut self, at: Mono, event: Event) {
        self.numbered += 1;
        self.events.push(Reverse((at, self.numbered, event)));
    }

    fn after(&mut self, wait: Duration, event: Event) {
        self.at(self.now + wait, event);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::LinkRate(rate) => self.rate = rate,
            Event::Detour => self.scenario.rtt += self.scenario.detour,
            Event::Wake => self.woken_at = None,
            Event::Passed => self.pass(),
            Event::Arrived(outer) => self.arrive(outer),
            Event::AckDelay => self.acknowledge(),
            Event::Acked(outers, delay) => self.observe(&outers, delay),
            Event::DataAcked { flow, seq, marked } => {
                self.tcp[flow].handle_ack(seq, marked, self.now);
                self.send_data(flow);
            }
            Event::Pong { at } => self.figures.pong(at, self.now),
            Event::Ping => {
                self.figures.pings_sent += 1;
                self.send(Meta::Ping { at: self.now }, v4(ICMP).len(84).icmp(8));
                self.after(self.scenario.pings, Event::Ping);
            }
            Event::Flood => {
                if let Some(rate) = self.scenario.flood {
                    self.send(Meta::Flood, v4(UDP).len(1400).dscp(8));
                    self.after(rate.time_of(1400), Event::Flood);
                }
            }
            Event::TcpTimer => {
                for flow in 0..self.tcp.len() {
                    self.tcp[flow].handle_timer(self.now);
                    self.send_data(flow);
                }
                self.after(Duration::from_millis(100), Event::TcpTimer);
            }
        }
    }

    fn send_data(&mut self, flow: usize) {
        while let Some(seq) = self.tcp[flow].poll_send(self.now) {
            let ecn = u8::from(self.scenario.ecn) * 2;
            let build = v4(TCP).tcp(0x10, 1380).ports(1000 + flow as u16, 5201).ecn(ecn);
            self.send(Meta::Data { flow, seq }, build);
        }
    }

    fn send(&mut self, meta: Meta, build: Build) {
        let number = self.metas.len();
        self.metas.push(meta);
        let bytes = build.tag(number as u64).bytes();
        match &mut self.scheduler {
            Some(scheduler) => {
                let packet = Packet::parse(&bytes).unwrap();
                scheduler.enqueue(&packet, bytes.clone(), self.now).unwrap();
            }
            None => self.transmit(&bytes, false),
        }
    }

    /// What a shard does after each event.
    fn pump(&mut self) {
        let Some(mut scheduler) = self.scheduler.take() else { return };
        while let Some((bytes, mark)) = scheduler.dequeue(self.now, 1472) {
            self.transmit(&bytes, mark == Mark::CongestionExperienced);
        }
        if let Some(at) = scheduler.poll_timeout()
            && self.woken_at.is_none_or(|woken_at| at < woken_at)
        {
            self.woken_at = Some(at);
            // An epoll timer is up to a millisecond late.
            let late = self.random.up_to(Duration::from_millis(1));
            self.at(at + late, Event::Wake);
        }
        self.figures.observe(&scheduler, self.waiting_bytes, self.rate, self.now);
        self.scheduler = Some(scheduler);
    }

    fn transmit(&mut self, bytes: &[u8], marked: bool) {
        let outer =
            Outer { meta: tag(bytes) as usize, wire: bytes.len() as u64 + OVERHEAD, marked, at: self.now };
        if self.waiting_bytes + outer.wire > self.buffer {
            self.figures.overflowed += 1;
            return;
        }
        self.waiting_bytes += outer.wire;
        self.waiting.push_back(outer);
        if self.waiting.len() == 1 {
            self.after(self.rate.time_of(outer.wire), Event::Passed);
        }
    }

    fn pass(&mut self) {
        let outer = self.waiting.pop_front().unwrap();
        self.waiting_bytes -= outer.wire;
        if let Some(next) = self.waiting.front() {
            self.after(self.rate.time_of(next.wire), Event::Passed);
        }
        if self.random.next_u64() % 1000 >= self.scenario.loss {
            self.after(self.scenario.rtt / 2, Event::Arrived(outer));
        }
    }

    fn arrive(&mut self, outer: Outer) {
        let back = self.scenario.rtt / 2;
        match self.metas[outer.meta] {
            Meta::Data { flow, seq } => {
                self.figures.data(outer.wire, self.now);
                self.after(back, Event::DataAcked { flow, seq, marked: outer.marked });
            }
            Meta::Ping { at } => self.after(back, Event::Pong { at }),
            Meta::Flood => self.figures.flood(outer.wire, self.now),
        }
        self.unacked.push(outer);
        if self.unacked.len() == 2 {
            self.acknowledge();
        } else {
            self.ack_at = self.now + Duration::from_millis(25);
            self.at(self.ack_at, Event::AckDelay);
        }
    }

    /// As QUIC: each second packet, or 25 ms after the first. An acknowledgement that is lost is made up by the next.
    fn acknowledge(&mut self) {
        if self.unacked.is_empty() || (self.unacked.len() < 2 && self.now < self.ack_at) {
            return;
        }
        if self.unacked.len() < 10 && self.random.next_u64() % 1000 < self.scenario.loss {
            return;
        }
        let delay = if self.unacked.len() < 2 { Duration::from_millis(25) } else { Duration::ZERO };
        let outers = std::mem::take(&mut self.unacked);
        let back = self.scenario.rtt / 2 + self.random.up_to(self.scenario.jitter);
        self.after(back, Event::Acked(outers, delay));
    }

    fn observe(&mut self, outers: &[Outer], delay: Duration) {
        let Some(scheduler) = &mut self.scheduler else { return };
        let rtt = self.now.since(outers[outers.len() - 1].at).saturating_sub(delay);
        self.sample.acked_packets += outers.len() as u64;
        self.sample.acked_bytes += outers.iter().map(|outer| outer.wire - 28).sum::<u64>();
        self.sample.rtt = match self.sample.rtt {
            old if self.scenario.smoothed && !old.is_zero() => (old * 7 + rtt) / 8,
            _ => rtt,
        };
        scheduler.observe(&self.sample, self.now);
    }
}

use super::*;

/// A link as water in a pipe, in steps of 20 ms; what is sent is heard of without delay.
struct Pipe {
    estimator: RateEstimator,
    sample: PathSample,
    sending: Sending,
    queued: u64,
    base: Duration,
    rate: BitRate,
    now: Mono,
    /// How long the packets are, where it matters.
    packet: Option<u64>,
}

const STEP: Duration = Duration::from_millis(20);

impl Pipe {
    fn new(rate: BitRate, base_ms: u64) -> Self {
        Self {
            estimator: RateEstimator::new(),
            sample: PathSample::default(),
            sending: Sending::default(),
            queued: 0,
            base: Duration::from_millis(base_ms),
            rate,
            now: Mono::ZERO,
            packet: None,
        }
    }

    /// For so long, somebody wants to send this much, and of what arrives this part is lost.
    fn run(&mut self, time: Duration, wanted: BitRate, lost: f64) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + STEP;
            let held = self.estimator.rate();
            let sent = held.map_or(wanted, |rate| rate.min(wanted)).bytes_in(STEP);
            self.sending.bytes += sent;
            self.sending.ran_dry = held.is_none_or(|rate| wanted < rate);
            let arrived = (self.queued + sent).min(self.rate.bytes_in(STEP));
            self.queued = self.queued + sent - arrived;
            self.sample.acked_bytes += (arrived as f64 * (1.0 - lost)) as u64;
            self.sample.acked_packets = self.packet.map_or(0, |len| self.sample.acked_bytes / len);
            self.sample.rtt = self.base + self.rate.time_of(self.queued);
            self.estimator.handle_sample(&self.sample, self.sending, self.now);
        }
    }

    fn mbit(&self) -> Option<f64> {
        self.estimator.rate().map(|rate| rate.bits_per_s() as f64 / 1e6)
    }

    fn queue(&self) -> Duration {
        self.rate.time_of(self.queued)
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn near(found: Option<f64>, expected: f64) -> bool {
    found.is_some_and(|found| (found / expected - 1.0).abs() < 0.05)
}

#[test]
fn every_transition_is_the_drawn_one() {
    let mut pipe = Pipe::new(BitRate::from_mbit(3), 100);
    pipe.run(seconds(1), BitRate::from_mbit(2), 0.0);
    assert!(matches!(pipe.estimator.state, State::Open { .. }), "no queue: {:?}", pipe.estimator.state);
    pipe.run(Duration::from_millis(200), BitRate::from_mbit(5), 0.0);
    assert!(matches!(pipe.estimator.state, State::Draining(_)), "{:?}", pipe.estimator.state);
    assert!(pipe.queue() > OPEN_EXCESS);
    pipe.run(seconds(2), BitRate::from_mbit(5), 0.0);
    assert!(
        near(pipe.mbit(), 3.0) && pipe.queue() < Duration::from_millis(12),
        "{:?} {:?}",
        pipe.mbit(),
        pipe.queue()
    );
    pipe.rate = BitRate::from_mbit(1000);
    pipe.run(seconds(20), BitRate::from_mbit(1000), 0.0);
    assert!(matches!(pipe.estimator.state, State::Open { .. }), "{:?}", pipe.estimator.state);
}

#[test]
fn a_rate_that_nobody_uses_is_not_raised() {
    let mut pipe = Pipe::new(BitRate::from_mbit(3), 100);
    pipe.run(seconds(5), BitRate::from_mbit(5), 0.0);
    pipe.rate = BitRate::from_mbit(10);
    let before = pipe.mbit();
    pipe.run(seconds(60), BitRate::from_mbit(1), 0.0);
    assert!(pipe.mbit().zip(before).is_some_and(|(now, before)| now <= before * 1.02), "{:?}", pipe.mbit());
    pipe.run(seconds(10), BitRate::from_mbit(20), 0.0);
    assert!(near(pipe.mbit(), 10.0), "{:?}", pipe.mbit());
}

#[test]
fn losses_alone_lower_nothing() {
    let mut pipe = Pipe::new(BitRate::from_mbit(3), 100);
    pipe.run(seconds(5), BitRate::from_mbit(5), 0.0);
    pipe.run(seconds(60), BitRate::from_mbit(5), 0.05);
    assert!(pipe.mbit().is_some_and(|rate| rate > 2.7), "{:?}", pipe.mbit());
}

#[test]
fn little_traffic_on_a_slow_answering_way_is_not_a_queue() {
    let mut pipe = Pipe::new(BitRate::from_mbit(100), 20);
    pipe.run(seconds(1), BitRate::from_bits(100_000), 0.0);
    pipe.base = Duration::from_millis(150);
    pipe.run(seconds(10), BitRate::from_bits(100_000), 0.0);
    assert_eq!(pipe.mbit(), None);
}

#[test]
fn a_longer_way_costs_a_few_seconds_and_not_the_rate() {
    let mut pipe = Pipe::new(BitRate::from_mbit(3), 50);
    pipe.run(seconds(5), BitRate::from_mbit(5), 0.0);
    pipe.base = Duration::from_millis(200);
    let mut slowest = f64::MAX;
    for _ in 0..100 {
        pipe.run(Duration::from_millis(100), BitRate::from_mbit(5), 0.0);
        slowest = slowest.min(pipe.mbit().unwrap());
    }
    assert!(slowest > 1.0, "{slowest}");
    assert!(near(pipe.mbit(), 3.0), "{:?}", pipe.mbit());
    assert!(pipe.estimator.base_rtt() >= Some(Duration::from_millis(200)));
    pipe.base = Duration::from_millis(50);
    pipe.run(seconds(10), BitRate::from_mbit(5), 0.0);
    assert!(pipe.estimator.base_rtt() < Some(Duration::from_millis(60)), "a shorter one counts at once");
}

#[test]
fn no_rate_falls_below_the_least() {
    let mut pipe = Pipe::new(BitRate::from_bits(20_000), 100);
    pipe.run(seconds(60), BitRate::from_mbit(1), 0.0);
    assert_eq!(pipe.estimator.rate(), Some(LEAST_RATE));
}

#[test]
fn acknowledgements_are_not_held_for_a_queue_of_the_other_direction() {
    let mut pipe = Pipe::new(BitRate::from_mbit(3), 300);
    pipe.packet = Some(120);
    pipe.run(seconds(1), BitRate::from_bits(100_000), 0.0);
    // What comes the other way fills its modem.
    pipe.base = Duration::from_millis(1100);
    pipe.run(seconds(20), BitRate::from_bits(100_000), 0.0);
    assert_eq!(pipe.estimator.rate(), None);
}

#[test]
fn a_pause_in_what_arrives_is_no_slow_link() {
    let mut pipe = Pipe::new(BitRate::from_mbit(3), 100);
    pipe.run(seconds(5), BitRate::from_mbit(5), 0.0);
    let before = pipe.mbit();
    pipe.now = pipe.now + seconds(10);
    pipe.run(STEP, BitRate::from_mbit(5), 0.0);
    assert_eq!(pipe.mbit(), before);
}

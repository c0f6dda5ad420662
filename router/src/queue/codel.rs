//! CoDel (RFC 8289): a queue is told by how long packets wait in it, and only by the smallest wait of a while.
//!
//! The variables and the structure are those of the pseudo-code in RFC 8289 §5, so that the two can be held against
//! each other.

use std::time::Duration;

use bus::Mono;

use super::ecn::Mark;

/// A wait up to this long is no queue (RFC 8289 §4.3: 5 % of the interval, for the Internet's usual 100 ms).
pub const LEAST_TARGET: Duration = Duration::from_millis(5);

/// As long as a round trip of most flows (RFC 8289 §4.3): a sender needs that time to answer a drop.
pub const LEAST_INTERVAL: Duration = Duration::from_millis(100);

/// A longer way than this is no way but somebody's buffer, and no reason to drop later.
pub const LONGEST_INTERVAL: Duration = Duration::from_secs(1);

/// A flow that has no more than this waiting, in bytes on the wire, has no queue (`maxpacket_` of RFC 8289).
pub(super) const ONE_PACKET: u64 = 1514 + super::OVERHEAD;

/// What a flow's CoDel aims at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aim {
    pub target: Duration,
    pub interval: Duration,
}

/// A packet out of the queue, how long it was in, and what is left behind it in bytes.
#[derive(Debug)]
pub(super) struct Aged<P> {
    pub(super) packet: P,
    pub(super) sojourn: Duration,
    pub(super) left: u64,
}

/// The state of one flow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Codel {
    first_above: Option<Mono>,
    drop_next: Mono,
    count: u32,
    last_count: u32,
    dropping: bool,
}

impl Codel {
    pub(super) const NEW: Self =
        Self { first_above: None, drop_next: Mono::ZERO, count: 0, last_count: 0, dropping: false };

    /// The next packet to send. `pop` takes one out, and may find that there is no room for it beyond. `refuse` drops
    /// one, or gives it back if it is to be marked instead (RFC 8290 §4.2).
    pub(super) fn dequeue<P, E>(
        &mut self,
        aim: Aim,
        now: Mono,
        mut pop: impl FnMut() -> Result<Option<Aged<P>>, E>,
        mut refuse: impl FnMut(P) -> Option<P>,
    ) -> Result<Option<(P, Mark)>, E> {
        let mut next = self.judge(pop()?, aim, now);
        if self.dropping {
            while let Some((packet, may_drop)) = next.take() {
                if !may_drop {
                    self.dropping = false;
                }
                if !self.dropping || now < self.drop_next {
                    return Ok(Some((packet, Mark::Keep)));
                }
                self.count = self.count.saturating_add(1);
                self.drop_next = control_law(self.drop_next, aim.interval, self.count);
                if let Some(packet) = refuse(packet) {
                    return Ok(Some((packet, Mark::CongestionExperienced)));
                }
                next = self.judge(pop()?, aim, now);
            }
            self.dropping = false;
            return Ok(None);
        }
        let Some((packet, may_drop)) = next else { return Ok(None) };
        if !may_drop {
            return Ok(Some((packet, Mark::Keep)));
        }
        self.begin_dropping(aim.interval, now);
        if let Some(packet) = refuse(packet) {
            return Ok(Some((packet, Mark::CongestionExperienced)));
        }
        Ok(self.judge(pop()?, aim, now).map(|(packet, _)| (packet, Mark::Keep)))
    }

    /// If the queue was bad a short while ago, the drop rate that held it then is where to begin.
    fn begin_dropping(&mut self, interval: Duration, now: Mono) {
        let delta = self.count.saturating_sub(self.last_count);
        let recent = now.since(self.drop_next) < interval * 16;
        self.count = if delta > 1 && recent { delta } else { 1 };
        self.last_count = self.count;
        self.drop_next = control_law(now, interval, self.count);
        self.dropping = true;
    }

    /// Whether waits have been above the target for an interval (`dodequeue`).
    fn judge<P>(&mut self, aged: Option<Aged<P>>, aim: Aim, now: Mono) -> Option<(P, bool)> {
        let Some(Aged { packet, sojourn, left }) = aged else {
            self.first_above = None;
            return None;
        };
        if sojourn < aim.target || left <= ONE_PACKET {
            self.first_above = None;
            return Some((packet, false));
        }
        let since = *self.first_above.get_or_insert(now + aim.interval);
        Some((packet, since <= now))
    }
}

fn control_law(from: Mono, interval: Duration, count: u32) -> Mono {
    from + interval.div_f64(f64::from(count).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const AIM: Aim = Aim { target: LEAST_TARGET, interval: LEAST_INTERVAL };

    /// Takes one packet each millisecond, of a queue in which each waited `sojourn_ms`; the times of drops.
    fn drops(codel: &mut Codel, ms: std::ops::Range<u64>, sojourn_ms: u64, left: u64) -> Vec<u64> {
        let mut times = Vec::new();
        for ms in ms {
            let sojourn = Duration::from_millis(sojourn_ms);
            let pop = || Ok::<_, Infallible>(Some(Aged { packet: (), sojourn, left }));
            let now = Mono(ms * 1000);
            let taken = codel.dequeue(AIM, now, pop, |()| {
                times.push(ms);
                None
            });
            assert!(matches!(taken, Ok(Some(((), Mark::Keep)))));
        }
        times
    }

    #[test]
    fn a_burst_shorter_than_an_interval_is_let_through() {
        let mut codel = Codel::NEW;
        assert_eq!(drops(&mut codel, 0..100, 90, 1 << 20), []);
        assert_eq!(drops(&mut codel, 100..101, 4, 1 << 20), [], "one packet that did not wait ends it");
        assert_eq!(drops(&mut codel, 101..201, 90, 1 << 20), []);
    }

    #[test]
    fn drops_come_closer_with_the_square_root_of_their_number() {
        // 100 + 100 / sqrt(1) + 100 / sqrt(2) + ..., each with the first packet after its time.
        let expected = [100, 200, 271, 329, 379, 424, 464, 502, 538, 571];
        assert_eq!(drops(&mut { Codel::NEW }, 0..572, 50, 1 << 20), expected);
    }

    #[test]
    fn a_queue_of_one_packet_is_none_however_long_it_waited() {
        assert_eq!(drops(&mut { Codel::NEW }, 0..1000, 50, ONE_PACKET), []);
    }

    #[test]
    fn a_queue_that_comes_back_soon_meets_the_drop_rate_it_left() {
        let mut codel = Codel::NEW;
        let first = drops(&mut codel, 0..572, 50, 1 << 20);
        assert_eq!(first.len(), 10);
        assert_eq!(drops(&mut codel, 572..580, 1, 1 << 20), []);
        // 9 drops after the first: the next come after 100 / sqrt(9).
        assert_eq!(drops(&mut codel, 580..750, 50, 1 << 20), [680, 714, 745]);
        // After 16 intervals it is a new queue.
        assert_eq!(drops(&mut codel, 750..760, 1, 1 << 20), []);
        assert_eq!(drops(&mut codel, 5000..5250, 50, 1 << 20), [5100, 5200]);
    }

    #[test]
    fn a_packet_that_can_be_marked_is_not_dropped() {
        let mut codel = Codel::NEW;
        let mut marks = Vec::new();
        for ms in 0..400 {
            let aged = Aged { packet: (), sojourn: Duration::from_millis(50), left: 1 << 20 };
            let mut one = Some(aged);
            let taken = codel.dequeue(AIM, Mono(ms * 1000), || Ok::<_, Infallible>(one.take()), Some);
            if taken == Ok(Some(((), Mark::CongestionExperienced))) {
                marks.push(ms);
            }
        }
        assert_eq!(marks, [100, 200, 271, 329, 379]);
    }

    #[test]
    fn an_empty_queue_ends_the_dropping() {
        let mut codel = Codel::NEW;
        assert_eq!(drops(&mut codel, 0..150, 50, 1 << 20), [100]);
        let empty = codel.dequeue(AIM, Mono(150_000), || Ok::<_, Infallible>(None::<Aged<()>>), Some);
        assert_eq!(empty, Ok(None));
        assert_eq!(drops(&mut codel, 151..251, 50, 1 << 20), []);
    }
}

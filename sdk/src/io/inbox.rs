//! What a device says by itself, until its task comes to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::{Future, pending};
use std::pin::pin;

use bus::io::Clock;
use tokio::sync::mpsc;

use crate::Sink;
use crate::pushing::Source;
use crate::sink::{Pushed, WAITING};

/// What is taken in while a call to the driver is under way, so that a driver whose answers and pushes come through one
/// task is not held up by its own pushes. Beyond it the driver waits.
const STASH: usize = 16 * WAITING;

/// The receiving end of one subscription.
pub(super) struct Inbox {
    receiver: mpsc::Receiver<Pushed>,
    waiting: VecDeque<Pushed>,
    /// What was asked for.
    pub(super) sources: BTreeMap<String, Source>,
}

impl Inbox {
    /// An inbox that nobody puts anything into.
    pub(super) fn silent() -> Self {
        Self { receiver: mpsc::channel(1).1, waiting: VecDeque::new(), sources: BTreeMap::new() }
    }

    pub(super) fn open(sources: BTreeMap<String, Source>, clock: Clock) -> (Sink, Self) {
        let (sink, receiver) = Sink::new(clock);
        (sink, Self { receiver, waiting: VecDeque::new(), sources })
    }

    /// Waits for a call to the driver, and takes in what comes meanwhile.
    pub(super) async fn during<T>(&mut self, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        loop {
            tokio::select! {
                biased;
                done = &mut call => return done,
                Some(pushed) = self.receiver.recv(), if self.waiting.len() < STASH => self.waiting.push_back(pushed),
            }
        }
    }

    /// Returns when there is something to take.
    pub(super) async fn heard(&mut self) {
        if !self.waiting.is_empty() {
            return;
        }
        match self.receiver.recv().await {
            Some(pushed) => self.waiting.push_back(pushed),
            None => pending().await,
        }
    }

    /// What comes next, each point at most once: so several go into one report, and no value is passed over.
    pub(super) fn take(&mut self) -> Vec<Pushed> {
        while self.waiting.len() < WAITING
            && let Ok(pushed) = self.receiver.try_recv()
        {
            self.waiting.push_back(pushed);
        }
        let mut seen = BTreeSet::new();
        let mut first = |pushed: &Pushed| pushed.point().is_some_and(|point| seen.insert(point.to_owned()));
        let distinct = self.waiting.iter().map_while(|pushed| Some(pushed).filter(|p| first(p))).count();
        // With nothing before it, the end of the session is what comes next.
        self.waiting.drain(..distinct.max(1).min(self.waiting.len())).collect()
    }

    /// Takes nothing more in. Returns what is left.
    pub(super) fn close(&mut self) -> Vec<Pushed> {
        self.receiver.close();
        let rest = std::iter::from_fn(|| self.receiver.try_recv().ok());
        self.waiting.drain(..).chain(rest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus::Value;
    use tokio::time::{Duration, timeout};

    fn points(pushed: &[Pushed]) -> Vec<Option<&str>> {
        pushed.iter().map(Pushed::point).collect()
    }

    #[tokio::test]
    async fn several_points_are_taken_at_once_and_no_value_is_passed_over() {
        let (sink, mut inbox) = Inbox::open(BTreeMap::new(), Clock::start());
        for point in ["a", "b", "a"] {
            sink.good(point, Value::Int(1)).await;
        }
        sink.lost(crate::Error::transient("cut")).await;
        inbox.heard().await;
        assert_eq!(points(&inbox.take()), [Some("a"), Some("b")]);
        assert_eq!(points(&inbox.take()), [Some("a")]);
        assert_eq!(points(&inbox.take()), [None]);
        assert!(inbox.take().is_empty());
    }

    #[tokio::test]
    async fn a_driver_that_pushes_during_its_own_call_is_not_held_up() {
        let (sink, mut inbox) = Inbox::open(BTreeMap::new(), Clock::start());
        let call = async {
            for number in 0..2 * WAITING {
                sink.good(&number.to_string(), Value::Bool(true)).await;
            }
            7
        };
        assert_eq!(timeout(Duration::from_secs(15), inbox.during(call)).await, Ok(7));
        assert_eq!(inbox.take().len() + inbox.take().len(), 2 * WAITING);
    }

    #[tokio::test]
    async fn after_its_end_a_sink_is_dead() {
        let (sink, mut inbox) = Inbox::open(BTreeMap::new(), Clock::start());
        sink.good("a", Value::Int(1)).await;
        assert_eq!(points(&inbox.close()), [Some("a")]);
        assert!(sink.is_closed());
        sink.good("a", Value::Int(2)).await;
        assert!(inbox.take().is_empty());
        assert!(Inbox::silent().take().is_empty());
    }
}

//! Where others leave what is meant for one client's task: answers, news of its session, the order to close; and where a
//! session's messages wait, whether its client is here or not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bus::{Mono, Now};
use tokio::sync::Notify;

use crate::gate::hub::Opened;
use crate::gate::queue::Pushed;
use crate::gate::session::Answer;
use crate::gate::{CloseReason, Delivery, Outgoing, Queue, Refusal, Row};

/// A client's session, for its connection.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) opened: Opened,
    /// QoS 2 messages that the client is to be told to forget.
    pub(super) released: Vec<u16>,
    pub(super) shelf: Arc<Shelf>,
}

#[derive(Debug, Default)]
struct Inner {
    /// At most one per ticket given out, and tickets are bounded by `gate::session::MAX_UNANSWERED`.
    answers: Vec<(Answer, Result<(), Refusal>)>,
    seat: Option<Seat>,
    close: Option<CloseReason>,
}

/// The port of one connection.
#[derive(Debug, Default)]
pub(super) struct Port {
    inner: Mutex<Inner>,
    wake: Notify,
}

impl Port {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn answer(&self, answer: Answer, outcome: Result<(), Refusal>) {
        self.lock().answers.push((answer, outcome));
        self.wake.notify_one();
    }

    pub(super) fn open(&self, seat: Seat) {
        self.lock().seat = Some(seat);
        self.wake.notify_one();
    }

    /// The first reason stays.
    pub(super) fn close(&self, why: CloseReason) {
        self.lock().close.get_or_insert(why);
        self.wake.notify_one();
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(super) fn take_answers(&self) -> Vec<(Answer, Result<(), Refusal>)> {
        std::mem::take(&mut self.lock().answers)
    }

    pub(super) fn take_seat(&self) -> Option<Seat> {
        self.lock().seat.take()
    }

    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        self.lock().close
    }
}

#[derive(Debug)]
struct Place {
    queue: Queue,
    port: Option<Arc<Port>>,
}

/// A session's messages.
#[derive(Debug)]
pub(super) struct Shelf(Mutex<Place>);

impl Shelf {
    pub(super) fn new(queue: Queue) -> Self {
        Self(Mutex::new(Place { queue, port: None }))
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client is here; returns the QoS 2 messages that it is to be told to forget.
    pub(super) fn seat(&self, port: Arc<Port>, now: Mono) -> Vec<u16> {
        let mut place = self.lock();
        place.port = Some(port);
        place.queue.resume(now)
    }

    pub(super) fn unseat(&self) {
        self.lock().port = None;
    }

    pub(super) fn push(&self, delivery: Delivery, now: Now) -> Pushed {
        let mut place = self.lock();
        let is_here = place.port.is_some();
        let pushed = place.queue.push(delivery, is_here, now);
        place.react(&pushed);
        pushed
    }

    /// A kept session's client is here, at work, and owed half of what it may be.
    pub(super) fn is_crowded(&self, now: Mono) -> bool {
        let place = self.lock();
        place.port.is_some() && place.queue.is_crowded(now)
    }

    pub(super) fn replay(&self, deliveries: Vec<Delivery>) {
        let mut place = self.lock();
        let pushed = place.queue.replay(deliveries);
        place.react(&pushed);
    }

    pub(super) fn release(&self, number: u64) {
        let mut place = self.lock();
        place.queue.release(number);
        place.wake();
    }

    pub(super) fn discard(&self, number: u64) {
        let mut place = self.lock();
        place.queue.discard(number);
        place.wake();
    }

    /// Something to be done with the queue by its client's task.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Queue) -> T) -> T {
        work(&mut self.lock().queue)
    }

    pub(super) fn next(&self, now: Mono) -> Option<Outgoing> {
        self.lock().queue.next(now)
    }

    /// What is owed no more: the rows that go.
    pub(super) fn clear(&self) -> Vec<Row> {
        let mut place = self.lock();
        place.queue.clear();
        place.queue.take_rows()
    }
}

impl Place {
    fn react(&self, pushed: &Pushed) {
        match (pushed, &self.port) {
            (Pushed::Queued, _) => self.wake(),
            (Pushed::Overflow, Some(port)) => port.close(CloseReason::TooSlow),
            (Pushed::Held { .. } | Pushed::Dropped, _) | (Pushed::Overflow, None) => {}
        }
    }

    fn wake(&self) {
        if let Some(port) = &self.port {
            port.wake.notify_one();
        }
    }
}

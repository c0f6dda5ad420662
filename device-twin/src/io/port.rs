//! Where others leave what is meant for one client's task: messages, answers of the node, the order to close.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::gate::retained::MAX_RETAINED;
use crate::gate::session::Answer;
use crate::gate::{CloseReason, Delivery, Qos, Refusal};

/// Live messages that wait for one client: some seconds of a busy site. When full, a QoS 0 message is dropped and
/// counted; for a QoS 1 or 2 message the client is disconnected: it subscribes again and gets what is retained.
pub(super) const MAX_QUEUED: usize = 4096;

/// Bytes of live messages that wait for one client; as above when full.
pub(super) const MAX_QUEUED_BYTES: usize = 8 << 20;

/// What became of a message for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queued {
    Yes,
    Dropped,
    /// The client must go.
    Overflow,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Queue>,
    live: usize,
    live_bytes: usize,
    replayed: usize,
    /// At most one per ticket given out, and tickets are bounded by `gate::session::MAX_UNANSWERED`.
    answers: Vec<(Answer, Result<(), Refusal>)>,
    close: Option<CloseReason>,
}

#[derive(Debug)]
enum Queue {
    Live(Delivery),
    Replayed(Delivery),
}

/// The port of one client.
#[derive(Debug, Default)]
pub(super) struct Port {
    inner: Mutex<Inner>,
    wake: Notify,
}

impl Port {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn deliver(&self, delivery: Delivery) -> Queued {
        let mut inner = self.lock();
        let size = delivery.message.size();
        if inner.live >= MAX_QUEUED || inner.live_bytes + size > MAX_QUEUED_BYTES {
            return if delivery.qos == Qos::AtMostOnce { Queued::Dropped } else { Queued::Overflow };
        }
        inner.live += 1;
        inner.live_bytes += size;
        inner.queue.push_back(Queue::Live(delivery));
        drop(inner);
        self.wake.notify_one();
        Queued::Yes
    }

    /// What is retained, to a new subscription: all of it, as long as one whole store's worth is not exceeded.
    pub(super) fn replay(&self, deliveries: Vec<Delivery>) -> Queued {
        let mut inner = self.lock();
        if inner.replayed + deliveries.len() > MAX_RETAINED {
            return Queued::Overflow;
        }
        inner.replayed += deliveries.len();
        inner.queue.extend(deliveries.into_iter().map(Queue::Replayed));
        drop(inner);
        self.wake.notify_one();
        Queued::Yes
    }

    pub(super) fn answer(&self, answer: Answer, outcome: Result<(), Refusal>) {
        self.lock().answers.push((answer, outcome));
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

    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        self.lock().close
    }

    pub(super) fn next_delivery(&self) -> Option<Delivery> {
        let mut inner = self.lock();
        match inner.queue.pop_front()? {
            Queue::Live(delivery) => {
                inner.live -= 1;
                inner.live_bytes -= delivery.message.size();
                Some(delivery)
            }
            Queue::Replayed(delivery) => {
                inner.replayed -= 1;
                Some(delivery)
            }
        }
    }
}

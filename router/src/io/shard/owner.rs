//! The two bounded queues between a shard and its owner, and how either wakes the other.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{OwnedPermit, Sender};

use super::Event;

/// An eventfd that brings the shard's loop round. Rung many times before the loop looks, it costs one system call.
#[derive(Debug)]
pub(super) struct Bell {
    fd: OwnedFd,
    rung: AtomicBool,
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { fd, rung: AtomicBool::new(false) })
    }

    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Fails only when the counter is full, and then it is rung.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }

    /// To be called before looking at what it was rung for.
    pub(super) fn silence(&self) {
        let _ = rustix::io::read(&self.fd, &mut [0u8; 8]);
        // Not a plain store: what was done before the last ring must be seen after this.
        self.rung.swap(false, Ordering::AcqRel);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

type Reserve =
    Pin<Box<dyn Future<Output = Result<OwnedPermit<Event>, tokio::sync::mpsc::error::SendError<()>>> + Send>>;

/// The shard's end of the event queue.
pub(super) struct Owner {
    sender: Sender<Event>,
    waker: Waker,
    /// News of links that found the queue full. Frames never wait here: they stay in their streams.
    backlog: VecDeque<Event>,
    /// Waits for room, so that the owner's reading rings the bell.
    waiting: Option<Reserve>,
    gone: bool,
}

impl Owner {
    pub(super) fn new(sender: Sender<Event>, bell: Arc<Bell>) -> Self {
        Self { sender, waker: bell.into(), backlog: VecDeque::new(), waiting: None, gone: false }
    }

    /// Whether nobody listens any more.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Whether news waits: then no new link is begun, so that the list stays short.
    pub(super) fn is_behind(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// News of a link, in order.
    pub(super) fn tell(&mut self, event: Event) {
        self.backlog.push_back(event);
        self.flush();
    }

    /// Hands over what waits; called every turn of the loop.
    pub(super) fn flush(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            match self.sender.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Closed(_)) => self.gone = true,
                Err(TrySendError::Full(event)) => {
                    self.backlog.push_front(event);
                    return self.wait();
                }
            }
        }
    }

    /// Room for one frame. Without room the bell rings as soon as there is some.
    pub(super) fn has_room(&mut self) -> bool {
        if self.backlog.is_empty() && self.sender.capacity() > 0 {
            return true;
        }
        self.wait();
        false
    }

    /// The bell rang: forget that we wait for room, whoever still needs it will say so.
    pub(super) fn stop_waiting(&mut self) {
        self.waiting = None;
    }

    fn wait(&mut self) {
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(self.sender.clone().reserve_owned()));
        if let Poll::Ready(room) = waiting.as_mut().poll(&mut Context::from_waker(&self.waker)) {
            self.gone |= room.is_err();
            self.waiting = None;
            self.waker.wake_by_ref();
        }
    }
}

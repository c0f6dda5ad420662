//! The way to the agent, which lets a write through once.
//!
//! The library asks again when an answer is late, and once more when a version 3 agent says that its clock is another.
//! That is right for readings. A write's only datagram leaves here, under a permit that is looked at in that moment.
//!
//! ```text
//!   Reading ---arm---> Armed ---first datagram, fresh---> Sent ---any other: refused
//!      ^                 | \                                |
//!      |                 |  `---first datagram, too late--> Expired
//!      `-----disarm------+----------------------------------'
//! ```

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_snmp::{Candidate, Error, ReceiveLimits, RequestRegistration, Transport, UdpHandle};
use bytes::Bytes;
use kubebus_sdk::{Consumed, WritePermit};

/// See the module's page. Clones are one gate.
#[derive(Clone)]
pub(crate) struct Gate {
    handle: UdpHandle,
    turn: Arc<Mutex<Turn>>,
    heard: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Turn {
    Reading,
    Armed(WritePermit),
    Sent { consumed: Consumed, answered: bool, refused: bool },
    Expired,
}

/// What became of a write at the gate.
#[derive(Debug)]
pub(crate) enum Passage {
    /// Nothing has left.
    Unused,
    Expired,
    Sent(Consumed),
    /// The agent has answered that it does not take this message, and the library would have sent another.
    TurnedDown,
    /// No answer in time, and the library would have sent it again.
    Unanswered,
}

impl Gate {
    pub(crate) fn new(handle: UdpHandle) -> Self {
        Self { handle, turn: Arc::new(Mutex::new(Turn::Reading)), heard: Arc::default() }
    }

    /// From now on there is one datagram, and only as long as the permit is fresh.
    pub(crate) fn arm(&self, permit: WritePermit) {
        *self.turn() = Turn::Armed(permit);
    }

    pub(crate) fn disarm(&self) -> Passage {
        match std::mem::replace(&mut *self.turn(), Turn::Reading) {
            Turn::Reading | Turn::Armed(_) => Passage::Unused,
            Turn::Expired => Passage::Expired,
            Turn::Sent { consumed, refused: false, .. } => Passage::Sent(consumed),
            Turn::Sent { answered: true, .. } => Passage::TurnedDown,
            Turn::Sent { answered: false, .. } => Passage::Unanswered,
        }
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        // A turn is whole between any two calls, whoever panicked.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Right before a datagram leaves.
    fn pass(&self) -> Result<(), Box<Error>> {
        let mut turn = self.turn();
        let (next, passes) = match std::mem::replace(&mut *turn, Turn::Expired) {
            Turn::Reading => (Turn::Reading, true),
            Turn::Armed(permit) => match permit.consume() {
                Ok(consumed) => (Turn::Sent { consumed, answered: false, refused: false }, true),
                Err(_) => (Turn::Expired, false),
            },
            Turn::Sent { consumed, answered, .. } => {
                (Turn::Sent { consumed, answered, refused: true }, false)
            }
            Turn::Expired => (Turn::Expired, false),
        };
        *turn = next;
        // This error makes the library give up; nobody else sees it.
        if passes { Ok(()) } else { Err(Error::Closed { target: self.peer_addr() }.boxed()) }
    }

    /// Whether the agent has ever answered.
    pub(crate) fn has_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    fn note_answer(&self) {
        self.heard.store(true, Ordering::Relaxed);
        if let Turn::Sent { answered, .. } = &mut *self.turn() {
            *answered = true;
        }
    }
}

impl Transport for Gate {
    async fn send(&self, data: &[u8]) -> Result<(), Box<Error>> {
        self.pass()?;
        self.handle.send(data).await
    }

    async fn request_with<T, F>(
        &self,
        data: &[u8],
        registration: RequestRegistration,
        validate: F,
    ) -> Result<T, Box<Error>>
    where
        T: Send,
        F: FnMut(Bytes, SocketAddr) -> Result<Candidate<T>, Box<Error>> + Send,
    {
        self.pass()?;
        let answer = self.handle.request_with(data, registration, validate).await?;
        self.note_answer();
        Ok(answer)
    }

    fn peer_addr(&self) -> SocketAddr {
        self.handle.peer_addr()
    }

    fn local_addr(&self) -> SocketAddr {
        self.handle.local_addr()
    }

    fn is_reliable(&self) -> bool {
        false
    }

    fn receive_limits(&self) -> ReceiveLimits {
        self.handle.receive_limits()
    }

    fn send_capacity(&self) -> usize {
        self.handle.send_capacity()
    }
}

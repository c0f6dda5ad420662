//! A proxy between mapper and device that breaks the line in every way that lines break.

mod fault;
mod serial;
mod stream;
mod udp;

pub use fault::{Direction, Fault, Garbage, Mode};
pub use stream::Port;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::fixture::Endpoint;
use crate::record::{Entry, Recording};
use fault::{Conversation, Do};

/// What has passed through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Connections (UDP: sockets of the mapper) since the start, and now.
    pub connections: u64,
    pub open: u64,
    /// Chunks: what one read from a socket gave, a frame in most protocols that ask and answer.
    pub requests: u64,
    pub answers: u64,
    pub bytes_to_device: u64,
    pub bytes_to_mapper: u64,
    /// Requests that came while another one's answer was still awaited, on any connection.
    pub overlaps: u64,
}

/// See the module's page. Ends with all its connections when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    at: Endpoint,
    hub: Arc<Hub>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Stands before a device. For a serial port it makes a pair of pseudo-terminals and names one end.
    pub async fn before(device: &Endpoint) -> io::Result<Self> {
        let hub = Arc::new(Hub::new());
        let mut tasks = JoinSet::new();
        let at = match device {
            Endpoint::Tcp(device) => stream::serve_tcp(*device, Arc::clone(&hub), &mut tasks)?,
            Endpoint::Udp(device) => udp::serve(*device, Arc::clone(&hub), &mut tasks).await?,
            Endpoint::Serial(device) => serial::serve(device, Arc::clone(&hub), &mut tasks)?,
            Endpoint::Direct => return Err(io::Error::other("this device has nothing to stand before")),
        };
        Ok(Self { at, hub, _tasks: tasks })
    }

    /// Where the mapper reaches the device through it.
    pub fn at(&self) -> &Endpoint {
        &self.at
    }

    pub fn set(&self, mode: Mode) {
        self.hub.mode.send_replace(mode);
    }

    /// Lets a fault strike once.
    pub fn arm(&self, fault: Fault) {
        self.hub.state().fault = Some(fault);
    }

    /// Whether the fault has not struck yet; it no longer will.
    pub fn disarm(&self) -> bool {
        self.hub.state().fault.take().is_some()
    }

    /// Waits until the armed fault has struck.
    pub async fn struck(&self, limit: Duration) -> bool {
        self.until(limit, |state| state.fault.is_none()).await
    }

    pub fn counts(&self) -> Counts {
        self.hub.state().counts
    }

    /// Waits for a count to come true.
    pub async fn reaches(&self, limit: Duration, what: impl Fn(&Counts) -> bool) -> bool {
        self.until(limit, |state| what(&state.counts)).await
    }

    async fn until(&self, limit: Duration, what: impl Fn(&State) -> bool) -> bool {
        let come = async {
            while !what(&self.hub.state()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(limit, come).await.is_ok()
    }

    /// Ends every connection there is; new ones are let in.
    pub fn cut(&self) {
        self.hub.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Records from now on.
    pub fn record(&self) {
        self.hub.state().recording = Some(Recording::default());
    }

    /// What has passed since [`record`](Self::record).
    pub fn recorded(&self) -> Recording {
        self.hub.state().recording.take().unwrap_or_default()
    }
}

/// What all connections of one proxy share.
#[derive(Debug)]
struct Hub {
    mode: watch::Sender<Mode>,
    cuts: watch::Sender<u64>,
    state: Mutex<State>,
    start: Instant,
}

#[derive(Debug, Default)]
struct State {
    fault: Option<Fault>,
    counts: Counts,
    recording: Option<Recording>,
    /// Requests without an answer.
    awaited: bool,
}

impl Hub {
    fn new() -> Self {
        Self {
            mode: watch::Sender::new(Mode::Pass),
            cuts: watch::Sender::new(0),
            state: Mutex::default(),
            start: Instant::now(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mode(&self) -> Mode {
        *self.mode.borrow()
    }

    /// Waits as long as everything is held.
    async fn thawed(&self) {
        let mut modes = self.mode.subscribe();
        drop(modes.wait_for(|mode| *mode != Mode::Freeze).await);
    }

    /// Waits until connections must end.
    async fn cut(&self) {
        let (mut cuts, mut modes) = (self.cuts.subscribe(), self.mode.subscribe());
        tokio::select! {
            _ = cuts.changed() => {}
            _ = modes.wait_for(|mode| matches!(mode, Mode::Refuse | Mode::HangUp)) => {}
        }
    }

    /// Counts a chunk and says what becomes of it.
    fn pass(&self, conversation: &mut Conversation, direction: Direction, chunk: Vec<u8>) -> Vec<Do> {
        let mut state = self.state();
        let State { fault, counts, recording, awaited } = &mut *state;
        let bytes = chunk.len() as u64;
        match direction {
            Direction::ToDevice => {
                counts.requests += 1;
                counts.bytes_to_device += bytes;
                counts.overlaps += u64::from(std::mem::replace(awaited, true));
            }
            Direction::ToMapper => {
                counts.answers += 1;
                counts.bytes_to_mapper += bytes;
            }
        }
        if let Some(recording) = recording {
            recording.push(Entry { after: self.start.elapsed(), direction, bytes: chunk.clone() });
        }
        conversation.pass(self.mode(), fault, direction, chunk)
    }

    /// An answer has gone out, so that the next request is no overlap.
    fn answered(&self) {
        self.state().awaited = false;
    }

    fn opened(self: &Arc<Self>) -> Opened {
        let mut state = self.state();
        state.counts.connections += 1;
        state.counts.open += 1;
        state.awaited = false;
        drop(state);
        Opened(Arc::clone(self))
    }
}

/// One connection, for the count.
struct Opened(Arc<Hub>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.state().counts.open -= 1;
    }
}

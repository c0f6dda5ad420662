//! The sockets and tasks around the pure [`dmi`](crate::dmi): gRPC on a Unix socket for mappers, and calls to theirs.
//!
//! | task | owns | ends |
//! |---|---|---|
//! | `dmi` | the listening socket, all tasks below | with the handle, or when the node takes no more events |
//! | one per connection of a mapper, and one per call on it | the connection | with it |
//! | one per call to a mapper, and one for its connection | the connection | with the call, after 20 s at most |
//!
//! h2 and prost alone, without a gRPC library: `docs/decisions/0005-dmi.md`.

mod authority;
mod client;
mod grpc;
mod hpack;
mod server;
mod socket;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bus::io::Clock;
use bytes::Bytes;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::{Instrument, debug, info_span, warn};

use crate::dmi::{Answer, Call, Request};
use socket::Socket;

/// Connections at a time: KubeEdge's mappers open one for each report. Further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 256;

/// Requests and answers on their way to the node. When full, mappers wait.
const EVENTS: usize = 256;

/// Calls on their way to the task that makes them: one a mapper, of which there are 64 at most.
const CALLS: usize = 64;

/// How long accepting pauses after the system refused a connection (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no socket for mappers.
#[derive(Debug, Error)]
#[error("serve DMI on {path}")]
pub struct DmiError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// What the node hears.
#[derive(Debug)]
pub enum DmiEvent {
    /// A mapper's request, to be answered.
    Request(Request, Answered),
    /// How a call ended.
    Answer(u64, Answer),
}

/// Where the answer to a request goes. Dropped, the mapper is told that the edge stops.
#[derive(Debug)]
pub struct Answered(oneshot::Sender<Reply>);

#[derive(Debug)]
enum Reply {
    Done(Bytes),
    Refused(String),
    Unkept,
}

impl Answered {
    /// The request is taken; `message` is the response.
    pub fn done(self, message: Bytes) {
        self.say(Reply::Done(message));
    }

    pub fn refused(self, why: String) {
        self.say(Reply::Refused(why));
    }

    /// The disk refuses writes: the mapper may say it again.
    pub fn unkept(self) {
        self.say(Reply::Unkept);
    }

    fn say(self, reply: Reply) {
        // A mapper that gave up is told nothing.
        let _ = self.0.send(reply);
    }
}

/// The node's side. The socket is closed, and its file removed, when it is dropped.
#[derive(Debug)]
pub struct DmiHandle {
    calls: mpsc::Sender<Call>,
}

impl DmiHandle {
    /// Makes a call; its answer comes as an event.
    pub async fn call(&self, call: Call) {
        // That the task has ended shows at its events.
        let _ = self.calls.send(call).await;
    }
}

/// Serves mappers at `path`; call it inside a tokio runtime.
pub fn start(path: &Path, clock: Clock) -> Result<(DmiHandle, mpsc::Receiver<DmiEvent>), DmiError> {
    let socket = Socket::bind(path).map_err(|source| DmiError { path: path.to_owned(), source })?;
    let (calls, to_make) = mpsc::channel(CALLS);
    let (tell, events) = mpsc::channel(EVENTS);
    let desk = Desk { socket, tell, clock, connections: JoinSet::new(), underway: JoinSet::new() };
    #[expect(
        clippy::disallowed_methods,
        reason = "the one task that owns all others, named in the table above"
    )]
    tokio::spawn(desk.run(to_make).instrument(info_span!("task", name = "dmi")));
    Ok((DmiHandle { calls }, events))
}

struct Desk {
    socket: Socket,
    tell: mpsc::Sender<DmiEvent>,
    clock: Clock,
    connections: JoinSet<()>,
    underway: JoinSet<()>,
}

impl Desk {
    async fn run(mut self, mut calls: mpsc::Receiver<Call>) {
        loop {
            let has_room = self.connections.len() < MAX_CONNECTIONS;
            tokio::select! {
                accepted = self.socket.listener.accept(), if has_room => match accepted {
                    Ok((connection, _)) => self.welcome(connection),
                    Err(error) => {
                        warn!(%error, "cannot accept mappers' connections");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                call = calls.recv() => match call {
                    Some(call) => self.call(call),
                    None => return,
                },
                Some(_) = self.connections.join_next() => {}
                Some(_) = self.underway.join_next() => {}
                () = self.tell.closed() => return,
            }
        }
    }

    fn welcome(&mut self, connection: UnixStream) {
        let tell = self.tell.clone();
        self.connections.spawn(async move {
            if let Err(why) = server::serve(connection, tell).await {
                debug!(%why, "a mapper's connection ended");
            }
        });
    }

    fn call(&mut self, call: Call) {
        let (tell, clock) = (self.tell.clone(), self.clock);
        self.underway.spawn(async move {
            let answer = client::perform(&call, clock).await;
            debug!(method = call.method.as_str(), address = call.address, ?answer, "called a mapper");
            // Refused only when the node has gone.
            let _ = tell.send(DmiEvent::Answer(call.id, answer)).await;
        });
    }
}

//! The API for everybody who is known: HTTP/1.1 over TLS 1.3 at `api.listen`, and at a socket that is passed on.
//!
//! ```text
//! accept --> hall --handshake--> request --known--> house: as long as he likes, and is let in
//!              |                    |
//!              '--- 60 s at most ---'  strangers: the page's files, the log-in, /healthz
//! ```
//! Who is known has a certificate of the cluster and a role, or a session of the page. Whether he is let in is asked
//! anew at each request, and in between whenever users change: then what he still waits for ends too.
//!
//! What strangers can take is bounded here: room in the hall, time, sizes. Nothing of it is shared with the admin socket,
//! MQTT or the links to other nodes.

mod hall;
mod listen;
mod login;
mod tls;
mod visitor;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::Name;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use router::io::shard::Credentials;
use rustix::net::sockopt;
use rustls::ServerConfig;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info};

use self::hall::{Hall, Slot};
use self::listen::{Door, ListenError};
pub(super) use self::login::{LOGIN, show_secret};
use self::tls::TlsError;
use self::visitor::{Place, Visitor};
use super::api::Desk;
use crate::config::ApiConfig;

/// Connections of those who are known: a hundred watches, and as many short visits. A further one is told to try again.
/// One takes about 40 KB.
const HOUSE: usize = 256;

/// Connections of which nobody knows yet whose they are, and of those who stay unknown. A further one is closed at once:
/// strangers wait for strangers alone.
const HALL: usize = 64;

/// Of these, connections from one address: a browser opens six. One machine alone cannot fill the hall.
const HALL_OF_ONE: usize = 16;

/// A handshake takes two round trips and a signature.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

/// How long a request's head may take, and how long a connection may wait for its next one.
const HEAD_PATIENCE: Duration = Duration::from_secs(60);

/// How long a stranger's connection may last.
const STRANGER_PATIENCE: Duration = Duration::from_secs(60);

/// Largest head of a request, and what is read ahead. kubectl's take 1 KiB.
const HEAD_BYTES: usize = 16 << 10;

/// How often a connection is asked about without a reason: certificates and sessions end by themselves.
const RECHECK: Duration = Duration::from_secs(15);

/// A client that vanished is found out within a minute or two.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The first byte of a TLS record that begins a handshake (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;

/// Why the API is not served.
#[derive(Debug, Error)]
pub(super) enum HttpsError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What all connections share.
#[derive(Debug)]
struct House {
    desk: Desk,
    cluster: Name,
    tls: Arc<ServerConfig>,
    rooms: Arc<Semaphore>,
    hall: Hall,
}

/// Listens; the tasks end with `tasks`. Where it listens.
pub(super) async fn start(
    config: &ApiConfig,
    node: &Credentials,
    desk: Desk,
    tasks: &mut JoinSet<()>,
) -> Result<Vec<String>, HttpsError> {
    let doors = listen::open(&config.listen).await?;
    if doors.is_empty() {
        return Ok(Vec::new());
    }
    let house = Arc::new(House {
        desk,
        cluster: node.identity.cluster.clone(),
        tls: tls::server(config, node)?,
        rooms: Arc::new(Semaphore::new(HOUSE)),
        hall: Hall::new(HALL, HALL_OF_ONE),
    });
    let urls = doors.iter().map(Door::url).collect();
    for door in doors {
        info!(address = %door.address, plain_too = door.plain_too, "the API is served");
        tasks.spawn(accept(door, Arc::clone(&house)));
    }
    Ok(urls)
}

async fn accept(door: Door, house: Arc<House>) {
    let Door { socket, address, plain_too } = door;
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, from)) = accepted else {
            // Out of file descriptors: a moment later there may be some.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Some(place) = house.hall.enter(from.ip()) else {
            debug!(%from, "the hall is full");
            continue;
        };
        let visit = Visit { house: Arc::clone(&house), from, port: address.port(), place };
        connections.spawn(visit.receive(stream, plain_too));
    }
}

/// A connection that was accepted.
struct Visit {
    house: Arc<House>,
    from: SocketAddr,
    port: u16,
    place: Slot,
}

impl Visit {
    async fn receive(self, stream: TcpStream, plain_too: bool) {
        prepare(&stream);
        if plain_too && !begins_with_tls(&stream).await {
            let visitor = self.visitor(None, false);
            return serve(stream, visitor).await;
        }
        let acceptor = TlsAcceptor::from(Arc::clone(&self.house.tls));
        let from = self.from;
        let stream = match timeout(HANDSHAKE_PATIENCE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(why)) => {
                self.house.desk.audit.count_stranger(&from);
                return debug!(%from, %why, "no TLS");
            }
            Err(_) => return debug!(%from, "no TLS in time"),
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let visitor = match certificate.map(tls::shown) {
            None => self.visitor(None, true),
            Some(Some(shown)) => self.visitor(Some(shown), true),
            Some(None) => return debug!(%from, "a certificate of this cluster that names nobody"),
        };
        serve(stream, visitor).await;
    }

    fn visitor(self, shown: Option<(bus::Identity, bus::KeyHash)>, is_secure: bool) -> Visitor {
        let Self { house, from, port, place } = self;
        Visitor {
            desk: house.desk.clone(),
            cluster: house.cluster.clone(),
            from,
            shown,
            is_secure,
            port,
            place: Mutex::new(Place::new(place, Arc::clone(&house.rooms))),
            last: Mutex::new(None),
        }
    }
}

fn prepare(stream: &TcpStream) {
    // Without them the connection works too.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE);
    let _ = sockopt::set_tcp_keepintvl(stream, KEEPALIVE);
    let _ = sockopt::set_tcp_keepcnt(stream, 3);
}

async fn begins_with_tls(stream: &TcpStream) -> bool {
    let mut first = [0];
    matches!(timeout(HANDSHAKE_PATIENCE, stream.peek(&mut first)).await, Ok(Ok(1)))
        && first[0] == TLS_HANDSHAKE
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send, visitor: Visitor) {
    let service = service_fn(|request| visitor.answer(request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // A client that hangs up in mid-request is its own affair.
        _ = connection => {}
        () = outstayed(&visitor) => {}
        () = turned_out(&visitor) => {
            info!(from = %visitor.from, who = ?visitor.name(), "no longer let in: the connection ends");
        }
    }
}

/// Returns when a stranger has been here long enough.
async fn outstayed(visitor: &Visitor) {
    sleep(STRANGER_PATIENCE).await;
    if !visitor.is_stranger() {
        std::future::pending().await
    }
}

/// Returns when whoever was let in is so no more, or as somebody else.
async fn turned_out(visitor: &Visitor) {
    let mut changes = visitor.desk.doorkeeper.changes();
    while visitor.is_still_let_in() {
        // Without a node that says who is let in, its last word holds.
        let changed = async {
            if changes.changed().await.is_err() {
                std::future::pending().await
            }
        };
        let _ = timeout(RECHECK, changed).await;
    }
}

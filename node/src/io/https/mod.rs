//! The API for everybody who is known: HTTP/1.1 over TLS 1.3 at `api.listen`, and at a socket that is passed on.
//!
//! ```text
//! accept --> handshake --certificate of somebody who is let in--> house: as long as he likes, and is let in
//!              10 s    \--all others--> hall --log-in's cookie--> house
//!                                       60 s: the page's files, the log-in, /healthz
//! ```
//! Who is known has a certificate of the cluster and a role, or a session of the page. Whether he is let in is asked
//! anew at each request, and in between whenever users change: then what he still waits for ends too.
//!
//! What strangers can take is bounded here: handshakes, room in the hall, time, sizes. A `/healthz` asks the owner loop
//! one thing, to which it says yes. The admin socket, MQTT and the links to other nodes share nothing else of it. A
//! handshake is all that those who are known have in common with strangers: who floods a node with them keeps others out
//! for the seconds that one takes, and has 16 at a time from one address.

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
use rustix::net::sockopt;
use rustls::ServerConfig;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info};

use self::hall::{Hall, Slot};
use self::listen::{Door, ListenError};
pub(super) use self::login::{LOGIN, show_secret};
use self::tls::{Shown, TlsError};
use self::visitor::{Place, Rooms, Visitor};
use super::api::Desk;
use super::shown::Served;
use crate::config::ApiConfig;

/// Connections of those who are known: a hundred watches, and as many short visits. A further one is told to try again.
/// One takes about 40 KB.
const HOUSE: usize = 256;

/// Of these, connections of one who is known: kubectl and a dashboard with their watches. Nobody fills the house alone.
const HOUSE_OF_ONE: usize = 32;

/// Handshakes at a time. A further connection is closed at once, and counted.
const HANDSHAKES: usize = 64;

/// Connections of those who stay unknown after it. A further one is closed at once, and counted: strangers wait for
/// strangers alone.
const HALL: usize = 64;

/// Of handshakes and of the hall, what one address may have: a browser opens six. One machine alone fills neither.
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

/// How long a client may take nothing of what was sent to it, in milliseconds (tcp(7), TCP_USER_TIMEOUT).
const UNTAKEN_MS: u32 = 60_000;

/// How long whoever is let in no more may wait for what he did before: an admin who takes his own role away hears that it
/// was done.
const LAST_ANSWER: Duration = Duration::from_secs(11);

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
    rooms: Rooms,
    handshakes: Hall,
    hall: Hall,
}

/// Listens; the tasks end with `tasks`. Where it listens.
pub(super) async fn start(
    config: &ApiConfig,
    node: &Served,
    desk: Desk,
    tasks: &mut JoinSet<()>,
) -> Result<Vec<String>, HttpsError> {
    let doors = listen::open(&config.listen).await?;
    if doors.is_empty() {
        return Ok(Vec::new());
    }
    let house = Arc::new(House {
        desk,
        cluster: node.cluster.clone(),
        tls: tls::server(config, node)?,
        rooms: Rooms::new(HOUSE, HOUSE_OF_ONE),
        handshakes: Hall::new(HANDSHAKES, HALL_OF_ONE),
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
        let Some(handshake) = house.handshakes.enter(from.ip()) else {
            house.desk.audit.count_stranger(&from);
            debug!(%from, "there are handshakes enough");
            continue;
        };
        let visit = Visit { house: Arc::clone(&house), from, port: address.port(), handshake };
        connections.spawn(visit.receive(stream, plain_too));
    }
}

/// A connection that was accepted.
struct Visit {
    house: Arc<House>,
    from: SocketAddr,
    port: u16,
    handshake: Slot,
}

impl Visit {
    async fn receive(self, stream: TcpStream, plain_too: bool) {
        prepare(&stream);
        if plain_too && !begins_with_tls(&stream).await {
            return self.settle(stream, None, false).await;
        }
        let acceptor = TlsAcceptor::from(Arc::clone(&self.house.tls));
        let from = self.from;
        let stream = match timeout(HANDSHAKE_PATIENCE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(why)) => {
                self.house.desk.audit.count_stranger(&from);
                return debug!(%from, %why, "no TLS");
            }
            Err(_) => {
                self.house.desk.audit.count_stranger(&from);
                return debug!(%from, "no TLS in time");
            }
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        match certificate.map(Shown::read) {
            None => self.settle(stream, None, true).await,
            Some(Some(shown)) => self.settle(stream, Some(shown), true).await,
            Some(None) => debug!(%from, "a certificate of this cluster that names nobody"),
        }
    }

    async fn settle(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send,
        shown: Option<Shown>,
        is_secure: bool,
    ) {
        let Self { house, from, port, handshake } = self;
        let visitor = Visitor {
            desk: house.desk.clone(),
            cluster: house.cluster.clone(),
            from,
            shown,
            is_secure,
            port,
            place: Mutex::new(Place::new(house.rooms.clone())),
            last: Mutex::new(None),
        };
        let has_room = visitor.settle(&house.hall);
        drop(handshake);
        if !has_room {
            house.desk.audit.count_stranger(&from);
            return debug!(%from, "the hall is full");
        }
        serve(stream, visitor).await;
    }
}

fn prepare(stream: &TcpStream) {
    // Without them the connection works too.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE);
    let _ = sockopt::set_tcp_keepintvl(stream, KEEPALIVE);
    let _ = sockopt::set_tcp_keepcnt(stream, 3);
    // Also one that is there and takes nothing: a watch that ended for that must not keep its connection.
    let _ = sockopt::set_tcp_user_timeout(stream, UNTAKEN_MS);
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
    tokio::pin!(connection);
    tokio::select! {
        // A client that hangs up in mid-request is its own affair.
        _ = &mut connection => {}
        () = outstayed(&visitor) => {}
        () = turned_out(&visitor) => {
            info!(from = %visitor.from, who = ?visitor.name(), "no longer let in: the connection ends");
            if visitor.is_changing() {
                connection.as_mut().graceful_shutdown();
                let _ = timeout(LAST_ANSWER, connection).await;
            }
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

//! Answers to questions for names: sockets and time around [`crate::names`].
//!
//! | task | does | ends with |
//! |---|---|---|
//! | the keeper | opens the sockets that are wanted, again and again | the node |
//! | one an address | takes datagrams, and lets connections in | the address is gone, or the keeper |
//! | one a connection | one query after another | its client, or silence |
//! | one a query that others know | asks them in turn | an answer, or none |

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bus::overlay::Lease;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::config::{DnsConfig, Resolver};
use crate::names::{Asked, Names, Over, Reply, failed, is_answer, numbered, passed_on};

/// Where names are asked for.
const PORT: u16 = 53;

/// Queries that wait for somebody else's answer; for further ones there is none at once, and whoever asked tries the next
/// name server that he has.
const FORWARDED: usize = 128;

/// Connections of an address; further ones wait in the socket's backlog.
const CONNECTIONS: usize = 32;

/// How long a client may keep a connection without a query (RFC 7766 §6.2.3 asks for seconds).
const SILENCE: Duration = Duration::from_secs(10);

/// How long each of the others may take. A client waits for five seconds, and asks twice.
const UPSTREAM: Duration = Duration::from_secs(2);

/// Until an address is tried again that is not there yet, or taken by somebody else.
const RETRY: Duration = Duration::from_secs(5);

/// Longer than any query, and than any answer that is passed on: of a longer one only that is told.
const DATAGRAM: usize = 4096;

/// What the driver holds.
#[derive(Debug)]
pub struct Dns {
    names: watch::Sender<Option<Arc<Names>>>,
    wanted: watch::Sender<BTreeSet<SocketAddr>>,
    shared: Arc<Shared>,
    listen: Vec<SocketAddr>,
}

/// What all tasks know.
#[derive(Debug)]
struct Shared {
    names: watch::Receiver<Option<Arc<Names>>>,
    upstream: Vec<SocketAddr>,
    forwarding: Semaphore,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    answered: AtomicU64,
    refused: AtomicU64,
    forwarded: AtomicU64,
    failed: AtomicU64,
}

/// Starts to serve what `config` says; nothing if that is nothing.
pub(super) fn start(config: &DnsConfig, tasks: &mut JoinSet<()>) -> Option<Dns> {
    if !config.enabled {
        return None;
    }
    let (names, known) = watch::channel(None);
    let (wanted, addresses) = watch::channel(config.listen.iter().copied().collect());
    let upstream = config.upstream.iter().map(|Resolver(address)| *address).collect();
    let shared = Arc::new(Shared {
        names: known,
        upstream,
        forwarding: Semaphore::new(FORWARDED),
        counters: Counters::default(),
    });
    tasks.spawn(keep(addresses, Arc::clone(&shared)));
    Some(Dns { names, wanted, shared, listen: config.listen.clone() })
}

impl Dns {
    pub fn set_names(&self, names: Arc<Names>) {
        self.names.send_replace(Some(names));
    }

    /// The interface has these addresses now.
    pub fn set_lease(&self, lease: &Lease) {
        let own = [IpAddr::from(lease.v4), lease.v6.into()].map(|address| SocketAddr::new(address, PORT));
        self.wanted.send_replace(own.into_iter().chain(self.listen.iter().copied()).collect());
    }

    /// Queries by what became of them.
    pub fn counters(&self) -> Value {
        let Counters { answered, refused, forwarded, failed } = &self.shared.counters;
        let [answered, refused, forwarded, failed] =
            [answered, refused, forwarded, failed].map(|counter| counter.load(Ordering::Relaxed));
        json!({ "answered": answered, "refused": refused, "forwarded": forwarded, "failed": failed })
    }
}

/// Opens what is wanted and closes what is not.
async fn keep(mut wanted: watch::Receiver<BTreeSet<SocketAddr>>, shared: Arc<Shared>) {
    let mut open: BTreeMap<SocketAddr, JoinSet<()>> = BTreeMap::new();
    let mut refused: BTreeSet<SocketAddr> = BTreeSet::new();
    loop {
        let now = wanted.borrow_and_update().clone();
        open.retain(|address, _| now.contains(address));
        for address in now.iter().filter(|address| !open.contains_key(address)).copied().collect::<Vec<_>>() {
            match listen(address, &shared).await {
                Ok(tasks) => {
                    info!(%address, "names are answered");
                    open.insert(address, tasks);
                    refused.remove(&address);
                }
                Err(why) if refused.insert(address) => {
                    warn!(%address, %why, "cannot answer names there yet: is there another name server, or no right to port 53?");
                }
                Err(_) => {}
            }
        }
        let changed = wanted.changed();
        let changed = if open.len() == now.len() { Ok(changed.await) } else { timeout(RETRY, changed).await };
        if let Ok(Err(_)) = changed {
            return;
        }
    }
}

async fn listen(address: SocketAddr, shared: &Arc<Shared>) -> io::Result<JoinSet<()>> {
    let (udp, tcp) = (UdpSocket::bind(address).await?, TcpListener::bind(address).await?);
    let mut tasks = JoinSet::new();
    tasks.spawn(serve_datagrams(udp, Arc::clone(shared)));
    tasks.spawn(serve_connections(tcp, Arc::clone(shared)));
    Ok(tasks)
}

async fn serve_datagrams(socket: UdpSocket, shared: Arc<Shared>) {
    let socket = Arc::new(socket);
    let mut asking = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        while asking.try_join_next().is_some() {}
        let Ok((len, from)) = socket.recv_from(&mut buffer).await else {
            // An ICMP error about an answer, or the interface is down for a moment.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let query = &buffer[..len];
        match shared.reply(query, from.ip(), Over::Udp) {
            Reply::Silence => {}
            // A full socket loses a datagram, as a full line does: the client asks again.
            Reply::Answer(answer) | Reply::Refused(answer) => drop(socket.try_send_to(&answer, from)),
            Reply::Forward => {
                let (query, socket, shared) = (query.to_vec(), Arc::clone(&socket), Arc::clone(&shared));
                asking.spawn(async move {
                    if let Some(answer) = shared.forward(&query, from.ip(), Over::Udp).await {
                        let _ = socket.send_to(&answer, from).await;
                    }
                });
            }
        }
    }
}

async fn serve_connections(listener: TcpListener, shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        let Ok((stream, from)) = accepted else {
            // Out of file descriptors: a moment later there may be some.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // Strangers get no place: they would be refused there.
        if !shared.is_served(from.ip()) {
            continue;
        }
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // A client that hangs up is its own affair.
            let _ = serve_connection(stream, from.ip(), &shared).await;
            drop(slot);
        });
    }
}

async fn serve_connection(mut stream: TcpStream, from: IpAddr, shared: &Shared) -> io::Result<()> {
    loop {
        let query = timeout(SILENCE, read_message(&mut stream)).await??;
        let answer = match shared.reply(&query, from, Over::Tcp) {
            Reply::Silence => return Ok(()),
            Reply::Answer(answer) | Reply::Refused(answer) => answer,
            Reply::Forward => match shared.forward(&query, from, Over::Tcp).await {
                Some(answer) => answer,
                None => return Ok(()),
            },
        };
        timeout(SILENCE, write_message(&mut stream, &answer)).await??;
    }
}

/// Its length stands before it (RFC 1035 §4.2.2).
async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), message].concat()).await
}

impl Shared {
    fn asked<'a>(&self, query: &'a [u8], from: IpAddr, over: Over) -> Asked<'a> {
        Asked { query, from, over, forwards: !self.upstream.is_empty() }
    }

    /// Whether `from` lies behind a node of the cluster.
    fn is_served(&self, from: IpAddr) -> bool {
        self.names.borrow().as_ref().is_some_and(|names| names.is_served(from))
    }

    /// Before the node has its addresses it answers nobody.
    fn reply(&self, query: &[u8], from: IpAddr, over: Over) -> Reply {
        let names = self.names.borrow().clone();
        let reply = names.map_or(Reply::Silence, |names| names.answer(self.asked(query, from, over)));
        match reply {
            Reply::Answer(_) => count(&self.counters.answered),
            Reply::Refused(_) => count(&self.counters.refused),
            Reply::Forward => count(&self.counters.forwarded),
            Reply::Silence => {}
        }
        reply
    }

    /// What the others say, or that none of them says anything.
    async fn forward(&self, query: &[u8], from: IpAddr, over: Over) -> Option<Vec<u8>> {
        let asked = self.asked(query, from, over);
        if let Ok(_slot) = self.forwarding.try_acquire() {
            for upstream in &self.upstream {
                let found = match over {
                    Over::Udp => timeout(UPSTREAM, ask_by_datagram(query, *upstream)).await,
                    Over::Tcp => timeout(UPSTREAM, ask_by_connection(query, *upstream)).await,
                };
                if let Ok(Ok(answer)) = found {
                    return passed_on(asked, &answer);
                }
            }
        }
        count(&self.counters.failed);
        failed(asked)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// From a port and under a number that nobody can guess (RFC 5452).
async fn ask_by_datagram(query: &[u8], upstream: SocketAddr) -> io::Result<Vec<u8>> {
    let query = numbered(query, random_id()?);
    let any =
        if upstream.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(upstream).await?;
    socket.send(&query).await?;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if is_answer(&query, &buffer[..len]) {
            buffer.truncate(len);
            return Ok(buffer);
        }
    }
}

async fn ask_by_connection(query: &[u8], upstream: SocketAddr) -> io::Result<Vec<u8>> {
    let query = numbered(query, random_id()?);
    let mut stream = TcpStream::connect(upstream).await?;
    write_message(&mut stream, &query).await?;
    let answer = read_message(&mut stream).await?;
    if is_answer(&query, &answer) { Ok(answer) } else { Err(io::Error::other("it answers something else")) }
}

fn random_id() -> io::Result<[u8; 2]> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    Ok(id)
}

//! The link between a site and its cloud: every datagram goes through here, while the link stands.
//!
//! ```text
//!  edge's sockets --> front          one a socket --> cloud
//!  edge's sockets <-- front <-- back, one a socket <-- cloud
//! ```

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Sockets of the edge over a test: one a start and one to join. Datagrams of further ones are dropped.
const SOCKETS: usize = 16;

/// How soon the threads see that the test is over.
const TICK: Duration = Duration::from_millis(100);

/// Larger than any datagram.
const DATAGRAM: usize = 1 << 16;

/// Nothing came in a tick, or the peer is away for a moment.
const PASSING: [ErrorKind; 3] = [ErrorKind::WouldBlock, ErrorKind::ConnectionRefused, ErrorKind::Interrupted];

#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    is_cut: AtomicBool,
    is_over: AtomicBool,
}

impl Relay {
    pub(crate) fn start(cloud: SocketAddr) -> Self {
        let front = socket();
        let relay = Self { address: front.local_addr().unwrap(), shared: Arc::default() };
        let shared = Arc::clone(&relay.shared);
        std::thread::spawn(move || up(&Arc::new(front), cloud, &shared));
        relay
    }

    /// Where the edge dials.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// No datagram gets through any more, either way.
    pub(crate) fn cut(&self) {
        self.shared.is_cut.store(true, Ordering::Relaxed);
    }

    pub(crate) fn mend(&self) {
        self.shared.is_cut.store(false, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(TICK)).unwrap();
    socket
}

/// Like a NAT: the cloud knows each socket of the edge by one of our own.
fn up(front: &Arc<UdpSocket>, cloud: SocketAddr, shared: &Arc<Shared>) {
    let mut backs: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    receive(front, shared, |datagram, edge| {
        if !backs.contains_key(&edge) && backs.len() < SOCKETS {
            let back = Arc::new(socket());
            back.connect(cloud).unwrap();
            backs.insert(edge, Arc::clone(&back));
            let (front, shared) = (Arc::clone(front), Arc::clone(shared));
            std::thread::spawn(move || {
                receive(&back, &shared, |datagram, _| drop(front.send_to(datagram, edge)));
            });
        }
        // Nobody may listen there just now.
        backs.get(&edge).map(|back| back.send(datagram));
    });
}

/// Until the test is over.
fn receive(socket: &UdpSocket, shared: &Shared, mut deliver: impl FnMut(&[u8], SocketAddr)) {
    let mut buffer = vec![0; DATAGRAM];
    while !shared.is_over.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok(_) if shared.is_cut.load(Ordering::Relaxed) => {}
            Ok((length, from)) => deliver(&buffer[..length], from),
            Err(error) => assert!(PASSING.contains(&error.kind()), "the relay: {error}"),
        }
    }
}

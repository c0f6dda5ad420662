//! A slow link between one edge and its cloud: every datagram goes through here.
//!
//! ```text
//!  edge --> front [rate, queue, delay] back --> cloud
//!  edge <-- front [rate, queue, delay] back <-- cloud
//! ```

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// IPv4 and UDP headers, which a link carries too.
const HEADERS: usize = 28;

/// On their way in one direction: a second of small ones. The link takes no more in then.
const DATAGRAMS: usize = 1 << 14;

/// What one direction of the link is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) bits_per_second: f64,
    /// One way.
    pub(crate) delay: Duration,
    /// What waits for the link, in time; more is dropped.
    pub(crate) queue: Duration,
}

/// The link's near end.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    down: Arc<AtomicU64>,
    first: Arc<Mutex<Option<Instant>>>,
}

impl Relay {
    /// Its threads end with the process.
    pub(crate) fn start(cloud: SocketAddr, link: Link) -> Result<Self> {
        let front = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("the link's near end")?);
        let back = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("the link's far end")?);
        back.connect(cloud).context("the link's far end")?;
        let address = front.local_addr().context("the link's near end")?;
        let edge: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let relay = Self { address, down: Arc::default(), first: Arc::default() };

        let (from, to, learn, first) =
            (Arc::clone(&front), Arc::clone(&back), Arc::clone(&edge), Arc::clone(&relay.first));
        let receive = move |buffer: &mut [u8]| {
            let (len, peer) = from.recv_from(buffer)?;
            *lock(&learn) = Some(peer);
            lock(&first).get_or_insert_with(Instant::now);
            Ok(len)
        };
        direction(link, Arc::default(), receive, move |datagram| to.send(datagram).map(drop));
        let down = Arc::clone(&relay.down);
        let send = move |datagram: &[u8]| match *lock(&edge) {
            Some(peer) => front.send_to(datagram, peer).map(drop),
            None => Ok(()),
        };
        direction(link, down, move |buffer: &mut [u8]| back.recv(buffer), send);
        Ok(relay)
    }

    /// Bytes that left towards the edge, headers included.
    pub(crate) fn carried_down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }

    /// From now on the edge's next datagram is its first.
    pub(crate) fn forget_first(&self) {
        *lock(&self.first) = None;
    }

    pub(crate) fn first(&self) -> Option<Instant> {
        *lock(&self.first)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

type Waiting = (Instant, Vec<u8>);

fn direction(
    link: Link,
    carried: Arc<AtomicU64>,
    receive: impl FnMut(&mut [u8]) -> std::io::Result<usize> + Send + 'static,
    send: impl FnMut(&[u8]) -> std::io::Result<()> + Send + 'static,
) {
    let (queue, waiting) = sync_channel(DATAGRAMS);
    std::thread::spawn(move || take_in(link, &carried, receive, &queue));
    std::thread::spawn(move || give_out(&waiting, send));
}

fn take_in(
    link: Link,
    carried: &AtomicU64,
    mut receive: impl FnMut(&mut [u8]) -> std::io::Result<usize>,
    queue: &SyncSender<Waiting>,
) {
    let mut buffer = [0; 2048];
    let mut free_at = Instant::now();
    loop {
        // A peer that is away for a moment is no end of the link.
        let Ok(len) = receive(&mut buffer) else { continue };
        let now = Instant::now();
        free_at = free_at.max(now);
        if free_at - now > link.queue {
            continue;
        }
        let bits = ((len + HEADERS) * 8) as f64;
        free_at += Duration::from_secs_f64(bits / link.bits_per_second);
        carried.fetch_add((len + HEADERS) as u64, Ordering::Relaxed);
        if queue.send((free_at + link.delay, buffer[..len].to_vec())).is_err() {
            return;
        }
    }
}

fn give_out(waiting: &Receiver<Waiting>, mut send: impl FnMut(&[u8]) -> std::io::Result<()>) {
    while let Ok((at, datagram)) = waiting.recv() {
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        // Nobody may listen there just now.
        let _ = send(&datagram);
    }
}

/// The same for TCP, without a rate: a connection's bytes take so long one way.
///
/// Its threads end with the process.
pub(crate) fn delayed(to: SocketAddr, delay: Duration) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("the link's near end")?;
    let address = listener.local_addr().context("the link's near end")?;
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let Ok(far) = TcpStream::connect(to) else { continue };
            for (from, to) in [(&near, &far), (&far, &near)] {
                let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { continue };
                let _ = to.set_nodelay(true);
                let (queue, waiting) = sync_channel::<Waiting>(DATAGRAMS);
                std::thread::spawn(move || {
                    let mut buffer = [0; 1 << 14];
                    while let Ok(len @ 1..) = from.read(&mut buffer)
                        && queue.send((Instant::now() + delay, buffer[..len].to_vec())).is_ok()
                    {
                    }
                });
                std::thread::spawn(move || give_out(&waiting, |bytes| to.write_all(bytes)));
            }
        }
    });
    Ok(address)
}

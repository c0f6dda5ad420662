//! A box on the path between a dialler and a cloud: a NAT that can change
//! its mind, be unplugged, lose large packets, or damage them.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bus::backoff::Jitter;

use crate::cluster::loopback;

/// Passes datagrams on until dropped.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    orders: Arc<Orders>,
}

struct Orders {
    stop: AtomicBool,
    /// Forget the mapping: the next packet leaves from another port.
    rebind: AtomicBool,
    /// Send three damaged copies with each packet.
    damage: AtomicBool,
    /// Lose packets longer than this; 0 is none.
    narrow: AtomicUsize,
    /// Where the cloud is now.
    cloud: Mutex<SocketAddr>,
}

impl Relay {
    pub(crate) fn before(cloud: SocketAddr) -> Self {
        let front = UdpSocket::bind(loopback()).unwrap();
        let orders = Arc::new(Orders {
            stop: false.into(),
            rebind: false.into(),
            damage: false.into(),
            narrow: 0.into(),
            cloud: cloud.into(),
        });
        let (address, kept) = (front.local_addr().unwrap(), orders.clone());
        thread::spawn(move || pass(&front, &kept));
        Self { address, orders }
    }

    pub(crate) fn rebind(&self) {
        self.orders.rebind.store(true, Ordering::SeqCst);
    }

    /// From now on packets go to another cloud.
    pub(crate) fn turn_to(&self, cloud: SocketAddr) {
        *self.orders.cloud.lock().unwrap() = cloud;
        self.rebind();
    }

    pub(crate) fn narrow(&self, longest: usize) {
        self.orders.narrow.store(longest, Ordering::SeqCst);
    }

    pub(crate) fn damage(&self) {
        self.orders.damage.store(true, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.orders.stop.store(true, Ordering::SeqCst);
    }
}

impl Orders {
    fn outside(&self) -> UdpSocket {
        let socket = UdpSocket::bind(loopback()).unwrap();
        socket.connect(*self.cloud.lock().unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    /// What becomes of one packet on its way.
    fn copies(&self, packet: &[u8], random: &mut Jitter) -> Vec<Vec<u8>> {
        let longest = self.narrow.load(Ordering::SeqCst);
        if longest > 0 && packet.len() > longest {
            return Vec::new();
        }
        let copies = if self.damage.load(Ordering::SeqCst) { 4 } else { 1 };
        (0..copies).map(|copy| damaged(packet, copy, random)).collect()
    }
}

fn pass(front: &UdpSocket, orders: &Orders) {
    front.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let (mut back, mut inside, mut random) = (orders.outside(), None, Jitter::new(7));
    let mut buffer = [0; 2048];
    while !orders.stop.load(Ordering::SeqCst) {
        if orders.rebind.swap(false, Ordering::SeqCst) {
            back = orders.outside();
        }
        if let Ok((len, from)) = front.recv_from(&mut buffer) {
            inside = Some(from);
            for copy in orders.copies(&buffer[..len], &mut random) {
                let _ = back.send(&copy);
            }
        }
        while let (Ok(len), Some(to)) = (back.recv(&mut buffer), inside) {
            for copy in orders.copies(&buffer[..len], &mut random) {
                let _ = front.send_to(&copy, to);
            }
        }
    }
}

/// Copy 0 is the packet itself; others have bits flipped, or are cut.
fn damaged(packet: &[u8], copy: usize, random: &mut Jitter) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    for _ in 0..copy {
        let at = random.next_u64() as usize % bytes.len();
        bytes[at] ^= random.next_u64() as u8 | 1;
    }
    if copy == 3 {
        bytes.truncate(1 + random.next_u64() as usize % bytes.len());
    }
    bytes
}

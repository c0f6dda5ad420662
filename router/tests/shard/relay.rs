//! A box on the path between a dialler and a cloud: a NAT that can change its mind, be unplugged, or damage packets.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bus::backoff::Jitter;

use crate::cluster::loopback;

/// Passes datagrams on until dropped.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    orders: Arc<Orders>,
}

#[derive(Default)]
struct Orders {
    stop: AtomicBool,
    /// Forget the mapping: the next packet leaves from another port.
    rebind: AtomicBool,
    /// Send three damaged copies with each packet.
    damage: AtomicBool,
}

impl Relay {
    pub(crate) fn before(cloud: SocketAddr) -> Self {
        let front = UdpSocket::bind(loopback()).unwrap();
        let (address, orders) = (front.local_addr().unwrap(), Arc::new(Orders::default()));
        let kept = orders.clone();
        thread::spawn(move || pass(&front, cloud, &kept));
        Self { address, orders }
    }

    pub(crate) fn rebind(&self) {
        self.orders.rebind.store(true, Ordering::SeqCst);
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

fn outside(cloud: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(loopback()).unwrap();
    socket.connect(cloud).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn pass(front: &UdpSocket, cloud: SocketAddr, orders: &Orders) {
    front.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let (mut back, mut inside, mut random) = (outside(cloud), None, Jitter::new(7));
    let mut buffer = [0; 2048];
    while !orders.stop.load(Ordering::SeqCst) {
        if orders.rebind.swap(false, Ordering::SeqCst) {
            back = outside(cloud);
        }
        let copies = if orders.damage.load(Ordering::SeqCst) { 4 } else { 1 };
        if let Ok((len, from)) = front.recv_from(&mut buffer) {
            inside = Some(from);
            for copy in 0..copies {
                let _ = back.send(&damaged(&buffer[..len], copy, &mut random));
            }
        }
        while let (Ok(len), Some(to)) = (back.recv(&mut buffer), inside) {
            for copy in 0..copies {
                let _ = front.send_to(&damaged(&buffer[..len], copy, &mut random), to);
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

//! The thread that is the internet: it holds the outer ends of the nodes' TUNs.
//!
//! ```text
//!  namespace a: wan0 =TUN= fd \                           / fd =TUN= wan0 :namespace b
//!                              epoll -> Internet -> write
//!              timer (next packet due) /  \ wake (settings changed, stop)
//! ```
//! One mutex around the [`Internet`] and its TUNs is the one place where threads meet: the wire's own for each
//! batch of packets, and whoever cuts, mends or asks for figures.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use bus::Mono;
use ipnet::{IpNet, Ipv4Net};
use router::io::netlink::{Netlink, NetlinkError};
use router::io::tun::{Tun, TunError};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use thiserror::Error;

use super::namespace::{Namespace, NamespaceError};
use crate::internet::{AttachError, Attachment, Internet, PortId, PortStats};
use crate::link::LinkSettings;

/// The interface that a node has towards the internet.
pub const WAN: &str = "wan0";
/// Bytes of a packet on [`WAN`]: Ethernet's, as on most of the real internet.
pub const WAN_MTU: u32 = 1500;

/// Packets taken from one TUN before the others have their turn and waiting ones are delivered. What is not taken
/// waits in the TUN's queue (1000 packets), whose end drops.
const BATCH: usize = 64;

/// Events taken from one wait; more come with the next.
const EVENTS: usize = 64;

/// Packets that a recording holds; the first ones are the handshakes.
const MAX_RECORDED: usize = 1000;

/// What wakes the thread beside TUNs, which are known by their index.
const WAKE: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;

/// Why there is no wire, or a node is not on it.
#[derive(Debug, Error)]
pub enum WireError {
    #[error("cannot {step}")]
    Setup { step: &'static str, source: io::Error },
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error("cannot open {WAN}")]
    Tun(#[from] TunError),
    #[error("cannot set up {WAN}")]
    Netlink(#[from] NetlinkError),
    #[error("cannot switch IPv6 off on {WAN}")]
    NoIpv6(#[source] io::Error),
}

/// One port's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WireStats {
    pub port: PortStats,
    /// Packets that arrived and that the node's kernel did not take: its interface was down, or its memory full.
    pub not_taken: u64,
}

#[derive(Debug)]
struct Socket {
    tun: Tun,
    port: PortId,
    not_taken: u64,
}

#[derive(Debug)]
struct State {
    internet: Internet,
    sockets: Vec<Socket>,
    recording: Option<Recording>,
}

/// What somebody on the path writes down.
#[derive(Debug)]
struct Recording {
    port: PortId,
    packets: Vec<Vec<u8>>,
}

impl Recording {
    fn note(&mut self, port: PortId, packet: &[u8]) {
        if port == self.port && self.packets.len() < MAX_RECORDED {
            self.packets.push(packet.to_vec());
        }
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    began: Instant,
    epoll: OwnedFd,
    wake: OwnedFd,
    timer: OwnedFd,
    is_stopping: AtomicBool,
}

/// The running internet. Stops when dropped; the nodes' [`WAN`] interfaces go with it.
#[derive(Debug)]
pub struct Wire {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Starts the thread `lab-wire` on an internet without nodes.
    pub fn start(seed: u64) -> Result<Self, WireError> {
        let shared = Arc::new(Shared::new(seed).map_err(setup("make the wire's descriptors"))?);
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("lab-wire".to_owned())
            .spawn(move || of_thread.run())
            .map_err(setup("start the thread lab-wire"))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Gives the namespace an interface [`WAN`] with its address and the default route, and joins it to the
    /// internet.
    pub fn attach(&self, namespace: &Namespace, attachment: Attachment) -> Result<PortId, WireError> {
        let address = Ipv4Net::from(attachment.node_address());
        let tun = namespace.run(|| open_wan(address))??;
        let mut state = self.shared.lock();
        // Watched first: a TUN that is dropped is no longer watched, but a port stays.
        let index = state.sockets.len() as u64;
        epoll::add(&self.shared.epoll, &tun, epoll::EventData::new_u64(index), epoll::EventFlags::IN)
            .map_err(|errno| setup("watch the TUN")(errno.into()))?;
        let port = state.internet.attach(attachment)?;
        state.sockets.push(Socket { tun, port, not_taken: 0 });
        Ok(port)
    }

    /// Cuts a node's line; what is on it is lost.
    pub fn cut(&self, port: PortId) {
        self.shared.change(|internet, now| internet.cut(port, true, now));
    }

    /// Mends a node's line.
    pub fn restore(&self, port: PortId) {
        self.shared.change(|internet, now| internet.cut(port, false, now));
    }

    /// Whether the NAT of a node hairpins: [`Internet::set_hairpin`].
    pub fn set_hairpin(&self, port: PortId, is_on: bool) {
        self.shared.change(|internet, _| internet.set_hairpin(port, is_on));
    }

    pub fn set_link(&self, port: PortId, link: LinkSettings) {
        self.shared.change(|internet, now| internet.set_link(port, link, now));
    }

    /// Writes down what a node sends from now on, as an attacker on the path may; the first 1000 packets.
    pub fn record(&self, port: PortId) {
        self.shared.lock().recording = Some(Recording { port, packets: Vec::new() });
    }

    /// Ends the recording: whole IPv4 packets, as the node sent them.
    pub fn recorded(&self) -> Vec<Vec<u8>> {
        self.shared.lock().recording.take().map(|recording| recording.packets).unwrap_or_default()
    }

    pub fn stats(&self, port: PortId) -> WireStats {
        let state = self.shared.lock();
        let not_taken = state.sockets.iter().find(|s| s.port == port).map_or(0, |s| s.not_taken);
        WireStats { port: state.internet.stats(port), not_taken }
    }

    /// Ends the thread and takes the nodes off.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread lab-wire had panicked");
        }
    }
}

fn setup(step: &'static str) -> impl Fn(io::Error) -> WireError {
    move |source| WireError::Setup { step, source }
}

/// Runs inside the node's namespace.
fn open_wan(address: Ipv4Net) -> Result<Tun, WireError> {
    let tun = Tun::open(WAN, WAN_MTU)?;
    silence_ipv6()?;
    let mut netlink = Netlink::open()?;
    netlink.address_add(WAN, IpNet::V4(address))?;
    netlink.link_up(WAN)?;
    netlink.route_replace(IpNet::V4(Ipv4Net::default()), WAN, None, None)?;
    Ok(tun)
}

/// The small internet is IPv4 only: no router solicitations to be counted as malformed.
fn silence_ipv6() -> Result<(), WireError> {
    let switch = Path::new("/proc/sys/net/ipv6/conf").join(WAN).join("disable_ipv6");
    if !switch.exists() {
        return Ok(());
    }
    fs::write(switch, "1").map_err(WireError::NoIpv6)
}

impl Shared {
    fn new(seed: u64) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
        let state = Mutex::new(State { internet: Internet::new(seed), sockets: Vec::new(), recording: None });
        Ok(Self { state, began: Instant::now(), epoll, wake, timer, is_stopping: AtomicBool::new(false) })
    }

    /// A panic in another thread left the figures whole: each change is one call.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Mono {
        Mono::ZERO + self.began.elapsed()
    }

    fn change(&self, change: impl FnOnce(&mut Internet, Mono)) {
        change(&mut self.lock().internet, self.now());
        self.wake();
    }

    fn wake(&self) {
        // Fails only if the counter is full, and then the thread wakes anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn run(&self) {
        let mut buffer = vec![0; WAN_MTU as usize];
        while !self.is_stopping.load(Ordering::Acquire) {
            let mut events = Vec::with_capacity(EVENTS);
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return tracing::error!(%errno, "the wire cannot wait for packets and stops"),
            }
            let next = self.turn(&events, &mut buffer);
            self.set_timer(next);
        }
    }

    /// Takes what came, hands out what is due; returns when the next packet is.
    fn turn(&self, events: &[epoll::Event], buffer: &mut [u8]) -> Option<Mono> {
        let mut state = self.lock();
        for event in events {
            match event.data.u64() {
                WAKE => self.drain(&self.wake),
                TIMER => self.drain(&self.timer),
                index => self.take(&mut state, index as usize, buffer),
            }
        }
        state.deliver(self.now());
        state.internet.poll_timeout().map(|(due, _)| due)
    }

    /// Both counters are read as eight bytes; nothing to read is as good.
    fn drain(&self, counter: &OwnedFd) {
        let _ = rustix::io::read(counter, &mut [0u8; 8]);
    }

    fn take(&self, state: &mut State, index: usize, buffer: &mut [u8]) {
        let State { internet, sockets, recording } = state;
        let Some(Socket { tun, port, .. }) = sockets.get(index) else { return };
        for _ in 0..BATCH {
            match tun.read(buffer) {
                Ok(len) => {
                    if let Some(recording) = recording {
                        recording.note(*port, &buffer[..len]);
                    }
                    internet.handle_packet(*port, &buffer[..len], self.now());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::debug!(%error, "the interface of {port:?} is gone");
                    let _ = epoll::delete(&self.epoll, tun);
                    return;
                }
            }
        }
    }

    fn set_timer(&self, due: Option<Mono>) {
        // All zero would disarm: what is due already is one nanosecond away.
        let wait = due.map(|due| due.since(self.now()).max(std::time::Duration::from_nanos(1)));
        let value = wait.map_or(Timespec { tv_sec: 0, tv_nsec: 0 }, |wait| Timespec {
            tv_sec: wait.as_secs() as i64,
            tv_nsec: wait.subsec_nanos().into(),
        });
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        if let Err(errno) = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once) {
            tracing::error!(%errno, "the wire cannot set its timer");
        }
    }
}

impl State {
    fn deliver(&mut self, now: Mono) {
        while let Some(delivery) = self.internet.poll_delivery(now) {
            let Some(socket) = self.sockets.iter_mut().find(|s| s.port == delivery.port) else { continue };
            if socket.tun.write(&delivery.packet).is_err() {
                socket.not_taken += 1;
            }
        }
    }
}

//! The kernel's WireGuard: its interface alone in a network namespace, a TUN beside it, and a thread that takes packets
//! from that TUN to the node's, through the guard.
//!
//! ```text
//!  node's namespace                              |  namespace of the control thread
//!  `wireguard.interface` (TUN) <=> Guard <=======|=> `cleartext` (TUN) <== forwarding ==> `wireguard.interface` (WireGuard)
//!                                                |     default route                        a route for each client
//!  UDP socket <==================================|========================================'
//! ```
//! WireGuard keeps its UDP socket in the namespace in which its interface was made, and the interface can be elsewhere
//! (<https://www.wireguard.com/netns/>).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{CLIENT_MTU, Since, StartError, lock};
use crate::Guard;
use crate::io::netlink::Netlink;
use crate::io::sysctl;
use crate::io::tun::Tun;

const CLEARTEXT: &str = "cleartext";

/// How soon a thread that waits for packets sees that it is to end.
const LOOK_UP: Duration = Duration::from_millis(500);

/// The kernel's interface and what it takes to reach it. The namespace goes with the control thread, and all in it too.
#[derive(Debug)]
pub(super) struct Interface {
    /// Of the namespace that the calling thread is in from now on.
    pub(super) netlink: Netlink,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Interface {
    /// Takes the calling thread into a namespace of its own for good. `outside` is of the one that it was in.
    pub(super) fn start(
        name: &str,
        outside: &mut Netlink,
        tun: Tun,
        guard: Arc<Mutex<Guard>>,
    ) -> Result<Self, StartError> {
        let namespace = enter_own_namespace().map_err(StartError::Namespace)?;
        outside.wireguard_create(name, namespace.as_fd()).map_err(StartError::Kernel)?;
        let mut netlink = Netlink::open()?;
        let cleartext = Tun::open(CLEARTEXT, CLIENT_MTU.into())?;
        netlink.set_mtu(name, CLIENT_MTU.into())?;
        for interface in ["lo", name, CLEARTEXT] {
            netlink.link_up(interface)?;
        }
        sysctl::enable_forwarding()?;
        // By a rule: routes lead to clients, and one client must not get to another without passing the guard.
        netlink.forward_all(name, CLEARTEXT, false)?;
        if sysctl::has_ipv6(CLEARTEXT) {
            netlink.forward_all(name, CLEARTEXT, true)?;
        }
        let over = Arc::new(AtomicBool::new(false));
        let pump = Pump { cleartext, tun, guard, over: over.clone(), clock: Since(Instant::now()) };
        let thread = Builder::new().name("wireguard-ip".into()).spawn(move || pump.run());
        Ok(Self { netlink, over, thread: Some(thread.map_err(StartError::Thread)?) })
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic has been printed by then.
            let _ = thread.join();
        }
    }
}

/// Tries it on a thread that ends with the namespace.
pub(super) fn may_enter_own_namespace() -> io::Result<()> {
    let tried = Builder::new().name("wireguard-probe".into()).spawn(|| enter_own_namespace().map(drop))?;
    tried.join().unwrap_or_else(|_| Err(io::Error::other("the attempt panicked")))
}

#[expect(unsafe_code, reason = "rustix has no safe unshare")]
fn enter_own_namespace() -> io::Result<OwnedFd> {
    // SAFETY: unsafe only with FILES, which is not passed: no thread loses sight of a descriptor.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
}

/// Takes packets from one TUN to the other.
struct Pump {
    cleartext: Tun,
    tun: Tun,
    guard: Arc<Mutex<Guard>>,
    over: Arc<AtomicBool>,
    clock: Since,
}

impl Pump {
    fn run(self) {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        let timeout = Timespec::try_from(LOOK_UP).ok();
        while !self.over.load(Ordering::Relaxed) {
            let mut fds =
                [PollFd::new(&self.cleartext, PollFlags::IN), PollFd::new(&self.tun, PollFlags::IN)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            self.take_all(&mut buffer);
        }
    }

    /// Both ways, in turn, until neither has more.
    fn take_all(&self, buffer: &mut [u8]) {
        let mut more = true;
        while more {
            more = false;
            if let Ok(len) = self.cleartext.read(buffer) {
                more = true;
                let packet = buffer.get_mut(..len).unwrap_or_default();
                if lock(&self.guard).let_in(packet, self.clock.now()).is_ok() {
                    // Lost like any packet if the interface is down.
                    let _ = self.tun.write(packet);
                }
            }
            if let Ok(len) = self.tun.read(buffer) {
                more = true;
                let packet = buffer.get_mut(..len).unwrap_or_default();
                if lock(&self.guard).let_out(packet, self.clock.now()).is_ok() {
                    let _ = self.cleartext.write(packet);
                }
            }
        }
    }
}

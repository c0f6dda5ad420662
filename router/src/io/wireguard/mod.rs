//! The gateway of stock WireGuard clients: WireGuard on one side, a TUN on the other, the [`Guard`] in between.
//!
//! ```text
//!            wanted                    bell                  wireguard-control
//!   owner ----------> [ shared ] <------------> control thread ===============> the backend: who is let in
//!            clients             <------------                 ---------------> the kernel: routes to clients
//!
//!   kernel <== TUN, `wireguard.interface` ==> Guard <== cleartext ==> backend <== WireGuard, UDP ==> clients
//! ```
//! There are two backends, and `wireguard-control` speaks to both in the same words:
//!
//! | backend | WireGuard is | cleartext comes by |
//! |---|---|---|
//! | `kernel` | the kernel's, on an interface in a network namespace that nothing else is in | a second TUN in there |
//! | `userspace` | gotatun's, in a thread of this process, with its UAPI socket under `/var/run/wireguard` | function calls |
//!
//! So cleartext of clients passes the guard with either. The kernel's WireGuard in the node's own namespace would hand it
//! to the node and its LANs unseen.

mod control;
mod kernel;
mod userspace;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Instant, SystemTime};

use bus::{Lease, Mono, WireguardKey, WireguardPeer};
use thiserror::Error;
use wireguard_control::Key;

use super::netlink::NetlinkError;
use super::sysctl::SysctlError;
use super::tun::TunError;
use crate::{Guard, Policy, Table};

/// The largest packet of a client, in bytes: the least that IPv6 allows (RFC 8200 §5). With WireGuard's 32 bytes and the
/// headers of UDP and IP that is 1360 at most, which mobile networks, PPPoE and tunnels of providers carry whole.
pub const CLIENT_MTU: u16 = 1280;

/// A private key.
#[derive(Clone)]
pub struct PrivateKey(Key);

impl PrivateKey {
    pub fn generate() -> Self {
        Self(Key::generate_private())
    }

    /// As WireGuard's own tools write it.
    pub fn from_base64(text: &str) -> Option<Self> {
        Key::from_base64(text).ok().map(Self)
    }

    pub fn to_base64(&self) -> String {
        self.0.to_base64()
    }

    pub fn public(&self) -> WireguardKey {
        WireguardKey(self.0.get_public().0)
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// A key that only a client and its gateway know, beside their own.
pub fn preshared_key() -> WireguardKey {
    WireguardKey(Key::generate_preshared().0)
}

/// Which backend to take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wanted {
    /// The kernel's if it has one and lets us, else ours.
    #[default]
    Any,
    Kernel,
    Userspace,
}

/// What a gateway is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The interface that clients are behind.
    pub interface: String,
    /// The overlay's interface.
    pub overlay: String,
    /// UDP port.
    pub port: u16,
    pub key: PrivateKey,
    pub backend: Wanted,
    /// Keys of the guard's tables, which strangers fill.
    pub seed: [u64; 2],
}

/// Which backend works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Kernel,
    Userspace,
}

impl Backend {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Userspace => "userspace",
        }
    }

    fn control(self) -> wireguard_control::Backend {
        match self {
            Self::Kernel => wireguard_control::Backend::Kernel,
            Self::Userspace => wireguard_control::Backend::Userspace,
        }
    }
}

/// Why there is no gateway.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("'{0}' is no interface name: use 1 to 15 of the printable ASCII characters but '/' and ':'")]
    Name(String),
    #[error("the interface of WireGuard clients")]
    Tun(#[from] TunError),
    #[error("the kernel's network tables")]
    Netlink(#[from] NetlinkError),
    #[error("cannot forward in the namespace of WireGuard")]
    Forwarding(#[from] SysctlError),
    #[error("the kernel's WireGuard is not to be had")]
    Kernel(#[source] NetlinkError),
    #[error("cannot make a network namespace for WireGuard: it takes root, or CAP_SYS_ADMIN")]
    Namespace(#[source] io::Error),
    #[error(
        "cannot make the control socket {path}: {why}; run as root, or make the directory for this user: \
         mkdir -p /var/run/wireguard && chown USER /var/run/wireguard"
    )]
    Uapi { path: String, why: String },
    #[error("another WireGuard is served at {path}: choose another wireguard.interface")]
    Busy { path: String },
    #[error("the WireGuard device")]
    Device(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(
        "UDP port {port} cannot be had: another WireGuard listens there, or choose another wireguard.listen"
    )]
    Port { port: u16, source: io::Error },
    #[error("cannot configure WireGuard")]
    Configure(#[source] io::Error),
    #[error("cannot start a thread for WireGuard")]
    Thread(#[source] io::Error),
}

/// What is known of a client's tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    pub public_key: WireguardKey,
    pub endpoint: Option<SocketAddr>,
    pub last_handshake: Option<SystemTime>,
    /// Bytes from and to the client, since it was let in.
    pub received: u64,
    pub sent: u64,
}

/// What the owner and the control thread know together.
#[derive(Debug, Default)]
struct Shared {
    clients: Vec<WireguardPeer>,
    /// Source addresses of what the gateway itself sends to clients.
    lease: Option<(Ipv4Addr, Ipv6Addr)>,
    tunnels: Vec<Tunnel>,
    problem: Option<String>,
    stopped: bool,
}

/// A gateway at work. It ends when this is dropped.
#[derive(Debug)]
pub struct Gateway {
    interface: String,
    port: u16,
    public_key: WireguardKey,
    backend: Backend,
    /// Why the kernel's backend was not taken.
    instead: Option<String>,
    guard: Arc<Mutex<Guard>>,
    shared: Arc<Mutex<Shared>>,
    bell: SyncSender<()>,
    thread: Option<JoinHandle<()>>,
}

/// What people want to know of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub backend: Backend,
    pub instead: Option<String>,
    pub interface: String,
    pub port: u16,
    pub public_key: WireguardKey,
    pub clients: usize,
    /// Packets that the policy did not let pass.
    pub denied: u64,
    /// What the control thread could not do, and tries again.
    pub problem: Option<String>,
}

impl Gateway {
    /// Starts in the calling thread's network namespace. Lets nobody in before it is told to.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        let guard = Arc::new(Mutex::new(Guard::new(settings.seed)));
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (bell, rung) = sync_channel(1);
        let (told, started) = sync_channel(1);
        let (public_key, interface, port) =
            (settings.key.public(), settings.interface.clone(), settings.port);
        let parts = (guard.clone(), shared.clone());
        let work = move || control::run(&settings, parts, &rung, &told);
        let thread = Builder::new().name("wireguard".into()).spawn(work).map_err(StartError::Thread)?;
        let ended = || StartError::Thread(io::Error::other("it ended at once"));
        let (backend, instead) = started.recv().map_err(|_| ended())??;
        Ok(Self { interface, port, public_key, backend, instead, guard, shared, bell, thread: Some(thread) })
    }

    /// Who is let in from now on, and nobody else.
    pub fn set_clients(&self, clients: Vec<WireguardPeer>) {
        lock(&self.shared).clients = clients;
        self.ring();
    }

    pub fn set_lease(&self, lease: &Lease) {
        lock(&self.shared).lease = Some((lease.v4, lease.v6));
        self.ring();
    }

    pub fn set_table(&self, table: Arc<Table>) {
        lock(&self.guard).set_table(table);
    }

    pub fn set_policy(&self, policy: Arc<Policy>) {
        lock(&self.guard).set_policy(policy);
    }

    /// As of a second ago at most.
    pub fn tunnels(&self) -> Vec<Tunnel> {
        lock(&self.shared).tunnels.clone()
    }

    pub fn status(&self) -> Status {
        let denied = lock(&self.guard).denied();
        let shared = lock(&self.shared);
        Status {
            backend: self.backend,
            instead: self.instead.clone(),
            interface: self.interface.clone(),
            port: self.port,
            public_key: self.public_key,
            clients: shared.clients.len(),
            denied,
            problem: shared.problem.clone(),
        }
    }

    /// A bell that rings already is heard once.
    fn ring(&self) {
        let _ = self.bell.try_send(());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        lock(&self.shared).stopped = true;
        self.ring();
        if let Some(thread) = self.thread.take() {
            // A panic has been printed by then.
            let _ = thread.join();
        }
    }
}

/// Nothing that panics is done under these locks, so what they hold is sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The guard's clock.
#[derive(Debug, Clone, Copy)]
struct Since(Instant);

impl Since {
    fn now(self) -> Mono {
        Mono(u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

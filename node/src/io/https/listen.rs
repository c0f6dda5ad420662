//! Where the API listens: at what the configuration names, and at what a service manager passes on.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use rustix::io::FdFlags;
use rustix::net::sockopt;
use thiserror::Error;
use tokio::net::TcpListener;

/// The first descriptor that is passed on (sd_listen_fds(3)).
const FIRST: i32 = 3;

/// More than one machine's loopback has families; further ones would be a mistake.
const MAX_PASSED: i32 = 8;

/// One listener.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) socket: TcpListener,
    pub(super) address: SocketAddr,
    /// A client that does not begin with TLS is served without it. Only at a socket that was passed on and is loopback:
    /// whoever passed it on knows who is on this machine.
    pub(super) plain_too: bool,
}

impl Door {
    /// How a browser on this machine reaches it.
    pub(super) fn url(&self) -> String {
        let scheme = if self.plain_too { "http" } else { "https" };
        let any = self.address.ip().is_unspecified();
        let host = if any { "127.0.0.1".to_owned() } else { self.address.ip().to_string() };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        format!("{scheme}://{host}:{}", self.address.port())
    }
}

/// Why nothing can be listened at.
#[derive(Debug, Error)]
pub(in crate::io) enum ListenError {
    #[error("api.listen: cannot listen at {address}")]
    Bind { address: SocketAddr, source: std::io::Error },
    #[error("LISTEN_FDS is '{0}': it must be 1 to {MAX_PASSED}")]
    Count(String),
    #[error("descriptor {0}, which LISTEN_FDS passes on, is no listening TCP socket")]
    NoListener(i32),
    #[error("descriptor {0}, which LISTEN_FDS passes on, cannot be used")]
    Passed(i32, #[source] std::io::Error),
}

pub(super) async fn open(addresses: &[SocketAddr]) -> Result<Vec<Door>, ListenError> {
    let mut doors = Vec::new();
    for address in addresses {
        let bound = TcpListener::bind(address).await;
        let socket = bound.map_err(|source| ListenError::Bind { address: *address, source })?;
        let address = socket.local_addr().unwrap_or(*address);
        doors.push(Door { socket, address, plain_too: false });
    }
    for number in passed()? {
        doors.push(adopt(number)?);
    }
    Ok(doors)
}

/// What a service manager passes on to this process, and not to one that started it (sd_listen_fds(3)).
fn passed() -> Result<std::ops::Range<i32>, ListenError> {
    let ours = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    let Some(text) = std::env::var("LISTEN_FDS").ok().filter(|_| ours) else { return Ok(0..0) };
    match text.parse() {
        Ok(count) if (1..=MAX_PASSED).contains(&count) => Ok(FIRST..FIRST + count),
        _ => Err(ListenError::Count(text)),
    }
}

fn adopt(number: i32) -> Result<Door, ListenError> {
    // Looked up before it is owned: a number that is no descriptor would be closed twice.
    if std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_err() {
        return Err(ListenError::NoListener(number));
    }
    // SAFETY: the descriptor is open, and the protocol of LISTEN_PID gives it to this process alone; nothing else here
    // takes descriptors by number, and this runs once.
    #[expect(unsafe_code, reason = "a descriptor that comes by its number")]
    let passed = unsafe { OwnedFd::from_raw_fd(number) };
    let is_listener = sockopt::socket_acceptconn(passed.as_fd()).unwrap_or(false);
    let failed = |source: std::io::Error| ListenError::Passed(number, source);
    rustix::io::fcntl_setfd(&passed, FdFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let socket = StdListener::from(passed);
    let Some(address) = socket.local_addr().ok().filter(|_| is_listener) else {
        return Err(ListenError::NoListener(number));
    };
    socket.set_nonblocking(true).map_err(failed)?;
    let socket = TcpListener::from_std(socket).map_err(failed)?;
    Ok(Door { socket, address, plain_too: address.ip().is_loopback() })
}

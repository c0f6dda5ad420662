//! Network namespaces of our own, without root.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use router::io::netlink::{Netlink, NetlinkError};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use thiserror::Error;

/// What [`enter_user_namespace`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// Own user and network namespaces; the caller is user 0 in them.
    UserAndNetwork,
    /// Root, where user namespaces are forbidden: an own network namespace.
    NetworkOnly,
}

/// Why the process has no namespaces of its own. The network is still the machine's, but after
/// [`Self::Forbidden`] the process may have lost its user: try in a child process if you mean to go on without.
#[derive(Debug, Error)]
pub enum EnterError {
    #[error(
        "user namespaces are forbidden here: run as root, or allow them with 'sysctl -w user.max_user_namespaces=1000', \
         on Debian 'sysctl -w kernel.unprivileged_userns_clone=1', on Ubuntu \
         'sysctl -w kernel.apparmor_restrict_unprivileged_userns=0', in docker '--security-opt seccomp=unconfined'"
    )]
    Forbidden(#[source] io::Error),
    #[error("the process has {0} threads already: enter before the first is started")]
    ManyThreads(usize),
    #[error("cannot count the process's threads")]
    CountThreads(#[source] io::Error),
    #[error("cannot make a user namespace")]
    User(#[source] io::Error),
    #[error("cannot make a network namespace")]
    Network(#[source] io::Error),
    #[error("cannot write {path}")]
    Map { path: &'static str, source: io::Error },
    #[error("cannot bring loopback up")]
    Loopback(#[from] NetlinkError),
}

/// Moves the process into a new user namespace, as its user 0, and a new network namespace with loopback up.
/// Sockets that are open already stay in the machine's network: a page for people outside is served on one.
/// Must come before the first thread: only a process with one thread may change its user namespace
/// (user_namespaces(7)).
pub fn enter_user_namespace() -> Result<Entered, EnterError> {
    let threads = fs::read_dir("/proc/self/task").map_err(EnterError::CountThreads)?.count();
    if threads != 1 {
        return Err(EnterError::ManyThreads(threads));
    }
    let is_root = geteuid().is_root();
    let entered = match new_user_namespace() {
        Ok(()) => Entered::UserAndNetwork,
        Err(EnterError::Forbidden(_)) if is_root => Entered::NetworkOnly,
        Err(error) => return Err(error),
    };
    // Some machines hand out user namespaces without any rights in them (AppArmor): that shows here.
    unshare(UnshareFlags::NEWNET).map_err(|errno| refused(errno, EnterError::Network))?;
    Netlink::open()?.link_up("lo")?;
    Ok(entered)
}

fn new_user_namespace() -> Result<(), EnterError> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(UnshareFlags::NEWUSER).map_err(|errno| refused(errno, EnterError::User))?;
    write_map("/proc/self/setgroups", "deny")?; // else no group may be mapped (user_namespaces(7))
    write_map("/proc/self/uid_map", &format!("0 {uid} 1"))?;
    write_map("/proc/self/gid_map", &format!("0 {gid} 1"))
}

fn write_map(path: &'static str, text: &str) -> Result<(), EnterError> {
    fs::write(path, text).map_err(|source| match Errno::from_io_error(&source) {
        Some(Errno::PERM | Errno::ACCESS) => EnterError::Forbidden(source),
        Some(_) | None => EnterError::Map { path, source },
    })
}

/// The errors by which kernels and containers say "no": no right, a limit of zero, not built in.
fn refused(errno: Errno, otherwise: fn(io::Error) -> EnterError) -> EnterError {
    match errno {
        Errno::PERM | Errno::ACCESS | Errno::NOSPC | Errno::USERS | Errno::NOSYS | Errno::INVAL => {
            EnterError::Forbidden(errno.into())
        }
        _ => otherwise(errno.into()),
    }
}

#[expect(unsafe_code, reason = "rustix has no safe unshare")]
fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: unsafe only with FILES, which nobody here passes: no thread loses sight of a descriptor.
    unsafe { unshare_unsafe(flags) }
}

/// A network namespace, held by a descriptor: it lives until the last handle and the last process in it are gone.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
    fd: Arc<OwnedFd>,
}

/// Why a namespace could not be made or entered.
#[derive(Debug, Error)]
pub enum NamespaceError {
    #[error("cannot start a thread for the network namespace '{name}'")]
    Thread { name: String, source: io::Error },
    #[error("cannot make the network namespace '{name}'")]
    Create { name: String, source: io::Error },
    #[error("cannot enter the network namespace '{name}'")]
    Enter { name: String, source: io::Error },
    #[error("cannot bring loopback up in the network namespace '{name}'")]
    Loopback { name: String, source: NetlinkError },
}

impl Namespace {
    /// A new namespace with nothing but loopback, which is up. Needs the rights that [`enter_user_namespace`] gives.
    pub fn create(name: &str) -> Result<Self, NamespaceError> {
        let make = || {
            unshare(UnshareFlags::NEWNET)?;
            File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
        };
        let fd = on_own_thread(name, make)?
            .map_err(|source| NamespaceError::Create { name: name.to_owned(), source })?;
        let namespace = Self { name: name.to_owned(), fd: Arc::new(fd) };
        namespace
            .run(|| Netlink::open()?.link_up("lo"))?
            .map_err(|source| NamespaceError::Loopback { name: name.to_owned(), source })?;
        Ok(namespace)
    }

    /// For people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread inside and returns its result. Sockets and TUNs that it makes stay inside, wherever
    /// they are used later. A panic of `work` goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
        on_own_thread(&self.name, || {
            enter(self.fd.as_fd())?;
            Ok(work())
        })?
        .map_err(|source| NamespaceError::Enter { name: self.name.clone(), source })
    }

    /// Makes `command` start its program inside.
    #[expect(
        unsafe_code,
        reason = "a child enters its namespace between fork and exec, and so must run code there"
    )]
    pub fn command<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let fd = Arc::clone(&self.fd);
        // SAFETY: the closure makes one system call and allocates nothing, which is allowed after fork; the
        // descriptor is kept open by the `Arc` in the closure and closes on exec.
        unsafe { command.pre_exec(move || enter(fd.as_fd())) }
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?)
}

/// A namespace is a thread's: a thread of its own takes the change with it when it ends.
fn on_own_thread<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
    thread::scope(|scope| {
        let started = thread::Builder::new().name(format!("in {name}")).spawn_scoped(scope, work);
        let thread = started.map_err(|source| NamespaceError::Thread { name: name.to_owned(), source })?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

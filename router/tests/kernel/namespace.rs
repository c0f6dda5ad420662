//! A network of its own for each test, without touching the machine's.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

const INSIDE: &str = "ROUTER_TEST_IS_INSIDE_ITS_NAMESPACE";

const NEEDS: &str = "this test needs user and network namespaces (sysctl user.max_user_namespaces > 0, \
                     kernel.unprivileged_userns_clone = 1, kernel.apparmor_restrict_unprivileged_userns = 0, or root) \
                     and a /dev/net/tun that this user may open (modprobe tun; chmod 0666 /dev/net/tun)";

/// Runs `body` as root of a fresh user and network namespace.
///
/// A process with threads may not enter a user namespace, so the test binary starts itself again with only `test`,
/// which then finds itself inside.
pub(crate) fn in_own_network(test: &str, body: fn()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let output =
        command(test).output().unwrap_or_else(|error| panic!("cannot enter a namespace: {error}; {NEEDS}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let passed = output.status.success() && stdout.contains("1 passed");
    assert!(passed, "in its own network ({NEEDS}):\n{stdout}{stderr}");
}

#[expect(unsafe_code, reason = "a namespace must be entered between fork and exec")]
fn command(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    let user_map = format!("0 {} 1", rustix::process::geteuid());
    let group_map = format!("0 {} 1", rustix::process::getegid());
    // SAFETY: `enter` only makes system calls: no allocation, no lock.
    unsafe { command.pre_exec(move || enter(user_map.as_bytes(), group_map.as_bytes())) };
    command
}

fn enter(user_map: &[u8], group_map: &[u8]) -> io::Result<()> {
    match unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET) {
        Ok(()) => {}
        // Root where user namespaces are forbidden.
        Err(Errno::PERM) if rustix::process::geteuid().is_root() => {
            return Ok(unshare(UnshareFlags::NEWNET)?);
        }
        Err(errno) => return Err(errno.into()),
    }
    write(c"/proc/self/setgroups", b"deny")?;
    write(c"/proc/self/uid_map", user_map)?;
    write(c"/proc/self/gid_map", group_map)
}

#[expect(unsafe_code, reason = "rustix marks unshare unsafe for its file descriptor flag")]
fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: CLONE_FILES is never among the flags.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

fn write(path: &CStr, bytes: &[u8]) -> io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, bytes)?;
    Ok(())
}

/// Another fresh network, empty but for a loopback interface that is down.
pub(crate) fn new_network() -> OwnedFd {
    let made = thread::spawn(|| {
        unshare(UnshareFlags::NEWNET).unwrap();
        OwnedFd::from(File::open("/proc/thread-self/ns/net").unwrap())
    });
    made.join().unwrap()
}

/// Runs `body` in that network. Sockets that it opens stay there.
pub(crate) fn within<T: Send>(network: BorrowedFd<'_>, body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            rustix::thread::move_into_link_name_space(network, Some(LinkNameSpaceType::Network)).unwrap();
            body()
        });
        inside.join().unwrap()
    })
}

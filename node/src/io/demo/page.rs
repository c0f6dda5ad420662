//! The demo's page, on the loopback of the machine while its cloud is in a network of its own.
//!
//! The socket is made before the demo enters its namespaces, and passed on to each cloud process in turn as a service
//! manager would (`sd_listen_fds(3)`): descriptor 3, `LISTEN_FDS` and `LISTEN_PID`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::story::Story;

/// The first descriptor that is passed on.
const PASSED: RawFd = 3;

/// `LISTEN_PID` is known after the fork alone, and `exec` keeps it. The program is this very one, also when its file was
/// replaced: the shell's parent is the demo.
const AS_ITSELF: &str = "LISTEN_FDS=1 LISTEN_PID=$$ exec /proc/$PPID/exe \"$@\"";

/// A listening socket on the loopback that everybody on this machine sees.
#[derive(Debug)]
pub(super) struct Doorstep {
    socket: Arc<TcpListener>,
}

impl Doorstep {
    /// Port 0 is any that is free. Call it before anything enters a namespace.
    pub(super) fn open(port: u16) -> Result<Self> {
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let socket = TcpListener::bind(wanted).with_context(|| {
            format!("--page: {wanted} cannot be listened at; take another port, or 0 for any")
        })?;
        Ok(Self { socket: Arc::new(socket) })
    }

    /// A command of this program that is passed the socket once [`Self::pass_on`] was called.
    pub(super) fn kubebus(args: &[&str]) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", AS_ITSELF, "kubebus"]).args(args).stdin(Stdio::null());
        command.env_remove("KUBEBUS_DATA_DIR").process_group(0);
        command
    }

    /// The last thing that is added to a command: what comes before may use a descriptor of that number.
    #[expect(unsafe_code, reason = "a descriptor gets its number between fork and exec")]
    pub(super) fn pass_on(&self, command: &mut Command) {
        let socket = Arc::clone(&self.socket);
        let place = move || {
            let number = socket.as_raw_fd();
            // SAFETY: both are single system calls on a descriptor that the `Arc` keeps open.
            let placed = unsafe {
                if number == PASSED {
                    libc::fcntl(number, libc::F_SETFD, 0)
                } else {
                    libc::dup2(number, PASSED)
                }
            };
            if placed < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        };
        // SAFETY: `place` makes one system call and allocates nothing, which is allowed after a fork.
        unsafe {
            command.pre_exec(place);
        }
    }
}

impl Story {
    /// Prints a link by which one browser gets in, as somebody who may steer the plant.
    pub(super) fn show_page(&self) -> Result<()> {
        let link = self.cloud.tell(self.narrator(), &["page", "--role", "operator"])?;
        self.narrator().print(format_args!("         look at it: {link}"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_child_finds_the_socket_as_a_service_manager_would_pass_it() {
        let doorstep = Doorstep::open(0).unwrap();
        let mut command = Command::new("/bin/sh");
        // Of the child's own descriptors: what is 3 there is a socket, and it is ours.
        command.args(["-c", "readlink /proc/self/fd/3"]).stdout(Stdio::piped());
        doorstep.pass_on(&mut command);
        let child = command.spawn().unwrap();
        let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let ours = std::fs::read_link(format!("/proc/self/fd/{}", doorstep.socket.as_raw_fd())).unwrap();
        assert_eq!(said.trim(), ours.to_str().unwrap());
        let mut client = TcpStream::connect(doorstep.socket.local_addr().unwrap()).unwrap();
        let (mut served, _) = doorstep.socket.accept().unwrap();
        served.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn a_port_that_somebody_has_is_refused_by_the_flags_name() {
        let first = Doorstep::open(0).unwrap();
        let error = Doorstep::open(first.socket.local_addr().unwrap().port()).unwrap_err();
        assert!(error.to_string().starts_with("--page: 127.0.0.1:"), "{error}");
    }
}

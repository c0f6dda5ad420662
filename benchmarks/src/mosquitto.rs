//! mosquitto, for comparison.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::cluster::wait;

/// mosquitto with room for what the load has under way, so that it drops nothing; TCP_NODELAY as KubeBus has it: without
/// it an answer may wait for the client's delayed acknowledgement. All else is its default.
const MOSQUITTO: &str = "\
allow_anonymous true
set_tcp_nodelay true
max_inflight_messages 1000
max_queued_messages 100000
";

/// Outside the ephemeral ports.
const PORT: u16 = 22883;

/// mosquitto, running.
pub(crate) struct Mosquitto {
    process: Child,
    pub(crate) address: SocketAddr,
    // Last, so that the process is gone before its files.
    _room: TempDir,
}

impl Mosquitto {
    /// `number`: of its address; `more`: of its configuration.
    pub(crate) fn start(room: &Path, number: u8, more: &str) -> Result<Self> {
        let room = tempfile::tempdir_in(room).context("a directory for mosquitto")?;
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = SocketAddr::from((Ipv4Addr::new(127, high, low, number), PORT));
        let file = room.path().join("mosquitto.conf");
        // As root it would become a user who cannot read here.
        let config = format!("user root\nlistener {} {}\n{MOSQUITTO}{more}", address.port(), address.ip());
        std::fs::write(&file, config).context("mosquitto's configuration")?;
        // Debian keeps servers in sbin, which is not on everybody's path.
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("mosquitto");
        command.env("PATH", path).arg("-c").arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().context("start mosquitto (apt-get install mosquitto)")?;
        let started = Self { process, address, _room: room };
        wait("mosquitto", || TcpStream::connect(address).is_ok())?;
        Ok(started)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

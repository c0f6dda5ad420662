//! A `kubebus mapper run virtual` that can be killed and started again.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use bus::io::virtual_clock;

use crate::harness::kubebus;

#[derive(Debug)]
pub(crate) struct Mapper {
    broker: SocketAddr,
    clock: PathBuf,
    log: PathBuf,
    process: Option<Child>,
}

impl Mapper {
    /// Starts beside the node whose broker this is, on a machine with this clock.
    pub(crate) fn start(broker: SocketAddr, clock: &Path, log: PathBuf) -> Self {
        let mut mapper = Self { broker, clock: clock.to_owned(), log, process: None };
        mapper.start_again();
        mapper
    }

    pub(crate) fn start_again(&mut self) {
        assert!(self.process.is_none(), "the mapper runs");
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = kubebus(&["mapper", "run", "virtual", "--mqtt", &self.broker.to_string()]);
        command.env(virtual_clock::FILE, &self.clock);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().expect("a running mapper");
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

/// Ends the process; a failed test shows its log.
impl Drop for Mapper {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- end of the mapper's log\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

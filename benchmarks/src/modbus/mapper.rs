//! The mapper under load, as a process of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

pub(super) struct Mapper(Child);

impl Mapper {
    /// The one beside `kubebus`.
    pub(super) fn start(program: &Path, broker: SocketAddr) -> Result<Self> {
        let mut command = Command::new(program.with_file_name("kubebus-mapper-modbus"));
        command.args(["run", "--broker", &broker.to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
        command.spawn().map(Self).context("start kubebus-mapper-modbus")
    }

    /// Seconds that it has used, its own and the kernel's on its behalf.
    pub(super) fn cpu(&self) -> Result<f64> {
        let stat = self.proc("stat")?;
        // The name before may hold anything, blanks and brackets too: proc(5).
        let (_, fields) = stat.rsplit_once(") ").context("the mapper's figures")?;
        let ticks: Vec<f64> =
            fields.split(' ').skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
        Ok(ticks.iter().sum::<f64>() / rustix::param::clock_ticks_per_second() as f64)
    }

    /// In KiB.
    pub(super) fn resident(&self) -> Result<f64> {
        let status = self.proc("status")?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("the mapper's memory")?;
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).context("the mapper's memory")
    }

    fn proc(&self, file: &str) -> Result<String> {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).context("the mapper's figures")
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

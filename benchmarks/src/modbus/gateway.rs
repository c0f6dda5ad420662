//! Devices by pymodbus, in a process of their own: `mappers/modbus/tests/device.py` says how it is spoken to.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// One endpoint with several units behind it.
pub(super) struct Gateway {
    port: u16,
    child: Child,
    lines: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Gateway {
    pub(super) fn start(release: &Path, units: &[u16]) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let python = release.join("../python/venv/bin/python");
        ensure!(python.is_file(), "{} is not there: run `cargo xtask python`", python.display());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mappers/modbus/tests/device.py");
        let mut command = Command::new(python);
        command.arg("-B").arg(script).args(["silent-tcp", &port.to_string()]);
        command.args(units.iter().map(u16::to_string)).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start pymodbus")?;
        let questions = child.stdin.take().context("its questions")?;
        let answers = BufReader::new(child.stdout.take().context("its answers")?);
        let gateway = Self { port, child, lines: Mutex::new((questions, answers)) };
        gateway.hear().context("pymodbus does not start")?;
        Ok(gateway)
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Requests to these units since its start.
    pub(super) fn asked(&self, units: &[u16]) -> Result<f64> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(lines.0, "{}", json!({ "asked": [] }))?;
        drop(lines);
        let counts = self.hear()?;
        Ok(units.iter().filter_map(|unit| counts["counts"][unit.to_string()].as_f64()).sum())
    }

    fn hear(&self) -> Result<Value> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = String::new();
        lines.1.read_line(&mut line)?;
        serde_json::from_str(&line).context("an answer of device.py")
    }

    pub(super) fn freeze(&self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::STOP).context("freeze pymodbus")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

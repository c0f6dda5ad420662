//! pymodbus in a process of its own.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Requests that the test has not looked at yet; more than it makes.
const UNREAD: usize = 10_000;

pub(crate) struct Server {
    pub(crate) port: u16,
    process: Child,
    asked: Receiver<String>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/venv/bin/python");
        assert!(python.is_file(), "{} is not there: run `cargo xtask python`", python.display());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/registers/server.py");
        let mut process =
            Command::new(python).arg(script).arg(port.to_string()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (tell, asked) = sync_channel(UNREAD);
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "pymodbus does not come up");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { port, process, asked }
    }

    /// Requests since the last look: `unit;function;address;count;written`.
    pub(crate) fn asked(&mut self) -> Vec<String> {
        self.asked.try_iter().collect()
    }

    /// Stops it in the middle of whatever it does; its sockets stay open.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

//! Devices by pymodbus, in a process of their own.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::PATIENCE;

/// A request as a device heard it: unit, function, address, count, and what was written.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
pub(crate) struct Asked(pub(crate) u8, pub(crate) u8, pub(crate) u16, pub(crate) u16, pub(crate) Vec<u16>);

impl Asked {
    pub(crate) fn is_write(&self) -> bool {
        matches!(self.1, 5 | 6 | 15 | 16)
    }
}

/// See the module's page.
pub(crate) struct Device {
    how: &'static str,
    /// A port's number, or the path of a serial one.
    at: String,
    units: Vec<u8>,
    process: Mutex<Process>,
    _line: Option<SerialLine>,
}

struct Process {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// How often a port may be somebody else's between our choice and pymodbus's use.
const TRIES: u32 = 10;

impl Device {
    pub(crate) fn tcp(units: &[u8]) -> Self {
        Self::start("tcp", || free_port().to_string(), units, None)
    }

    pub(crate) fn rtu_over_tcp(units: &[u8]) -> Self {
        Self::start("rtu-over-tcp", || free_port().to_string(), units, None)
    }

    /// On the far end of a pair of pseudo-terminals; the path is that of the near end.
    pub(crate) fn rtu(units: &[u8]) -> (Self, PathBuf) {
        let line = SerialLine::lay();
        let (near, far) = (line.near.clone(), line.far.display().to_string());
        (Self::start("rtu", || far.clone(), units, Some(line)), near)
    }

    fn start(how: &'static str, place: impl Fn() -> String, units: &[u8], line: Option<SerialLine>) -> Self {
        let (at, process) = (0..TRIES)
            .find_map(|_| {
                let at = place();
                Some((at.clone(), spawn(how, &at, units)?))
            })
            .expect("pymodbus does not start: what it says is above");
        Self { how, at, units: units.to_vec(), process: Mutex::new(process), _line: line }
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.at)
    }

    pub(crate) fn set(&self, unit: u8, table: &str, address: u16, words: &[u16]) {
        self.ask(&json!({ "set": [unit, table, address, words] }));
    }

    pub(crate) fn get(&self, unit: u8, table: &str, address: u16, count: usize) -> Vec<u16> {
        let mut answer = self.ask(&json!({ "get": [unit, table, address, count] }));
        serde_json::from_value(answer["words"].take()).unwrap()
    }

    /// What was asked since the last look.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        serde_json::from_value(self.ask(&json!({ "asked": [] }))["requests"].take()).unwrap()
    }

    fn ask(&self, question: &Value) -> Value {
        let mut process = self.process.lock().unwrap();
        writeln!(process.questions, "{question}").unwrap();
        process.hear().expect("pymodbus has ended")
    }

    /// It neither answers nor hangs up, as a controller whose program is stuck.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process.lock().unwrap().child), signal).unwrap();
    }

    /// As a power cut.
    pub(crate) fn kill(&self) {
        self.process.lock().unwrap().end();
    }

    pub(crate) fn restart(&self) {
        let again = || {
            let process = spawn(self.how, &self.at, &self.units);
            if process.is_none() {
                std::thread::sleep(Duration::from_millis(200));
            }
            process
        };
        let process = (0..TRIES).find_map(|_| again()).expect("pymodbus does not start again");
        *self.process.lock().unwrap() = process;
    }
}

impl Process {
    /// `None` if it has ended.
    fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        if self.answers.read_line(&mut line).unwrap() == 0 {
            return None;
        }
        Some(serde_json::from_str(&line).unwrap_or_else(|e| panic!("pymodbus says {line:?}: {e}")))
    }

    fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn(how: &str, at: &str, units: &[u8]) -> Option<Process> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/device.py");
    let mut command = Command::new(python());
    command.arg("-B").arg(script).args([how, at]).args(units.iter().map(u8::to_string));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (questions, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let mut process = Process { child, questions, answers };
    process.hear()?;
    Some(process)
}

fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/venv/bin/python");
    assert!(python.is_file(), "{} is not there: run `cargo xtask python`", python.display());
    python
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Two pseudo-terminals, joined by socat.
struct SerialLine {
    near: PathBuf,
    far: PathBuf,
    socat: Child,
    _dir: tempfile::TempDir,
}

impl SerialLine {
    fn lay() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (near, far) = (dir.path().join("near"), dir.path().join("far"));
        let end = |path: &Path| format!("pty,raw,echo=0,link={}", path.display());
        let mut command = Command::new("socat");
        command.args([end(&near), end(&far)]);
        let socat = command.spawn().expect("these tests need socat: apt-get install socat");
        let given_up = Instant::now() + PATIENCE;
        while !near.exists() || !far.exists() {
            assert!(Instant::now() < given_up, "socat makes no pseudo-terminals");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { near, far, socat, _dir: dir }
    }
}

impl Drop for SerialLine {
    fn drop(&mut self) {
        self.socat.kill().unwrap();
        self.socat.wait().unwrap();
    }
}

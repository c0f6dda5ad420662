//! `mapper.py` as a process: what it prints, and commands to it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::process::eventually;

/// Where `cargo xtask dmi` put Python, grpcio and the messages that `protoc` made of `api.proto`.
fn environment() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let target = program.ancestors().nth(3).unwrap();
    let place = target.join("dmi");
    assert!(place.join("installed.txt").is_file(), "grpcio is not there; install it: cargo xtask dmi");
    place
}

pub(crate) struct Mapper {
    process: Child,
    heard: Arc<Mutex<Vec<Value>>>,
    /// How many of each were asked for.
    read: Mutex<std::collections::BTreeMap<String, usize>>,
}

impl Mapper {
    /// Serves at `own` and registers at `edge` for the protocol `Modbus_RTU`.
    pub(crate) fn start(edge: &Path, own: &Path, authority: &str) -> Self {
        let place = environment();
        let mut command = Command::new(place.join("venv/bin/python"));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dmi/mapper.py"));
        command.arg(edge).arg(own).args(["Modbus_RTU", authority]).env("PYTHONPATH", place.join("messages"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = command.spawn().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (kept, stdout) = (Arc::clone(&heard), process.stdout.take().unwrap());
        // Ends with the process.
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.for_each(|line| kept.lock().unwrap().push(serde_json::from_str(&line).unwrap()));
        });
        Self { process, heard, read: Mutex::default() }
    }

    pub(crate) fn ask(&self, command: &str) {
        let mut stdin = self.process.stdin.as_ref().unwrap();
        writeln!(stdin, "{command}").unwrap();
    }

    fn all(&self, event: &str) -> Vec<Value> {
        self.heard.lock().unwrap().iter().filter(|said| said["event"] == event).cloned().collect()
    }

    /// Waits for the next `event` that was not asked for yet.
    #[track_caller]
    pub(crate) fn says(&self, event: &str) -> Value {
        let at = self.read.lock().unwrap().get(event).copied().unwrap_or_default();
        let said = eventually(&format!("the mapper says {event}"), || {
            self.all(event).get(at).cloned().ok_or_else(|| format!("{:?}", self.heard.lock().unwrap()))
        });
        self.read.lock().unwrap().insert(event.to_owned(), at + 1);
        said
    }

    /// Waits for any `event` with `expected` at a JSON pointer.
    #[track_caller]
    pub(crate) fn says_with(&self, event: &str, pointer: &str, expected: &Value) -> Value {
        eventually(&format!("the mapper says {event} with {pointer} = {expected}"), || {
            let found = self.all(event).into_iter().find(|said| said.pointer(pointer) == Some(expected));
            found.ok_or_else(|| format!("{:?}", self.heard.lock().unwrap()))
        })
    }

    /// All that it ever wrote to its devices.
    pub(crate) fn written(&self) -> Vec<Value> {
        self.all("written")
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

//! Devices played in Python.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use tokio::time::sleep;

use super::PATIENCE;

/// A script beside the tests, told what to do line by line, and heard.
pub(crate) struct Script {
    process: Child,
    input: ChildStdin,
    lines: Mutex<mpsc::Receiver<String>>,
}

impl Script {
    /// The script, and how it says that it is ready.
    pub(crate) async fn start(name: &str, args: &[&str]) -> (Self, String) {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
        let mut command = Command::new("python3");
        command.arg("-Bu").arg(here).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("these tests need Python: apt-get install python3");
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (tx, lines) = mpsc::sync_channel(1024);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if tx.send(line).is_err() {
                    return;
                }
            }
        });
        let script = Self { process, input, lines: Mutex::new(lines) };
        let ready = script.says("ready").await;
        (script, ready)
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
        self.input.flush().unwrap();
    }

    /// Waits for a line that begins so, and passes over others.
    pub(crate) async fn says(&self, beginning: &str) -> String {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let next = self.lines.lock().unwrap().try_recv();
            match next {
                Ok(line) if line.starts_with(beginning) => return line,
                Ok(_) => {}
                Err(_) => {
                    assert!(tokio::time::Instant::now() < end, "it does not say '{beginning}'");
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// Stops it in the middle of whatever it does (`STOP`), or lets it go on (`CONT`).
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(self.process.id().to_string()).status();
        assert!(sent.unwrap().success(), "kill -{signal}");
    }

    /// Everything that it has said and nobody has heard.
    pub(crate) fn said(&self) -> Vec<String> {
        self.lines.lock().unwrap().try_iter().collect()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

//! asyncua servers: started, frozen, ended and asked what was done to them.

use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

/// Longest wait for anything that should happen: the machine may be slow, and the standard's nodes take a while to load.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The process from which all servers are forked.
struct Mother {
    _process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

static MOTHER: LazyLock<Mutex<Mother>> = LazyLock::new(|| Mutex::new(Mother::start()));

impl Mother {
    fn start() -> Self {
        let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/venv/bin/python");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/opcua/servers.py");
        let mut command = Command::new(python);
        let child = command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("these tests need asyncua: cargo xtask python");
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { _process: child, stdin, stdout: BufReader::new(stdout) }
    }

    fn ask(wish: &Json) -> Json {
        let mut mother = MOTHER.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(mother.stdin, "{wish}").expect("asyncua is gone: cargo xtask python");
        let mut line = String::new();
        mother.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).expect("asyncua did not start: cargo xtask python")
    }
}

/// One server, on a port of its own that it keeps.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) dir: tempfile::TempDir,
    spec: Json,
    pid: Mutex<i64>,
}

impl Server {
    /// With these nodes (`{"node", "type", "value", "writable"}`) and whatever else `servers.py` understands.
    pub(crate) async fn start(nodes: Json, more: Json) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let mut spec = json!({
            "port": port, "nodes": nodes,
            "control": dir.path().join("control"), "log": dir.path().join("log"),
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let server = Self { port, dir, spec, pid: Mutex::new(0) };
        server.begin().await;
        server
    }

    pub(crate) async fn begin(&self) {
        drop(std::fs::remove_file(self.control()));
        let started = Mother::ask(&json!({ "start": self.spec }));
        *self.pid.lock().unwrap() = started["pid"].as_i64().unwrap();
        let up = async {
            while UnixStream::connect(self.control()).await.is_err() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, up).await.expect("asyncua does not come up");
    }

    fn control(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    fn signal(&self, signal: i32) {
        Mother::ask(&json!({ "pid": *self.pid.lock().unwrap(), "signal": signal }));
    }

    pub(crate) fn freeze(&self) {
        self.signal(19);
    }

    pub(crate) fn resume(&self) {
        self.signal(18);
    }

    /// As a power cut ends it.
    pub(crate) fn end(&self) {
        self.signal(9);
    }

    pub(crate) fn url(&self) -> String {
        format!("opc.tcp://127.0.0.1:{}", self.port)
    }

    pub(crate) async fn ask(&self, wish: Json) -> Json {
        timeout(PATIENCE, self.try_ask(wish)).await.expect("asyncua does not answer").unwrap()
    }

    pub(crate) async fn try_ask(&self, wish: Json) -> std::io::Result<Json> {
        let mut stream = BufStream::new(UnixStream::connect(self.control()).await?);
        stream.write_all(format!("{wish}\n").as_bytes()).await?;
        stream.flush().await?;
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        serde_json::from_str(&line).map_err(std::io::Error::other)
    }

    /// The writes of all its lives: `{"node", "value"}`.
    pub(crate) fn writes(&self) -> Vec<Json> {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A new certificate and its key, made by somebody else's hand.
pub(crate) fn certify(dir: &Path) -> (PathBuf, PathBuf) {
    let (certificate, key) = (dir.join("server.der"), dir.join("server.pem"));
    Mother::ask(&json!({ "certify": certificate, "key": key }));
    (certificate, key)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(9);
    }
}

//! The resource API as the stock clients of Kubernetes meet it: `kubectl` from the PATH, and the Python package
//! `kubernetes`.
//!
//! They speak plain HTTP to a door on loopback that leads to a node's admin socket.

mod edge;
mod kinds;
mod python;
mod steering;
mod verbs;
mod watching;

use std::io::{Read, Write, copy};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::Node;
use crate::process::{Ran, run_with};

/// At the node's own address.
const PORT: u16 = 21808;

/// A door to a node's admin socket; it outlives restarts of the node.
pub(crate) struct Door {
    address: SocketAddr,
    /// What kubectl remembers of the server.
    cache: TempDir,
}

impl Door {
    pub(crate) fn open(node: &Node) -> Self {
        let listener = TcpListener::bind((node.mqtt().ip(), PORT)).unwrap();
        let address = listener.local_addr().unwrap();
        let socket = node.data_dir().join("admin.sock");
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let socket = socket.clone();
                thread::spawn(move || lead(&client, &socket));
            }
        });
        Self { address, cache: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn command(&self, args: &[&str]) -> Command {
        let found = Command::new("kubectl").args(["version", "--client"]).output();
        assert!(
            found.is_ok_and(|found| found.status.success()),
            "these tests need kubectl on the PATH: apt install kubernetes-client"
        );
        let mut command = Command::new("kubectl");
        command.arg("--server").arg(self.url()).arg("--cache-dir").arg(self.cache.path()).args(args);
        command.env("KUBECONFIG", self.cache.path().join("none")).env("HOME", self.cache.path());
        command
    }

    /// Runs kubectl with a standard input.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str], input: &str) -> Ran {
        run_with(self.command(args), input)
    }

    /// What kubectl prints when it succeeds.
    #[track_caller]
    pub(crate) fn say(&self, args: &[&str]) -> String {
        self.run(args, "").expect(0).stdout.trim_end().to_owned()
    }

    /// The same, given an object.
    #[track_caller]
    pub(crate) fn give(&self, args: &[&str], input: &str) -> String {
        let all: Vec<&str> = args.iter().copied().chain(["-f", "-"]).collect();
        self.run(&all, input).expect(0).stdout.trim_end().to_owned()
    }

    /// What kubectl complains of when it fails.
    #[track_caller]
    pub(crate) fn complaint(&self, args: &[&str], input: &str) -> String {
        self.run(args, input).expect(1).stderr.trim_end().to_owned()
    }

    #[track_caller]
    pub(crate) fn object(&self, args: &[&str]) -> Value {
        let all: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        serde_json::from_str(&self.say(&all)).unwrap()
    }

    /// A watch says just this from a revision on. A machine that is too slow for a second gets longer.
    #[track_caller]
    pub(crate) fn watches(&self, path: &str, version: &str, expected: &[(String, String)]) {
        let mut looks = [1, 4, 16].into_iter().map(|seconds| self.watched(path, version, seconds));
        let is_whole = |seen: &Vec<_>| seen.len() >= expected.len() || !expected.starts_with(seen);
        assert_eq!(looks.find(is_whole).as_deref(), Some(expected));
    }

    /// Type and name of each event within these seconds.
    #[track_caller]
    fn watched(&self, path: &str, version: &str, seconds: u32) -> Vec<(String, String)> {
        let joint = if path.contains('?') { '&' } else { '?' };
        let raw = format!("{path}{joint}watch=1&timeoutSeconds={seconds}&resourceVersion={version}");
        let events = self.say(&["get", "--raw", &raw]);
        let read = |line: &str| {
            let event: Value = serde_json::from_str(line).unwrap();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let about = &event["object"]["metadata"]["name"];
            (text(&event["type"]), text(if about.is_null() { &event["object"]["reason"] } else { about }))
        };
        events.lines().map(read).collect()
    }
}

/// Both ways until one side hangs up.
fn lead(client: &TcpStream, socket: &Path) {
    let Ok(node) = UnixStream::connect(socket) else { return };
    let (mut from_client, mut to_node) = (client.try_clone().unwrap(), node.try_clone().unwrap());
    let there = thread::spawn(move || {
        let _ = copy(&mut from_client, &mut to_node);
        let _ = to_node.shutdown(Shutdown::Write);
    });
    pass(node, client);
    let _ = client.shutdown(Shutdown::Both);
    let _ = there.join();
}

/// At once, so that a watch is heard.
fn pass(mut from: UnixStream, mut to: &TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
}

/// A file beside this one.
fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubectl").join(name)
}

/// A table without the ages, which a slow machine changes.
fn without_ages(table: &str) -> Vec<String> {
    let is_age = |word: &&str| word.strip_suffix('s').is_none_or(|n| n.parse::<u32>().is_err());
    table.lines().map(|line| line.split_whitespace().filter(is_age).collect::<Vec<_>>().join(" ")).collect()
}

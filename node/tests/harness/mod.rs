//! A cluster of real `kubebus` processes on loopback; [`mqtt`] speaks to them.

pub(crate) mod mqtt;
pub(crate) mod process;
mod small_disk;

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use process::{PATIENCE, Ran, becomes, eventually, run};
use small_disk::SmallDisk;

/// Outside the ephemeral ports, so that no client's port is in the way when a node comes back.
const QUIC: u16 = 21001;
const MQTT: u16 = 21883;

/// Lines of a node's log that a failed test shows.
const SHOWN: usize = 60;

/// How soon a silent peer is given up: `kill -9` says no goodbye.
pub(crate) const QUICK_LINK: &str = "{keepalive: 1s, idle: 5s}";

/// As shipped, so that what happens at once cannot be a timeout.
pub(crate) const SHIPPED_LINK: &str = "{keepalive: 15s, idle: 45s}";

/// A command line of `kubebus`, not bound to any node.
pub(crate) fn kubebus(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubebus"));
    command.args(args).env_remove("KUBEBUS_DATA_DIR").env_remove("KUBEBUS_LOG");
    command
}

/// The last parts of addresses that nobody has: the one that was given back the longest ago is first.
static FREE: Mutex<VecDeque<u8>> = Mutex::new(VecDeque::new());

/// An address of this machine that no other node of this or another test has: `127.<process>.<node>`. Ports can then
/// be fixed and are free for sure, also between a kill and the next start.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let unused = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |node| node.checked_add(1)).ok();
    let given_back = || FREE.lock().unwrap().pop_front();
    let node = unused.or_else(given_back).expect("more nodes at a time than one process has addresses for");
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high, low, node)
}

/// One node: its files, its addresses and, while it runs, its process.
pub(crate) struct Node {
    pub(crate) role: &'static str,
    pub(crate) name: String,
    dir: PathBuf,
    address: Ipv4Addr,
    process: Option<Child>,
    /// Environment of its process, not of commands for it.
    pub(crate) env: Vec<(&'static str, PathBuf)>,
    /// Its data directory, if that is not on the test's own.
    pub(crate) disk: Option<SmallDisk>,
}

impl Node {
    /// A node with a configuration and an empty data directory, not running.
    pub(crate) fn new(role: &'static str, name: &str, room: &Path, link: &str) -> Self {
        let (dir, address) = (room.join(name), own_address());
        let node =
            Self { role, name: name.to_owned(), dir, address, process: None, env: Vec::new(), disk: None };
        std::fs::create_dir(&node.dir).unwrap();
        node.configure(link, &[]);
        node
    }

    /// Writes the configuration, which is read at the next start. A cloud tells its edges to dial `endpoints`.
    pub(crate) fn configure(&self, link: &str, endpoints: &[String]) {
        let address = self.address;
        let config = format!(
            "overlay: {{enabled: false}}\nlink: {link}\nmqtt: {{listen: '{address}:{MQTT}'}}\n\
             cloud: {{cluster: water, listen: '{address}:{QUIC}', endpoints: {endpoints:?}}}\n"
        );
        std::fs::write(self.config(), config).unwrap();
    }

    /// Of the running process.
    #[track_caller]
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name)).id()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("kubebus.yaml")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.disk.as_ref().map_or_else(|| self.dir.join("data"), SmallDisk::path)
    }

    /// Gives it a disk of its own, before it has data.
    #[track_caller]
    pub(crate) fn on_small_disk(mut self) -> Self {
        let data_dir = self.data_dir();
        std::fs::create_dir(&data_dir).unwrap();
        self.disk = Some(SmallDisk::mount(&data_dir));
        self
    }

    pub(crate) fn disk(&mut self) -> &mut SmallDisk {
        self.disk.as_mut().unwrap_or_else(|| panic!("{} has no disk of its own", self.name))
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Where edges dial it.
    pub(crate) fn endpoint(&self) -> String {
        format!("{}:{QUIC}", self.address)
    }

    pub(crate) fn mqtt(&self) -> SocketAddr {
        (self.address, MQTT).into()
    }

    /// A command for this node: its configuration and data directory are added.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = kubebus(args);
        command.arg("--config").arg(self.config()).arg("--data-dir").arg(self.data_dir());
        command
    }

    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        run(self.command(args))
    }

    /// What a command that succeeds prints.
    #[track_caller]
    pub(crate) fn say(&self, args: &[&str]) -> String {
        self.run(args).expect(0).stdout.trim_end().to_owned()
    }

    /// What a command that succeeds answers, as a document.
    #[track_caller]
    pub(crate) fn ask(&self, args: &[&str]) -> Value {
        let all: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        serde_json::from_str(&self.say(&all)).unwrap()
    }

    /// Starts the process without waiting for it.
    #[track_caller]
    pub(crate) fn launch(&mut self, args: &[&str]) {
        assert!(self.process.is_none(), "{} runs", self.name);
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = self.command(&[&[self.role], args].concat());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command.envs(self.env.iter().cloned());
        self.process = Some(command.spawn().unwrap());
    }

    /// Starts the node, or starts it again, and waits until it answers.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same, with further arguments.
    #[track_caller]
    pub(crate) fn start_with(&mut self, args: &[&str]) {
        self.launch(args);
        let what = format!("{} answers", self.name);
        eventually(&what, || {
            if let Some(status) = self.process.as_mut().and_then(|process| process.try_wait().unwrap()) {
                self.process = None;
                panic!("{} ended at its start: {status}\n{}", self.name, self.log_tail());
            }
            let ran = self.run(&["status"]);
            if ran.code == Some(0) { Ok(()) } else { Err(format!("{ran:?}")) }
        });
    }

    fn process(&mut self) -> Child {
        self.process.take().unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// kill -9.
    #[track_caller]
    pub(crate) fn kill(&mut self) {
        let mut process = self.process();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// SIGTERM; says how the process ended and how long that took.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        let process = self.process.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name));
        kill_process(Pid::from_child(process), Signal::TERM).unwrap();
        (self.ended(), start.elapsed())
    }

    /// Waits for the process to end; says how it did.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let (mut process, start) = (self.process(), Instant::now());
        loop {
            if let Some(status) = process.try_wait().unwrap() {
                return status;
            }
            if start.elapsed() > PATIENCE {
                process.kill().unwrap();
                panic!("{} did not end within {PATIENCE:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// One property's view; null if the node does not know it.
    #[track_caller]
    pub(crate) fn twin(&self, device: &str, property: &str) -> Value {
        let all = self.ask(&["twin", "get"]);
        let found =
            all.as_array().unwrap().iter().find(|t| t["device"] == device && t["property"] == property);
        found.cloned().unwrap_or_default()
    }

    /// Waits until this node's view of a property has `expected` at a JSON pointer.
    #[track_caller]
    pub(crate) fn twin_becomes(&self, (device, property): (&str, &str), pointer: &str, expected: Value) {
        let what = format!("{device} {property} {pointer} at {}", self.name);
        becomes(&what, &expected, || {
            self.twin(device, property).pointer(pointer).cloned().unwrap_or_default()
        });
    }

    /// A copy of the data directory as it is now.
    pub(crate) fn copy_data(&self) -> PathBuf {
        let copy = self.dir.join("copy");
        copy_files(&self.data_dir(), &copy);
        copy
    }

    /// Puts a copy in the place of the data directory.
    pub(crate) fn put_back(&self, copy: &Path) {
        std::fs::remove_dir_all(self.data_dir()).unwrap();
        copy_files(copy, &self.data_dir());
    }

    /// Waits until its status says how its disk is.
    #[track_caller]
    pub(crate) fn disk_becomes(&self, state: &str) -> Value {
        eventually(&format!("the disk of {} is {state}", self.name), || {
            let disk = self.ask(&["status"])["disk"].clone();
            if disk["state"] == state { Ok(disk) } else { Err(disk.to_string()) }
        })
    }

    /// How often its log says this.
    pub(crate) fn logged(&self, words: &str) -> usize {
        std::fs::read_to_string(self.log()).unwrap_or_default().matches(words).count()
    }

    /// Where its tasks panicked, each place once.
    #[allow(dead_code, reason = "not every suite that has this harness throws hostile bytes")]
    pub(crate) fn panics(&self) -> BTreeSet<String> {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let places = log.lines().filter_map(|line| line.split_once("panicked at "));
        places.map(|(_, place)| place.to_owned()).collect()
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN)..].join("\n")
    }
}

/// Regular files and directories; a socket that a killed node left is no data.
fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (kind, place) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy_files(&entry.path(), &place);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), place).unwrap();
        }
    }
}

/// Ends the process; a failed test shows its log.
impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        let [.., number] = self.address.octets();
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push_back(number);
        if std::thread::panicking() {
            eprintln!("--- end of {}'s log\n{}", self.name, self.log_tail());
        }
    }
}

/// A running cloud and the room for its cluster's files.
pub(crate) struct Cluster {
    pub(crate) cloud: Node,
    link: &'static str,
    // Last, so that the processes are gone before their files.
    room: TempDir,
}

impl Cluster {
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_with(QUICK_LINK)
    }

    #[track_caller]
    pub(crate) fn start_with(link: &'static str) -> Self {
        Self::start_cloud(link, |cloud| cloud)
    }

    /// The cloud's disk is small.
    #[track_caller]
    pub(crate) fn start_on_small_disk() -> Self {
        Self::start_cloud(QUICK_LINK, Node::on_small_disk)
    }

    /// The cloud is prepared before it starts.
    #[track_caller]
    pub(crate) fn start_cloud(link: &'static str, prepare: impl FnOnce(Node) -> Node) -> Self {
        let room = tempfile::tempdir().unwrap();
        let mut cloud = prepare(Node::new("cloud", "cloud", room.path(), link));
        cloud.start();
        Self { cloud, link, room }
    }

    /// A token for one edge.
    #[track_caller]
    pub(crate) fn token(&self) -> String {
        self.cloud.say(&["token", "create", "--site", "plant"])
    }

    /// Another machine for the cloud: an empty data directory at another address, not running.
    pub(crate) fn second_cloud(&self, name: &str) -> Node {
        Node::new("cloud", name, self.room.path(), self.link)
    }

    /// An edge that has not joined.
    pub(crate) fn stranger(&self, name: &str) -> Node {
        Node::new("edge", name, self.room.path(), self.link)
    }

    /// Command by which `edge` joins this cluster.
    pub(crate) fn joining(&self, edge: &Node, token: &str) -> Command {
        let name = edge.name.as_str();
        edge.command(&["join", &self.cloud.endpoint(), "--token", token, "--name", name])
    }

    #[track_caller]
    pub(crate) fn join(&self, edge: &Node, token: &str) -> Ran {
        run(self.joining(edge, token))
    }

    /// An edge that joined, runs, and is in step with the cloud.
    #[track_caller]
    pub(crate) fn edge(&self, name: &str) -> Node {
        self.admit(self.stranger(name))
    }

    /// The same for one that is there already.
    #[track_caller]
    pub(crate) fn admit(&self, mut edge: Node) -> Node {
        self.join(&edge, &self.token()).expect(0);
        edge.start();
        self.in_step(&edge.name);
        edge
    }

    /// Waits until the cloud has told an edge everything.
    #[track_caller]
    pub(crate) fn in_step(&self, edge: &str) {
        let expected = serde_json::json!({ "edge": edge, "in_step": true });
        eventually(&format!("{edge} is in step"), || {
            let status = self.cloud.ask(&["status"]);
            let edges = status["connected"].as_array().cloned().unwrap_or_default();
            if edges.contains(&expected) { Ok(()) } else { Err(status["connected"].to_string()) }
        });
    }

    /// Whether the cloud says that an edge is connected.
    #[track_caller]
    pub(crate) fn is_connected(&self, edge: &str) -> bool {
        let nodes = self.cloud.ask(&["get", "nodes"]);
        nodes.as_array().unwrap().iter().any(|node| node["name"] == edge && node["connected"] == true)
    }

    /// Applies manifests given as text.
    #[track_caller]
    pub(crate) fn apply(&self, manifests: &str) -> String {
        let path = self.file("manifests.yaml", manifests);
        self.cloud.say(&["apply", "-f", path.to_str().unwrap()])
    }

    /// A file in the cluster's room.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.room.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A path in the cluster's room.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.room.path().join(name)
    }
}

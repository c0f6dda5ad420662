//! A cloud and an edge as processes on loopback.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

/// For anything that is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// Outside the ephemeral ports.
const QUIC: u16 = 21001;
const MQTT: u16 = 21883;

/// One node, running.
#[derive(Debug)]
pub(crate) struct Node {
    dir: PathBuf,
    address: Ipv4Addr,
    process: Option<Child>,
}

/// Cloud and edge, and the room for their files.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) cloud: Node,
    pub(crate) edge: Node,
    program: PathBuf,
    // Last, so that the processes are gone before their files.
    room: TempDir,
}

impl Cluster {
    /// The edge dials `cloud_via(the cloud's address)`.
    pub(crate) fn start(
        program: &Path,
        room: &Path,
        cloud_via: impl FnOnce(SocketAddr) -> Result<SocketAddr>,
    ) -> Result<Self> {
        let room = tempfile::tempdir_in(room).context("a directory for the nodes")?;
        let cloud = Node::new(room.path(), "cloud", 1)?;
        let edge = Node::new(room.path(), "edge", 2)?;
        let mut cluster = Self { cloud, edge, program: program.to_owned(), room };
        cluster.start_cloud()?;
        let endpoint = cloud_via(cluster.cloud.quic())?.to_string();
        let token = cluster.run(&cluster.cloud, &["token", "create", "--site", "plant"])?;
        let join = ["join", &endpoint, "--token", token.trim(), "--name", EDGE];
        cluster.run(&cluster.edge, &join)?;
        cluster.start_edge()?;
        cluster.in_step()?;
        Ok(cluster)
    }

    /// One more edge, which joins at `endpoint`.
    pub(crate) fn another_edge(&self, name: &str, number: u8, endpoint: SocketAddr) -> Result<Node> {
        let mut edge = Node::new(self.room.path(), name, number)?;
        let token = self.run(&self.cloud, &["token", "create", "--site", "plant"])?;
        self.run(&edge, &["join", &endpoint.to_string(), "--token", token.trim(), "--name", name])?;
        let command = self.command(&edge, &["edge"]);
        edge.start(command)?;
        Ok(edge)
    }

    fn start_cloud(&mut self) -> Result<()> {
        let command = self.command(&self.cloud, &["cloud"]);
        self.cloud.start(command)
    }

    pub(crate) fn start_edge(&mut self) -> Result<()> {
        let command = self.command(&self.edge, &["edge"]);
        self.edge.start(command)
    }

    fn command(&self, node: &Node, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env_remove("KUBEBUS_DATA_DIR").env_remove("KUBEBUS_LOG");
        command.arg("--config").arg(node.dir.join("kubebus.yaml"));
        command.arg("--data-dir").arg(node.dir.join("data"));
        command
    }

    /// What a command of the CLI prints.
    pub(crate) fn run(&self, node: &Node, args: &[&str]) -> Result<String> {
        let ran = self.command(node, args).output().with_context(|| format!("kubebus {args:?}"))?;
        let words = String::from_utf8_lossy(&ran.stderr);
        ensure!(ran.status.success(), "kubebus {args:?}: {}: {words}", ran.status);
        String::from_utf8(ran.stdout).context("what kubebus says")
    }

    /// Applies manifests given as text.
    pub(crate) fn apply(&self, manifests: &str) -> Result<()> {
        let file = self.room.path().join("manifests.yaml");
        std::fs::write(&file, manifests).context("write the manifests")?;
        self.run(&self.cloud, &["apply", "-f", &file.to_string_lossy()])?;
        Ok(())
    }

    /// Where their files are.
    pub(crate) fn room(&self) -> &Path {
        self.room.path()
    }

    /// Whether the edge has all that concerns it.
    pub(crate) fn is_in_step(&self) -> bool {
        let status = self.cloud.ask("status").unwrap_or_default();
        let edges = status["connected"].as_array().cloned().unwrap_or_default();
        edges.iter().any(|edge| edge["edge"] == EDGE && edge["in_step"] == true)
    }

    /// Waits until neither side has anything left to say.
    pub(crate) fn in_step(&self) -> Result<()> {
        wait("the edge in step", || {
            self.is_in_step() && self.edge.ask("status").is_ok_and(|status| status["metadata"]["outbox"] == 0)
        })
    }
}

/// The edge's name.
pub(crate) const EDGE: &str = "edge";

impl Node {
    fn new(room: &Path, name: &str, number: u8) -> Result<Self> {
        let [.., high, low] = std::process::id().to_be_bytes();
        let node =
            Self { dir: room.join(name), address: Ipv4Addr::new(127, high, low, number), process: None };
        std::fs::create_dir(&node.dir).context("a node's directory")?;
        let config = format!(
            "overlay: {{enabled: false}}\nmqtt: {{listen: '{}'}}\ncloud: {{cluster: bench, listen: '{}'}}\n\
             api: {{listen: ['{}']}}\n",
            node.mqtt(),
            node.quic(),
            node.api(),
        );
        std::fs::write(node.dir.join("kubebus.yaml"), config).context("a node's configuration")?;
        Ok(node)
    }

    pub(crate) fn quic(&self) -> SocketAddr {
        (self.address, QUIC).into()
    }

    pub(crate) fn mqtt(&self) -> SocketAddr {
        (self.address, MQTT).into()
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.join("data/store.redb")
    }

    pub(crate) fn pid(&self) -> Result<u32> {
        self.process.as_ref().map(Child::id).context("the node does not run")
    }

    fn start(&mut self, mut command: Command) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.dir.join("log")).context("a log")?;
        command.stdin(Stdio::null()).stdout(log.try_clone().context("a log")?).stderr(log);
        self.process = Some(command.spawn().context("start a node")?);
        wait("a node to answer", || self.ask("status").is_ok())
    }

    /// Ends the process as a power cut would.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { bail!("the node does not run") };
        process.kill().context("end a node")?;
        process.wait().context("the end of a node")?;
        Ok(())
    }

    /// The admin socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("data/admin.sock")
    }

    /// A document of the admin socket.
    pub(crate) fn ask(&self, what: &str) -> Result<Value> {
        self.get(&format!("/kubebus/v1/{what}"))
    }

    /// What it answers at a path, in JSON.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        let mut socket = UnixStream::connect(self.socket()).context("the admin socket")?;
        socket.set_read_timeout(Some(PATIENCE)).context("the admin socket")?;
        write!(socket, "GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n")
            .context("ask a node")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).context("a node's answer")?;
        let (_, body) = answer.split_once("\r\n\r\n").context("a node's answer")?;
        serde_json::from_str(body).context("a node's answer")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Fails only if it does not run.
        let _ = self.kill();
    }
}

/// Looks every few milliseconds until it is so.
pub(crate) fn wait(what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !is_so() {
        ensure!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

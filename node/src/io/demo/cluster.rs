//! The demo's cluster: its processes and how to talk to them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::io::Namespace;
use serde_json::Value;

use super::cast::{Actor, kubebus, output_of};
use super::page::Doorstep;
use super::report::Narrator;

/// How long a process may take to answer on its admin socket.
const READY: Duration = Duration::from_secs(20);

/// One node: where it runs, what it is called, and its process.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    role: &'static str,
    dir: PathBuf,
    pub(super) namespace: Option<Namespace>,
    pub(super) mqtt: SocketAddr,
    /// Where it serves the page.
    pub(super) doorstep: Option<Doorstep>,
    process: Option<Actor>,
}

impl Member {
    /// A node that is not running yet; its files go under `room`.
    pub(super) fn new(
        role: &'static str,
        name: &str,
        room: &Path,
        namespace: Option<Namespace>,
        mqtt: SocketAddr,
    ) -> Result<Self> {
        let dir = room.join(name);
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(Self { name: name.to_owned(), role, dir, namespace, mqtt, doorstep: None, process: None })
    }

    /// Writes the node's configuration file.
    pub(super) fn configure(&self, text: &str) -> Result<()> {
        let path = self.config();
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    }

    fn config(&self) -> PathBuf {
        self.dir.join("kubebus.yaml")
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Flags that every command for this node takes.
    fn place(&self) -> Vec<String> {
        let path = |path: PathBuf| path.display().to_string();
        vec!["--config".to_owned(), path(self.config()), "--data-dir".to_owned(), path(self.data_dir())]
    }

    /// Starts the node, or starts it again, and waits until it answers.
    pub(super) fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_ready()
    }

    /// Starts the process without waiting for it.
    pub(super) fn launch(&mut self) -> Result<()> {
        let mut args = vec![self.role.to_owned()];
        args.extend(self.place());
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command =
            self.doorstep.as_ref().map_or_else(|| kubebus(&args), |_| Ok(Doorstep::kubebus(&args)))?;
        if let Some(namespace) = &self.namespace {
            namespace.command(&mut command);
        }
        if let Some(doorstep) = &self.doorstep {
            doorstep.pass_on(&mut command);
        }
        self.process = Some(Actor::start(&self.name, command, &self.dir)?);
        Ok(())
    }

    pub(super) fn wait_ready(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let ready = process.wait_until(READY, "answer", || self.ask(&["status", "-o", "json"]).is_ok());
        self.process = Some(process);
        ready
    }

    /// kill -9.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), |process| process.kill().map(drop))
    }

    /// Stops the process where it is, or lets it go on.
    pub(super) fn freeze(&self, is_frozen: bool) {
        if let Some(process) = &self.process {
            process.freeze(is_frozen);
        }
    }

    pub(super) fn stop(&mut self) {
        self.process = None;
    }

    pub(super) fn check_alive(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Actor::check_alive)
    }

    /// Resident memory of the process in MiB.
    pub(super) fn resident_mib(&self) -> Option<f64> {
        let pid = self.process.as_ref()?.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib / 1024.0)
    }

    /// Runs a command against this node.
    pub(super) fn ask(&self, args: &[&str]) -> Result<String> {
        let place = self.place();
        let all: Vec<&str> = args.iter().copied().chain(place.iter().map(String::as_str)).collect();
        let mut command = kubebus(&all)?;
        if let Some(namespace) = &self.namespace {
            namespace.command(&mut command);
        }
        output_of(command)
    }

    /// The same, and tells the story.
    pub(super) fn tell(&self, narrator: &Narrator, args: &[&str]) -> Result<String> {
        narrator.typed(args.join(" "));
        self.ask(args).with_context(|| format!("kubebus {}", args.join(" ")))
    }

    pub(super) fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.ask(&["status", "-o", "json"])?)?)
    }

    /// All twins that this node knows.
    pub(super) fn twins(&self) -> Result<Vec<Value>> {
        Ok(serde_json::from_str(&self.ask(&["twin", "get", "-o", "json"])?)?)
    }

    /// One property's view; null if the node does not know it.
    pub(super) fn twin(&self, device: &str, property: &str) -> Result<Value> {
        let found = self.twins()?.into_iter().find(|t| t["device"] == device && t["property"] == property);
        Ok(found.unwrap_or_default())
    }

    /// A list that the node's lease gives it; the first lease comes with the first sync.
    pub(super) fn overlay(&self, field: &str) -> Result<Vec<String>> {
        let start = Instant::now();
        loop {
            let status = self.status()?;
            let list = &status["overlay"][field];
            if !list.is_null() {
                return Ok(serde_json::from_value(list.clone())?);
            }
            if start.elapsed() > READY {
                bail!("{} has no lease", self.name);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts a bundled mapper beside this node.
    pub(super) fn start_mapper(&self) -> Result<Actor> {
        let mqtt = self.mqtt.to_string();
        let mut command = kubebus(&["mapper", "run", "virtual", "--mqtt", &mqtt])?;
        if let Some(namespace) = &self.namespace {
            namespace.command(&mut command);
        }
        Actor::start(&format!("{}-mapper", self.name), command, &self.dir)
    }
}

//! A network namespace of our own, and programs in it.
//!
//! Nothing has a name outside: a namespace lives as long as its descriptor and its processes, and each process ends
//! with this one, however that ends. So nothing is left behind, not even by `kill -9`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::io::Namespace;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// For a process to end in order, before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// How often we look whether something has happened.
const GLANCE: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(crate) struct Space {
    namespace: Namespace,
}

impl Space {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let space = Self { namespace: Namespace::create(name).context("root makes network namespaces")? };
        // Who forwards out where it came in is to do that, not to tell of a better way.
        space.set("net/ipv4/conf/all/send_redirects", "0")?;
        space.set("net/ipv4/conf/default/send_redirects", "0")?;
        Ok(space)
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(crate) fn name(&self) -> &str {
        self.namespace.name()
    }

    /// By which `ip` finds it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_fd().as_raw_fd())
    }

    /// A switch below /proc/sys, which shows each its own network.
    pub(crate) fn set(&self, switch: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(switch);
        self.namespace.run(|| std::fs::write(&path, value))?.with_context(|| path.display().to_string())
    }

    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).stdin(Stdio::null());
        self.namespace.command(&mut command);
        command
    }

    /// What a command prints; its words are separated by blanks.
    pub(crate) fn run(&self, words: &str) -> Result<String> {
        let mut split = words.split_whitespace();
        let program = split.next().context("no command")?;
        let mut command = self.command(program);
        command.args(split);
        output(&mut command).with_context(|| format!("{} in '{}'", words, self.name()))
    }

    pub(crate) fn run_all(&self, lines: &[&str]) -> Result<()> {
        lines.iter().try_for_each(|line| self.run(line).map(drop))
    }

    /// Loads rules of nftables.
    pub(crate) fn rules(&self, rules: &str) -> Result<()> {
        let mut nft = self.command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("nft")?;
        nft.stdin.take().context("nft")?.write_all(rules.as_bytes()).context("nft")?;
        ensure!(nft.wait().context("nft")?.success(), "nft refuses the rules of '{}'", self.name());
        Ok(())
    }

    /// The address that an interface was given.
    pub(crate) fn address_of(&self, interface: &str) -> Result<Ipv4Addr> {
        let shown = self.run(&format!("ip -j -4 address show dev {interface}"))?;
        let shown: Value = serde_json::from_str(&shown).context("what ip says")?;
        let address = shown[0]["addr_info"][0]["local"].as_str().context("no address yet")?;
        address.parse().context("what ip says")
    }

    /// Starts a program whose words go to a file.
    pub(crate) fn start(&self, mut command: Command, log: PathBuf) -> Result<Process> {
        let file = File::options().create(true).append(true).open(&log).context("a log")?;
        command.stdout(file.try_clone().context("a log")?).stderr(file);
        let child = command.spawn().with_context(|| format!("start {:?}", command.get_args()))?;
        Ok(Process { child, log })
    }

    /// Whether one packet to there comes back within a second.
    pub(crate) fn reaches(&self, address: Ipv4Addr) -> bool {
        self.run(&format!("ping -c 1 -W 1 -q {address}")).is_ok()
    }
}

/// A program that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

/// From /proc/<pid>/status, in KiB.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Resident {
    pub(crate) all: f64,
    pub(crate) anonymous: f64,
}

impl Process {
    fn proc(&self, file: &str) -> Result<String> {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).context("a process's figures")
    }

    /// Seconds that it has used, its own and the kernel's on its behalf.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let stat = self.proc("stat")?;
        // The name before may hold anything, blanks and brackets too: proc(5).
        let (_, fields) = stat.rsplit_once(") ").context("a process's figures")?;
        let ticks = |at: usize| -> Result<f64> {
            let field = fields.split(' ').nth(at).context("a process's figures")?;
            field.parse().context("a process's figures")
        };
        Ok((ticks(11)? + ticks(12)?) / rustix::param::clock_ticks_per_second() as f64)
    }

    pub(crate) fn resident(&self) -> Result<Resident> {
        let status = self.proc("status")?;
        let field = |name: &str| -> Result<f64> {
            let line = status.lines().find(|line| line.starts_with(name)).context("a process's memory")?;
            let kib = line.split_whitespace().nth(1).context("a process's memory")?;
            kib.parse().context("a process's memory")
        };
        Ok(Resident { all: field("VmRSS:")?, anonymous: field("RssAnon:")? })
    }

    /// Looks every few milliseconds until it is so; a program that ends has failed.
    pub(crate) fn wait_until(
        &mut self,
        what: &str,
        patience: Duration,
        mut is_so: impl FnMut() -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        while !is_so() {
            if let Some(status) = self.child.try_wait().context("look after a program")? {
                bail!("ended ({status}): {}", self.last_words());
            }
            ensure!(start.elapsed() < patience, "waited {patience:?} for {what}: {}", self.last_words());
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let words = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = words.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(3)..].join(" | ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it is gone already. Asked first: some leave a socket file behind otherwise.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < GRACE && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(GLANCE);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end and returns what it prints.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let ran = command.output().context("start")?;
    let words = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "{}: {}", ran.status, words.trim());
    String::from_utf8(ran.stdout).context("what it prints")
}

/// The end of a program that ends by itself, with what it printed; killed if it takes longer than `patience`. `glance` is
/// called while it runs.
pub(crate) fn finish(mut child: Child, patience: Duration, mut glance: impl FnMut()) -> Result<String> {
    let start = Instant::now();
    let mut stdout = child.stdout.take().context("no output")?;
    // Read beside, so that a full pipe stops nobody.
    let reader = std::thread::spawn(move || std::io::read_to_string(&mut stdout));
    let status = loop {
        match child.try_wait().context("look after a program")? {
            Some(status) => break Some(status),
            None if start.elapsed() > patience => break None,
            None => std::thread::sleep(GLANCE),
        }
        glance();
    };
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let words = reader.join().ok().context("a reader")?.context("what it prints")?;
    ensure!(status.is_some(), "no end within {patience:?}");
    Ok(words)
}

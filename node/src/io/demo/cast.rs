//! The demo's processes: real `kubebus` ones, each with a log file, none outliving the demo.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// One process.
#[derive(Debug)]
pub(super) struct Actor {
    name: String,
    child: Child,
    log: PathBuf,
}

/// This very program, as a command.
pub(super) fn kubebus(args: &[&str]) -> Result<Command> {
    // Not `current_exe`: the link still works when the binary was replaced under a running demo.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("kubebus").args(args).stdin(Stdio::null()).env_remove("KUBEBUS_DATA_DIR");
    // Ctrl-C at a terminal goes to the whole group: the story ends first, and then its actors, in order.
    command.process_group(0);
    Ok(command)
}

impl Actor {
    /// Starts `command`; what it says goes to `<name>.log` in `dir`.
    pub(super) fn start(name: &str, mut command: Command, dir: &Path) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let open = || File::options().create(true).append(true).open(&log);
        let (out, err) = (open()?, open()?);
        command.stdout(out).stderr(err);
        die_with_parent(&mut command);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9: no goodbye, nothing flushed.
    pub(super) fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill().with_context(|| format!("kill {}", self.name))?;
        self.child.wait().with_context(|| format!("wait for {}", self.name))
    }

    /// Stops the process where it is, or lets it go on: to its peers a cut, to itself nothing at all.
    pub(super) fn freeze(&self, is_frozen: bool) {
        let signal = if is_frozen { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        send(&self.child, signal);
    }

    /// Fails with the end of its log if the process has ended.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait().context("look after a process")? {
            bail!(
                "{} ended with {status}; the end of {}:\n{}",
                self.name,
                self.log.display(),
                tail(&self.log)
            );
        }
        Ok(())
    }

    /// Waits until `ready` says so, while the process lives.
    pub(super) fn wait_until(
        &mut self,
        limit: Duration,
        what: &str,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        while !ready() {
            self.check_alive()?;
            if start.elapsed() > limit {
                bail!("{}: no {what} within {limit:?}; the end of its log:\n{}", self.name, tail(&self.log));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// SIGTERM, and after three seconds SIGKILL.
    pub(super) fn stop(&mut self) {
        send(&self.child, rustix::process::Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.kill();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs a command to its end and returns what it printed; fails with what it said to stderr.
pub(super) fn output_of(mut command: Command) -> Result<String> {
    die_with_parent(&mut command);
    let output = command.output().context("start kubebus")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[expect(unsafe_code, reason = "pre_exec")]
fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only this one async-signal-safe system call is made.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            Ok(())
        });
    }
}

fn send(child: &Child, signal: rustix::process::Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        // A process that is gone needs no signal.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

//! A disk that can be full or read-only: a small tmpfs in a mount namespace of its own, reached from outside through
//! `/proc/<holder>/root`. It outlives the nodes that write to it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::process::eventually;

/// Room for a store and some: what a test has to fill.
const SIZE: &str = "24m";

/// Commands for the shell that holds the namespace, one a line; it answers each with its exit code.
const HOLDER: &str = "while read -r line; do eval \"$line\" >&2; echo $?; done";

pub(crate) struct SmallDisk {
    holder: Child,
    answers: BufReader<ChildStdout>,
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts an empty one at `at`, a directory, for the holder's eyes only.
    #[track_caller]
    pub(crate) fn mount(at: &Path) -> Self {
        let mut unshare = Command::new("unshare");
        unshare.arg("--mount");
        if !rustix::process::geteuid().is_root() {
            unshare.args(["--user", "--map-root-user"]);
        }
        unshare.args(["sh", "-c", HOLDER]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = unshare.spawn().unwrap_or_else(|error| panic!("unshare (of util-linux): {error}"));
        let answers = BufReader::new(holder.stdout.take().unwrap());
        let mut disk = Self { holder, answers, at: at.to_owned() };
        let mounted =
            disk.run(&format!("mount -t tmpfs -o size={SIZE},mode=0700 kubebus-test {}", at.display()));
        assert!(mounted, "this test needs root, or user namespaces for everybody");
        disk
    }

    fn run(&mut self, command: &str) -> bool {
        writeln!(self.holder.stdin.as_mut().unwrap(), "{command}").unwrap();
        let mut code = String::new();
        self.answers.read_line(&mut code).unwrap();
        code.trim() == "0"
    }

    /// Where everybody else finds it.
    pub(crate) fn path(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.at.strip_prefix("/").unwrap())
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }

    /// Until not one byte more fits.
    #[track_caller]
    pub(crate) fn fill(&mut self) {
        let ballast = self.ballast();
        assert!(!self.run(&format!("cat /dev/zero >> {} 2>/dev/null", ballast.display())), "it has an end");
    }

    #[track_caller]
    pub(crate) fn free(&mut self) {
        let ballast = self.ballast();
        assert!(self.run(&format!("rm {}", ballast.display())));
    }

    /// Only while nobody has a file on it open for writing, so it may take some tries.
    #[track_caller]
    pub(crate) fn remount(&mut self, mode: &str) {
        let command = format!("mount -o remount,{mode} {} 2>/dev/null", self.at.display());
        eventually(&command, || if self.run(&command) { Ok(()) } else { Err("busy".to_owned()) });
    }
}

/// The namespace goes with the last process in it.
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

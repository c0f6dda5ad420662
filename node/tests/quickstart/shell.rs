//! A shell that stays, in a directory of its own, and what a page's commands print in it.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

/// For one block of commands. Many times what an idle machine needs for the longest.
const PATIENCE: Duration = Duration::from_secs(90);

/// Lines that wait to be read. A shell that prints more waits too.
const LINES: usize = 1024;

/// Ends what a block printed.
const END: &str = "@@ end of the block";

/// A running bash. What it has started ends with it.
pub(crate) struct Shell {
    child: Child,
    input: ChildStdin,
    printed: Receiver<String>,
    room: TempDir,
    blocks: u32,
}

impl Shell {
    /// `command` ends up as a bash that reads its standard input.
    #[track_caller]
    pub(crate) fn start(mut command: Command) -> Self {
        let room = tempfile::tempdir().unwrap();
        equip(&mut command, room.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (tell, printed) = sync_channel(LINES);
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let input = child.stdin.take().unwrap();
        let mut shell = Self { child, input, printed, room, blocks: 0 };
        shell.run("set -eu\n");
        shell
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs the commands as if they were typed; a command that fails fails the test, with what was printed.
    #[track_caller]
    pub(crate) fn run(&mut self, commands: &str) -> String {
        self.blocks += 1;
        let file = self.room.path().join(format!("block-{}.sh", self.blocks));
        std::fs::write(&file, commands).unwrap();
        // In the shell itself, so that what is set in it stays.
        let line = format!("exec 2>&1; . {} < /dev/null; echo '{END}'", file.display());
        let told = writeln!(self.input, "{line}");
        let mut printed = String::new();
        loop {
            match self.printed.recv_timeout(PATIENCE) {
                Ok(line) if line == END => return printed,
                Ok(line) => printed = printed + &line + "\n",
                Err(why) => {
                    panic!("{commands}\nfailed ({why}, {told:?}), having printed\n{printed}\n{}", self.logs())
                }
            }
        }
    }

    /// What the nodes have logged.
    fn logs(&self) -> String {
        let mut logs = String::new();
        let mut waiting = vec![self.room.path().to_owned()];
        while let Some(dir) = waiting.pop() {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    waiting.push(path);
                } else if path.extension().is_some_and(|ending| ending == "log") {
                    let text = std::fs::read_to_string(&path).unwrap_or_default();
                    logs += &format!("--- {}\n{text}", path.display());
                }
            }
        }
        logs
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// What a reader's machine has: kubebus and Python's package on it, and an empty home.
fn equip(command: &mut Command, room: &Path) {
    let bin = room.join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kubebus"), bin.join("kubebus")).unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = [bin, python()].into_iter().chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(dirs).unwrap());
    command.env("HOME", room).env_remove("KUBEBUS_DATA_DIR").env_remove("KUBEBUS_LOG");
    command.env("PYTHONPATH", repository().join("python/src")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.current_dir(room);
    // A checkout at home, as the pages have it.
    std::os::unix::fs::symlink(repository(), room.join("kubebus")).unwrap();
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Where a Python is that has what `pip install` of our package brings.
fn python() -> PathBuf {
    let bin = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/venv/bin");
    assert!(bin.join("python3").is_file(), "{} is not there: run `cargo xtask python`", bin.display());
    bin
}

/// An address of loopback that no other page has: pages say 127.0.0.1, where others may listen.
pub(crate) fn own_address(page: u8) -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high, low, page)
}

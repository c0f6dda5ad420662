//! Programs with a deadline.

use std::fmt;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// For one command and for one thing to come true: many times what an idle machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks.
const TICK: Duration = Duration::from_millis(30);

/// What a program said and how it ended.
#[derive(PartialEq)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Panics with all that the program said if it did not end with `code`.
impl Ran {
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// It failed with `code`, said `words` on stderr and nothing on stdout.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, words: &[&str]) {
        let ran = self.expect(code);
        assert_eq!(ran.stdout, "", "{ran:?}");
        for word in words {
            assert!(ran.stderr.contains(word), "no '{word}' in {ran:?}");
        }
    }
}

impl fmt::Debug for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {:?}\n--- stdout\n{}--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

/// Runs a program to its end; one that does not end is killed and fails the test.
#[track_caller]
pub(crate) fn run(command: Command) -> Ran {
    run_with(command, "")
}

/// The same, with a standard input.
#[track_caller]
pub(crate) fn run_with(mut command: Command, input: &str) -> Ran {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
    let pid = Pid::from_child(&child);
    let mut stdin = child.stdin.take().unwrap();
    // A program that ends without reading says why by its exit code.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let (tell, told) = mpsc::sync_channel(1);
    std::thread::spawn(move || tell.send(child.wait_with_output()));
    match told.recv_timeout(PATIENCE) {
        Ok(output) => ran(output.unwrap()),
        Err(_) => {
            let _ = kill_process(pid, Signal::KILL);
            panic!("{shown} did not end within {PATIENCE:?}")
        }
    }
}

fn ran(output: Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Looks until it is there; fails with what was last seen instead.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if start.elapsed() > PATIENCE => {
                panic!("{what}: not within {PATIENCE:?}; seen: {seen}")
            }
            Err(_) => std::thread::sleep(TICK),
        }
    }
}

/// Looks until a value is `expected`.
#[track_caller]
pub(crate) fn becomes<T: PartialEq + fmt::Debug>(what: &str, expected: &T, mut look: impl FnMut() -> T) {
    eventually(what, || {
        let seen = look();
        if seen == *expected { Ok(()) } else { Err(format!("{seen:?} instead of {expected:?}")) }
    });
}

//! The small internet under real processes: namespaces, TUNs, cables.
//!
//! Each test runs in a process of its own, because only a process with one thread can enter a user namespace, and
//! because what it makes there goes with it. The parent starts itself again with the test's name in
//! `LAB_TEST`; a test that cannot run here fails and names what is missing.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking; the lint knows only the standard harness"
)]

mod body;

use std::io::{self, Write};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Names the test in the child's environment.
const NAME: &str = "LAB_TEST";

/// No test takes a quarter of it; one that hangs fails.
const TIME_LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match std::env::var(NAME) {
        Ok(name) => run_here(&name),
        Err(_) => run_all(),
    }
}

/// The child: a panic of the body is its exit code.
fn run_here(name: &str) -> ExitCode {
    let test = body::ALL.iter().find(|(known, _)| *known == name);
    let (_, body) = test.unwrap_or_else(|| panic!("no test '{name}'"));
    body();
    ExitCode::SUCCESS
}

/// Called by each body once it has entered: threads may exist from then on.
fn limit_time() {
    std::thread::spawn(|| {
        std::thread::sleep(TIME_LIMIT);
        eprintln!("still running after {TIME_LIMIT:?}");
        std::process::exit(1);
    });
}

/// The parent: understands a name to filter by, and `--list`, as the standard harness does.
fn run_all() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted = |name: &str| {
        let mut filters = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
        filters.peek().is_none() || filters.any(|filter| name.contains(filter.as_str()))
    };
    let wanted = body::ALL.iter().map(|(name, _)| *name).filter(|name| is_wanted(name));
    if arguments.iter().any(|argument| argument == "--list") {
        wanted.for_each(|name| say(&format!("{name}: test")));
        return ExitCode::SUCCESS;
    }
    let (passed, failed): (Vec<_>, Vec<_>) = wanted.partition(|name| passes(name));
    say(&format!("\nnamespaces: {} passed, {} failed {failed:?}\n", passed.len(), failed.len()));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn passes(name: &str) -> bool {
    let this = std::env::current_exe().unwrap();
    let ok = Command::new(this).env(NAME, name).status().unwrap().success();
    say(&format!("test {name} ... {}", if ok { "ok" } else { "FAILED" }));
    ok
}

fn say(line: &str) {
    writeln!(io::stdout().lock(), "{line}").unwrap();
}

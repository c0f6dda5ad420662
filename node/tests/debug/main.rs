//! `kubebus debug` as people use it: faults are planted into real nodes, and the first finding must name each. On loopback
//! where that is enough, and in networks of their own where packets have to be lost on the way.
//!
//! Only a process with one thread can enter a user namespace, so this is no test of the standard harness: it starts itself
//! again for what happens there.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking; the lint knows only the standard harness"
)]

mod archive;
mod both;
mod faults;
#[path = "../harness/mod.rs"]
#[expect(dead_code, reason = "shared with the target `cluster`")]
mod harness;
#[path = "../lab_node/mod.rs"]
#[expect(dead_code, reason = "shared with the target `network`")]
mod lab_node;
mod meters;
mod objects;
mod pages;
mod way;

use std::io::Write;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Instant;

use harness::process;
use serde_json::Value;

/// Names the test that the child runs.
const NAME: &str = "DEBUG_TEST";

/// A test, and what it does. Each runs in a process of its own.
type Test = (&'static str, fn());

const ALL: [Test; 8] = [
    ("faults_of_a_site_are_named", faults::of_a_site),
    ("faults_of_the_cloud_are_named", faults::of_the_cloud),
    ("faults_of_files_and_disks_are_named", faults::of_files_and_disks),
    ("faults_that_an_edge_sees_are_named_at_the_cloud", both::faults_of_an_edge_at_the_cloud),
    ("faults_on_the_way_are_named", way::faults_on_the_way),
    ("an_archive_has_what_helps_and_no_secret", archive::has_what_helps_and_no_secret),
    ("objects_are_described_and_watched", objects::are_described_and_watched_over_a_restart),
    ("shells_complete_and_pages_render", pages::shells_complete_and_pages_render),
];

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(NAME) {
        let (_, body) = ALL.iter().find(|(known, _)| *known == name).unwrap();
        body();
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let is_meant = |name: &str| filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str()));
    let wanted: Vec<&str> = ALL.iter().map(|(name, _)| *name).filter(|name| is_meant(name)).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        wanted.iter().for_each(|name| say(&format!("{name}: test")));
        return ExitCode::SUCCESS;
    }
    // They wait more than they work.
    let passed: Vec<bool> = thread::scope(|scope| {
        let running: Vec<_> = wanted.iter().map(|name| scope.spawn(|| passes(name))).collect();
        running.into_iter().map(|test| test.join().unwrap()).collect()
    });
    if passed.into_iter().all(|passed| passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn passes(name: &str) -> bool {
    let (this, began) = (std::env::current_exe().unwrap(), Instant::now());
    let ran = Command::new(this).env(NAME, name).output().unwrap();
    let verdict = if ran.status.success() { "ok" } else { "FAILED" };
    let mut told = format!("test {name} ... {verdict} ({:.1} s)", began.elapsed().as_secs_f64());
    if !ran.status.success() {
        told.extend(String::from_utf8_lossy(&ran.stderr).lines().map(|line| format!("\n    {line}")));
    }
    say(&told);
    ran.status.success()
}

fn say(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").unwrap();
}

/// What `debug diagnose -o json` found: `[cause, about]` of each, and the whole of it.
struct Diagnosis {
    causes: Vec<String>,
    document: Value,
}

impl Diagnosis {
    /// Holds the exit code against what was found.
    #[track_caller]
    fn read(code: Option<i32>, stdout: &str) -> Self {
        let document: Value = serde_json::from_str(stdout).unwrap();
        let findings = document["findings"].as_array().unwrap();
        let causes: Vec<String> =
            findings.iter().map(|finding| finding["cause"].as_str().unwrap().to_owned()).collect();
        assert_eq!(code, Some(if causes.is_empty() { 0 } else { 10 }), "{document:#}");
        Self { causes, document }
    }

    fn first(&self) -> &str {
        self.causes.first().map_or("nothing", String::as_str)
    }
}

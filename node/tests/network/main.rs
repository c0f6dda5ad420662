//! The overlay between networks: who reaches whom, and what it stands.
//!
//! Each test runs in a process of its own, because only a process with one thread can enter a user namespace, and
//! because what it makes there goes with it. The parent starts itself again with the test's name in `NETWORK_TEST`.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking; the lint knows only the standard harness"
)]

mod attack;
mod direct;
mod flapping;
mod hostile;
#[path = "../lab_node/mod.rs"]
mod lab_node;
mod matrix;
mod policy;
mod stage;
#[cfg(feature = "etcd")]
mod standby;
mod town;

use std::io::Write;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Names the test in the child's environment.
const NAME: &str = "NETWORK_TEST";

/// Long enough for the round trip, short enough to wait for in vain.
const IN_VAIN: Duration = Duration::from_millis(700);

/// Where hosts answer.
const PORT: u16 = 7007;

/// For two edges `a` and `b`.
const A_CALLS_B: &str = "
apiVersion: kubebus.io/v1alpha1
kind: AccessPolicy
metadata: {name: a-calls-b}
spec:
  from: [{site: site-a}]
  to: [{site: site-b}]
";

/// They wait more than they work, but for one.
const AT_ONCE: usize = 3;

/// A test, and whether it is so long that it only runs when asked for by `--ignored`.
struct Test {
    name: &'static str,
    body: fn(),
    is_long: bool,
}

const ALL: &[Test] = &[
    #[cfg(feature = "etcd")]
    Test {
        name: "packets_go_on_by_the_replica_that_takes_over",
        body: standby::packets_go_on_by_the_replica_that_takes_over,
        is_long: false,
    },
    Test {
        name: "a_policy_opens_one_port_from_one_site_to_another_and_nothing_else",
        body: policy::one_port_from_one_site_to_another,
        is_long: false,
    },
    Test {
        name: "neighbours_work_on_while_the_cloud_is_away",
        body: direct::neighbours_work_on_while_the_cloud_is_away,
        is_long: false,
    },
    Test {
        name: "a_symmetric_nat_keeps_a_pair_with_the_cloud_which_says_so",
        body: direct::a_symmetric_nat_keeps_a_pair_with_the_cloud_which_says_so,
        is_long: false,
    },
    Test {
        name: "behind_one_nat_the_way_inside_is_taken",
        body: direct::behind_one_nat_the_way_inside_is_taken,
        is_long: false,
    },
    Test {
        name: "a_way_that_breaks_is_left_at_once_and_found_again",
        body: direct::a_way_that_breaks_is_left_at_once_and_found_again,
        is_long: false,
    },
    Test {
        name: "all_kinds_of_hosts_reach_each_other_where_a_policy_says_so_and_only_there",
        body: matrix::all_kinds_of_hosts,
        is_long: false,
    },
    Test {
        name: "a_link_that_flaps_for_a_minute_works_when_it_is_up",
        body: flapping::short,
        is_long: false,
    },
    Test { name: "a_link_that_flaps_for_five_minutes", body: flapping::long, is_long: true },
    Test {
        name: "strangers_that_throw_all_they_have_stop_nobody",
        body: hostile::strangers_throw_all_they_have,
        is_long: false,
    },
];

fn main() -> ExitCode {
    match std::env::var(NAME) {
        Ok(name) => run_here(&name),
        Err(_) => run_all(),
    }
}

/// The child: a panic of the body is its exit code.
fn run_here(name: &str) -> ExitCode {
    let test = ALL.iter().find(|test| test.name == name).unwrap_or_else(|| panic!("no test '{name}'"));
    (test.body)();
    ExitCode::SUCCESS
}

/// The parent: understands a name to filter by, `--list` and `--ignored`, as the standard harness does.
fn run_all() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_said = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let is_meant = |name: &str| filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str()));
    let wanted = ALL.iter().filter(|test| test.is_long == is_said("--ignored") && is_meant(test.name));
    if is_said("--list") {
        wanted.for_each(|test| say(&format!("{}: test", test.name)));
        return ExitCode::SUCCESS;
    }
    let (wanted, failed): (Mutex<Vec<&Test>>, Mutex<Vec<&str>>) =
        (Mutex::new(wanted.collect()), Mutex::default());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                // Not in the loop's head: there it would be locked for as long as the test runs.
                let next = || wanted.lock().unwrap().pop();
                while let Some(test) = next() {
                    if !passes(test.name) {
                        failed.lock().unwrap().push(test.name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    say(&format!("\nnetwork: {} failed {failed:?}\n", failed.len()));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn passes(name: &str) -> bool {
    let (this, began) = (std::env::current_exe().unwrap(), Instant::now());
    let ran = Command::new(this).env(NAME, name).output().unwrap();
    let verdict = if ran.status.success() { "ok" } else { "FAILED" };
    let mut told = format!("test {name} ... {verdict} ({:.1} s)", began.elapsed().as_secs_f64());
    let failed_said = if ran.status.success() { &b""[..] } else { &ran.stderr };
    for text in [&ran.stdout[..], failed_said] {
        told.extend(String::from_utf8_lossy(text).lines().map(|line| format!("\n    {line}")));
    }
    say(&told);
    ran.status.success()
}

fn say(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").unwrap();
}

//! Cases of one mapper, several at a time. They wait far more than they work, and `cargo test` runs but as many tests as
//! there are cores.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use kubebus_sdk::Mapper;

use crate::bench::Starter;
use crate::fixture::Fixture;
use crate::report::{self, Report};
use crate::suite::{ALONE, CASES, run_case};
use crate::verdict::Verdict;

/// Cases at a time.
const AT_A_TIME: usize = 8;

/// Arguments of a test binary that do not choose among tests.
const HARMLESS: &[&str] = &["--nocapture", "--show-output", "-q", "--quiet"];

/// Runs all cases and says what they gave.
pub fn run_all<M: Mapper, F: Fixture>(start: Starter<F>) -> Report {
    let verdicts = Arc::<Board>::default();
    run_on::<M, F>(&verdicts, start);
    let cases = CASES.iter().map(|case| (case.name.to_owned(), verdicts.wait(case.name)));
    Report::new(M::manifest().protocol, cases.collect())
}

/// Verdicts as they come.
#[derive(Debug, Default)]
struct Board {
    verdicts: Mutex<BTreeMap<&'static str, Verdict>>,
    news: Condvar,
}

impl Board {
    fn verdicts(&self) -> MutexGuard<'_, BTreeMap<&'static str, Verdict>> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, case: &'static str, verdict: Verdict) {
        self.verdicts().insert(case, verdict);
        self.news.notify_all();
    }

    fn wait(&self, case: &str) -> Verdict {
        let mut verdicts = self.verdicts();
        loop {
            if let Some(verdict) = verdicts.get(case) {
                return verdict.clone();
            }
            verdicts = self.news.wait(verdicts).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn run_on<M: Mapper, F: Fixture>(board: &Arc<Board>, start: Starter<F>) {
    let next = Arc::<AtomicUsize>::default();
    for _ in 0..AT_A_TIME {
        let (board, next, start) = (Arc::clone(board), Arc::clone(&next), Arc::clone(&start));
        std::thread::spawn(move || {
            // The one that runs alone first: later it would wait for all that have begun, and others for it.
            let order =
                || CASES.iter().filter(|c| c.name == ALONE).chain(CASES.iter().filter(|c| c.name != ALONE));
            while let Some(case) = order().nth(next.fetch_add(1, Ordering::Relaxed)) {
                board.tell(case.name, run_case::<M, F>(case.name, Arc::clone(&start)));
            }
        });
    }
}

/// Boards of the mappers that are being tested, by the names of their types.
static BOARDS: Mutex<BTreeMap<(&str, &str), Arc<Board>>> = Mutex::new(BTreeMap::new());

/// Runs one case, writes its verdict into the report, and panics if it failed: what a `#[test]` calls. When all tests
/// are run, the first one starts them all.
#[expect(clippy::print_stdout, reason = "the line that a test leaves")]
pub fn check<M: Mapper, F: Fixture>(name: &str) {
    let start: Starter<F> = Arc::new(|| Box::pin(F::start()));
    let verdict = if all_are_wanted(std::env::args().skip(1)) {
        let key = (std::any::type_name::<M>(), std::any::type_name::<F>());
        let mut boards = BOARDS.lock().unwrap_or_else(PoisonError::into_inner);
        let board = boards.entry(key).or_insert_with(|| {
            let board = Arc::default();
            run_on::<M, F>(&board, start);
            board
        });
        let board = Arc::clone(board);
        drop(boards);
        board.wait(name)
    } else {
        run_case::<M, F>(name, start)
    };
    let told = report::record(M::manifest().protocol, name, &verdict);
    println!("{name}: {}", told.unwrap_or_else(|error| format!("no report: {error}")));
    if let Verdict::Failed(why) = verdict {
        panic!("conformance case {name}: {why}");
    }
}

fn all_are_wanted(mut arguments: impl Iterator<Item = String>) -> bool {
    arguments.all(|argument| HARMLESS.contains(&argument.as_str()) || argument.starts_with("--test-threads="))
}

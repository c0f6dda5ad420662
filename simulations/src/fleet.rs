//! Many seeds, on all processors.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::plant::Bug;
use crate::report::{Failure, RunReport, Total};
use crate::world::World;

/// Each so many seeds one is played twice: chance that does not come from the seed would show.
const REPEAT_EVERY: u64 = 20;

/// Plays one seed.
pub fn play(seed: u64, keep: bool) -> RunReport {
    World::new(seed, Bug::None, keep).run()
}

/// Plays `count` seeds from `from` on.
pub fn play_all(from: u64, count: u64) -> Total {
    let (next, total) = (AtomicU64::new(0), Mutex::new(Total::default()));
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let run = play(from + number, false);
                    let again = number.is_multiple_of(REPEAT_EVERY).then(|| play(from + number, false));
                    let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    total.add(&run);
                    compare(&run, again.as_ref(), &mut total);
                }
            });
        }
    });
    let mut total = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    total.failures.sort_by_key(|failure| failure.seed);
    total
}

fn compare(run: &RunReport, again: Option<&RunReport>, total: &mut Total) {
    let Some(again) = again else { return };
    total.repeated += 1;
    if run.hash != again.hash {
        let what = format!("two runs differ: {} and {}", run.hash, again.hash);
        total.failures.push(Failure { seed: run.seed, what });
    }
}

//! What is being done, told to people who wait.

use std::cell::Cell;
use std::time::Duration;

/// Nobody wonders about a command that is done by then.
const QUIET: Duration = Duration::from_secs(2);

/// The step that is at work.
#[derive(Debug)]
pub(super) struct Progress {
    step: Cell<&'static str>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { step: Cell::new("the node") }
    }

    pub(super) fn at(&self, step: &'static str) {
        self.step.set(step);
    }

    /// Does the work; says on stderr what it waits for.
    pub(super) async fn watch<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut told = "";
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(QUIET) => {
                    let step = self.step.get();
                    if step != told {
                        eprintln!("kubebus: still looking at {step}");
                    }
                    told = step;
                }
            }
        }
    }
}

//! Sends the log, batch by batch.
//!
//! A collector that is away is waited for as long as it takes: nothing goes over the line meanwhile. One that hears a batch
//! and does not take it gets it [`TRIES`] times, and then the next one: it may be this batch that it chokes on.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::{info, warn};

use super::logs::{Batch, Lines};
use super::send::{ExportError, Target};
use crate::admin::describe;

/// Lines of the log wait so long for company.
const EVERY: Duration = Duration::from_secs(1);

/// After a request that failed; twice as long after each further one.
const AGAIN: Duration = Duration::from_secs(5);

/// No pause that this node makes of its own accord is longer.
const LONGEST: Duration = Duration::from_secs(60);

/// How often a batch is sent at most: some five minutes of a collector that has too much to do.
pub(super) const TRIES: u32 = 8;

pub(super) struct Sender {
    target: Target,
    me: String,
    lines: &'static Lines,
    /// What the collector has not taken yet.
    batch: Option<Batch>,
    /// How often it has heard this batch.
    tries: u32,
    /// Since it took one.
    failures: u32,
}

/// What becomes of a batch.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Taken,
    Kept,
    Lost,
}

impl Sender {
    pub(super) fn new(target: Target, me: String, lines: &'static Lines) -> Self {
        Self { target, me, lines, batch: None, tries: 0, failures: 0 }
    }

    /// Until it is told to stop; what waits then is sent once.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        loop {
            let pause = self.step().await;
            tokio::select! {
                () = sleep(pause) => {}
                _ = &mut stop => break,
            }
        }
        while self.step().await.is_zero() {}
    }

    /// Sends one batch, if there is one; the pause before the next.
    pub(super) async fn step(&mut self) -> Duration {
        let Some(batch) = self.batch.take().or_else(|| self.lines.take()) else { return EVERY };
        let body = batch.request(&self.me).to_string();
        let sent = self.target.send("logs", body).await;
        self.tell(&sent);
        match self.judge(&sent) {
            Verdict::Taken => {}
            Verdict::Kept => self.batch = Some(batch),
            Verdict::Lost => self.lines.lose(batch),
        }
        self.pause(&sent)
    }

    fn judge(&mut self, sent: &Result<(), ExportError>) -> Verdict {
        let Err(why) = sent else {
            (self.tries, self.failures) = (0, 0);
            return Verdict::Taken;
        };
        self.failures = self.failures.saturating_add(1);
        self.tries += u32::from(why.was_heard());
        if !why.is_final() && self.tries < TRIES {
            return Verdict::Kept;
        }
        self.tries = 0;
        Verdict::Lost
    }

    fn pause(&self, sent: &Result<(), ExportError>) -> Duration {
        let Err(why) = sent else { return Duration::ZERO };
        let doubled = AGAIN.saturating_mul(1 << self.failures.saturating_sub(1).min(8));
        doubled.min(LONGEST).max(why.retry_after().unwrap_or_default())
    }

    /// Once that it fails, and once that it goes on.
    fn tell(&self, sent: &Result<(), ExportError>) {
        match (sent, self.failures) {
            (Ok(()), 0) | (Err(_), 1..) => {}
            (Ok(()), _) => info!("the log is sent again"),
            (Err(why), 0) => warn!(why = describe(why), "cannot send the log; goes on trying"),
        }
    }
}

//! How long a disk may take: one that hangs says nothing, and would stop a site as surely as one that refuses.
//!
//! Measured by the clock that stands still while the machine sleeps: a disk that slept with it does not hang.

use std::time::{Duration, Instant};

use metadata::Revision;

/// A disk that is not done with a write for so long counts as one that refuses: many times what a worn card needs to
/// erase its blocks, and less than people and rules are patient.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Watches the store thread's answers.
#[derive(Debug, Default)]
pub struct Patience {
    /// Since when it owes one.
    busy: Option<Instant>,
    submitted: Revision,
}

impl Patience {
    pub fn handle_submit(&mut self, revision: Revision, now: Instant) {
        self.busy.get_or_insert(now);
        self.submitted = revision;
    }

    pub fn handle_durable(&mut self, revision: Revision, now: Instant) {
        self.busy = (revision < self.submitted).then_some(now);
    }

    /// The disk refuses, and so it does not hang.
    pub fn handle_refused(&mut self, now: Instant) {
        self.busy = Some(now);
    }

    /// The disk hangs: its next answer, whichever that is, says how things stand.
    pub fn handle_timeout(&mut self) {
        self.busy = None;
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.busy.map(|since| since + PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds of one test.
    fn seconds() -> impl Fn(u64) -> Instant {
        let start = Instant::now();
        move |seconds| start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_disk_that_hangs_is_noticed_once() {
        let (mut patience, at) = (Patience::default(), seconds());
        assert_eq!(patience.poll_timeout(), None);
        patience.handle_submit(Revision(1), at(1));
        patience.handle_submit(Revision(2), at(5));
        assert_eq!(patience.poll_timeout(), Some(at(1) + PATIENCE));
        patience.handle_timeout();
        assert_eq!(patience.poll_timeout(), None);
    }

    #[test]
    fn a_slow_disk_that_answers_is_waited_for() {
        let (mut patience, at) = (Patience::default(), seconds());
        patience.handle_submit(Revision(1), at(1));
        patience.handle_submit(Revision(2), at(5));
        patience.handle_durable(Revision(1), at(9));
        assert_eq!(patience.poll_timeout(), Some(at(9) + PATIENCE));
        patience.handle_refused(at(15));
        assert_eq!(patience.poll_timeout(), Some(at(15) + PATIENCE));
        patience.handle_durable(Revision(2), at(16));
        assert_eq!(patience.poll_timeout(), None);
    }
}

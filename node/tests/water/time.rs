//! The time of one test: made here, read by its processes and its plant.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bus::io::virtual_clock::Maker;
use bus::{Mono, UnixMillis};

/// The world of a test begins a day ago: certificates are checked by the machine's own clock (TLS and QUIC stay on it),
/// and one that a cloud issues after some hours must not be of the future there.
const YESTERDAY: Duration = Duration::from_secs(24 * 3600);

/// Between two looks at the time.
const TICK: Duration = Duration::from_millis(5);

#[derive(Debug, Clone)]
pub(crate) struct Time {
    maker: Arc<Mutex<Maker>>,
    began: UnixMillis,
}

impl Time {
    /// As fast as real time.
    pub(crate) fn start() -> Self {
        let yesterday = (SystemTime::now() - YESTERDAY).duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let began = UnixMillis(yesterday.as_millis().try_into().unwrap());
        Self { maker: Arc::new(Mutex::new(Maker::start(began))), began }
    }

    /// The clock of a machine that is `error_s` wrong, in seconds: positive is ahead. Returns its file, for the processes
    /// of that machine.
    pub(crate) fn machine(&self, room: &Path, name: &str, error_s: i64) -> PathBuf {
        let path = room.join(format!("{name}.clock"));
        self.maker.lock().unwrap().add_machine(&path, error_s * 1000).unwrap();
        path
    }

    /// Since the start.
    pub(crate) fn now(&self) -> Duration {
        self.maker.lock().unwrap().now().since(Mono::ZERO)
    }

    /// What a right clock shows.
    pub(crate) fn wall(&self) -> UnixMillis {
        UnixMillis(self.began.0 + u64::try_from(self.now().as_millis()).unwrap())
    }

    /// From now on so many times as fast as real time.
    pub(crate) fn run(&self, factor: f64) {
        self.maker.lock().unwrap().set_factor(factor).unwrap();
    }

    /// Waits until so much has passed, at this factor, and goes on as fast as real time. What machines, disks and networks
    /// do takes its real time all the same: a millisecond of theirs is `factor` milliseconds of this.
    pub(crate) fn pass(&self, time: Duration, factor: f64) {
        let end = self.now() + time;
        self.run(factor);
        while self.now() < end {
            std::thread::sleep(TICK);
        }
        self.run(1.0);
    }
}

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn hours(hours: u64) -> Duration {
    Duration::from_secs(3600 * hours)
}

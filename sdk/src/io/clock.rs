//! The real clocks. The monotonic one goes on while the machine sleeps: a write that was asked for before a nap is not
//! fresh after it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus::{Mono, Now, UnixMillis};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::permit::Clock;

pub(super) fn real() -> Clock {
    let start = clock_gettime(ClockId::Boottime);
    Clock(Arc::new(move || {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Boottime);
        let micros = (tv_sec - start.tv_sec) * 1_000_000 + (tv_nsec - start.tv_nsec) / 1_000;
        let mono = u64::try_from(micros).unwrap_or_default();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis();
        Now { mono: Mono(mono), wall: UnixMillis(u64::try_from(wall).unwrap_or(u64::MAX)) }
    }))
}

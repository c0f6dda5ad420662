//! The real clocks.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bus::{Mono, Now, UnixMillis};

use crate::permit::Clock;

pub(super) fn real() -> Clock {
    let start = Instant::now();
    Clock(Arc::new(move || {
        let mono = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis();
        Now { mono: Mono(mono), wall: UnixMillis(u64::try_from(wall).unwrap_or(u64::MAX)) }
    }))
}

//! What else the machine does: a figure taken beside a compiler is not the tunnel's.

use std::time::{Duration, Instant};

use crate::table::median;

/// Between two turns, when nothing of ours runs.
const LOOK: Duration = Duration::from_millis(300);

/// Cores that others kept busy, at each look.
#[derive(Debug, Default)]
pub(super) struct Others(Vec<f64>);

impl Others {
    pub(super) fn look(&mut self) {
        let (start, before) = (Instant::now(), busy_ticks());
        std::thread::sleep(LOOK);
        if let (Some(before), Some(after)) = (before, busy_ticks()) {
            let seconds = (after - before) / rustix::param::clock_ticks_per_second() as f64;
            self.0.push(seconds / start.elapsed().as_secs_f64());
        }
    }

    pub(super) fn told(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let most = self.0.iter().copied().fold(f64::NAN, f64::max);
        let middle = median(self.0.clone());
        format!("between turns, others kept {middle:.1} of {cores} cores busy, {most:.1} at the most")
    }
}

/// Since the machine's start, on all cores: proc(5).
fn busy_ticks() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<f64> = stat.lines().next()?.split_whitespace().skip(1).flat_map(str::parse).collect();
    // user nice system idle iowait irq softirq steal; what follows is in these already.
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some(ticks.iter().take(8).sum::<f64>() - idle)
}

//! Pressure waves in the main: what a valve that moves does to the water that stands behind it.

use crate::actuator::Motion;
use crate::config::MainConfig;
use crate::hydraulics;

/// The waves ahead of the valves, and how often they went over the main's limit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surge {
    /// Of valves that travel, in bar; as the next, below 0 when the water speeds up.
    travel_bar: f64,
    /// Of valves that jump.
    jump_bar: f64,
    over: bool,
    pub(crate) trips: u64,
    pub(crate) peak_bar: f64,
}

impl Surge {
    /// Above the steady pressure, in bar.
    pub(crate) fn bar(&self) -> f64 {
        self.travel_bar + self.jump_bar
    }

    /// The velocity in the main changed by `change` m/s within a step of `dt` seconds. The level's own slow pull on the
    /// flow is no surge: only a valve that moves makes one.
    ///
    /// A travelling valve's wave is that of its whole way, however finely time is stepped. Jumps add up: each sends a
    /// wave of its own, which the source throws back after the return time `2L/a`. Many small jumps in that time are
    /// one large one; a steady train of them comes to `2·ρ·L·dv/dt`, which is Michaud's bound for a valve that shuts
    /// at that rate.
    pub(crate) fn feel(&mut self, change: f64, motion: Motion, dt: f64, main: &MainConfig) {
        self.travel_bar *= (-dt / hydraulics::surge_memory(main)).exp();
        self.jump_bar *= (-dt / hydraulics::return_time(main)).exp();
        match motion {
            Motion::Still => {}
            Motion::Jumped => self.jump_bar += hydraulics::surge(change, 0.0, main),
            Motion::Travelled(seconds) => {
                let fresh = hydraulics::surge(change, seconds, main);
                if fresh.abs() > self.travel_bar.abs() {
                    self.travel_bar = fresh;
                }
            }
        }
    }

    /// Counts each time that the pressure comes over the limit.
    pub(crate) fn watch(&mut self, pressure_bar: f64, main: &MainConfig) {
        let over = pressure_bar > main.surge_limit_bar;
        self.trips += u64::from(over && !self.over);
        self.over = over;
        self.peak_bar = self.peak_bar.max(pressure_bar);
    }
}

#[cfg(test)]
#[path = "surge_tests.rs"]
mod tests;

//! What touches the world: the machine's clocks.

mod clock;
#[cfg(feature = "virtual-clock")]
pub mod virtual_clock;

pub use clock::Clock;

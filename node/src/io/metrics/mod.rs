//! What a process measures of itself.

mod measure;
#[cfg(test)]
mod tests;

pub(super) use self::measure::{Parts, drops, measured, trouble_of_dial};

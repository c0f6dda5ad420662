//! What a process measures of itself, and metrics in the formats that others read.

mod measure;
mod otlp;
mod prometheus;

pub(super) use self::measure::{Parts, drops, measured, trouble_of_dial};
pub(super) use self::otlp::request as otlp;
pub(super) use self::prometheus::{CONTENT_TYPE, Choice, render};

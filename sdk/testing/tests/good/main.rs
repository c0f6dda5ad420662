//! The mapper of `tests/sloppy` without a fault passes every case, at gold.

#![expect(
    clippy::unwrap_used,
    reason = "a test's device and driver: whatever is not as expected fails the test"
)]
#![expect(clippy::wildcard_enum_match_arm, reason = "one fault is looked for among dozens")]

#[path = "../sloppy/device.rs"]
mod device;
#[path = "../sloppy/line.rs"]
mod line;
#[path = "../sloppy/mapper.rs"]
mod mapper;

use kubebus_sdk_testing::conformance;

conformance!(crate::mapper::Sloppy, crate::device::Device);

//! The mapper of `tests/sloppy` without a fault passes every case, at gold.

#[path = "../sloppy/device.rs"]
mod device;
#[path = "../sloppy/line.rs"]
mod line;
#[path = "../sloppy/mapper.rs"]
mod mapper;

use kubebus_sdk_testing::conformance;

conformance!(crate::mapper::Sloppy, crate::device::Device);

//! The manifests that go with the mapper.

use std::ffi::OsString;

#[test]
fn the_example_is_right() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/device.yaml");
    let args = ["check", file].map(OsString::from);
    assert_eq!(
        kubebus_sdk::main_with::<__library__::__Type__>("check", args),
        0
    );
}

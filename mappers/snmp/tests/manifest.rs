//! The manifest to start from is one that the mapper understands, and what is wrong in one is named.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

use std::path::Path;
use std::process::Command;

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/device.yaml");

fn check(file: &Path) -> (Option<i32>, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_kubebus-mapper-snmp")).arg("check").arg(file).output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(told).unwrap())
}

#[test]
fn the_manifest_to_start_from_is_understood() {
    let (code, told) = check(Path::new(MANIFEST));
    assert_eq!(code, Some(0), "{told}");
}

#[test]
fn a_wrong_setting_or_address_is_named() {
    let manifest = std::fs::read_to_string(MANIFEST).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("device.yaml");
    for (right, wrong, expected) in [
        ("auth: sha256", "auth: sha255", "auth"),
        ("oid: sysLocation.0", "oid: sysLocation", "sysLocation.0 for a scalar"),
    ] {
        let spoilt = manifest.replace(right, wrong);
        assert_ne!(spoilt, manifest);
        std::fs::write(&file, spoilt).unwrap();
        let (code, told) = check(&file);
        assert!(code == Some(2) && told.contains(expected), "{code:?}: {told}");
    }
}

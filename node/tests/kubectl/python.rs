//! The Python package `kubernetes`, which `cargo xtask python` installs.

use std::path::Path;
use std::process::Command;

use super::{Door, beside, kinds};
use crate::harness::Cluster;
use crate::process::run;

#[test]
fn the_python_client_lists_watches_patches_and_hears_of_conflicts() {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/venv/bin/python");
    assert!(python.is_file(), "{} is not there: run `cargo xtask python`", python.display());
    let cluster = Cluster::start();
    let door = Door::open(&cluster.cloud);
    let manifests = cluster.file("kinds.yaml", &kinds::file());
    let mut command = Command::new(python);
    command.arg("-Bu").arg(beside("client.py")).arg(door.url()).arg(manifests);
    assert_eq!(run(command).expect(0).stdout, "all held\n");
}

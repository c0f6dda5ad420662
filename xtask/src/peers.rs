//! Programs that packets through the overlay are compared with, and the tools of the lab in which they run.
//!
//! They are run, never linked: quincy is under the AGPL, nebula, OpenVPN and the WireGuards are others' programs too.

use anyhow::Result;

use crate::{apt_install, cargo_command, is_on_path, run, step, target_dir};

/// The lab's own, by the program that is needed of each of Debian's packages.
const TOOLS: [(&str, &str); 5] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("ethtool", "ethtool"),
    ("ping", "iputils-ping"),
    ("iperf3", "iperf3"),
];

/// What is compared with, in the same way.
const PACKAGES: [(&str, &str); 5] = [
    ("openssl", "openssl"),
    ("wireguard-go", "wireguard-go"),
    ("wg", "wireguard-tools"),
    ("nebula", "nebula"),
    ("openvpn", "openvpn"),
];

/// Of crates.io, at the version that the figures are about; each is its program's name too.
const CRATES: [(&str, &str); 3] =
    [("boringtun-cli", "0.7.1"), ("quincy-server", "3.1.1"), ("quincy-client", "3.1.1")];

/// Installs what is missing: packages as Debian does, crates under `<target>/peers`. What cannot be installed is told,
/// and the benchmark says again that it is missing.
pub(crate) fn install() -> Result<()> {
    install_tools();
    install_packages(&PACKAGES);
    let root = target_dir()?.join("peers");
    for (name, version) in CRATES {
        if is_on_path(name) || root.join("bin").join(name).is_file() {
            continue;
        }
        step(&format!("build {name} {version}, to compare with"));
        let mut install = cargo_command();
        install.args(["install", "--locked", "--version", version, "--root"]).arg(&root).arg(name);
        told(name, run(&mut install));
    }
    Ok(())
}

/// Installs what the lab needs to be built.
pub(crate) fn install_tools() {
    install_packages(&TOOLS);
}

fn install_packages(packages: &[(&str, &str)]) {
    for (program, package) in packages {
        if !is_on_path(program) {
            told(package, apt_install(&[package]));
        }
    }
}

fn told(what: &str, done: Result<()>) {
    if let Err(error) = done {
        eprintln!("{what} cannot be installed and is not compared with: {error:#}");
    }
}

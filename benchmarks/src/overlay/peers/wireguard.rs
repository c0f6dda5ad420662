//! The two WireGuards in user space. The kernel's own is not on every machine; it is not among the peers.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{End, PATIENCE, Place, Tunnel};
use crate::overlay::space::{Process, Space, output};
use crate::overlay::topology::CLOUD;

#[derive(Debug, Clone, Copy)]
pub(super) enum Program {
    WireguardGo,
    Boringtun,
}

/// 1500 less 80 for IP, UDP and WireGuard: wg-quick's.
const MTU: u16 = 1420;

const PORT: u16 = 51820;

struct Site {
    name: String,
    private: String,
    public: String,
    /// The last byte of its address in 10.99.0.0/24.
    number: usize,
}

pub(super) fn start(place: Place<'_>, program: Program) -> Result<Tunnel<'_>> {
    let wg = place.programs.find("wg")?;
    let mut sites = Vec::new();
    for (number, (name, _)) in (1..).zip(place.all()) {
        let private = output(Command::new(&wg).arg("genkey"))?.trim().to_owned();
        let public = public_of(&wg, &private)?;
        sites.push(Site { name, private, public, number });
    }
    let mut ends = Vec::new();
    for (site, (_, space)) in sites.iter().zip(place.all()) {
        let config = place.write(&format!("{}.conf", site.name), &config(site, &sites))?;
        let process = start_one(place, program, site, space, &config)?;
        ends.push(End::new([10, 99, 0, site.number as u8].into(), process));
    }
    Tunnel::new(ends)
}

fn start_one(
    place: Place<'_>,
    program: Program,
    site: &Site,
    space: &Space,
    config: &Path,
) -> Result<Process> {
    // Their sockets are in one directory whatever the namespace, so the name must be nobody else's.
    let interface = format!("k{}n{}", std::process::id(), site.number);
    let mut command = match program {
        Program::WireguardGo => space.command(place.programs.find("wireguard-go")?),
        Program::Boringtun => space.command(place.programs.find("boringtun-cli")?),
    };
    command.args(["-f", &interface]);
    match program {
        Program::WireguardGo => command.env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1"),
        Program::Boringtun => command.arg("--disable-drop-privileges"),
    };
    let mut process = space.start(command, place.log(&site.name))?;
    process.wait_until("its socket", Duration::from_secs(5).min(PATIENCE), || {
        space.run(&format!("wg show {interface}")).is_ok()
    })?;
    space.run_all(&[
        &format!("wg setconf {interface} {}", config.display()),
        &format!("ip address add 10.99.0.{}/24 dev {interface}", site.number),
        &format!("ip link set {interface} mtu {MTU} up"),
    ])?;
    Ok(process)
}

fn config(own: &Site, sites: &[Site]) -> String {
    let mut text = format!("[Interface]\nPrivateKey = {}\n", own.private);
    if own.number == 1 {
        text += &format!("ListenPort = {PORT}\n");
        for edge in &sites[1..] {
            text += &peer(edge, &format!("10.99.0.{}/32", edge.number));
        }
    } else {
        text += &peer(&sites[0], "10.99.0.0/24");
        text += &format!("Endpoint = {CLOUD}:{PORT}\nPersistentKeepalive = 15\n");
    }
    text
}

fn peer(site: &Site, allowed: &str) -> String {
    format!("[Peer]\nPublicKey = {}\nAllowedIPs = {allowed}\n", site.public)
}

fn public_of(wg: &Path, private: &str) -> Result<String> {
    let mut child = Command::new(wg)
        .arg("pubkey")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("wg pubkey")?;
    child.stdin.take().context("wg pubkey")?.write_all(private.as_bytes()).context("wg pubkey")?;
    let said = child.wait_with_output().context("wg pubkey")?;
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

//! nebula: the cloud is its lighthouse and relay. What passes the relay stays sealed between the edges.

use std::process::Command;

use anyhow::{Context, Result};

use super::{End, Place, Tunnel};
use crate::overlay::space::output;
use crate::overlay::topology::CLOUD;

/// The cloud's inside; the edges follow.
const HUB: &str = "10.96.0.1";

pub(super) fn start(place: Place<'_>) -> Result<Tunnel<'_>> {
    let cert = place.programs.find("nebula-cert")?;
    let sign = |args: &[&str]| -> Result<String> {
        output(Command::new(&cert).args(args).current_dir(place.room)).context("nebula-cert")
    };
    sign(&["ca", "-name", "bench", "-out-crt", "ca.crt", "-out-key", "ca.key"])?;
    let mut ends = Vec::new();
    for (number, (name, space)) in (1..).zip(place.all()) {
        let address = format!("10.96.0.{number}/24");
        let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
        sign(&["sign", "-name", &name, "-ip", &address, "-out-crt", &certificate, "-out-key", &key])?;
        let config = place.write(&format!("{name}.yaml"), &config(place, &name))?;
        let mut command = space.command(place.programs.find("nebula")?);
        command.arg("-config").arg(config);
        let process = space.start(command, place.log(&name))?;
        ends.push(End::new([10, 96, 0, number].into(), process));
    }
    Tunnel::new(ends)
}

fn config(place: Place<'_>, name: &str) -> String {
    let room = place.room.display();
    let is_cloud = name == "cloud";
    let role = if is_cloud {
        "lighthouse: {am_lighthouse: true}\nrelay: {am_relay: true, use_relays: false}\n\
         listen: {host: 0.0.0.0, port: 4242}\n"
            .to_owned()
    } else {
        format!(
            "lighthouse: {{am_lighthouse: false, interval: 1, hosts: ['{HUB}']}}\n\
             relay: {{relays: ['{HUB}'], am_relay: false, use_relays: true}}\nlisten: {{host: 0.0.0.0, port: 0}}\n"
        )
    };
    format!(
        "pki: {{ca: {room}/ca.crt, cert: {room}/{name}.crt, key: {room}/{name}.key}}\n\
         static_host_map: {{'{HUB}': ['{CLOUD}:4242']}}\n{role}punchy: {{punch: true}}\n\
         tun: {{dev: nebula0, mtu: 1300}}\nlogging: {{level: warning}}\n\
         firewall:\n  outbound: [{{port: any, proto: any, host: any}}]\n  \
         inbound: [{{port: any, proto: any, host: any}}]\n"
    )
}

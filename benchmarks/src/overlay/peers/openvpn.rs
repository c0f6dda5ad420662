//! OpenVPN: TUN over UDP, AES-128-GCM, `client-to-client`, without its kernel module, so that it is one program like
//! the others.

use anyhow::Result;

use super::{End, PATIENCE, Place, Tunnel, quincy};
use crate::overlay::topology::CLOUD;

const INTERFACE: &str = "ovpn0";

pub(super) fn start(place: Place<'_>) -> Result<Tunnel<'_>> {
    let mut prints = Vec::new();
    for (name, _) in place.all() {
        prints.push(colons(&quincy::certificate(place, &name, "basicConstraints=critical,CA:FALSE")?));
    }
    let mut ends = Vec::new();
    for (name, space) in place.all() {
        let mut command = space.command(place.programs.find("openvpn")?);
        let config = if name == "cloud" { server(&prints[1..]) } else { client(&prints[0]) };
        let config = format!("{}{config}", common(place, &name));
        command.arg("--config").arg(place.write(&format!("{name}.ovpn"), &config)?);
        let mut process = space.start(command, place.log(&name))?;
        process.wait_until("its address", PATIENCE, || space.address_of(INTERFACE).is_ok())?;
        ends.push(End::new(space.address_of(INTERFACE)?, process));
    }
    Tunnel::new(ends)
}

fn common(place: Place<'_>, name: &str) -> String {
    let room = place.room.display();
    format!(
        "dev {INTERFACE}\ndev-type tun\ntopology subnet\nproto udp\ndisable-dco\nverb 3\ndata-ciphers AES-128-GCM\n\
         cert {room}/{name}.pem\nkey {room}/{name}.key\n"
    )
}

fn server(edges: &[String]) -> String {
    let prints = edges.join("\n");
    format!(
        "server 10.98.0.0 255.255.255.0\nkeepalive 10 60\nclient-to-client\ndh none\n\
         <peer-fingerprint>\n{prints}\n</peer-fingerprint>\n"
    )
}

fn client(cloud: &str) -> String {
    format!("client\nremote {CLOUD} 1194\nnobind\npeer-fingerprint {cloud}\n")
}

fn colons(hex: &str) -> String {
    let pairs: Vec<&str> = (0..hex.len()).step_by(2).filter_map(|at| hex.get(at..at + 2)).collect();
    pairs.join(":")
}

//! quincy: QUIC datagrams over the quinn crate, with segmentation offload at the TUN. TLS mode, all else as it is but
//! that clients may talk to each other.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{End, PATIENCE, Place, Tunnel};
use crate::overlay::space::output;
use crate::overlay::topology::CLOUD;

/// What the set-up installs: its programs do not tell.
pub(super) const VERSION: &str = "3.1.1";

const INTERFACE: &str = "quincy0";

pub(super) fn start(place: Place<'_>) -> Result<Tunnel<'_>> {
    let mut users = String::new();
    for (name, _) in place.all() {
        let fingerprint = certificate(place, &name, "basicConstraints=critical,CA:FALSE")?;
        if name != "cloud" {
            users += &format!("[users.{name}]\nauthorized_certs = [\"sha256:{fingerprint}\"]\n");
        }
    }
    place.write("users.toml", &users)?;
    let mut ends = Vec::new();
    for (name, space) in place.all() {
        let (program, config) = match name.as_str() {
            "cloud" => ("quincy-server", server(place.room)),
            edge => ("quincy-client", client(place.room, edge)),
        };
        let config = place.write(&format!("{name}.toml"), &config)?;
        let mut command = space.command(place.programs.find(program)?);
        command.arg("--config-path").arg(config);
        let mut process = space.start(command, place.log(&name))?;
        process.wait_until("its interface", PATIENCE, || space.address_of(INTERFACE).is_ok())?;
        ends.push(End::new(space.address_of(INTERFACE)?, process));
    }
    Tunnel::new(ends)
}

/// Makes `<name>.pem` and `<name>.key`, signed by itself; returns its fingerprint in hex.
pub(super) fn certificate(place: Place<'_>, name: &str, constraints: &str) -> Result<String> {
    let openssl = place.programs.find("openssl")?;
    let request = format!(
        "[req]\ndistinguished_name=dn\nx509_extensions=ext\nprompt=no\n[dn]\nCN={name}\n[ext]\n{constraints}\n\
         subjectAltName=IP:{CLOUD}\n"
    );
    let request = place.write(&format!("{name}.cnf"), &request)?;
    let certificate = place.room.join(format!("{name}.pem"));
    let mut make = Command::new(&openssl);
    make.args(["req", "-x509", "-days", "2", "-nodes", "-newkey", "ec"]);
    make.args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-config"]).arg(request);
    make.arg("-keyout").arg(place.room.join(format!("{name}.key"))).arg("-out").arg(&certificate);
    output(&mut make).context("openssl req")?;
    let mut ask = Command::new(&openssl);
    ask.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(&certificate);
    let said = output(&mut ask).context("openssl x509")?;
    let (_, hex) = said.trim().split_once('=').context("openssl x509")?;
    Ok(hex.replace(':', "").to_lowercase())
}

fn server(room: &Path) -> String {
    let room = room.display();
    format!(
        "name = \"bench\"\ninterface_name = \"{INTERFACE}\"\ntunnel_network = \"10.97.0.1/24\"\n\
         users_file = \"{room}/users.toml\"\nisolate_clients = false\n[protocol]\nmode = \"tls\"\n\
         certificate_file = \"{room}/cloud.pem\"\ncertificate_key_file = \"{room}/cloud.key\"\n\
         [log]\nlevel = \"info\"\n"
    )
}

fn client(room: &Path, edge: &str) -> String {
    let room = room.display();
    format!(
        "connection_string = \"{CLOUD}:55555\"\n[protocol]\nmode = \"tls\"\n\
         trusted_certificate_paths = [\"{room}/cloud.pem\"]\n\
         client_certificate_file = \"{room}/{edge}.pem\"\nclient_certificate_key_file = \"{room}/{edge}.key\"\n\
         [network]\ninterface_name = \"{INTERFACE}\"\n[log]\nlevel = \"info\"\n"
    )
}

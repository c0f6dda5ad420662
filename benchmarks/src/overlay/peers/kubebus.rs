//! KubeBus as its users run it: a cloud, edges that join with a token, nothing configured but where things
//! are, and that edges stay with their cloud.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{End, Place, Tunnel};
use crate::overlay::space::{Process, Space, output};
use crate::overlay::topology::CLOUD;

const INTERFACE: &str = "kb0";

/// For a node to answer on its admin socket, and for an edge to get its address.
const PATIENCE: Duration = Duration::from_secs(20);

const PORT: u16 = 10001;

const SITE: &str = "bench";

/// Everything between everybody: clouds that admit nothing unless told know this kind, others know no such thing.
const POLICY: &str = "apiVersion: kubebus.io/v1alpha1\nkind: AccessPolicy\nmetadata: {name: bench}\n\
     spec: {from: [{site: cloud}, {site: bench}], to: [{site: cloud}, {site: bench}]}\n";

pub(super) fn start(place: Place<'_>) -> Result<Tunnel<'_>> {
    let mut ends = Vec::new();
    for (name, space) in place.all() {
        if name != "cloud" {
            join(place, &name, space)?;
        }
        let process = node(place, &name, space)?;
        if name == "cloud" {
            admit(place)?;
        }
        ends.push((space, process));
    }
    let located = ends.into_iter().map(|(space, mut process)| {
        process.wait_until("its address", PATIENCE, || space.address_of(INTERFACE).is_ok())?;
        Ok(End::new(space.address_of(INTERFACE)?, process))
    });
    Tunnel::new(located.collect::<Result<_>>()?)
}

fn directory(place: Place<'_>, name: &str) -> PathBuf {
    place.room.join(name)
}

fn command(place: Place<'_>, name: &str, mut command: Command, args: &[&str]) -> Command {
    let dir = directory(place, name);
    command.args(args).env_remove("KUBEBUS_DATA_DIR").env_remove("KUBEBUS_LOG");
    command.arg("--config").arg(dir.join("kubebus.yaml")).arg("--data-dir").arg(dir.join("data"));
    command
}

/// What a command of the CLI at this node prints.
fn cli(place: Place<'_>, name: &str, space: &Space, args: &[&str]) -> Result<String> {
    let mut command = command(place, name, space.command(place.programs.find("kubebus")?), args);
    output(&mut command).with_context(|| format!("kubebus {args:?}"))
}

fn configure(place: Place<'_>, name: &str) -> Result<()> {
    let dir = directory(place, name);
    std::fs::create_dir_all(&dir).context("a node's directory")?;
    // Edges that talk would find a way of their own, and what is measured as relayed would not be.
    let text = format!(
        "cloud: {{cluster: bench, listen: '0.0.0.0:{PORT}'}}\nlink: {{direct: false}}\n\
         overlay: {{interface: {INTERFACE}}}\n"
    );
    std::fs::write(dir.join("kubebus.yaml"), text).context("a node's configuration")
}

fn node(place: Place<'_>, name: &str, space: &Space) -> Result<Process> {
    let role = if name == "cloud" { "cloud" } else { "edge" };
    if role == "cloud" {
        configure(place, name)?;
    }
    let command = command(place, name, space.command(place.programs.find("kubebus")?), &[role]);
    let mut process = space.start(command, place.log(name))?;
    process.wait_until("its admin socket", PATIENCE, || cli(place, name, space, &["status"]).is_ok())?;
    Ok(process)
}

fn join(place: Place<'_>, name: &str, space: &Space) -> Result<()> {
    configure(place, name)?;
    let token = cli(place, "cloud", place.sites.cloud, &["token", "create", "--site", SITE])?;
    let cloud = format!("{CLOUD}:{PORT}");
    cli(place, name, space, &["join", &cloud, "--token", token.trim(), "--name", name]).map(drop)
}

fn admit(place: Place<'_>) -> Result<()> {
    match apply(place, POLICY) {
        Err(error) if format!("{error:#}").contains("AccessPolicy is not known") => Ok(()),
        done => done,
    }
}

/// Applies manifests given as text.
pub(in crate::overlay) fn apply(place: Place<'_>, manifests: &str) -> Result<()> {
    let file = place.write("manifests.yaml", manifests)?;
    cli(place, "cloud", place.sites.cloud, &["apply", "-f", &file.to_string_lossy()]).map(drop)
}

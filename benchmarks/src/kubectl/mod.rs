//! Stock `kubectl` with 10,000 devices: against the same bytes from a server that only replays them, and what a hundred
//! watches take.

mod replay;
mod watches;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use self::replay::Replay;
use crate::cluster::{Cluster, Node};
use crate::manifests::plant;
use crate::memory::Memory;
use crate::overlay::Options;
use crate::table::{Table, median};

const DEVICES: usize = 10_000;
const PROPERTIES: usize = 4;
const WATCHES: usize = 100;

/// Who watch, each as many: a node keeps 32 connections of one user.
const USERS: usize = 5;

/// A file is read up to a number of documents.
const DOCUMENTS_A_FILE: usize = 1000;

/// Devices that change under the watches.
const CHANGES: usize = 100;

/// What `kubectl` may take of the time that it takes with the replaying server.
const AIM: f64 = 1.5;

/// The port of the resource API, outside the ephemeral ones.
const API: u16 = 21443;

pub(crate) fn run(program: &Path, room: &Path, options: &Options) -> Result<Table> {
    let cluster = Cluster::start(program, room, Ok)?;
    let bare = Memory::of(&cluster.cloud)?;
    for part in
        plant(DEVICES, PROPERTIES).split_inclusive("---\n").collect::<Vec<_>>().chunks(DOCUMENTS_A_FILE)
    {
        cluster.apply(&part.concat())?;
    }
    cluster.in_step()?;
    let users = (0..USERS).map(|number| User::invite(&cluster, number)).collect::<Result<Vec<_>>>()?;
    let planted = Memory::of(&cluster.cloud)?;
    let seen = watches::run(&cluster, &users)?;
    let watched = Memory::of(&cluster.cloud)?;
    let replay = Replay::start(cluster.cloud.socket())?;
    let (live, still) = (Kubectl::at_cloud(&cluster, room)?, Kubectl::at(replay.address(), &cluster, room)?);
    let mut table = Table::new(
        format!("kubectl: {DEVICES} devices of {PROPERTIES} properties"),
        &["", "kubebus", "replayed", "ratio", "bytes"],
    );
    for (what, args) in [
        ("get devices", &["get", "devices", "-A"][..]),
        ("get devices -o json", &["get", "devices", "-A", "-o", "json"]),
    ] {
        let (ours, theirs, bytes) = paired(&live, &still, args, options.rounds.unwrap_or(5))?;
        table.row([
            what.to_owned(),
            format!("{ours:.2} s"),
            format!("{theirs:.2} s"),
            format!("{:.2}", ours / theirs),
            format!("{bytes}"),
        ]);
    }
    let listed = Memory::of(&cluster.cloud)?;
    table.note(format!(
        "aim: {AIM} of the replaying server's time, and under 1 s; it is read over TLS, the other plainly"
    ));
    table.note(format!(
        "the cloud's memory: {:.1} MiB without devices, {:.1} with them, {:.1} with {WATCHES} watches, {:.1} after these lists",
        bare.resident, planted.resident, watched.resident, listed.resident
    ));
    table.note(seen);
    Ok(table)
}

/// A viewer with a certificate in files.
#[derive(Debug)]
pub(crate) struct User {
    name: String,
    dir: PathBuf,
}

impl User {
    fn invite(cluster: &Cluster, number: usize) -> Result<Self> {
        let name = format!("bench-{number}");
        let dir = cluster.room().join(&name);
        let out = dir.to_string_lossy();
        cluster.run(&cluster.cloud, &["user", "add", &name, "--role", "viewer", "--out", &out])?;
        Ok(Self { name, dir })
    }

    /// A file whose name ends so.
    fn file(&self, ending: &str) -> Result<PathBuf> {
        let entries = std::fs::read_dir(&self.dir).context("the user's files")?;
        let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths
            .find(|path| path.to_string_lossy().ends_with(ending))
            .with_context(|| format!("no file {ending}"))
    }

    fn authority(&self) -> Result<PathBuf> {
        self.file("ca.pem")
    }

    fn certificate(&self) -> Result<PathBuf> {
        self.file(&format!("user-{}.pem", self.name))
    }

    fn key(&self) -> Result<PathBuf> {
        self.file(&format!("user-{}.key", self.name))
    }
}

/// `kubectl` with a cache of its own.
struct Kubectl {
    args: Vec<String>,
}

impl Kubectl {
    fn at_cloud(cluster: &Cluster, room: &Path) -> Result<Self> {
        let file = cluster.room().join("kubeconfig");
        let server = format!("https://{}", cluster.cloud.api());
        let out = file.to_string_lossy();
        cluster.run(
            &cluster.cloud,
            &["kubeconfig", "--user", "kubectl", "--role", "viewer", "--server", &server, "--out", &out],
        )?;
        Ok(Self { args: vec![format!("--kubeconfig={out}"), cache(room, "live")] })
    }

    fn at(server: SocketAddr, cluster: &Cluster, room: &Path) -> Result<Self> {
        let file = cluster.room().join("no-kubeconfig");
        std::fs::write(&file, "").context("an empty kubeconfig")?;
        let config = format!("--kubeconfig={}", file.display());
        Ok(Self { args: vec![config, format!("--server=http://{server}"), cache(room, "still")] })
    }

    /// How long it takes, and how much it prints.
    fn run(&self, args: &[&str]) -> Result<(Duration, usize)> {
        let start = Instant::now();
        let ran = Command::new("kubectl")
            .args(&self.args)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .context("start kubectl: install Debian's kubernetes-client")?;
        let took = start.elapsed();
        ensure!(ran.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
        Ok((took, ran.stdout.len()))
    }
}

fn cache(room: &Path, name: &str) -> String {
    format!("--cache-dir={}", room.join(format!("kubectl-cache-{}-{name}", std::process::id())).display())
}

/// In turn, after one of each that fills caches and the replaying server; medians in seconds, and the bytes printed.
fn paired(live: &Kubectl, still: &Kubectl, args: &[&str], rounds: usize) -> Result<(f64, f64, usize)> {
    let (_, bytes) = live.run(args)?;
    let (_, replayed) = still.run(args)?;
    ensure!(
        bytes.abs_diff(replayed) * 100 < bytes,
        "kubectl printed {bytes} bytes, and {replayed} of what was replayed"
    );
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(live.run(args)?.0.as_secs_f64());
        theirs.push(still.run(args)?.0.as_secs_f64());
    }
    Ok((median(ours), median(theirs), bytes))
}

impl Node {
    /// Where the resource API is served over TLS.
    pub(crate) fn api(&self) -> SocketAddr {
        (self.quic().ip(), API).into()
    }
}

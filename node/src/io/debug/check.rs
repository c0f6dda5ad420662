//! Measuring a machine for [`judge`](crate::diagnose::check::judge).

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tokio::time::timeout;

use super::probe::LOOKUP;
use super::progress::Progress;
use super::{CheckArgs, RoleArg, certificate, machine};
use crate::config::Config;
use crate::diagnose::Role;
use crate::diagnose::check::{DataDir, Machine};
use crate::io::admin::ask;
use crate::io::cli::host_and_port;
use crate::io::commands::{Usage, read_config};
use crate::io::identity;
use crate::io::otlp;
use crate::io::upstream::{Endpoint, parse_endpoints};

pub(super) async fn measure(args: &CheckArgs, progress: &Progress) -> Result<Machine> {
    let named = args.cloud.as_deref().map(host_and_port).transpose();
    let named = named.map_err(|why| Usage(anyhow::Error::msg(why)))?;
    let (config, problem) = match read_config(&args.ask.place) {
        Ok(config) => (config, None),
        Err(why) => (Config::default(), Some(format!("{why:#}"))),
    };
    let dir = args.ask.place.data_dir(&config);
    let stored = identity::load(dir).ok();
    let role = args.role.map(|role| match role {
        RoleArg::Cloud => Role::Cloud,
        RoleArg::Edge => Role::Edge,
    });
    let role = role.or(stored.as_ref().map(|_| Role::Edge)).or(cloud_in(dir).then_some(Role::Cloud));
    let is_running =
        timeout(LOOKUP, ask(dir, hyper::Method::GET, "/healthz", None)).await.is_ok_and(|a| a.is_ok());
    progress.at("the disk");
    let (data_dir, flush) = looked_at(dir).await;
    progress.at("the name servers");
    let joined = stored.as_ref().and_then(|stored| parse_endpoints(&stored.membership.endpoints).ok());
    let lookups = look_up(named.into_iter().chain(joined.unwrap_or_default())).await;
    Ok(Machine {
        role,
        is_running,
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        config: problem,
        telemetry: otlp::problem(&config.telemetry),
        data_dir,
        wants_packets: config.overlay.enabled,
        tun: machine::tun_problem(),
        may_net_admin: machine::may_net_admin(),
        taken: if is_running { Vec::new() } else { machine::taken(role, &config) },
        udp_receive_max: machine::udp_receive_max(),
        disk_free: machine::free_bytes(dir),
        flush,
        memory_available: machine::memory_available(),
        clock_synchronised: machine::clock_synchronised(),
        now_ms: machine::now_ms(),
        name_servers: machine::name_servers(),
        lookups,
        certificate_ends_ms: stored.as_ref().map(|stored| certificate::look(stored).not_after_ms),
    })
}

pub(super) fn cloud_in(dir: &Path) -> bool {
    dir.join(identity::CLOUD).exists()
}

/// A disk that takes longer is no disk for a node.
const DISK: Duration = Duration::from_secs(5);

/// A disk that hangs holds up a thread beside, and nothing else.
async fn looked_at(dir: &Path) -> (DataDir, Option<Duration>) {
    let there = dir.to_owned();
    let looked = timeout(DISK, tokio::task::spawn_blocking(move || look_at(&there))).await;
    looked.ok().and_then(Result::ok).unwrap_or_else(|| {
        let unwritable = Some(format!("a small file takes longer than {DISK:?}"));
        (DataDir { path: dir.display().to_string(), exists: true, unwritable, ..DataDir::default() }, None)
    })
}

/// The directory, and how long a flush takes there; in the nearest one above if it is still to be made.
fn look_at(dir: &Path) -> (DataDir, Option<Duration>) {
    let metadata = std::fs::metadata(dir).ok();
    let there = dir.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let flushed = machine::flush_time(there);
    let found = DataDir {
        path: dir.display().to_string(),
        exists: metadata.is_some(),
        mode: metadata.map(|metadata| metadata.mode()).unwrap_or_default(),
        unwritable: flushed.as_ref().err().map(ToString::to_string),
    };
    (found, flushed.ok())
}

/// Of each host by name, and why that failed.
async fn look_up(endpoints: impl Iterator<Item = Endpoint>) -> Vec<(String, Option<String>)> {
    let mut found = Vec::new();
    for (host, port) in endpoints.filter(|(host, _)| machine::is_name(host)) {
        let why = match timeout(LOOKUP, tokio::net::lookup_host((host.clone(), port))).await {
            Ok(Ok(mut addresses)) => addresses.next().is_none().then(|| "it has no address".to_owned()),
            Ok(Err(why)) => Some(why.to_string()),
            Err(_) => Some(format!("no name server answered within {LOOKUP:?}")),
        };
        found.push((host, why));
    }
    found
}

//! What a cloud's router holds for each edge that is connected and says nothing: `cargo xtask bench fleet`.
//!
//! ```text
//!   benchmark --- starts, and reads /proc of ---> the hub: one shard, a table with all edges
//!             \                                      ^
//!              `- starts ---> two fleets: a lane of each of 10,000 edges, quinn-proto on one socket
//! ```
//! What a fleet holds is its own process': the hub's memory is the hub's alone.

mod credentials;
mod edges;
mod hub;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use router::io::shard::Lane;

use self::credentials::Authority;
use crate::table::{Table, count};

const EDGES: usize = 10_000;

/// As edges have them.
const LANES: [&str; 2] = ["bus", "packets"];

/// Handshakes that are under way at a time: below the bound from which on a cloud asks for proof of addresses.
const AT_ONCE: usize = 64;

/// For keepalives to come, and for the search of the path's MTU to end.
const REST: Duration = Duration::from_secs(20);

/// How long idle edges are watched: one keepalive of each lane.
const WATCHED: Duration = Duration::from_secs(15);

/// A connected edge is to cost no more, in KiB.
const AIM_KIB: f64 = 24.0;

pub(crate) fn run(room: &Path) -> Result<Table> {
    let files = tempfile::tempdir_in(room).context("a directory for certificates")?;
    Authority::create()?.store(files.path())?;
    let (mut hub, address) = start("measure-fleet-hub", files.path(), &EDGES.to_string())?;
    let empty = hub.resident()?;
    let (mut fleets, mut lanes) = (Vec::new(), Vec::new());
    for lane in LANES {
        let before = hub.cpu()?;
        let (fleet, seconds) = start("measure-fleet-edges", files.path(), &format!("{address} {lane}"))?;
        fleets.push(fleet);
        let cpu = hub.cpu()? - before;
        std::thread::sleep(REST);
        let seconds = seconds.parse().context("what the fleet says")?;
        lanes.push(Measured { lane, resident: hub.resident()?, seconds, cpu });
    }
    let idle = hub.cpu_over(WATCHED)?;
    for part in fleets.iter_mut().chain([&mut hub]) {
        ensure!(part.is_alive()?, "a process ended before it was measured");
    }
    Ok(table(empty, &lanes, idle))
}

/// After all edges have connected on one more lane.
struct Measured {
    lane: &'static str,
    /// KiB.
    resident: f64,
    seconds: f64,
    /// Of the hub, in seconds.
    cpu: f64,
}

fn table(empty: f64, lanes: &[Measured], idle: f64) -> Table {
    let edges = EDGES as f64;
    let title = format!("fleet: {} idle edges at one shard", count(edges));
    let columns = [
        "",
        "resident",
        "an edge",
        "aim",
        "an edge / aim",
        "CPU a handshake",
        "handshakes/s and core",
        "connected after",
    ];
    let mut table = Table::new(title, &columns);
    let mib = |kib: f64| format!("{:.1} MiB", kib / 1024.0);
    table.row(["none yet".to_owned(), mib(empty)]);
    let mut before = empty;
    for Measured { lane, resident, seconds, cpu } in lanes {
        table.row([
            format!("with a {lane} lane each"),
            mib(*resident),
            format!("+ {:.1} KiB", (resident - before) / edges),
            String::new(),
            String::new(),
            format!("{:.2} ms", 1e3 * cpu / edges),
            count(edges / cpu),
            format!("{seconds:.1} s"),
        ]);
        before = *resident;
    }
    let each = (before - empty) / edges;
    let ratio = format!("{:.2}", each / AIM_KIB);
    table.row(["both".to_owned(), mib(before), format!("{each:.1} KiB"), format!("{AIM_KIB} KiB"), ratio]);
    table.note(format!("{AT_ONCE} handshakes at a time; CPU is the hub's own, kernel included"));
    table.note(format!("all idle, keepalives every 15 s: {:.1} % of one core", 100.0 * idle));
    table
}

/// Starts this program again as another, and reads the line that it says when it is ready.
fn start(what: &str, room: &Path, argument: &str) -> Result<(Part, String)> {
    let mut command = Command::new(std::env::current_exe().context("where am I")?);
    command.arg(what).arg(room).arg(argument).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {what}"))?;
    let stdout = child.stdout.take().context("no output")?;
    let part = Part { child };
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).context("what it says")?;
    ensure!(!line.is_empty(), "{what} ended before it was ready");
    Ok((part, line.trim().to_owned()))
}

/// What [`start`] started. It ends with who started it, however that ends: its input does.
pub(crate) fn measure(what: &str, room: &Path, argument: &str) -> Result<()> {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    match what {
        "measure-fleet-hub" => hub::run(room, argument.parse().context("how many edges")?),
        "measure-fleet-edges" => {
            let (address, lane) = argument.split_once(' ').context("an address and a lane")?;
            let lane = if lane == LANES[0] { Lane::Bus } else { Lane::Packets };
            edges::run(room, address.parse().context("the hub's address")?, lane)
        }
        _ => bail!("no part of the fleet: {what}"),
    }
}

/// A process that ends when it is dropped.
struct Part {
    child: Child,
}

impl Part {
    fn proc(&self, file: &str) -> Result<String> {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).context("a process's figures")
    }

    /// KiB.
    fn resident(&self) -> Result<f64> {
        let status = self.proc("status")?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("a process's memory")?;
        line.split_whitespace().nth(1).context("a process's memory")?.parse().context("a process's memory")
    }

    /// Seconds.
    fn cpu(&self) -> Result<f64> {
        let stat = self.proc("stat")?;
        // The name before may hold anything, blanks and brackets too: proc(5).
        let (_, fields) = stat.rsplit_once(") ").context("a process's figures")?;
        let ticks = |at: usize| -> Result<f64> {
            let field = fields.split(' ').nth(at).context("a process's figures")?;
            field.parse().context("a process's figures")
        };
        Ok((ticks(11)? + ticks(12)?) / rustix::param::clock_ticks_per_second() as f64)
    }

    /// The share of one core that it takes in that time.
    fn cpu_over(&self, time: Duration) -> Result<f64> {
        let before = self.cpu()?;
        std::thread::sleep(time);
        Ok((self.cpu()? - before) / time.as_secs_f64())
    }

    fn is_alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("look after a process")?.is_none())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

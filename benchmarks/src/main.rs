//! KubeBus against its aims and against others, side by side in one run.

mod cluster;
mod cores;
mod memory;
mod mqtt;
mod relay;
mod resync;
mod store;
mod sync;
mod table;
mod values;
mod wire;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::table::Table;

const USAGE: &str = "\
usage: cargo xtask bench [NAME..]

  store    twin updates on a disk, against SQLite
  sync     changes a second from a cloud core to edge cores
  wire     bytes on the wire for a changed key
  resync   10,000 keys over a slow link, and what live messages notice of it
  memory   what an edge with 1,000 devices holds in memory
";

const ALL: [&str; 5] = ["store", "sync", "wire", "resync", "memory"];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(program), Some(room)) = (args.next(), args.next()) else {
        eprint!("{USAGE}");
        return ExitCode::FAILURE;
    };
    let names: Vec<String> = args.collect();
    if let ("measure-store", [store, group]) = (program.as_str(), names.as_slice()) {
        return ended("measure-store", measure(&room, store, group));
    }
    let names = if names.is_empty() { ALL.map(str::to_owned).to_vec() } else { names };
    for name in names {
        let done = run(&name, Path::new(&program), Path::new(&room)).map(|table| println!("{table}"));
        if ended(&name, done) == ExitCode::FAILURE {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn ended(name: &str, done: Result<()>) -> ExitCode {
    if let Err(error) = done {
        eprintln!("bench {name}: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// What `store` starts in a process of its own.
fn measure(room: &str, store: &str, group: &str) -> Result<()> {
    store::measure(Path::new(room), store, group.parse().context("updates a transaction")?)
}

fn run(name: &str, program: &Path, room: &Path) -> Result<Table> {
    match name {
        "store" => store::run(room),
        "sync" => sync::run(),
        "wire" => wire::run(),
        "resync" => resync::run(program, room),
        "memory" => memory::run(program, room),
        _ => bail!("{USAGE}"),
    }
}

//! Twin updates on a disk: the store as an edge uses it, and SQLite doing the same.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use metadata::io::RedbStore;
use metadata::{Commit, Key, Revision, Store, Write};
use rusqlite::Connection;

use crate::table::{Table, count, median};

/// As an edge opens it.
pub(crate) const CACHE: usize = 2 << 20;

/// Updates that one transaction makes durable.
const GROUPS: [usize; 3] = [1, 10, 100];

/// Transactions of one measurement.
const TRANSACTIONS: usize = 100;
const ROUNDS: usize = 5;

/// Properties that are updated in turn.
const PROPERTIES: usize = 2000;

/// An outbox row stays until this many later ones are there: until the cloud has acknowledged it.
const WAITING: usize = 200;

/// What is compared.
const STORES: [&str; 2] = ["kubebus", "sqlite"];

pub(crate) fn run(room: &Path) -> Result<Table> {
    let mut table = Table::new(
        "store: twin updates made durable, a reported value and its outbox row each",
        &[
            "updates a sync",
            "kubebus/s",
            "SQLite/s",
            "kubebus : SQLite",
            "bytes written each",
            "SQLite",
            "kubebus : SQLite",
        ],
    );
    for group in GROUPS {
        let mut measured: [Vec<Measured>; 2] = Default::default();
        for _ in 0..ROUNDS {
            for (all, store) in measured.iter_mut().zip(STORES) {
                all.push(in_a_process(store, group, room)?);
            }
        }
        table.row(cells(group, &measured));
    }
    table.note(format!(
        "medians of {ROUNDS} paired rounds, each a process of its own; bytes: write_bytes of /proc/self/io, what the"
    ));
    table.note(
        "process made the kernel write; SQLite: WAL, synchronous=FULL, WITHOUT ROWID, its defaults else",
    );
    Ok(table)
}

fn cells(group: usize, [ours, theirs]: &[Vec<Measured>; 2]) -> Vec<String> {
    let updates = (TRANSACTIONS * group) as f64;
    let of = |all: &[Measured], what: fn(&Measured) -> f64| median(all.iter().map(what).collect());
    let ratio = |what: fn(&Measured) -> f64| {
        median(ours.iter().zip(theirs).map(|(ours, theirs)| what(ours) / what(theirs)).collect())
    };
    let speed: fn(&Measured) -> f64 = |measured| 1.0 / measured.seconds;
    let bytes: fn(&Measured) -> f64 = |measured| measured.bytes;
    vec![
        group.to_string(),
        count(of(ours, speed) * updates),
        count(of(theirs, speed) * updates),
        format!("{:.2}", ratio(speed)),
        count(of(ours, bytes) / updates),
        count(of(theirs, bytes) / updates),
        format!("{:.2}", ratio(bytes)),
    ]
}

#[derive(Debug)]
struct Measured {
    seconds: f64,
    bytes: f64,
}

/// A process of its own, so that the bytes it wrote are those of one store.
fn in_a_process(store: &str, group: usize, room: &Path) -> Result<Measured> {
    let me = std::env::current_exe().context("where am I")?;
    let ran = Command::new(me).arg("measure-store").arg(room).args([store, &group.to_string()]).output();
    let ran = ran.context("start a measurement")?;
    ensure!(ran.status.success(), "{store}: {}", String::from_utf8_lossy(&ran.stderr));
    let words = String::from_utf8(ran.stdout).context("a measurement")?;
    let mut numbers = words.split_whitespace().map(str::parse);
    let mut next = || numbers.next().context("a measurement")?.context("a measurement");
    Ok(Measured { seconds: next()?, bytes: next()? })
}

/// In the process of its own: prints seconds and bytes.
pub(crate) fn measure(room: &Path, store: &str, group: usize) -> Result<()> {
    let dir = tempfile::tempdir_in(room).context("a directory for a store")?;
    let mut store: Box<dyn Updates> = match store {
        "kubebus" => Box::new(Ours::open(dir.path())?),
        _ => Box::new(Sqlite(open_sqlite(dir.path())?)),
    };
    for first in (0..PROPERTIES).step_by(WAITING) {
        store.update(&updates(first, WAITING))?;
    }
    let (before, start) = (written()?, Instant::now());
    for transaction in 0..TRANSACTIONS {
        store.update(&updates(PROPERTIES + transaction * group, group))?;
    }
    let (took, bytes) = (start.elapsed(), written()? - before);
    print(took, bytes);
    Ok(())
}

fn print(took: Duration, bytes: u64) {
    println!("{} {bytes}", took.as_secs_f64());
}

/// Bytes that this process made the kernel write to a disk.
pub(crate) fn written() -> Result<u64> {
    let io = std::fs::read_to_string("/proc/self/io").context("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).context("/proc/self/io")?;
    line.parse().context("/proc/self/io")
}

/// One twin update: the value, the row that tells the cloud, and the row that the cloud has acknowledged.
struct Update {
    revision: u64,
    reported: (String, Vec<u8>),
    outbox: (String, Vec<u8>),
    done: Option<String>,
}

fn updates(first: usize, many: usize) -> Vec<Update> {
    (first..first + many).map(update).collect()
}

fn update(number: usize) -> Update {
    // Not in order of keys: mappers report as devices answer.
    let property = number.wrapping_mul(733) % PROPERTIES;
    let name = format!("plant/station-{:04}/value-{:02}", property / 20, property % 20);
    let value = crate::values::desired(property / 20, property % 20, number).to_vec();
    let outbox = |number: usize| format!("/o/state/{number:020}");
    Update {
        revision: number as u64 + 1,
        reported: (format!("/t/reported/{name}"), value.clone()),
        outbox: (outbox(number), [format!("/reported/{name}").into_bytes(), value].concat()),
        done: number.checked_sub(WAITING).map(outbox),
    }
}

/// Makes updates durable, all in one transaction.
trait Updates {
    fn update(&mut self, updates: &[Update]) -> Result<()>;
}

struct Ours(RedbStore);

impl Ours {
    fn open(dir: &Path) -> Result<Self> {
        Ok(Self(RedbStore::open(dir.join("store.redb"), CACHE)?))
    }
}

impl Updates for Ours {
    fn update(&mut self, updates: &[Update]) -> Result<()> {
        let commits: Result<Vec<Commit>> = updates.iter().map(commit).collect();
        Ok(self.0.commit(&commits?)?)
    }
}

fn commit(update: &Update) -> Result<Commit> {
    let write = |(key, value): &(String, Vec<u8>)| -> Result<Write> {
        Ok(Write { key: Key::new(key)?, value: Some(Bytes::copy_from_slice(value)) })
    };
    let forgotten: Result<Vec<Key>, _> = update.done.iter().map(|key| Key::new(key)).collect();
    Ok(Commit {
        revision: Revision(update.revision),
        writes: vec![write(&update.reported)?, write(&update.outbox)?],
        forgotten: forgotten?,
    })
}

struct Sqlite(Connection);

/// As durable as our store.
pub(crate) fn open_sqlite(dir: &Path) -> Result<Connection> {
    let connection = Connection::open(dir.join("store.sqlite"))?;
    connection.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
             CREATE TABLE entries (key TEXT PRIMARY KEY, revision INTEGER NOT NULL, value BLOB) WITHOUT ROWID;",
        )?;
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    let sync: i64 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
    ensure!((mode.as_str(), sync) == ("wal", 2), "SQLite runs with {mode} and {sync}");
    Ok(connection)
}

impl Updates for Sqlite {
    fn update(&mut self, updates: &[Update]) -> Result<()> {
        let transaction = self.0.transaction()?;
        {
            let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO entries VALUES (?1, ?2, ?3)")?;
            let mut forget = transaction.prepare_cached("DELETE FROM entries WHERE key = ?1")?;
            for Update { revision, reported, outbox, done } in updates {
                for (key, value) in [reported, outbox] {
                    put.execute((key, *revision as i64, value))?;
                }
                if let Some(key) = done {
                    forget.execute([key])?;
                }
            }
        }
        Ok(transaction.commit()?)
    }
}

//! Reports through an edge's twin core: parsed, checked against the model, versioned, stored, queued for the cloud,
//! published; without and with a durable commit, and SQLite storing the same rows.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bus::twin::Incarnation;
use bus::{Mono, Name, Now, Topic, UnixMillis};
use bytes::Bytes;
use device_twin::EdgeTwins;
use device_twin::edge::Output;
use device_twin::gate::access::Who;
use device_twin::twin::Said;
use metadata::io::RedbStore;
use metadata::{Commit, Key, Keyspace, Replica, Store};
use rusqlite::Connection;

use crate::store::{CACHE, open_sqlite, written};
use crate::table::{Table, count, median};

const DEVICES: usize = 1000;
const PROPERTIES: usize = 20;

/// Reports of one measurement, after each property was reported once.
const REPORTS: usize = 20_000;
const ROUNDS: usize = 5;

/// Reports that one commit makes durable: what comes within 20 ms at 50, 500 and 5,000 reports a second.
const GROUPS: [usize; 3] = [1, 10, 100];

pub(crate) fn run(room: &Path) -> Result<Table> {
    let title =
        format!("twins: reports through an edge's twin core, {DEVICES} devices of {PROPERTIES} properties");
    let heads = [
        "",
        "reports/s",
        "to in memory",
        "SQLite/s",
        "kubebus : SQLite",
        "bytes a report",
        "SQLite",
        "kubebus : SQLite",
    ];
    let mut table = Table::new(title, &heads);
    let mut memory = Vec::new();
    let mut durable: Vec<[Vec<Measured>; 2]> = GROUPS.iter().map(|_| Default::default()).collect();
    for _ in 0..ROUNDS {
        memory.push(in_a_process("memory", 100, room)?);
        for (all, group) in durable.iter_mut().zip(GROUPS) {
            all[0].push(in_a_process("durable", group, room)?);
            all[1].push(in_a_process("sqlite", group, room)?);
        }
    }
    let blank = || "".to_owned();
    let in_memory = count(median(memory.iter().map(|m| m.rate).collect()));
    table.row([
        "in memory".to_owned(),
        in_memory,
        "1.00".to_owned(),
        blank(),
        blank(),
        blank(),
        blank(),
        blank(),
    ]);
    for ([ours, theirs], group) in durable.iter().zip(GROUPS) {
        table.row(cells(group, &memory, ours, theirs));
    }
    table.note(format!(
        "medians of {ROUNDS} paired rounds, each a process of its own, {REPORTS} reports each; every"
    ));
    table.note(
        "report changes its value; the cloud is away, so that each keeps its outbox row; bytes as in 'store'",
    );
    Ok(table)
}

fn cells(group: usize, memory: &[Measured], ours: &[Measured], theirs: &[Measured]) -> Vec<String> {
    let of = |all: &[Measured], what: fn(&Measured) -> f64| median(all.iter().map(what).collect());
    let ratio = |others: &[Measured], what: fn(&Measured) -> f64| {
        let pairs = ours.iter().zip(others).map(|(ours, other)| what(ours) / what(other));
        format!("{:.2}", median(pairs.collect()))
    };
    let rate: fn(&Measured) -> f64 = |measured| measured.rate;
    let bytes: fn(&Measured) -> f64 = |measured| measured.bytes;
    vec![
        format!("durable, {group} a commit"),
        count(of(ours, rate)),
        ratio(memory, rate),
        count(of(theirs, rate)),
        ratio(theirs, rate),
        count(of(ours, bytes)),
        count(of(theirs, bytes)),
        ratio(theirs, bytes),
    ]
}

/// Reports a second, and bytes that each made the kernel write.
#[derive(Debug)]
struct Measured {
    rate: f64,
    bytes: f64,
}

fn in_a_process(how: &str, group: usize, room: &Path) -> Result<Measured> {
    let me = std::env::current_exe().context("where am I")?;
    let mut child = Command::new(me);
    let ran = child.arg("measure-twins").arg(room).args([how, &group.to_string()]).output();
    let ran = ran.context("start a measurement")?;
    ensure!(ran.status.success(), "{how}: {}", String::from_utf8_lossy(&ran.stderr));
    let words = String::from_utf8(ran.stdout).context("a measurement")?;
    let mut numbers = words.split_whitespace().map(str::parse);
    let mut next = || numbers.next().context("a measurement")?.context("a measurement");
    Ok(Measured { rate: next()?, bytes: next()? })
}

/// In the process of its own: prints reports a second, and bytes a report. Single reports are measured on fewer of
/// them, each costs a sync.
pub(crate) fn measure(room: &Path, how: &str, group: usize) -> Result<()> {
    let dir = tempfile::tempdir_in(room).context("a directory for a store")?;
    let mut sink: Box<dyn Sink> = match how {
        "memory" => Box::new(Nowhere),
        "durable" => Box::new(Redb(RedbStore::open(dir.path().join("store.redb"), CACHE)?)),
        _ => Box::new(Sqlite(open_sqlite(dir.path())?)),
    };
    let mut edge = Edge::new()?;
    sink.take(&edge.take_commits())?;
    for number in 0..DEVICES * PROPERTIES {
        edge.report(number)?;
    }
    sink.take(&edge.take_commits())?;
    let reports = if group == 1 { REPORTS / 10 } else { REPORTS };
    let (before, start) = (written()?, Instant::now());
    for number in 0..reports {
        edge.report(DEVICES * PROPERTIES + number)?;
        if (number + 1).is_multiple_of(group) {
            sink.take(&edge.take_commits())?;
        }
    }
    let (took, bytes): (Duration, u64) = (start.elapsed(), written()? - before);
    println!("{} {}", reports as f64 / took.as_secs_f64(), bytes as f64 / reports as f64);
    Ok(())
}

/// The twin core with its keyspace and outbox, as a node composes them.
struct Edge {
    keyspace: Keyspace,
    replica: Replica,
    twins: EdgeTwins,
    commits: Vec<Commit>,
    now: u64,
}

impl Edge {
    fn new() -> Result<Self> {
        let mut keyspace = Keyspace::new();
        for (key, json) in crate::manifests::at_edge(DEVICES, PROPERTIES) {
            keyspace.put(Key::new(&key)?, json.into());
        }
        let replica = Replica::load(&mut keyspace, 1);
        let twins = EdgeTwins::new(Name::new(crate::manifests::NODE)?, Incarnation(1), 1);
        let mut edge = Self { keyspace, replica, twins, commits: vec![], now: 1 };
        let now = edge.now();
        edge.twins.load(&mut edge.keyspace, now);
        edge.drain()?;
        Ok(edge)
    }

    fn now(&self) -> Now {
        Now { mono: Mono(self.now * 50), wall: UnixMillis(1_700_000_000_000 + self.now / 20) }
    }

    /// Not in order of keys: mappers report as devices answer.
    fn report(&mut self, number: usize) -> Result<()> {
        self.now += 1;
        let property = number.wrapping_mul(733) % (DEVICES * PROPERTIES);
        let (device, property) = (property / PROPERTIES, property % PROPERTIES);
        let name = crate::manifests::device(device);
        let topic = Topic::new(&format!("twin/plant/{name}/report/value-{property:02}"))?;
        let payload = crate::values::number(device, property, number).to_string();
        let now = self.now();
        self.twins.handle_publish(
            None,
            &Who::Anonymous,
            &topic,
            Said::plain(payload.as_bytes()),
            &mut self.keyspace,
            now,
        );
        self.drain()
    }

    fn drain(&mut self) -> Result<()> {
        let now = self.now();
        while let Some(output) = self.twins.poll_output() {
            if let Output::Up { class, key, payload } = output {
                self.replica.push(class, &key, payload, &mut self.keyspace, now)?;
            }
        }
        self.commits.extend(self.keyspace.seal());
        Ok(())
    }

    fn take_commits(&mut self) -> Vec<Commit> {
        std::mem::take(&mut self.commits)
    }
}

/// Where commits go.
trait Sink {
    fn take(&mut self, commits: &[Commit]) -> Result<()>;
}

struct Nowhere;

impl Sink for Nowhere {
    fn take(&mut self, _: &[Commit]) -> Result<()> {
        Ok(())
    }
}

struct Redb(RedbStore);

impl Sink for Redb {
    fn take(&mut self, commits: &[Commit]) -> Result<()> {
        Ok(self.0.commit(commits)?)
    }
}

struct Sqlite(Connection);

/// The rows of the same commits, in one transaction.
impl Sink for Sqlite {
    fn take(&mut self, commits: &[Commit]) -> Result<()> {
        let transaction = self.0.transaction()?;
        {
            let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO entries VALUES (?1, ?2, ?3)")?;
            let mut forget = transaction.prepare_cached("DELETE FROM entries WHERE key = ?1")?;
            for commit in commits {
                for write in &commit.writes {
                    let value: Option<&Bytes> = write.value.as_ref();
                    put.execute((write.key.as_str(), commit.revision.0 as i64, value.map(|v| &v[..])))?;
                }
                for key in &commit.forgotten {
                    forget.execute([key.as_str()])?;
                }
            }
        }
        Ok(transaction.commit()?)
    }
}

//! How many changes a second one thread carries from a cloud core to edge cores.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;

use crate::cores::{Cores, edge_name};
use crate::table::{Table, count, median};
use crate::values::{desired, property_name};

/// In each of the three ways.
const CHANGES: usize = 20_000;

/// Changes of one commit and one batch: a device's properties.
const BATCH: usize = 20;

const EDGES: usize = 1000;
const ROUNDS: usize = 7;

pub(crate) fn run() -> Result<Table> {
    let mut one = Cores::start(1)?;
    let mut many = Cores::start(EDGES)?;
    let (mut sender, mut receiver) = (BTreeMap::new(), BTreeMap::new());
    let mut seconds: [Vec<f64>; 3] = Default::default();
    for round in 0..ROUNDS {
        let took = [
            copy(&mut sender, &mut receiver, round)?,
            sync(&mut one, 1, round)?,
            sync(&mut many, EDGES, round)?,
        ];
        for (all, took) in seconds.iter_mut().zip(took) {
            all.push(took.as_secs_f64());
        }
    }
    ensure!(
        sender == receiver && one.all_hold(&property_name(0, 0), &desired(0, 0, ROUNDS - 1)),
        "not in step"
    );
    let ratio =
        |of: usize, to: usize| median(seconds[of].iter().zip(&seconds[to]).map(|(of, to)| to / of).collect());
    let mut table = Table::new(
        format!("sync: {CHANGES} changes in commits of {BATCH}, one thread, in memory"),
        &["", "changes/s", "to copying", "to one edge"],
    );
    let names = ["encode, decode, two maps", "one edge", "1,000 edges"];
    for (way, name) in names.into_iter().enumerate() {
        let speed = CHANGES as f64 / median(seconds[way].clone());
        let cells =
            [name.to_owned(), count(speed), format!("{:.2}", ratio(way, 0)), format!("{:.2}", ratio(way, 1))];
        table.row(cells);
    }
    table.note(format!("ratios are medians of {ROUNDS} paired rounds"));
    Ok(table)
}

/// The least that any sync does: what changed is encoded, decoded, and lies in a map on both sides.
fn copy(
    sender: &mut BTreeMap<String, Bytes>,
    receiver: &mut BTreeMap<String, Bytes>,
    round: usize,
) -> Result<Duration> {
    let start = Instant::now();
    for device in 0..CHANGES / BATCH {
        let mut batch = Vec::with_capacity(BATCH);
        for property in 0..BATCH {
            let (name, value) = (property_name(device, property), desired(device, property, round));
            sender.insert(name.clone(), value.clone());
            batch.push((name, minicbor::bytes::ByteVec::from(value.to_vec())));
        }
        let wire = minicbor::to_vec(&batch)?;
        let decoded: Vec<(String, minicbor::bytes::ByteVec)> = minicbor::decode(&wire)?;
        receiver.extend(decoded.into_iter().map(|(name, value)| (name, Bytes::from(Vec::from(value)))));
    }
    Ok(start.elapsed())
}

fn sync(cores: &mut Cores, edges: usize, round: usize) -> Result<Duration> {
    let start = Instant::now();
    for device in 0..CHANGES / BATCH {
        for property in 0..BATCH {
            let name = property_name(device, property);
            let key = format!("/e/{}/{name}", edge_name(device % edges));
            cores.put(&key, desired(device, property, round))?;
        }
        cores.run()?;
    }
    Ok(start.elapsed())
}

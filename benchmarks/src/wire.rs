//! What a changed key costs on the wire over its name and value.

use anyhow::{Result, ensure};

use crate::cores::{Cores, edge_name};
use crate::table::{Table, count};
use crate::values::{desired, property_name};

const PROPERTIES: usize = 20;
const BATCHES: [usize; 4] = [1, 10, 100, 10_000];

/// Bytes over name and value.
const AIM: f64 = 24.0;

pub(crate) fn run() -> Result<Table> {
    let mut table = Table::new(
        "wire: bytes that the cloud hands to the stream for one batch of changed keys",
        &["keys", "names and values", "on the stream", "over, a key", "over / aim", "stream / payload"],
    );
    let mut cores = Cores::start(1)?;
    for (time, keys) in BATCHES.into_iter().enumerate() {
        let before = cores.sent;
        let mut payload = 0;
        for number in 0..keys {
            let (device, property) = (number / PROPERTIES, number % PROPERTIES);
            let (name, value) = (property_name(device, property), desired(device, property, time));
            payload += name.len() + value.len();
            cores.put(&format!("/e/{}/{name}", edge_name(0)), value)?;
        }
        cores.run()?;
        ensure!(cores.all_hold(&property_name(0, 0), &desired(0, 0, time)), "the edge was not told");
        let sent = (cores.sent - before) as f64;
        let over = (sent - payload as f64) / keys as f64;
        table.row([
            count(keys as f64),
            count(payload as f64),
            count(sent),
            format!("{over:.1}"),
            format!("{:.2}", over / AIM),
            format!("{:.2}", sent / payload as f64),
        ]);
    }
    table.note(format!("aim: at most {AIM} bytes over; frame headers included, QUIC's own not"));
    Ok(table)
}

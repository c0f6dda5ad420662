//! Catching up over a slow link, and what live messages notice of it.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use metadata::Store;
use metadata::io::RedbStore;

use crate::cluster::{Cluster, EDGE, wait};
use crate::mqtt::Mqtt;
use crate::relay::{Link, Relay};
use crate::table::{Table, count, median, percentile};
use crate::values::number;

const DEVICES: usize = 500;
const PROPERTIES: usize = 20;
const KEYS: usize = DEVICES * PROPERTIES;

/// A site on a mobile network, whose router queues for a second before it drops.
const LINK: Link =
    Link { bits_per_second: 3e6, delay: Duration::from_millis(25), queue: Duration::from_secs(1) };

const ROUNDS: usize = 4;
const PING_EVERY: Duration = Duration::from_millis(100);
const LOOK_EVERY: Duration = Duration::from_millis(10);
const IDLE_PINGS: usize = 30;

/// The whole resync against what its names and values need by themselves.
const AIM_TIME: f64 = 1.15;
/// For one live message in a hundred.
const AIM_DELAY_MS: f64 = 250.0;

pub(crate) fn run(program: &Path, room: &Path) -> Result<Table> {
    let mut relay = None;
    let mut cluster = Cluster::start(program, room, |cloud| {
        let started = Relay::start(cloud, LINK)?;
        let address = started.address;
        relay = Some(started);
        Ok(address)
    })?;
    let relay = relay.context("no link")?;
    cluster.apply(&manifests())?;
    cluster.in_step()?;
    let mut idle = Vec::new();
    let mut pings = Pings::start(&cluster)?;
    pings.wait_for_the_first()?;
    while idle.len() < IDLE_PINGS {
        pings.exchange(&mut idle, || {})?;
    }
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        cluster.edge.kill()?;
        wish(&cluster, round)?;
        relay.forget_first();
        let before = relay.carried_down();
        cluster.start_edge()?;
        rounds.push(catch_up(&cluster, &relay, before)?);
    }
    cluster.cloud.kill()?;
    let payload = payload(&cluster)?;
    Ok(table(payload, &rounds, idle))
}

/// One time of catching up.
#[derive(Debug)]
struct Round {
    /// From the edge's first datagram until the cloud says that it has everything.
    seconds: f64,
    /// Bytes towards the edge.
    carried: f64,
    /// Of the live messages meanwhile, in milliseconds.
    delays: Vec<f64>,
}

fn catch_up(cluster: &Cluster, relay: &Relay, carried_before: u64) -> Result<Round> {
    let (mut pings, mut delays, mut reached) = (Pings::start(cluster)?, Vec::new(), None);
    while reached.is_none() {
        pings.exchange(&mut delays, || {
            if reached.is_none() && cluster.is_in_step() {
                reached = Some((Instant::now(), relay.carried_down()));
            }
        })?;
    }
    pings.hear_the_last(&mut delays)?;
    let (reached, carried) = reached.context("the edge is not in step")?;
    let first = relay.first().context("the edge did not dial")?;
    let carried = (carried - carried_before) as f64;
    Ok(Round { seconds: (reached - first).as_secs_f64(), carried, delays })
}

fn table(payload: f64, rounds: &[Round], idle: Vec<f64>) -> Table {
    let middle = |of: fn(&Round) -> f64| median(rounds.iter().map(of).collect());
    let alone = payload * 8.0 / LINK.bits_per_second;
    let (took, carried) = (middle(|round| round.seconds), middle(|round| round.carried));
    let ratio = took / alone;
    let mut table = Table::new(
        format!("resync: {KEYS} keys over a link of 3 Mbit/s and 50 ms, real processes"),
        &["", "measured", "aim", "measured / aim"],
    );
    let mut fact = |what: &str, measured: String| {
        table.row([what.to_owned(), measured, String::new(), String::new()]);
    };
    fact("names and values", format!("{} bytes", count(payload)));
    fact("on the link, all headers included", format!("{} bytes", count(carried)));
    fact("time that names and values need", format!("{alone:.2} s"));
    fact("first datagram to in step", format!("{took:.2} s"));
    table.row([
        "  the same to names and values".to_owned(),
        format!("{ratio:.2}"),
        AIM_TIME.to_string(),
        format!("{:.2}", ratio / AIM_TIME),
    ]);
    live(&mut table, "idle", idle);
    live(&mut table, "meanwhile", rounds.iter().flat_map(|round| &round.delays).copied().collect());
    table.note(
        "live: a client at the cloud publishes under mesh/ every 100 ms, a client at the edge hears it",
    );
    table
        .note(format!("{ROUNDS} rounds; the edge's process starts anew each time, with what it knew before"));
    table
}

fn live(table: &mut Table, when: &str, mut delays: Vec<f64>) {
    delays.sort_by(f64::total_cmp);
    let (middle, late) = (percentile(&delays, 50), percentile(&delays, 99));
    let what = format!("live messages, {when}: median of {}", delays.len());
    table.row([what, format!("{middle:.0} ms"), String::new(), String::new()]);
    let aim = format!("{AIM_DELAY_MS} ms");
    let what = format!("live messages, {when}: 99 of 100");
    table.row([what, format!("{late:.0} ms"), aim, format!("{:.2}", late / AIM_DELAY_MS)]);
}

/// Names as the edge knows them, and values, as they lie in the cloud's store.
fn payload(cluster: &Cluster) -> Result<f64> {
    let mut store = RedbStore::open(cluster.cloud.store(), 8 << 20)?;
    let prefix = format!("/e/{EDGE}/");
    let rows = store.load()?;
    let wishes = rows.iter().filter_map(|(key, _, value)| {
        let name = key.as_str().strip_prefix(&prefix).filter(|name| name.starts_with("desired/"))?;
        Some(name.len() + value.as_ref()?.len())
    });
    let (keys, bytes) = wishes.fold((0, 0), |(keys, bytes), len| (keys + 1, bytes + len));
    ensure!(keys == KEYS, "the cloud holds {keys} wishes");
    Ok(bytes as f64)
}

/// Devices without words of their own: they have what the model has.
fn manifests() -> String {
    let mut text = "apiVersion: devices.kubeedge.io/v1beta1\nkind: DeviceModel\n\
         metadata: {name: station, namespace: plant}\nspec:\n  properties:\n"
        .to_owned();
    for property in 0..PROPERTIES {
        let _ = writeln!(text, "  - {{name: value-{property:02}, type: STRING, accessMode: ReadWrite}}");
    }
    for device in 0..DEVICES {
        let _ = write!(
            text,
            "---\napiVersion: devices.kubeedge.io/v1beta1\nkind: Device\n\
             metadata: {{name: station-{device:04}, namespace: plant}}\n\
             spec: {{deviceModelRef: {{name: station}}, nodeName: {EDGE}, protocol: {{protocolName: app}}}}\n"
        );
    }
    text
}

/// Some 100 bytes of JSON for each property.
fn wish(cluster: &Cluster, round: usize) -> Result<()> {
    let mut app = Mqtt::connect(cluster.cloud.mqtt(), "bench-app");
    for key in 0..KEYS {
        let (device, property) = (key / PROPERTIES, key % PROPERTIES);
        let n = |salt: usize| number(device, property, round * 8 + salt);
        let value = format!(
            "{{\\\"setpoint\\\":{:.3},\\\"mode\\\":\\\"auto\\\",\\\"ramp\\\":{:.2},\\\"low\\\":{:.2},\\\"high\\\":{:.2},\\\"from\\\":\\\"2026-03-{:02}T{:02}:00:00Z\\\"}}",
            n(0),
            n(1),
            n(2),
            n(3),
            1 + n(4) as usize % 28,
            n(5) as usize % 24,
        );
        app.publish(
            &format!("twin/plant/station-{device:04}/set/value-{property:02}"),
            format!("{{\"value\":\"{value}\"}}"),
        )?;
    }
    app.settle()
}

/// Live messages from the cloud to the edge.
struct Pings {
    says: Mqtt,
    hears: Mqtt,
    sent: Vec<Instant>,
    /// Up to here.
    heard: usize,
}

impl Pings {
    fn start(cluster: &Cluster) -> Result<Self> {
        let mut hears = Mqtt::connect(cluster.edge.mqtt(), "bench-hears");
        hears.subscribe("mesh/ping")?;
        Ok(Self {
            says: Mqtt::connect(cluster.cloud.mqtt(), "bench-says"),
            hears,
            sent: Vec::new(),
            heard: 0,
        })
    }

    /// The cloud must know first that the edge wants them.
    fn wait_for_the_first(&mut self) -> Result<()> {
        wait("a live message", || {
            let mut delays = Vec::new();
            self.exchange(&mut delays, || {}).is_ok() && !delays.is_empty()
        })
    }

    /// Says one, and takes what comes until it is time for the next.
    fn exchange(&mut self, delays: &mut Vec<f64>, mut look: impl FnMut()) -> Result<()> {
        let now = Instant::now();
        self.says.publish("mesh/ping", self.sent.len().to_string())?;
        self.sent.push(now);
        while let Some(left) = PING_EVERY.checked_sub(now.elapsed()) {
            self.hear(left.min(LOOK_EVERY), delays)?;
            look();
        }
        Ok(())
    }

    fn hear(&mut self, wait: Duration, delays: &mut Vec<f64>) -> Result<()> {
        let Some(heard) = self.hears.hear(wait) else { return Ok(()) };
        let number: usize = std::str::from_utf8(&heard.payload)?.parse()?;
        let sent = self.sent.get(number).context("a message that nobody said")?;
        delays.push((heard.at - *sent).as_secs_f64() * 1000.0);
        self.heard = number + 1;
        Ok(())
    }

    /// Those that are late count, too.
    fn hear_the_last(&mut self, delays: &mut Vec<f64>) -> Result<()> {
        wait("the last live message", || {
            self.heard == self.sent.len() || self.hear(LOOK_EVERY, delays).is_err()
        })
    }
}

//! A mapper with many Modbus devices: what it asks, what it costs, and what the dead among them cost the others.

mod gateway;
mod mapper;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use self::gateway::Gateway;
use self::mapper::Mapper;
use crate::mosquitto::Mosquitto;
use crate::mqtt::Mqtt;
use crate::overlay::Options;
use crate::table::{Table, count};

const GATEWAYS: u16 = 10;
/// Devices behind each, by unit.
const UNITS: std::ops::RangeInclusive<u16> = 1..=5;
/// Lines with a dead unit among the living.
const LINES_WITH_DEAD: u16 = 5;
const PERIOD: Duration = Duration::from_secs(1);
const COURSE: Duration = Duration::from_secs(60);

/// Every second holding register and a row of input registers.
const HOLDING: std::ops::Range<u16> = 0..30;
const INPUT: std::ops::Range<u16> = 0..10;

/// One for the holding registers, since the gaps are small, and one for the input registers.
const IDEAL_REQUESTS: f64 = 2.0;
const AIM: f64 = 1.1;

/// Longest wait for all devices to be told for the first time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of mosquitto's address.
const NUMBER: u8 = 9;

/// Who is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dead {
    Nobody,
    /// A gateway with all behind it: it is frozen, neither answers nor hangs up.
    OneGateway,
    /// The last unit behind each of some gateways, which is silent about it while the others wait for their turn.
    Units,
}

impl Dead {
    fn is_dead(self, gateway: u16, unit: u16) -> bool {
        match self {
            Self::Nobody => false,
            Self::OneGateway => gateway == 0,
            Self::Units => gateway < LINES_WITH_DEAD && unit == *UNITS.end(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "all 50 well",
            Self::OneGateway => "5 dead: a frozen gateway",
            Self::Units => "5 dead: one on each of five lines",
        }
    }
}

pub(crate) fn run(program: &Path, room: &Path, options: &Options) -> Result<Table> {
    let course = options.seconds.map_or(COURSE, Duration::from_secs);
    let title = format!(
        "modbus: {GATEWAYS} gateways with {} devices each, 40 registers a second each, {} s",
        UNITS.end(),
        course.as_secs()
    );
    let columns =
        ["", "requests", "ideal", "requests / ideal", "readings", "missed", "CPU s", "% of a core", "MiB"];
    let mut table = Table::new(title, &columns);
    for dead in [Dead::Nobody, Dead::OneGateway, Dead::Units] {
        table.row(one(program, room, dead, course)?.cells(dead));
    }
    table.note(format!(
        "aim: {AIM} requests for one that is needed; ideal: {IDEAL_REQUESTS} for each reading of a device"
    ));
    table.note("requests and ideal are those of the devices that are well, counted by pymodbus's servers");
    table.note("readings: of the devices that are well, as a broker's client hears them; missed: of those that were due");
    Ok(table)
}

struct Course {
    requests: f64,
    due: f64,
    readings: f64,
    cpu: f64,
    seconds: f64,
    mib: f64,
}

impl Course {
    fn cells(&self, dead: Dead) -> Vec<String> {
        let ideal = self.readings * IDEAL_REQUESTS;
        vec![
            dead.name().to_owned(),
            count(self.requests),
            count(ideal),
            format!("{:.3}", self.requests / ideal),
            count(self.readings),
            count((self.due - self.readings).max(0.0)),
            format!("{:.2}", self.cpu),
            format!("{:.1}", self.cpu / self.seconds * 100.0),
            format!("{:.1}", self.mib),
        ]
    }
}

fn one(program: &Path, room: &Path, dead: Dead, course: Duration) -> Result<Course> {
    let mosquitto = Mosquitto::start(room, NUMBER, "")?;
    let gateways: Vec<Gateway> =
        (0..GATEWAYS).map(|g| Gateway::start(room, &units(dead, g))).collect::<Result<_>>()?;
    let mut node = Mqtt::connect(mosquitto.address, "node");
    node.subscribe("twin/plant/+/report")?;
    node.retain("mapper/modbus/config", config(&gateways).to_string())?;
    let mapper = Mapper::start(program, mosquitto.address)?;
    let there: usize = (0..GATEWAYS).map(|gateway| units(dead, gateway).len()).sum();
    let served = hear(&node, PATIENCE, |told| told.len() == there);
    ensure!(served.len() == there, "only {} devices of {there} are served", served.len());
    if dead == Dead::OneGateway {
        gateways[0].freeze()?;
    }
    let (asked, cpu, begin) = (asked(&gateways, dead)?, mapper.cpu()?, Instant::now());
    let told = hear(&node, course, |_| false);
    let seconds = begin.elapsed().as_secs_f64();
    let (requests, cpu) = (self::asked(&gateways, dead)? - asked, mapper.cpu()? - cpu);
    let of_the_well = told.iter().filter(|(device, _)| !is_dead(dead, device));
    Ok(Course {
        requests,
        due: well(dead) * (seconds / PERIOD.as_secs_f64()).floor(),
        readings: of_the_well.map(|(_, readings)| readings).sum(),
        cpu,
        seconds,
        mib: mapper.resident()? / 1024.0,
    })
}

/// Units that are there, whether they will be frozen or not.
fn units(dead: Dead, gateway: u16) -> Vec<u16> {
    UNITS.filter(|unit| dead != Dead::Units || !dead.is_dead(gateway, *unit)).collect()
}

fn well(dead: Dead) -> f64 {
    let all = (0..GATEWAYS).flat_map(|gateway| UNITS.map(move |unit| (gateway, unit)));
    all.filter(|(gateway, unit)| !dead.is_dead(*gateway, *unit)).count() as f64
}

fn is_dead(dead: Dead, device: &str) -> bool {
    let numbers = device.strip_prefix("plc-").and_then(|numbers| numbers.split_once('-'));
    let parsed = numbers.and_then(|(g, u)| Some((g.parse().ok()?, u.parse().ok()?)));
    parsed.is_some_and(|(gateway, unit)| dead.is_dead(gateway, unit))
}

/// Requests that the devices that are well have had.
fn asked(gateways: &[Gateway], dead: Dead) -> Result<f64> {
    let mut asked = 0.0;
    for (number, gateway) in (0..).zip(gateways) {
        let well: Vec<u16> = UNITS.filter(|unit| !dead.is_dead(number, *unit)).collect();
        if !well.is_empty() {
            asked += gateway.asked(&well)?;
        }
    }
    Ok(asked)
}

/// How many readings of each device are told, until it is enough or the time is over: each tells its first input register
/// once.
fn hear(
    node: &Mqtt,
    time: Duration,
    is_enough: impl Fn(&BTreeMap<String, f64>) -> bool,
) -> BTreeMap<String, f64> {
    let (mut told, end) = (BTreeMap::new(), Instant::now() + time);
    while !is_enough(&told) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let Some(heard) = node.hear(left) else { continue };
        let Some(device) = heard.topic.split('/').nth(2) else { continue };
        let is_reading = serde_json::from_slice::<Value>(&heard.payload)
            .is_ok_and(|report| report["i0"]["quality"] == "good");
        if is_reading {
            *told.entry(device.to_owned()).or_default() += 1.0;
        }
    }
    told
}

fn config(gateways: &[Gateway]) -> Value {
    let properties: Vec<Value> = HOLDING
        .map(|n| property(&format!("h{n}"), json!({ "holding": n * 2 })))
        .chain(INPUT.map(|n| property(&format!("i{n}"), json!({ "input": n }))))
        .collect();
    let device = |g: usize, gateway: &Gateway, unit: u16| {
        json!({
            "device": { "namespace": "plant", "name": format!("plc-{g}-{unit}") },
            "connection": { "tcp": gateway.address(), "unit": unit },
            "properties": properties,
        })
    };
    let devices: Vec<Value> = gateways
        .iter()
        .enumerate()
        .flat_map(|(g, gateway)| UNITS.map(move |unit| (g, gateway, unit)))
        .map(|(g, gateway, unit)| device(g, gateway, unit))
        .collect();
    json!({ "devices": devices })
}

fn property(name: &str, address: Value) -> Value {
    json!({ "name": name, "type": "int", "writable": false, "address": address, "poll_ms": PERIOD.as_millis() as u64 })
}

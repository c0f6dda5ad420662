//! `read`: the values of a manifest's devices, without broker or node.

use std::collections::BTreeMap;

use bus::twin::{DeviceConfig, DeviceId};
use bus::{Name, Quality, Sample};

use super::args::ReadArgs;
use super::check::{faults_of, none_here};
use super::stop::Stop;
use super::{Failure, manifests, say};
use crate::io::{Heard, read_once};
use crate::plan::Plan;
use crate::{Mapper, UnixMillis};

const HEAD: [&str; 6] = ["DEVICE", "PROPERTY", "VALUE", "UNIT", "QUALITY", "TIME"];

/// A text longer than this is cut in the table.
const LONGEST_VALUE: usize = 60;

pub(super) async fn read<M: Mapper>(mapper: Name, args: ReadArgs, mut stop: Stop) -> Result<(), Failure> {
    let mut listing = manifests::read(&args.files, &mapper)?;
    if !listing.faults.is_empty() {
        return Err(Failure::Manifests(listing.faults));
    }
    if let Some(device) = &args.device {
        listing.devices.retain(|listed| listed.config.device == *device);
        if listing.devices.is_empty() {
            return Err(Failure::Usage(format!(
                "--device {device}: no such device of {mapper} is in these files"
            )));
        }
    }
    if listing.devices.is_empty() {
        return Err(Failure::Usage(none_here(&mapper, &listing)));
    }
    for fault in listing.devices.iter().flat_map(faults_of::<M>) {
        eprintln!("{fault}");
    }
    let devices: Vec<DeviceConfig> =
        listing.devices.into_iter().map(|listed| polled::<M>(listed.config)).collect();
    let wanted = devices.iter().map(readable::<M>).sum();
    let reading = read_once::<M>(&devices, wanted, async {
        tokio::select! {
            () = tokio::time::sleep(args.patience) => {}
            () = stop.requested() => {}
        }
    });
    let heard = reading.await;
    say(&table(&devices, &heard))?;
    for (device, Heard { error, .. }) in heard.iter().filter(|(_, heard)| !heard.error.is_empty()) {
        eprintln!("{device}: {error}");
    }
    let all: usize = devices.iter().map(|device| device.properties.len()).sum();
    match all - heard.values().map(|heard| heard.samples.len()).sum::<usize>() {
        0 => Ok(()),
        missing => Err(Failure::Other(format!("{missing} of {all} properties were not read"))),
    }
}

/// Where nothing is pushed every property is read, also one that only a push would bring.
fn polled<M: Mapper>(mut device: DeviceConfig) -> DeviceConfig {
    if !M::manifest().pushes {
        device.properties.iter_mut().filter(|p| p.poll_ms == 0).for_each(|p| p.poll_ms = 1000);
    }
    device
}

/// How many properties the mapper makes sense of.
fn readable<M: Mapper>(device: &DeviceConfig) -> usize {
    Plan::<M>::new(device).map_or(0, |plan| plan.points.len())
}

fn table(devices: &[DeviceConfig], heard: &BTreeMap<DeviceId, Heard>) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    for device in devices {
        let read = heard.get(&device.device);
        for property in &device.properties {
            let unit = property.unit.clone().unwrap_or_default();
            let [value, quality, time] = match read.and_then(|heard| heard.samples.get(&property.name)) {
                Some(sample) => cells(sample),
                None => ["-".to_owned(), "not read".to_owned(), String::new()],
            };
            rows.push([device.device.to_string(), property.name.clone(), value, unit, quality, time]);
        }
    }
    aligned(&rows)
}

fn cells(Sample { value, quality, time }: &Sample) -> [String; 3] {
    let quality = match quality {
        Quality::Good => "good",
        Quality::Uncertain => "uncertain",
        Quality::Bad => "bad",
    };
    let shown: String = value.to_string().chars().take(LONGEST_VALUE).collect();
    [shown, quality.to_owned(), clock(*time)]
}

/// In UTC; a device's time may be any number.
fn clock(UnixMillis(time): UnixMillis) -> String {
    /// The last one that a calendar of four-digit years has.
    const LAST: u64 = 253_402_300_799_999;
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(time.min(LAST));
    humantime::format_rfc3339_millis(time).to_string()
}

fn aligned<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let line = |row: &[String; COLUMNS]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus::twin::{Json, PropertyConfig};
    use bus::{Value, ValueType};

    #[test]
    fn the_table_shows_what_was_read_and_what_was_not() {
        let property = |name: &str, unit: Option<&str>| PropertyConfig {
            name: name.into(),
            value_type: ValueType::Float,
            writable: false,
            address: Json::Null,
            poll_ms: 1000,
            minimum: None,
            maximum: None,
            unit: unit.map(str::to_owned),
            deadband: None,
            max_age_ms: None,
        };
        let device: DeviceId = "water/pump".parse().unwrap();
        let properties = vec![property("speed", Some("rpm")), property("temperature", None)];
        let config = DeviceConfig { device: device.clone(), connection: Json::Null, properties };
        let sample = Sample {
            value: Value::Float(1450.5),
            time: UnixMillis(1_760_000_000_123),
            quality: Quality::Uncertain,
        };
        let heard = Heard { samples: [("speed".to_owned(), sample)].into(), error: String::new() };
        assert_eq!(
            table(&[config], &[(device, heard)].into()),
            "\
DEVICE      PROPERTY     VALUE   UNIT  QUALITY    TIME
water/pump  speed        1450.5  rpm   uncertain  2025-10-09T08:53:20.123Z
water/pump  temperature  -             not read"
        );
        assert_eq!(clock(UnixMillis(u64::MAX)), "9999-12-31T23:59:59.999Z");
    }
}

//! What a history costs, in bytes.

use super::*;

/// Bytes of the history for each: 32 MiB for 20,000.
const PER_PROPERTY: u64 = (32 << 20) / 20_000;

/// An edge with devices of 20 properties each, which report every ten seconds; what a sample takes on the disk.
fn edge(properties: u32, rounds: u32, value: impl Fn(u32) -> Value) -> (Site, f64) {
    let mut site = Site::new(u64::from(properties) * PER_PROPERTY);
    let ids: Vec<PropertyId> = (0..properties)
        .map(|n| PropertyId::parse(&format!("water/device-{:04}/property-{:02}", n / 20, n % 20)).unwrap())
        .collect();
    for round in 0..rounds {
        for (n, id) in (0..).zip(&ids) {
            // A device reports at once, and what it says takes some milliseconds to come.
            let time = START + 10_000 * u64::from(round) + u64::from(n / 20) * 10;
            let (value, quality) = (value(n * 7 + round), Quality::Good);
            let sample = Sample { value, time: UnixMillis(time), quality };
            site.history.append(id, &sample, UnixMillis(time + 7)).unwrap();
            if n % 2_000 == 1_999 {
                site.history.flush().unwrap();
            }
        }
    }
    let per_sample = site.disk.written() as f64 / f64::from(rounds * properties);
    (site, per_sample)
}

#[test]
fn a_numeric_sample_takes_seven_bytes_with_two_decimals_and_at_most_fourteen() {
    let (_, decimals) = edge(2_000, 12, |n| Value::Float(f64::from(n % 10_000) / 100.0));
    let (_, any) = edge(2_000, 12, |n| Value::Float(f64::from(n).sqrt()));
    assert!(decimals < 7.5, "{decimals} bytes");
    assert!(any < 13.5, "{any} bytes");
}

#[test]
fn properties_in_no_order_take_two_bytes_more() {
    let mut site = Site::new(32 << 20);
    let mut jitter = bus::backoff::Jitter::new(7);
    for n in 0..100_000u64 {
        let property = (jitter.next_u64() % 500) as u32;
        let time = START + n * 3 + jitter.next_u64() % 50;
        let mut row = row(property, time, Value::Float((jitter.next_u64() % 5_000) as f64 / 100.0));
        row.stored = UnixMillis(time + jitter.next_u64() % 50);
        site.history.append(&row.id, &row.sample, row.stored).unwrap();
    }
    site.history.flush().unwrap();
    let per_sample = site.disk.written() as f64 / 100_000.0;
    assert!(per_sample < 9.0, "{per_sample} bytes");
}

#[test]
fn properties_at_rest_add_a_tenth_to_what_is_written() {
    const QUIET: u32 = 400;
    let size = u64::from(QUIET) * PER_PROPERTY;
    let mut site = Site::new(size);
    let neighbour = id(QUIET);
    let chatter = |site: &mut Site, bytes: u64| {
        let (end, mut samples) = (site.disk.written() + bytes, 0);
        while site.disk.written() < end {
            let time = UnixMillis(START + samples);
            let value = Value::Float((samples % 1_000) as f64 / 100.0);
            site.history.append(&neighbour, &Sample { value, time, quality: Quality::Good }, time).unwrap();
            samples += 1;
        }
        samples
    };
    for round in 0..2 * KEPT as u32 {
        (0..QUIET).for_each(|property| site.say(property, Value::Float(f64::from(property + round) / 100.0)));
        chatter(&mut site, size / 16);
    }
    let before = site.history.stats().carried;
    let chatter = chatter(&mut site, 3 * size);
    let carried = site.history.stats().carried - before;
    assert!(carried >= 2 * u64::from(QUIET) * KEPT, "all of them came round: {carried}");
    assert!(carried < chatter / 10, "{carried} beside {chatter}");
    assert!(site.disk.bytes() as u64 <= size);
    for property in [0, QUIET - 1] {
        assert!(read_one(&mut site.history, property).len() as u64 >= KEPT);
    }
}

#[test]
fn twenty_thousand_properties_take_a_megabyte_of_memory() {
    let (site, _) = edge(20_000, 2, |n| Value::Int(n.into()));
    let bytes = site.history.names.heap_bytes();
    assert_eq!(site.history.names.len(), 20_000);
    assert!(bytes < 1_300_000, "{bytes} bytes");
    let reopened = open(&site.disk, 32 << 20);
    let bytes = reopened.names.heap_bytes();
    assert_eq!(reopened.names.len(), 20_000);
    assert!(bytes < 1_300_000, "{bytes} bytes");
}

use std::sync::Arc;

use super::*;
use crate::io::bad_disk::BadDisk;
use crate::io::disk::Disk;
use crate::store::conformance::{commit, key};

fn sample(n: u64, length: usize) -> Row {
    (
        key(&format!("{PREFIX}{n:020}")),
        Revision(n),
        Some((0..length).map(|at| (at as u64 ^ n) as u8).collect()),
    )
}

fn put((key, revision, value): &Row) -> Commit {
    commit(revision.0, [(key.clone(), value.clone())])
}

fn forget(keys: &[Row]) -> Commit {
    Commit { forgotten: keys.iter().map(|(key, ..)| key.clone()).collect(), ..commit(1, []) }
}

fn open(disk: &BadDisk) -> (Ring, Vec<Row>) {
    Ring::open(disk.open("ring").unwrap()).unwrap()
}

/// Writes over what is on the disk, as a fault of it would.
fn damage(disk: &BadDisk, at: u64, bytes: &[u8]) {
    disk.open("ring").unwrap().write(at, bytes).unwrap();
}

#[test]
fn what_was_appended_comes_back_without_what_was_forgotten() {
    let disk = BadDisk::new(1);
    let rows: Vec<Row> = (1..=9).map(|n| sample(n, 100 * n as usize)).collect();
    let (mut ring, found) = open(&disk);
    assert_eq!(found, []);
    ring.append(&rows.iter().map(put).collect::<Vec<_>>()).unwrap();
    ring.append(&[forget(&rows[..3])]).unwrap();
    assert_eq!(open(&disk).1, rows[3..]);
    let (mut ring, _) = open(&disk);
    let gap = (rows[4].0.clone(), Revision(20), Some(Bytes::from("gap")));
    let tombstone = (rows[5].0.clone(), Revision(21), None);
    ring.append(&[forget(&rows[3..5]), put(&gap), put(&tombstone)]).unwrap();
    let left = [&[gap, tombstone][..], &rows[6..]].concat();
    assert_eq!(open(&disk).1, left);
}

#[test]
fn the_oldest_give_way_and_all_that_may_wait_has_room() {
    let disk = BadDisk::new(1);
    let (mut ring, _) = open(&disk);
    let length = MAX_LANE_BYTES / MAX_TELEMETRY_ENTRIES;
    let rows: Vec<Row> = (1..=3 * MAX_TELEMETRY_ENTRIES as u64).map(|n| sample(n, length)).collect();
    for (at, row) in rows.iter().enumerate() {
        // A full lane: the oldest goes into a gap, and the gap of the sample before goes.
        let gap = (rows[at / 2].0.clone(), row.1, Some(Bytes::from_static(b"gap of some bytes")));
        ring.append(&[put(&gap), forget(&[gap]), put(row)]).unwrap();
    }
    let found = open(&disk).1;
    assert!(found.len() >= MAX_TELEMETRY_ENTRIES, "{} are left", found.len());
    assert_eq!(found, rows[rows.len() - found.len()..]);
}

#[test]
fn the_largest_row_fits_and_a_larger_one_is_refused() {
    let disk = BadDisk::new(1);
    let (mut ring, _) = open(&disk);
    let largest: Vec<Row> = (1..=20).map(|n| sample(n, MAX_VALUE_LEN)).collect();
    largest.iter().for_each(|row| ring.append(&[put(row)]).unwrap());
    assert_eq!(
        ring.append(&[put(&sample(21, SEGMENT_BYTES))]).unwrap_err().kind(),
        io::ErrorKind::FileTooLarge
    );
    let found = open(&disk).1;
    assert_eq!(found, largest[20 - found.len()..]);
    assert!(found.len() >= SEGMENTS as usize - 1);
}

#[test]
fn a_record_that_is_damaged_ends_its_segment_and_what_lay_behind_it_never_comes_back() {
    let disk = BadDisk::new(1);
    let rows: Vec<Row> = (1..=5).map(|n| sample(n, 10)).collect();
    let (mut ring, _) = open(&disk);
    let mut starts = Vec::new();
    for row in &rows {
        starts.push(ring.tail.position());
        ring.append(&[put(row)]).unwrap();
    }
    damage(&disk, starts[2] + 20, &[9]);
    let (mut ring, found) = open(&disk);
    assert_eq!(found, rows[..2]);
    // As long as the one that was damaged, so that the next old record begins where this ends.
    let row = sample(6, 10);
    ring.append(&[put(&row)]).unwrap();
    assert_eq!(open(&disk).1, [&rows[..2], &[row]].concat());
}

#[test]
fn any_damage_leaves_rows_that_were_written() {
    let rows: Arc<[Row]> = (1..=40).map(|n| sample(n, 30_000)).collect();
    for seed in 0..200 {
        let disk = BadDisk::new(seed);
        let (mut ring, _) = open(&disk);
        rows.iter().for_each(|row| ring.append(&[put(row)]).unwrap());
        let mut jitter = bus::backoff::Jitter::new(seed);
        for _ in 0..3 {
            let at = match jitter.next_u64() % 2 {
                0 => start_of(jitter.next_u64()) + jitter.next_u64() % 64,
                _ => jitter.next_u64() % (SEGMENTS * SEGMENT_BYTES as u64 - 64),
            };
            damage(&disk, at, &std::array::from_fn::<u8, 64, _>(|_| jitter.next_u64() as u8));
        }
        let found = open(&disk).1;
        assert!(found.iter().all(|row| rows.contains(row)), "seed {seed}");
        assert!(found.is_sorted());
    }
}

#[test]
fn a_file_that_is_no_ring_becomes_an_empty_one() {
    let disk = BadDisk::new(1);
    damage(&disk, 0, b"these are somebody's notes");
    let (mut ring, found) = open(&disk);
    assert_eq!(found, []);
    ring.append(&[put(&sample(1, 5))]).unwrap();
    assert_eq!(open(&disk).1, [sample(1, 5)]);
}

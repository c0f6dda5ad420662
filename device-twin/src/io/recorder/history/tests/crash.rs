//! Power cuts and damage, at every byte and at every change of the disk.

use super::*;

/// A segment with several frames, and how long it was after each flush with how many samples.
fn frames() -> (Site, Vec<(usize, usize)>) {
    let mut site = Site::new(1 << 20);
    let mut ends = Vec::new();
    for n in 0..6 {
        for property in 0..3 {
            site.say(property + 3 * (n / 2), Value::Float(f64::from(n) + 0.25));
        }
        site.history.flush().unwrap();
        ends.push((site.disk.bytes(), site.given.len()));
    }
    (site, ends)
}

fn segment_name() -> String {
    name_of(1)
}

#[test]
fn a_segment_cut_at_any_byte_gives_what_was_whole_and_goes_on_from_there() {
    let (site, ends) = frames();
    let whole = site.disk.bytes();
    for cut in 0..=whole {
        let disk = site.disk.copy();
        disk.with(|files| files.get_mut(&segment_name()).unwrap().truncate(cut));
        let mut history = open(&disk, 1 << 20);
        let kept = ends.iter().rfind(|(end, _)| *end <= cut).map_or(0, |(_, samples)| *samples);
        assert_eq!(read(&mut history, Which::All), site.given[..kept], "cut at {cut}");
        let next = row(1, START + 100, Value::Bool(true));
        history.append(&next.id, &next.sample, next.stored).unwrap();
        history.finish().unwrap();
        let expected = [&site.given[..kept], &[next]].concat();
        assert_eq!(read(&mut open(&disk, 1 << 20), Which::All), expected, "cut at {cut}");
    }
}

#[test]
fn any_changed_byte_leaves_out_samples_and_makes_none_up() {
    let (site, ends) = frames();
    let given = keys(&site.given);
    for at in 0..site.disk.bytes() {
        for change in [0x01, 0x80, 0xff] {
            let disk = site.disk.copy();
            disk.with(|files| files.get_mut(&segment_name()).unwrap()[at] ^= change);
            let mut history = open(&disk, 1 << 20);
            let rows = read(&mut history, Which::All);
            assert!(keys(&rows).is_subset(&given), "byte {at}");
            let before = ends.iter().rfind(|(end, _)| *end <= at).map_or(0, |(_, samples)| *samples);
            let sound = if at < Head::LEN { 0 } else { before };
            assert_eq!(rows[..sound], site.given[..sound], "byte {at}");
            assert!(rows.len() < site.given.len() && history.stats().damaged > 0, "byte {at}");
            let next = row(1, START + 100, Value::Bool(true));
            history.append(&next.id, &next.sample, next.stored).unwrap();
            history.finish().unwrap();
            let again = read(&mut open(&disk, 1 << 20), Which::All);
            assert_eq!(again, [rows, vec![next]].concat(), "byte {at}");
        }
    }
}

#[test]
fn a_rotten_block_that_names_nothing_costs_its_own_samples_alone() {
    let (site, ends) = frames();
    let [(first, before), (_, after), ..] = ends[..] else { panic!("{ends:?}") };
    let disk = site.disk.copy();
    disk.with(|files| files.get_mut(&segment_name()).unwrap()[first + 8] ^= 0xff);
    let rows = read(&mut open(&disk, 1 << 20), Which::All);
    assert_eq!(rows, [&site.given[..before], &site.given[after..]].concat());
}

#[test]
fn zeros_and_leftovers_in_place_of_a_tail_are_no_samples() {
    let (site, ends) = frames();
    let (end, samples) = ends[2];
    let mut other = Site::new(1 << 20);
    other.given.push(row(0, START, Value::Bool(true))); // so that it begins at another time
    (0..9).for_each(|n| {
        other.say(n, Value::Int(1 << n));
        other.history.flush().unwrap();
    });
    // As a file system may show a block that it gave to another file before.
    let leftover = other.disk.with(|files| files[&segment_name()][Head::LEN..].to_vec());
    for filler in [vec![0; 5_000], vec![0xff; 5_000], leftover] {
        let disk = site.disk.copy();
        disk.with(|files| {
            let file = files.get_mut(&segment_name()).unwrap();
            file.truncate(end);
            file.extend_from_slice(&filler);
        });
        let rows = read(&mut open(&disk, 1 << 20), Which::All);
        assert_eq!(rows.len(), samples, "{:?}", &filler[..4]);
        assert_eq!(rows, site.given[..samples]);
    }
}

/// Plays samples until the power goes at the `fuse`th change of the disk. What was flushed by then must be there.
fn run_until(fuse: u64, (disk, given): (&MemoryDisk, &[Row])) -> bool {
    let disk = disk.copy();
    let history = open(&disk, SMALL);
    let mut site = Site { disk, bytes: SMALL, history, given: given.to_vec() };
    site.disk.set_fuse(Some(fuse));
    let mut flushed = site.given.len();
    for n in 0..800 {
        let row = row(20 + n % 2, START + 10_000 + u64::from(n), Value::Float(f64::from(n) / 3.0));
        if site.give(row).is_err() {
            break;
        }
        if n % 40 == 0 {
            if site.history.flush().is_err() {
                break;
            }
            flushed = site.given.len();
        }
    }
    let is_cut = site.disk.is_blown();
    site.disk.set_fuse(None);
    site.kill();
    let rows = read(&mut site.history, Which::All);
    let found = keys(&rows);
    assert_eq!(found.len(), rows.len(), "fuse {fuse}: none is there twice");
    assert!(found.is_subset(&keys(&site.given)), "fuse {fuse}");
    for (id, given) in by_property(&site.given[..flushed]) {
        let newest = given.len().saturating_sub(KEPT as usize);
        assert!(keys(&given[newest..]).is_subset(&found), "fuse {fuse}: {id}");
    }
    assert!(site.disk.bytes() as u64 <= SMALL + SMALL / SEGMENTS, "fuse {fuse}: {} bytes", site.disk.bytes());
    site.count(3, 50);
    assert!(site.disk.with(|files| !files.contains_key(NEXT)));
    is_cut
}

#[test]
fn a_crash_at_any_change_of_the_disk_loses_only_what_waited() {
    let mut site = Site::new(SMALL);
    site.count(20, 3_000);
    site.history.finish().unwrap();
    let cuts = (0..).take_while(|fuse| run_until(*fuse, (&site.disk, &site.given))).count();
    assert!(cuts > 40, "{cuts} changes, with several new segments among them");
}

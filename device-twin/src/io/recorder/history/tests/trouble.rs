//! Disks that are full, read-only or meddled with.

use super::*;

#[test]
fn a_full_disk_leaves_a_gap_and_takes_samples_again_when_there_is_room() {
    let mut site = Site::new(SMALL);
    site.count(2, 50);
    site.history.flush().unwrap();
    site.disk.set_capacity(Some(site.disk.bytes() + 10));
    let mut refused = Vec::new();
    for n in 0..2_000 {
        let row = row(n % 2, START + 1_000 + u64::from(n), Value::Int(n.into()));
        if site.give(row).is_err() {
            refused.push(START + 1_000 + u64::from(n));
        }
    }
    assert!(site.history.flush().is_err());
    assert!(refused.len() > 1_000);
    assert_eq!(read(&mut site.history, Which::All), site.given, "what waits is in the answer");
    site.disk.set_capacity(None);
    assert!(site.history.flush().unwrap());
    site.give(row(0, START + 5_000, Value::Bool(true))).unwrap();
    site.restart();
    assert_eq!(read(&mut site.history, Which::All), site.given);
    let (since, until) = (UnixMillis(refused[0]), UnixMillis(*refused.last().unwrap()));
    assert_eq!(gaps(&mut site.history), [Gap { since, until, samples: refused.len() as u64 }]);
}

#[test]
fn a_disk_that_refuses_is_tried_by_flushes_alone() {
    let mut site = Site::new(SMALL);
    site.disk.set_read_only(true);
    let samples = |site: &mut Site| {
        (0..100).for_each(|n| assert!(site.give(row(0, START, Value::Int(n))).is_err()));
        site.disk.refused()
    };
    assert_eq!(samples(&mut site), 2, "to write a new segment, and to remove what there is of it");
    assert!(!site.history.flush().unwrap(), "nothing waits");
    assert_eq!(samples(&mut site), 4);
}

#[test]
fn what_does_not_fit_is_not_kept_and_told() {
    let mut site = Site::new(SMALL);
    let large = row(0, START, Value::Text("x".repeat(300)));
    assert!(matches!(site.give(large), Err(NotKept::TooLarge)));
    site.say(0, Value::Bool(true));
    assert_eq!(gaps(&mut site.history), [Gap::one(UnixMillis(START))]);
    assert_eq!(read(&mut site.history, Which::All), site.given);
}

#[test]
fn files_that_are_no_segments_are_set_aside_or_left_alone() {
    let mut site = Site::new(SMALL);
    site.count(3, 1_000);
    site.history.finish().unwrap();
    let (first, last) = (name_of(1), name_of(site.history.next_number - 1));
    site.disk.with(|files| {
        let copy = files[&first].clone();
        files.insert(name_of(70), copy);
        files.insert(name_of(71), b"not ours".to_vec());
        files.insert(name_of(72), Vec::new());
        files.insert("notes.txt".to_owned(), b"mine".to_vec());
        files.insert(NEXT.to_owned(), vec![7; 100]);
    });
    site.kill();
    assert_eq!(read(&mut site.history, Which::All), site.given);
    assert_eq!(site.history.stats().damaged, 3);
    let names: Vec<String> = site.disk.with(|files| files.keys().cloned().collect());
    assert!(
        names.contains(&"notes.txt".to_owned()) && names.contains(&last) && !names.contains(&name_of(70))
    );
    assert!(names.contains(&DAMAGED.to_owned()) && !names.contains(&NEXT.to_owned()));
    site.count(3, 1_000);
    site.restart();
    assert_eq!(site.disk.with(|files| files["notes.txt"].clone()), b"mine");
    assert!(keys(&read(&mut site.history, Which::All)).is_subset(&keys(&site.given)));
}

#[test]
fn a_removed_file_takes_its_samples_with_it_and_no_more() {
    let mut site = Site::new(SMALL);
    site.count(2, 200);
    site.history.flush().unwrap();
    site.say(0, Value::Bool(true));
    site.disk.with(BTreeMap::clear);
    assert!(site.history.flush().is_err());
    let lost = Gap::one(site.given.last().unwrap().stored);
    site.given.clear();
    site.history.flush().unwrap();
    site.count(2, 100);
    site.restart();
    assert_eq!(read(&mut site.history, Which::All), site.given);
    assert_eq!(gaps(&mut site.history), [lost]);
}

#[test]
fn a_history_that_cannot_be_listed_is_an_error_and_one_that_cannot_be_changed_is_read() {
    let mut site = Site::new(SMALL);
    site.count(3, 2_000);
    site.history.flush().unwrap();
    let rows = read(&mut site.history, Which::All);
    site.disk.set_read_only(true);
    site.kill();
    assert_eq!(read(&mut site.history, Which::All), rows);
    site.disk.set_away(true);
    assert!(History::open(Box::new(site.disk.clone()), SMALL).is_err());
}

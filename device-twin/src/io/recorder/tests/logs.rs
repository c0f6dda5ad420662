//! Files of lines: turns, crashes, heads.

use crate::io::recorder::disk::Disk;
use crate::io::recorder::log::Log;
use crate::io::recorder::memory_disk::MemoryDisk;
use crate::io::recorder::rules::{RuleLog, RulePosition};

fn log(disk: &MemoryDisk) -> Log {
    Log::open(boxed(disk), "jsonl", 8_000).unwrap()
}

fn rules(disk: &MemoryDisk, bytes: u64) -> RuleLog {
    RuleLog::open(boxed(disk), bytes).unwrap()
}

fn boxed(disk: &MemoryDisk) -> Box<dyn Disk> {
    Box::new(disk.clone())
}

fn lines(log: &mut Log) -> Vec<String> {
    let mut lines = Vec::new();
    log.read(&mut |_, line| lines.push(String::from_utf8(line.to_vec()).unwrap()));
    lines
}

fn names(disk: &MemoryDisk) -> Vec<String> {
    disk.with(|files| files.keys().cloned().collect())
}

fn line(n: u32) -> String {
    format!("{{\"n\":{n}}}")
}

#[test]
fn two_files_take_turns_and_never_have_more_bytes_than_they_may() {
    let disk = MemoryDisk::default();
    let mut log = log(&disk);
    for n in 0..3_000 {
        log.append_in_turn(line(n).as_bytes()).unwrap();
        if n % 50 == 0 {
            log.finish().unwrap();
            log = super::logs::log(&disk);
            assert!(disk.bytes() <= 8_000, "{}", disk.bytes());
        }
    }
    let kept = lines(&mut log);
    let expected: Vec<String> = (3_000 - kept.len() as u32..3_000).map(line).collect();
    assert_eq!(kept, expected);
    assert!(kept.len() > 4_000 / 12 && names(&disk).len() == 2, "{}", kept.len());
}

#[test]
fn a_log_cut_at_any_byte_goes_on_behind_what_was_whole() {
    let disk = MemoryDisk::default();
    let mut written = log(&disk);
    let mut ends = vec![(0, 0)];
    for n in 0..6 {
        written.append_in_turn(line(n).as_bytes()).unwrap();
        if n % 2 == 1 {
            written.flush().unwrap();
            ends.push((disk.bytes(), n + 1));
        }
    }
    for cut in 0..=disk.bytes() {
        let disk = disk.copy();
        disk.with(|files| files.values_mut().for_each(|file| file.truncate(cut)));
        let mut log = log(&disk);
        let kept = ends.iter().rfind(|(end, _)| *end <= cut).unwrap().1;
        let mut expected: Vec<String> = (0..kept).map(line).collect();
        assert_eq!(lines(&mut log), expected, "cut at {cut}");
        log.append_in_turn(b"more").unwrap();
        log.finish().unwrap();
        expected.push("more".to_owned());
        assert_eq!(lines(&mut super::logs::log(&disk)), expected, "cut at {cut}");
    }
}

#[test]
fn a_removed_file_is_followed_by_a_new_one_and_others_are_left_alone() {
    let disk = MemoryDisk::default();
    disk.with(|files| files.insert("notes.txt".to_owned(), b"mine".to_vec()));
    let mut log = log(&disk);
    log.append_in_turn(b"gone").unwrap();
    log.flush().unwrap();
    disk.with(|files| files.remove("00000001.jsonl"));
    log.append_in_turn(b"here").unwrap();
    log.flush().unwrap();
    assert_eq!(lines(&mut super::logs::log(&disk)), ["here"]);
    assert_eq!(names(&disk), ["00000002.jsonl", "notes.txt"]);
}

#[test]
fn what_is_no_line_is_not_taken() {
    let mut log = log(&MemoryDisk::default());
    for bad in [&b"two\nlines"[..], b"{\"sum\":\"5c27ae01\"}", &vec![b'x'; 300_000]] {
        assert!(log.append_in_turn(bad).is_err());
    }
    assert!(!log.flush().unwrap());
}

/// Says rule lines as an engine does: heads when they are due, which name the line that they come before.
fn play(rules: &mut RuleLog, from: u32, count: u32) {
    for n in from..from + count {
        if rules.becomes_due() || n == from {
            rules.heads(&[format!("spec before {n}").into(), "state".into()]).unwrap();
        }
        rules.line(line(n).as_bytes()).unwrap();
        rules.log().flush().unwrap();
    }
}

#[test]
fn each_file_of_rules_begins_with_heads_and_leads_on_from_them() {
    let disk = MemoryDisk::default();
    let mut log = rules(&disk, 8_000);
    play(&mut log, 0, 700);
    let mut log = rules(&disk, 8_000);
    assert!(log.line(b"after a restart, without heads").is_err());
    play(&mut log, 700, 50);
    assert!(disk.bytes() <= 8_000, "{}", disk.bytes());
    let page = log.page(RulePosition::default());
    let first = page.lines[0].0;
    let mut next = None;
    for (position, line) in &page.lines {
        let line = std::str::from_utf8(line).unwrap();
        if let Some(n) = line.strip_prefix("spec before ") {
            next = Some(n.parse::<u32>().unwrap());
            continue;
        }
        assert!(next.is_some(), "the first line of the log is a head");
        assert!(position.line > 0 || line.starts_with("spec"), "so is the first of each file");
        if line != "state" {
            assert_eq!(line, super::logs::line(next.unwrap()));
            next = next.map(|n| n + 1);
        }
    }
    assert_eq!(next, Some(750));
    assert!(page.lines.last().unwrap().0.file > first.file);
}

#[test]
fn a_file_of_rules_without_room_takes_no_line_until_heads_begin_the_next() {
    let disk = MemoryDisk::default();
    let mut rules = rules(&disk, 2_000);
    rules.heads(&["spec".into()]).unwrap();
    let taken = (0..200).take_while(|n| rules.line(line(*n).as_bytes()).is_ok()).count();
    assert!((50..150).contains(&taken), "{taken}");
    assert!(rules.becomes_due());
    assert!(rules.line(b"x").is_err(), "it would not lead on");
    rules.heads(&["spec".into()]).unwrap();
    rules.line(b"x").unwrap();
    rules.log().flush().unwrap();
    assert_eq!(names(&disk), ["00000001.log", "00000002.log"]);
    assert!(rules.heads(&[vec![b'x'; 600].into()]).is_err(), "heads that fill the file");
}

#[test]
fn a_long_log_of_rules_is_read_page_by_page() {
    let disk = MemoryDisk::default();
    let mut rules = rules(&disk, 4 << 20);
    rules.heads(&["spec".into()]).unwrap();
    let long = "x".repeat(10_000);
    for n in 0..100 {
        rules.line(format!("{n} {long}").as_bytes()).unwrap();
    }
    let (mut from, mut pages, mut read) = (Some(RulePosition::default()), 0, Vec::new());
    while let Some(position) = from {
        let page = rules.page(position);
        from = page.next;
        pages += 1;
        read.extend(page.lines);
    }
    assert_eq!((read.len(), pages), (101, 4));
    assert!(read.is_sorted_by_key(|(position, _)| *position));
    assert!(read[100].1.starts_with(b"99 "));
}

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bus::twin::Outcome;
use bus::{Quality, Value};

use super::memory_disk::MemoryDisk;
use super::*;
use crate::history::audit::{AuditEvent, Decision, Ended};
use crate::history::query::{Gap, Order, Which};

mod logs;

/// A test waits no longer for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

const QUICK: Pace = Pace { flush: Duration::from_millis(10), retry: Duration::from_millis(20) };

/// A folder for one test, gone after it.
struct Place(PathBuf);

impl Place {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kubebus-recorder-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One disk a folder.
#[derive(Clone, Default)]
struct Disks {
    history: MemoryDisk,
    audit: MemoryDisk,
    rules: MemoryDisk,
}

impl Disks {
    fn start(&self) -> Recorder {
        let disks = self.clone();
        let disk = move |folder: &str| match folder {
            "history" => disks.history.clone(),
            "audit" => disks.audit.clone(),
            _ => disks.rules.clone(),
        };
        Recorder::start_on(move |folder| Box::new(disk(folder)), Limits::default(), QUICK).unwrap()
    }

    fn each(&self, work: impl Fn(&MemoryDisk)) {
        [&self.history, &self.audit, &self.rules].into_iter().for_each(work);
    }
}

fn sample(n: u64) -> Record {
    let id = PropertyId::parse(&format!("water/tank/p{}", n % 3)).unwrap();
    let sample = Sample { value: Value::Int(n as i64), time: UnixMillis(n), quality: Quality::Good };
    Record::Sample { id, sample, stored: UnixMillis(n) }
}

fn set(n: u64) -> AuditEntry {
    let decision = Decision { by: "alice".into(), id: Some(n.to_string()), ..Decision::default() };
    entry(n, AuditEvent::Set(decision))
}

fn entry(n: u64, event: AuditEvent) -> AuditEntry {
    let device = "water/valve".parse().unwrap();
    AuditEntry { at: UnixMillis(n), device, property: Some("position".into()), event }
}

fn rule(text: &str) -> Record {
    Record::Rule(Bytes::copy_from_slice(text.as_bytes()))
}

fn heads(texts: &[&str]) -> Record {
    Record::RuleHeads(texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect())
}

/// The numbers of all samples, in their order.
async fn numbers(handle: &Handle) -> Vec<i64> {
    let answer = handle.history(everything()).await.unwrap();
    assert_eq!(answer.next, None);
    let number = |row: crate::history::Row| {
        let Value::Int(n) = row.sample.value else { panic!("{row:?}") };
        n
    };
    answer.rows.into_iter().map(number).collect()
}

fn everything() -> Query {
    let (since, until, limit) = (UnixMillis(0), UnixMillis(u64::MAX), 10_000);
    Query { which: Which::All, since, until, order: Order::OldestFirst, limit, after: None }
}

fn all_decisions() -> AuditQuery {
    AuditQuery { device: None, since: UnixMillis(0), until: UnixMillis(u64::MAX), limit: 1_000 }
}

async fn rule_texts(handle: &Handle) -> Vec<String> {
    let page = handle.rule_lines(RulePosition::default()).await.unwrap();
    assert_eq!(page.next, None);
    page.lines.iter().map(|(_, line)| String::from_utf8(line.to_vec()).unwrap()).collect()
}

/// Until the thread has seen to it.
fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[tokio::test]
async fn what_is_recorded_is_answered_and_found_again_in_its_files() {
    let place = Place::new("found-again");
    for round in 0..2 {
        let recorder = Recorder::start(&place.0, Limits::default()).unwrap();
        let handle = recorder.handle().clone();
        let at = round * 1_000;
        (at..at + 500).for_each(|n| handle.record(sample(n)));
        handle.record(Record::Audit(Box::new(set(at))));
        let ended = Ended { id: at.to_string(), outcome: Outcome::Succeeded, detail: String::new() };
        handle.record(Record::Audit(Box::new(entry(at + 9, AuditEvent::Outcome(ended)))));
        assert!(handle.rule_heads_due());
        handle.record(heads(&["spec", "state"]));
        assert!(!handle.rule_heads_due());
        (0..3).for_each(|n| handle.record(rule(&format!("decision {n}"))));

        let expected: Vec<i64> =
            (0..=round as i64).flat_map(|round| round * 1_000..round * 1_000 + 500).collect();
        assert_eq!(numbers(&handle).await, expected);
        let listing = handle.audit(all_decisions()).await.unwrap();
        let ended = listing.decisions.iter().filter(|listed| !listed.is_open()).count() as u64;
        assert_eq!((ended, listing.has_more), (round + 1, false));
        let lines = ["spec", "state", "decision 0", "decision 1", "decision 2"];
        assert_eq!(rule_texts(&handle).await, lines.repeat(round as usize + 1));
        recorder.finish();
        assert_eq!(handle.stats().recorded, Counts { samples: 500, audit: 2, rules: 4 });
        assert_eq!(handle.stats().history.properties, 3);
        assert_eq!(handle.history(everything()).await, Err(AskError::Ended));
    }
    let audit = std::fs::read_to_string(place.0.join("audit/00000001.jsonl")).unwrap();
    assert!(audit.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{audit}");
}

#[tokio::test]
async fn what_finds_the_queue_full_is_dropped_counted_and_leaves_a_gap() {
    let disks = Disks::default();
    let (queue, over) = (QUEUE as u64, 100);
    // The thread cannot even list the files while they are held here.
    let recorder = disks.history.with(|_| {
        let recorder = disks.start();
        let handle = recorder.handle();
        (0..queue + over).for_each(|n| handle.record(sample(n)));
        handle.record(Record::Audit(Box::new(set(1))));
        assert_eq!(handle.stats().dropped, Counts { samples: over, audit: 1, rules: 0 });
        recorder
    });
    let handle = recorder.handle();
    wait_for("all that was queued is taken", || handle.stats().recorded.samples == queue);
    handle.record(sample(queue + over));
    let expected: Vec<i64> = (0..queue as i64).chain([(queue + over) as i64]).collect();
    assert_eq!(numbers(handle).await, expected);
    let gap = Gap { since: UnixMillis(queue), until: UnixMillis(queue + over - 1), samples: over };
    assert_eq!(handle.history(everything()).await.unwrap().gaps, [gap]);
}

#[tokio::test]
async fn rule_lines_that_do_not_lead_on_are_left_out_until_heads_come() {
    let disks = Disks::default();
    let recorder = disks.history.with(|_| {
        let recorder = disks.start();
        let handle = recorder.handle();
        handle.record(heads(&["spec 1"]));
        handle.record(rule("a"));
        (2..QUEUE as u64).for_each(|n| handle.record(sample(n)));
        assert!(!handle.rule_heads_due());
        handle.record(rule("dropped: the queue is full"));
        assert!(handle.rule_heads_due());
        recorder
    });
    let handle = recorder.handle();
    wait_for("the queue is empty", || handle.stats().recorded.samples == QUEUE as u64 - 2);
    handle.record(rule("dropped: it does not lead on"));
    handle.record(heads(&["spec 2"]));
    handle.record(rule("b"));
    assert_eq!(rule_texts(handle).await, ["spec 1", "a", "spec 2", "b"]);
    assert_eq!(handle.stats().dropped.rules, 2);
}

#[tokio::test]
async fn a_disk_that_refuses_costs_records_and_nothing_else() {
    let disks = Disks::default();
    let recorder = disks.start();
    let handle = recorder.handle();
    handle.record(heads(&["spec 1"]));
    handle.record(sample(0));
    wait_for("the files are there", || handle.stats().history.bytes > 30);
    disks.each(|disk| disk.set_read_only(true));
    handle.record(sample(1));
    handle.record(Record::Audit(Box::new(set(1))));
    wait_for("the thread has seen it", || handle.stats().is_degraded);
    let sized = Value::Text("x".repeat(4_000));
    for n in 2..200 {
        let Record::Sample { id, sample, stored } = sample(n) else { panic!() };
        handle.record(Record::Sample { id, sample: Sample { value: sized.clone(), ..sample }, stored });
    }
    wait_for("what does not fit into memory is lost", || handle.stats().lost.samples > 150);
    assert_eq!(handle.audit(all_decisions()).await.unwrap().decisions.len(), 1, "from memory");
    let errors = handle.stats().disk_errors;
    wait_for("it is tried now and then", || handle.stats().disk_errors > errors);

    disks.each(|disk| disk.set_read_only(false));
    wait_for("it is found well", || !handle.stats().is_degraded);
    handle.record(sample(900));
    let lost = handle.stats().lost.samples;
    let answer = handle.history(everything()).await.unwrap();
    assert_eq!(answer.rows.len() as u64, 201 - lost);
    assert_eq!(answer.gaps.iter().map(|gap| gap.samples).sum::<u64>(), lost);
    recorder.finish();
    let again = disks.start();
    assert_eq!(again.handle().history(everything()).await.unwrap(), answer);
    assert_eq!(again.handle().audit(all_decisions()).await.unwrap().decisions.len(), 1);
}

#[tokio::test]
async fn a_disk_that_is_away_is_opened_when_it_comes() {
    let disks = Disks::default();
    disks.each(|disk| disk.set_away(true));
    let recorder = disks.start();
    let handle = recorder.handle();
    handle.record(heads(&["spec"]));
    (0..10).for_each(|n| handle.record(sample(n)));
    wait_for("they are lost", || handle.stats().lost == Counts { samples: 10, audit: 0, rules: 1 });
    assert_eq!(handle.history(everything()).await, Err(AskError::Closed));
    assert!(handle.rule_heads_due());
    disks.each(|disk| disk.set_away(false));
    wait_for("it is open", || {
        handle.record(sample(20));
        handle.stats().recorded.samples > 0
    });
    let gap = handle.history(everything()).await.unwrap().gaps[0];
    assert_eq!(gap.since, UnixMillis(0));
    assert_eq!(gap.samples, handle.stats().lost.samples);
}

#[test]
fn a_record_is_small_in_the_queue() {
    assert!(size_of::<Command>() <= 120, "{}", size_of::<Command>());
}

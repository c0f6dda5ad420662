use std::collections::{BTreeMap, BTreeSet};

use bus::{Quality, Value};
use proptest::prelude::*;

use super::*;
use crate::history::format::keep::KEPT;
use crate::history::query::MAX_ROWS;
use crate::history::{Answer, Order, Query, Row, Survey, overview};
use crate::io::recorder::memory_disk::MemoryDisk;

mod crash;
mod size;
mod trouble;

/// On the edge's clock when a test begins.
const START: u64 = 1_760_000_000_000;

/// Small enough that a few thousand samples go round: segments of 2 KiB, blocks of 256 bytes.
const SMALL: u64 = 32 << 10;

/// A history, and everything that it was ever given.
struct Site {
    disk: MemoryDisk,
    bytes: u64,
    history: History,
    given: Vec<Row>,
}

impl Site {
    fn new(bytes: u64) -> Self {
        let disk = MemoryDisk::default();
        Self { history: open(&disk, bytes), disk, bytes, given: Vec::new() }
    }

    /// The next sample of a property, a millisecond after the last of any.
    fn say(&mut self, property: u32, value: Value) {
        let time = START + self.given.len() as u64;
        self.give(row(property, time, value)).unwrap();
    }

    fn give(&mut self, row: Row) -> Result<(), NotKept> {
        self.history.append(&row.id, &row.sample, row.stored)?;
        self.given.push(row);
        Ok(())
    }

    fn count(&mut self, properties: u32, samples: u32) {
        (0..samples).for_each(|n| self.say(n % properties, Value::Int(n.into())));
    }

    /// An orderly end and a new start.
    fn restart(&mut self) {
        self.history.finish().unwrap();
        self.history = open(&self.disk, self.bytes);
    }

    /// The process dies: what waits is gone.
    fn kill(&mut self) {
        self.history = open(&self.disk, self.bytes);
    }

    fn given_of(&self, property: u32) -> Vec<Row> {
        let id = id(property);
        self.given.iter().filter(|row| row.id == id).cloned().collect()
    }
}

fn open(disk: &MemoryDisk, bytes: u64) -> History {
    History::open(Box::new(disk.clone()), bytes).unwrap()
}

/// Five properties a device.
fn id(property: u32) -> PropertyId {
    PropertyId::parse(&format!("water/tank-{}/p{}", property / 5, property % 5)).unwrap()
}

fn row(property: u32, time: u64, value: Value) -> Row {
    let sample = Sample { value, time: UnixMillis(time), quality: Quality::Good };
    Row { id: id(property), sample, stored: UnixMillis(time) }
}

fn query(which: Which) -> Query {
    let (since, until) = (UnixMillis(0), UnixMillis(u64::MAX));
    Query { which, since, until, order: Order::OldestFirst, limit: MAX_ROWS, after: None }
}

/// All pages, oldest first.
fn read(history: &mut History, which: Which) -> Vec<Row> {
    let (mut rows, mut query) = (Vec::new(), query(which));
    loop {
        let answer = history.query(&query);
        rows.extend(answer.rows);
        query.after = answer.next;
        if query.after.is_none() {
            return rows;
        }
    }
}

fn read_one(history: &mut History, property: u32) -> Vec<Row> {
    read(history, Which::Property(id(property)))
}

fn gaps(history: &mut History) -> Vec<Gap> {
    history.query(&query(Which::All)).gaps
}

#[test]
fn samples_come_back_as_they_were_given_before_and_after_a_restart() {
    let mut site = Site::new(1 << 20);
    let fields = [("x".to_owned(), Value::Float(0.1))];
    let values = [
        Value::Bool(false),
        Value::Int(i64::MIN),
        Value::Float(21.5),
        Value::Float(1.0 / 3.0),
        Value::Text("auf".into()),
        Value::Struct(fields.into()),
    ];
    for (n, value) in values.iter().enumerate() {
        let mut row = row(n as u32, START + n as u64, value.clone());
        row.sample.quality = [Quality::Good, Quality::Uncertain, Quality::Bad][n % 3];
        row.stored = UnixMillis(START + 10 * n as u64);
        site.give(row).unwrap();
    }
    assert_eq!(read(&mut site.history, Which::All), site.given);
    site.history.flush().unwrap();
    assert_eq!(read(&mut site.history, Which::All), site.given);
    site.restart();
    assert_eq!(read(&mut site.history, Which::All), site.given);
    assert_eq!(read(&mut site.history, Which::Device(id(0).device)), site.given[..5]);
    assert_eq!(read(&mut site.history, Which::Property(id(2))), site.given[2..3]);
    assert_eq!(read(&mut site.history, Which::Property(id(7))), []);
}

#[test]
fn a_query_takes_the_samples_of_its_time_from_the_end_that_it_asks_for() {
    let mut site = Site::new(SMALL);
    site.count(2, 4_000);
    let times = |answer: &Answer| answer.rows.iter().map(|row| row.sample.time.0 - START).collect::<Vec<_>>();
    let (since, until) = (UnixMillis(START + 3_900), UnixMillis(START + 3_910));
    let mut asked = Query { since, until, limit: 3, ..query(Which::Property(id(1))) };
    assert_eq!(times(&site.history.query(&asked)), [3_901, 3_903, 3_905]);
    asked.order = Order::NewestFirst;
    let first = site.history.query(&asked);
    assert_eq!(times(&first), [3_909, 3_907, 3_905]);
    asked.after = first.next;
    let second = site.history.query(&asked);
    assert_eq!((times(&second), second.next), (vec![3_903, 3_901], None));
}

#[test]
fn a_sample_of_the_past_stands_where_its_time_is() {
    let mut site = Site::new(SMALL);
    site.count(1, 10);
    site.give(row(0, START - 5_000, Value::Int(-1))).unwrap();
    site.give(row(0, START + 3, Value::Int(-2))).unwrap();
    site.give(row(0, u64::MAX, Value::Int(-3))).unwrap();
    site.restart();
    let mut expected = site.given.clone();
    expected.sort_by_key(|row| row.sample.time);
    assert_eq!(read_one(&mut site.history, 0), expected);
}

#[test]
fn an_overview_is_of_what_a_query_finds_carried_over_or_still_waiting() {
    let mut site = Site::new(SMALL);
    site.count(3, 12_000);
    let span = overview::Span {
        id: id(1),
        since: UnixMillis(START + 1_000),
        until: UnixMillis(START + 11_990),
        points: 40,
    };
    let mut survey = Survey::new(&span);
    let mut lost = Survey::new(&span);
    read_one(&mut site.history, 1).iter().zip(0..).for_each(|(row, n)| survey.offer(&row.sample, n));
    site.given_of(1).iter().zip(0..).for_each(|(row, n)| lost.offer(&row.sample, n));
    let found = site.history.survey(&span);
    assert_eq!(found, survey.finish());
    assert!(found.points.len() > 1 && found != lost.finish(), "the ring went round");
}

#[test]
fn only_segments_that_can_have_an_answer_are_read() {
    let mut site = Site::new(SMALL);
    site.count(1, 3_000);
    let bytes = site.disk.bytes_read();
    let newest = Query { order: Order::NewestFirst, limit: 10, ..query(Which::All) };
    assert_eq!(site.history.query(&newest).rows.len(), 10);
    let read = site.disk.bytes_read() - bytes;
    assert!(read <= 2 * SMALL / SEGMENTS, "{read} bytes");
}

#[test]
fn a_chatty_neighbour_never_takes_a_quiet_propertys_last_samples() {
    let mut site = Site::new(SMALL);
    for n in 0..3 * KEPT as u32 {
        site.say(1, Value::Int(n.into()));
    }
    (0..3).for_each(|n| site.say(2, Value::Text(format!("state {n}"))));
    let quiet: Vec<Vec<Row>> = [1, 2].map(|property| site.given_of(property)).into();
    for round in 0..40 {
        (0..1_000).for_each(|n| site.say(0, Value::Float(f64::from(n) / 7.0)));
        if round % 7 == 0 {
            site.restart();
        }
        let kept = [1, 2].map(|property| read_one(&mut site.history, property));
        assert_eq!(kept[0][kept[0].len() - KEPT as usize..], quiet[0][2 * KEPT as usize..], "round {round}");
        assert_eq!(kept[1], quiet[1]);
    }
    assert!(site.disk.bytes() as u64 <= SMALL);
    assert!(site.history.stats().carried > 0);
}

#[test]
fn a_property_that_speaks_now_and_then_keeps_its_newest_without_a_hole() {
    let mut site = Site::new(SMALL);
    for round in 0..400 {
        site.say(1, Value::Int(round));
        (0..150).for_each(|n| site.say(0, Value::Float(f64::from(n) / 7.0)));
        if round % 7 != 0 {
            continue;
        }
        let (kept, given) = (read_one(&mut site.history, 1), site.given_of(1));
        let newest = given.len().saturating_sub(KEPT as usize);
        assert!(kept.ends_with(&given[newest..]), "round {round}");
    }
}

#[test]
fn large_values_are_carried_over_fewer_and_never_none() {
    let mut site = Site::new(SMALL);
    let text = |n: u64| Value::Text(format!("{n:0>200}"));
    for n in 0..12 * 4 {
        site.say(1 + n % 4, text(n.into()));
    }
    for n in 0..6_000 {
        site.say(0, Value::Int(n));
    }
    for property in 1..=4 {
        let (kept, given) = (read_one(&mut site.history, property), site.given_of(property));
        assert!(kept.len() < 12 && kept.last() == given.last(), "{}", kept.len());
    }
    assert!(site.disk.bytes() as u64 <= SMALL);
}

#[test]
fn a_smaller_bound_at_the_next_start_is_kept() {
    let mut site = Site::new(4 * SMALL);
    site.count(3, 20_000);
    site.say(9, Value::Bool(true));
    site.bytes = SMALL;
    site.restart();
    (0..1_000).for_each(|n| site.say(n % 3, Value::Int(n.into())));
    site.history.flush().unwrap();
    assert!(site.disk.bytes() as u64 <= SMALL, "{}", site.disk.bytes());
    assert_eq!(read_one(&mut site.history, 9), site.given_of(9));
    assert!(read_one(&mut site.history, 0).ends_with(&site.given_of(0)[7_000 - 330..]));
}

/// What somebody does to a history.
#[derive(Debug, Clone)]
enum Step {
    Say { property: u32, value: Value, late: i64 },
    Chatter { property: u32, samples: u32 },
    Flush,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-100_000i64..100_000).prop_map(|n| Value::Float(n as f64 / 100.0)),
        any::<f64>().prop_filter("comparable", |float| !float.is_nan()).prop_map(Value::Float),
        "[a-z,\"é]{0,40}".prop_map(Value::Text),
    ];
    prop_oneof![
        8 => (0u32..12, value, -2_000i64..5_000).prop_map(|(property, value, late)| Step::Say { property, value, late }),
        4 => (0u32..3, 1u32..200).prop_map(|(property, samples)| Step::Chatter { property, samples }),
        2 => Just(Step::Flush),
        1 => Just(Step::Restart),
    ]
}

fn play(site: &mut Site, step: Step) {
    match step {
        Step::Say { property, value, late } => {
            let stored = START + site.given.len() as u64;
            let mut row = row(property, stored.saturating_add_signed(-late), value);
            row.stored = UnixMillis(stored);
            site.give(row).unwrap();
        }
        Step::Chatter { property, samples } => {
            (0..samples).for_each(|n| site.say(property, Value::Float(f64::from(n) / 3.0)));
        }
        Step::Flush => drop(site.history.flush().unwrap()),
        Step::Restart => site.restart(),
    }
}

/// Rows as what they are found by; no two are the same, for their times as stored differ.
fn keys(rows: &[Row]) -> BTreeSet<(UnixMillis, PropertyId, String)> {
    rows.iter().map(|row| (row.stored, row.id.clone(), format!("{:?}", row.sample))).collect()
}

fn by_property(rows: &[Row]) -> BTreeMap<PropertyId, Vec<Row>> {
    let mut properties: BTreeMap<_, Vec<Row>> = BTreeMap::new();
    rows.iter().for_each(|row| properties.entry(row.id.clone()).or_default().push(row.clone()));
    properties
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_the_history_is_what_a_list_would_be(steps in proptest::collection::vec(step(), 1..120)) {
        let mut site = Site::new(SMALL);
        for step in steps {
            play(&mut site, step);
        }
        site.history.flush().unwrap();
        prop_assert!(site.disk.bytes() as u64 <= SMALL, "{} bytes", site.disk.bytes());
        let rows = read(&mut site.history, Which::All);
        let (found, given) = (keys(&rows), keys(&site.given));
        prop_assert_eq!(found.len(), rows.len(), "none is there twice");
        prop_assert!(found.is_subset(&given));
        prop_assert!(rows.is_sorted_by_key(|row| row.sample.time));
        for (id, given) in by_property(&site.given) {
            let newest = given.len().saturating_sub(KEPT as usize);
            prop_assert!(keys(&given[newest..]).is_subset(&found), "the newest of {}", id);
        }
        // What is not there is older than all that was written since the ring was last half full.
        let missing = site.given.iter().rposition(|row| !found.contains(&keys(std::slice::from_ref(row)).pop_first().unwrap()));
        if let Some(missing) = missing {
            let since = site.given.len() - missing - 1;
            prop_assert!(since as u64 * 60 > SMALL / 2, "only {} since", since);
        }
    }
}

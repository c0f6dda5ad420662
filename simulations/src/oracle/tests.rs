//! What no honest node does, shown to the oracle as commits.

use std::collections::BTreeMap;

use bus::twin::{DesiredVersion, DeviceId, Incarnation, Outcome, ReportedVersion};
use bus::{Mono, Quality, Sample, UnixMillis, Value};
use bytes::Bytes;
use device_twin::Authority;
use device_twin::command::{Account, Command, CommandId, Progress, SET};
use device_twin::twin::{Ack, Desired, Group, Handled, Reported, WriteRecord};
use metadata::{Commit, Key, Revision, Write};

use super::Oracle;
use crate::disk::Image;
use crate::machine::{Machine, Seat};
use crate::manifests::{self, ACTUATOR, SETTING, TRIP_VALUE};

const EDGE: Machine = Machine::Edge(Seat { site: 0, is_clone: false });
const NOW: Mono = Mono(60_000_000);

fn device() -> DeviceId {
    manifests::device(0, 0)
}

fn commit<const N: usize>(revision: u64, rows: [(String, Bytes); N]) -> Commit {
    let writes = rows.map(|(key, value)| Write { key: Key::new(&key).unwrap(), value: Some(value) });
    Commit { revision: Revision(revision), writes: writes.to_vec(), forgotten: vec![] }
}

fn cbor(value: impl minicbor::Encode<()>) -> Bytes {
    minicbor::to_vec(value).unwrap().into()
}

/// The invariant that a node violates which holds `before` and goes on with the commits of `rows`.
fn found<const M: usize, const N: usize>(
    before: [(String, Bytes); M],
    rows: impl IntoIterator<Item = [(String, Bytes); N]>,
) -> Option<&'static str> {
    let mut oracle = Oracle::default();
    let mut image = Image::default();
    image.apply(&commit(1, [("/sync/incarnation".to_owned(), cbor(Incarnation(7)))]));
    image.apply(&commit(1, before));
    oracle.held.insert(EDGE, image);
    for (revision, rows) in (2..).zip(rows) {
        oracle.on_commit(EDGE, &commit(revision, rows), NOW);
    }
    oracle.violation().map(|violation| violation.invariant)
}

fn desired(property: &str, group: Option<Group>) -> (String, Bytes) {
    let (version, issued) = (DesiredVersion { epoch: 0, seq: 1 }, UnixMillis(1));
    let desired = Desired { value: Value::Float(40.0), version, issued, by: "ann".to_owned(), group };
    (format!("/m/desired/{}/{property}", device()), cbor(desired))
}

fn handled(property: &str, outcome: Option<Outcome>) -> (String, Bytes) {
    let version = DesiredVersion { epoch: 0, seq: 1 };
    let ack = outcome.map(|outcome| Ack { version, outcome, detail: String::new() });
    (format!("/t/desired/{}/{property}", device()), cbor(Handled { version, ack, refused: false }))
}

#[test]
fn a_wish_under_an_authority_that_is_over() {
    let taken = |epoch| {
        let authority = Authority { epoch, ..Authority::default() };
        (format!("/t/authority/{}", device()), cbor(authority))
    };
    let decides =
        |epoch, outcome| found([taken(epoch), desired(ACTUATOR, None)], [[handled(ACTUATOR, outcome)]]);
    assert_eq!(decides(1, None), Some("nothing is decided on under an authority that is over"));
    assert_eq!(decides(1, Some(Outcome::Superseded)), None);
    assert_eq!(decides(0, None), None);
}

#[test]
fn half_of_what_is_one_change() {
    let members = [ACTUATOR, SETTING].map(|name| manifests::property(&device(), name).to_string());
    let group = Group { id: "g1".to_owned(), members: members.to_vec() };
    let wished = [ACTUATOR, SETTING].map(|name| desired(name, Some(group.clone())));
    let ends = |ends: [Option<Outcome>; 2]| {
        found(wished.clone(), [[handled(ACTUATOR, ends[0]), handled(SETTING, ends[1])]])
    };
    let invariant = Some("what is changed as one goes on as one, or not at all");
    assert_eq!(ends([None, Some(Outcome::Expired)]), invariant);
    assert_eq!(found(wished.clone(), [[handled(ACTUATOR, None)]]), invariant);
    assert_eq!(ends([None, None]), None);
    assert_eq!(ends([Some(Outcome::Expired), Some(Outcome::Expired)]), None);
}

#[test]
fn a_write_past_an_interlock_that_is_tripped() {
    let guard = (format!("/m/rule/{}", manifests::guard(&device())), Bytes::from_static(b"{}"));
    let reads = |value| {
        let version = ReportedVersion { incarnation: Incarnation(7), rev: 1 };
        let sample = Sample { value: Value::Float(value), time: UnixMillis(1), quality: Quality::Good };
        let reported = Reported { version, sample: Some(sample), ack: None };
        (format!("/t/reported/{}/{}", device(), manifests::SENSOR), cbor(reported))
    };
    let writes = |value| {
        let record = WriteRecord {
            id: "w-1".to_owned(),
            value: Value::Float(value),
            version: None,
            cause: "somebody".to_owned(),
            sent: UnixMillis(1),
            outcome: None,
        };
        (format!("/t/write/{}/{ACTUATOR}", device()), cbor(record))
    };
    let invariant = Some("a tripped interlock lets nothing else through");
    assert_eq!(found([guard.clone(), reads(9.5)], [[writes(80.0)]]), invariant);
    assert_eq!(found([guard.clone(), reads(9.5)], [[writes(TRIP_VALUE)]]), None);
    assert_eq!(found([guard, reads(8.5)], [[writes(80.0)]]), None);
}

#[test]
fn a_command_that_is_carried_out_twice_or_ends_twice() {
    let progress = |progress| {
        let account = Account { progress, detail: String::new(), at: UnixMillis(1) };
        [(format!("/t/command/{}/c1", device()), cbor(account))]
    };
    let command = Command {
        id: CommandId::new("c1").unwrap(),
        name: SET.to_owned(),
        args: BTreeMap::from([(ACTUATOR.to_owned(), Value::Float(40.0))]),
        issued: UnixMillis(1),
        ttl_ms: 1000,
        hold_ms: None,
        when: vec![],
        by: "ann".to_owned(),
        reply: None,
    };
    let given = [(format!("/t/order/{}/c1", device()), serde_json::to_vec(&command).unwrap().into())];
    let [executing, received] = [Progress::Executing, Progress::Received].map(progress);
    let ended = |outcome| progress(Progress::Ended(outcome));
    let goes = |rows: &[[(String, Bytes); 1]]| found([], [std::slice::from_ref(&given), rows].concat());
    let done = ended(Outcome::Succeeded);
    assert_eq!(goes(&[received.clone(), executing.clone(), done.clone()]), None);
    assert_eq!(
        goes(&[executing.clone(), received, executing.clone()]),
        Some("a command is carried out once")
    );
    assert_eq!(goes(&[executing, done, ended(Outcome::Failed)]), Some("an ended command keeps its outcome"));
}

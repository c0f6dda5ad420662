use bus::twin::{DesiredVersion, Incarnation, Outcome, ReportedVersion};
use bus::{Mono, Quality, Sample, UnixMillis, Value};
use metadata::Commit;

use super::*;

mod authority;
mod change;
mod command;
mod presence;
use crate::model::InvalidValue;
use crate::twin::Said;
use crate::twin::{Ack, Availability, cbor, decode};

const MANIFESTS: [(&str, &str); 3] = [
    (
        "/c/resource/devicemodel/water/valve",
        "{apiVersion: devices.kubeedge.io/v1beta1, kind: DeviceModel, metadata: {name: valve, namespace: water}, spec: {properties: [
            {name: position, type: FLOAT, accessMode: ReadWrite, minimum: '0', maximum: '100', unit: percent},
            {name: flow, type: FLOAT, accessMode: ReadOnly}]}}",
    ),
    (
        "/c/resource/device/water/valve",
        "{apiVersion: devices.kubeedge.io/v1beta1, kind: Device, metadata: {name: valve, namespace: water}, spec: {
            deviceModelRef: {name: valve}, nodeName: pump-house, protocol: {protocolName: virtual}}}",
    ),
    (
        "/c/resource/device/water/spare",
        "{apiVersion: devices.kubeedge.io/v1beta1, kind: Device, metadata: {name: spare, namespace: water}, spec: {
            deviceModelRef: {name: valve}}}",
    ),
];

const VALVE: &str = MANIFESTS[1].0;
const DESIRED: &str = "/e/pump-house/desired/water/valve/position";
const LIFE: Incarnation = Incarnation(9);

fn json(yaml: &str) -> Bytes {
    let value: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
    serde_json::to_vec(&value).unwrap().into()
}

fn edge(name: &str) -> Name {
    Name::new(name).unwrap()
}

fn position() -> PropertyId {
    PropertyId::parse("water/valve/position").unwrap()
}

fn version(epoch: u64, seq: u64) -> DesiredVersion {
    DesiredVersion { epoch, seq }
}

const NOW: Now = Now { mono: Mono(5_000_000), wall: UnixMillis(1_000_000) };

struct World {
    twins: CloudTwins,
    ks: Keyspace,
    now: Now,
    seen: Vec<Output>,
    commits: Vec<Commit>,
}

impl World {
    fn new() -> Self {
        let (twins, ks) = (CloudTwins::new(), Keyspace::new());
        let mut world = Self { twins, ks, now: NOW, seen: Vec::new(), commits: Vec::new() };
        for (key, yaml) in MANIFESTS {
            world.apply(key, yaml);
        }
        world
    }

    fn drain(&mut self) {
        while let Some(output) = self.twins.poll_output() {
            self.seen.push(output);
        }
        self.commits.extend(self.ks.seal());
    }

    fn restart(&mut self) {
        self.twins = CloudTwins::new();
        self.twins.load(&mut self.ks, self.now);
        self.drain();
    }

    fn apply(&mut self, key: &str, yaml: &str) {
        let key = Key::new(key).unwrap();
        self.ks.put(key.clone(), json(yaml));
        self.twins.handle_changed(&[key], &mut self.ks, self.now);
        self.drain();
    }

    fn delete(&mut self, key: &str) {
        let key = Key::new(key).unwrap();
        self.ks.delete(&key);
        self.twins.handle_changed(&[key], &mut self.ks, self.now);
        self.drain();
    }

    fn set(&mut self, value: Value) -> Result<DesiredVersion, SetError> {
        let done =
            self.twins.set_desired(&position().device, "position", value, "ann", &mut self.ks, self.now);
        self.drain();
        done
    }

    fn desired(&self, key: &str) -> Option<Desired> {
        decode(self.ks.get(key)?)
    }

    fn up(&mut self, from: &str, life: Incarnation, key: &str, payload: &[u8]) {
        self.twins.handle_up(&edge(from), life, key, payload, &mut self.ks, self.now);
        self.drain();
    }

    fn report(&mut self, life: u64, rev: u64, value: f64, ack: Option<Ack>) {
        let sample = Sample { value: Value::Float(value), time: UnixMillis(3), quality: Quality::Good };
        let version = ReportedVersion { incarnation: Incarnation(life), rev };
        let reported = Reported { version, sample: Some(sample), ack };
        self.up("pump-house", Incarnation(life), "reported/water/valve/position", &cbor(&reported));
    }

    /// What watchers of the valve were told: what it is about, outcome and why.
    fn results(&self) -> Vec<String> {
        let results = self.seen.iter().filter_map(|output| {
            let Output::Publish(publish) = output else { return None };
            publish.as_result("water/valve")
        });
        results.collect()
    }

    /// What is retained on `topic`: the last that was published, unless it took it away.
    fn retained(&self, topic: &str) -> Option<serde_json::Value> {
        let last = self.seen.iter().rev().find_map(|output| {
            let Output::Publish(publish) = output else { return None };
            (publish.topic.as_str() == topic && publish.retain).then_some(&publish.payload)
        });
        last.and_then(|payload| serde_json::from_slice(payload).ok())
    }

    fn pass(&mut self, seconds: u64) {
        self.now.mono = self.now.mono + Duration::from_secs(seconds);
        self.now.wall = UnixMillis(self.now.wall.0 + seconds * 1000);
        self.twins.handle_timeout(&mut self.ks, self.now);
        self.drain();
    }

    fn edge_up(&mut self, name: &str) {
        self.twins.handle_edge_up(&edge(name), &mut self.ks, self.now);
        self.drain();
    }

    fn edge_down(&mut self, name: &str) {
        self.twins.handle_edge_down(&edge(name));
        self.drain();
    }

    fn view(&self) -> TwinView {
        let device = position().device;
        let views = self.twins.view(&device, self.now);
        assert_eq!(self.twins.gist(&device), Gist::of(&views));
        views.into_iter().find(|view| view.property == "position").unwrap()
    }

    fn reported(&self) -> Option<f64> {
        self.view().reported.and_then(|sample| sample.value.as_f64())
    }
}

fn ack(seq: u64, outcome: Outcome) -> Option<Ack> {
    Some(Ack { version: version(0, seq), outcome, detail: String::new() })
}

fn topics(seen: &[Output]) -> Vec<String> {
    let publish = |output: &Output| match output {
        Output::Publish(publish) => Some(publish.topic.to_string()),
        Output::Accept(_) | Output::Reject(..) | Output::Audit(_) | Output::Reply(_) => None,
    };
    seen.iter().filter_map(publish).collect()
}

#[test]
fn a_wish_gets_the_next_version_and_lies_where_its_edge_will_find_it() {
    let mut world = World::new();
    assert_eq!(world.set(Value::Int(40)), Ok(version(0, 1)));
    assert_eq!(world.set(Value::Float(41.0)), Ok(version(0, 2)));
    let expected = Desired {
        value: Value::Float(41.0),
        version: version(0, 2),
        issued: NOW.wall,
        by: "ann".to_owned(),
        group: None,
    };
    assert_eq!(world.desired(DESIRED), Some(expected));
    assert_eq!(topics(&world.seen), ["twin/water/valve/desired/position"; 2]);
}

#[test]
fn what_cannot_be_wished_changes_nothing() {
    let mut world = World::new();
    let before = world.ks.revision();
    let valve = position().device;
    let out_of_range = world.set(Value::Int(101)).unwrap_err();
    assert_eq!(
        twin::explain(&out_of_range),
        "water/valve/position cannot be set to this: 101 is outside 0 to 100"
    );
    let flow = PropertyId::new(&valve, "flow");
    let mut set = |device: &DeviceId, property: &str| {
        world.twins.set_desired(device, property, Value::Int(1), "ann", &mut world.ks, NOW).unwrap_err()
    };
    assert_eq!(set(&valve, "flow"), SetError::Value(flow, InvalidValue::ReadOnly));
    assert_eq!(set(&valve, "x").to_string(), "device water/valve has no property 'x'");
    assert_eq!(set(&"water/pump".parse().unwrap(), "x").to_string(), "device water/pump is not known here");
    let spare: DeviceId = "water/spare".parse().unwrap();
    assert_eq!(set(&spare, "position"), SetError::Unbound(spare.clone()));
    world.drain();
    assert_eq!((world.ks.revision(), world.seen.len()), (before, 0));
}

#[test]
fn a_twin_has_converged_when_its_version_was_carried_out_and_not_when_values_are_equal() {
    let mut world = World::new();
    world.report(9, 1, 40.0, None);
    assert!(world.view().converged, "nothing is desired");
    world.set(Value::Int(40)).unwrap();
    assert!(!world.view().converged);
    world.report(9, 2, 40.0, ack(1, Outcome::Expired));
    assert!(!world.view().converged);
    world.report(9, 3, 40.0, ack(1, Outcome::Succeeded));
    assert!(world.view().converged);
    world.set(Value::Int(40)).unwrap();
    assert!(!world.view().converged, "the same value, wished again");
}

#[test]
fn a_reported_value_never_goes_back() {
    let mut world = World::new();
    world.report(9, 5, 50.0, None);
    world.report(9, 5, 49.0, None);
    world.report(9, 4, 48.0, None);
    assert_eq!(world.reported(), Some(50.0));
    assert_eq!(world.twins.stats(), Stats { repeated: 2, ..Stats::default() });
    world.report(10, 1, 10.0, None);
    assert_eq!(world.reported(), Some(10.0), "a new life of the edge's store begins anew");
    assert_eq!(topics(&world.seen).len(), 2);
}

#[test]
fn an_edge_speaks_for_its_own_devices_only_and_rubbish_is_counted() {
    let mut world = World::new();
    let version = ReportedVersion { incarnation: LIFE, rev: 1 };
    let reported = cbor(&Reported { version, sample: None, ack: None });
    world.up("hill", LIFE, "reported/water/valve/position", &reported);
    world.up("pump-house", LIFE, "reported/water/spare/position", &reported);
    world.up("pump-house", LIFE, "reported/water/valve/position", b"\xff");
    world.up("pump-house", LIFE, "reported/water/valve", &reported);
    world.up("pump-house", LIFE, "state/valve", &reported);
    world.up("pump-house", LIFE, "weather/today", b"fine");
    assert_eq!(world.twins.stats(), Stats { repeated: 0, foreign: 2, malformed: 3 });
    assert_eq!((world.reported(), world.seen.len()), (None, 0));
}

#[test]
fn everything_is_there_after_a_restart() {
    let mut world = World::new();
    world.set(Value::Int(40)).unwrap();
    world.report(9, 3, 40.0, ack(1, Outcome::Succeeded));
    let state = DeviceState { state: Availability::Online, reason: String::new(), last_seen: None };
    world.up("pump-house", LIFE, "state/water/valve", &cbor(&state));
    let result = TwinResult {
        outcome: Outcome::Succeeded,
        version: Some(version(0, 1)),
        detail: String::new(),
        at: UnixMillis(1),
    };
    world.up("pump-house", LIFE, "result/water/valve/position", &cbor(&result));
    let before = TwinView { age_ms: None, ..world.view() };
    let revision = world.ks.revision();
    world.seen.clear();
    world.restart();
    assert_eq!(world.ks.revision(), revision, "a start writes nothing");
    assert_eq!(world.view(), before);
    let away = DeviceState {
        state: Availability::Unknown,
        reason: "edge/pump-house is not connected".to_owned(),
        last_seen: Some(UnixMillis(3)),
    };
    assert_eq!(world.twins.state(&position().device), Some(away));
    world.twins.handle_edge_up(&Name::new("pump-house").unwrap(), &mut world.ks, NOW);
    let known = DeviceState { last_seen: Some(UnixMillis(3)), ..state };
    assert_eq!(world.twins.state(&position().device), Some(known));
    assert_eq!(world.twins.results(&position()).collect::<Vec<_>>(), [&result]);
    assert_eq!(
        topics(&world.seen),
        ["twin/water/valve/reported/position", "twin/water/valve/desired/position", "twin/water/valve/state"]
    );
    assert_eq!(world.set(Value::Int(1)), Ok(version(0, 2)));
}

#[test]
fn only_the_last_results_are_kept() {
    let mut world = World::new();
    for at in 0..20 {
        let result = TwinResult {
            outcome: Outcome::Expired,
            version: None,
            detail: String::new(),
            at: UnixMillis(at),
        };
        world.up("pump-house", LIFE, "result/water/valve/position", &cbor(&result));
    }
    let kept: Vec<u64> = world.twins.results(&position()).map(|result| result.at.0).collect();
    assert_eq!(kept, [12, 13, 14, 15, 16, 17, 18, 19]);
}

#[test]
fn a_restored_cloud_gives_no_version_twice_also_before_it_heard_of_its_edges() {
    let mut world = World::new();
    assert_eq!(world.set(Value::Float(1.0)), Ok(version(0, 1)));
    for (epoch, first) in [(2, version(2, 1)), (7, version(12, 1))] {
        metadata::epoch::set(&mut world.ks, epoch);
        world.restart();
        assert_eq!(world.set(Value::Float(2.0)), Ok(first));
        assert_eq!(world.set(Value::Float(3.0)), Ok(version(first.epoch, 2)));
    }
}

#[test]
fn a_cloud_restored_from_an_old_copy_does_not_give_a_version_twice() {
    let mut world = World::new();
    world.report(9, 1, 40.0, ack(17, Outcome::Succeeded));
    assert_eq!(world.set(Value::Int(1)), Ok(version(0, 18)));
}

#[test]
fn an_edge_that_acknowledges_nonsense_does_not_stop_its_devices() {
    let mut world = World::new();
    for (rev, epoch, seq, next) in
        [(1, 0, u64::MAX, version(2, 1)), (2, 3, 7, version(4, 1)), (3, u64::MAX, u64::MAX, version(4, 2))]
    {
        let nonsense =
            Ack { version: version(epoch, seq), outcome: Outcome::Succeeded, detail: String::new() };
        world.report(9, rev, 40.0, Some(nonsense));
        assert_eq!(world.set(Value::Int(1)), Ok(next));
    }
}

#[test]
fn a_device_that_was_deleted_and_made_again_goes_on_with_its_versions() {
    let mut world = World::new();
    world.set(Value::Int(40)).unwrap();
    world.report(9, 1, 40.0, None);
    world.delete(VALVE);
    assert_eq!(world.desired(DESIRED), None);
    assert_eq!(world.ks.get("/c/reported/water/valve/position"), None);
    assert_eq!(world.twins.view(&position().device, NOW), []);
    world.apply(VALVE, MANIFESTS[1].1);
    assert_eq!(world.view().desired, None);
    assert_eq!(world.set(Value::Int(40)), Ok(version(0, 2)));
}

#[test]
fn wishes_follow_a_device_to_another_edge_as_old_as_they_are() {
    let mut world = World::new();
    world.set(Value::Int(40)).unwrap();
    let wish = world.desired(DESIRED);
    world.apply(VALVE, &MANIFESTS[1].1.replace("pump-house", "hill"));
    assert_eq!(world.desired(DESIRED), None);
    assert_eq!(world.desired("/e/hill/desired/water/valve/position"), wish);
}

#[test]
fn the_manifests_own_wish_is_taken_when_it_changes() {
    let mut world = World::new();
    let with = |text: &str| {
        MANIFESTS[1].1.replace(
            "nodeName",
            &format!("properties: [{{name: position, desired: {{value: '{text}'}}}}], nodeName"),
        )
    };
    world.apply(VALVE, &with("30"));
    assert_eq!(world.view().desired, Some(Value::Float(30.0)));
    world.set(Value::Int(40)).unwrap();
    world.apply(VALVE, &with("30"));
    world.restart();
    assert_eq!(world.view().desired, Some(Value::Float(40.0)), "applied again unchanged, it is no new wish");
    world.apply(VALVE, &with("high"));
    assert_eq!(topics(&world.seen).last().unwrap(), "twin/water/valve/result");
    assert_eq!(world.view().version, Some(version(0, 2)));
}

#[test]
fn a_device_that_is_made_again_of_the_same_file_is_not_moved_by_it() {
    let mut world = World::new();
    let with = |text: &str, edge: &str| {
        let wish = format!("properties: [{{name: position, desired: {{value: '{text}'}}}}], nodeName");
        MANIFESTS[1].1.replace("nodeName", &wish).replace("pump-house", edge)
    };
    world.apply(VALVE, &with("30", "pump-house"));
    assert_eq!(world.view().desired, Some(Value::Float(30.0)));
    for edge in ["pump-house", "hill"] {
        world.delete(VALVE);
        world.restart();
        world.apply(VALVE, &with("30", edge));
        assert_eq!(world.view().desired, None, "at {edge}");
    }
    world.apply(VALVE, &with("35", "hill"));
    assert_eq!(world.view().desired, Some(Value::Float(35.0)), "another text is another wish");
    // Nor by what it wished before that.
    world.delete(VALVE);
    world.apply(VALVE, &with("30", "hill"));
    assert_eq!(world.view().desired, None);
    assert_eq!(topics(&world.seen).last().unwrap(), "twin/water/valve/result", "it is told why");
}

#[test]
fn a_device_that_is_made_again_of_an_older_file_is_not_moved_by_it() {
    let mut world = World::new();
    let with = |text: &str| {
        let wish = format!("properties: [{{name: position, desired: {{value: '{text}'}}}}], nodeName");
        MANIFESTS[1].1.replace("nodeName", &wish)
    };
    for text in ["30", "35", "30", "40"] {
        world.apply(VALVE, &with(text));
        assert_eq!(
            world.view().desired,
            Some(Value::Float(text.parse().unwrap())),
            "it lives: that is a wish"
        );
    }
    for old in ["35", "30", "40"] {
        world.delete(VALVE);
        world.restart();
        world.apply(VALVE, &with(old));
        assert_eq!(world.view().desired, None, "{old}");
        assert_eq!(topics(&world.seen).last().unwrap(), "twin/water/valve/result", "{old}");
    }
    world.delete(VALVE);
    world.apply(VALVE, &with("31"));
    assert_eq!(world.view().desired, Some(Value::Float(31.0)), "that was never wished");
    // By a write with its own wish, the manifest says so too.
    let said = [("position".to_owned(), "32".to_owned())];
    world.twins.is_wished(&position().device, &said, &mut world.ks);
    world.delete(VALVE);
    world.apply(VALVE, &with("31"));
    assert_eq!(world.view().desired, None);
}

#[test]
fn of_a_device_that_wished_very_much_any_wish_may_be_an_old_one() {
    let mut world = World::new();
    let other = PropertyId::parse("water/other/position").unwrap();
    for n in 0..3 * former::MAX_BEFORE {
        former::replaced(&position(), n.to_string().as_bytes(), &mut world.ks);
        former::replaced(&other, b"1", &mut world.ks);
    }
    let bytes = |key: &str| world.ks.get(key).unwrap().len();
    let (most, one) =
        (bytes("/c/manifest-before/water/valve/position"), bytes("/c/manifest-before/water/other/position"));
    assert_eq!((most, one), (16 * (former::MAX_BEFORE + 1), 16));
    former::fold_all_but(|_| false, &mut world.ks);
    assert_eq!(world.ks.range("/c/manifest-before/").count(), 0);
    assert!(["0", "20", "never"].iter().all(|text| former::wished(&position(), text, &world.ks)));
    assert!(former::wished(&other, "1", &world.ks) && !former::wished(&other, "2", &world.ks));
}

#[test]
fn what_manifests_of_devices_that_are_gone_wished_takes_bounded_room() {
    let mut ks = Keyspace::new();
    let device = |n: usize| DeviceId { namespace: edge("water"), name: edge(&format!("valve-{n}")) };
    let id = |n: usize| PropertyId::new(&device(n), "position");
    let rows = |ks: &Keyspace, prefix: &str| -> (usize, usize) {
        ks.range(prefix).fold((0, 0), |(rows, bytes), (_, value)| (rows + 1, bytes + value.len()))
    };
    const GONE: usize = 2000;
    for n in 0..GONE {
        ks.put(former::taken_key(&id(n)), "30".into());
        former::fold(&device(n), &mut ks);
    }
    assert_eq!((rows(&ks, "/c/manifest-desired/").0, rows(&ks, "/c/former/")), (0, (256, 128 << 10)));
    assert!((0..GONE).all(|n| former::wished(&id(n), "30", &ks)), "nothing is forgotten");
    let taken_for_old = |text: &str| (0..GONE).filter(|n| former::wished(&id(*n), text, &ks)).count();
    assert_eq!((taken_for_old("31"), taken_for_old("3")), (0, 0));
}

#[test]
fn what_a_cloud_before_this_one_left_of_devices_that_are_gone_is_folded_at_the_start() {
    let mut world = World::new();
    let gone = PropertyId::parse("water/gone/position").unwrap();
    for id in [&gone, &position()] {
        world.ks.put(former::taken_key(id), "30".into());
    }
    world.restart();
    let left: Vec<&str> = world.ks.range("/c/manifest-desired/").map(|(key, _)| key.as_str()).collect();
    assert_eq!(left, ["/c/manifest-desired/water/valve/position"]);
    assert!(former::wished(&gone, "30", &world.ks) && !former::wished(&position(), "30", &world.ks));
}

#[test]
fn an_app_sets_over_mqtt_and_is_answered() {
    let mut world = World::new();
    let mut say = |topic: &str, payload: &str| {
        let topic = Topic::new(topic).unwrap();
        world.twins.handle_mqtt(
            Some(Ticket(3)),
            &Who::Anonymous,
            &topic,
            Said::plain(payload.as_bytes()),
            &mut world.ks,
            NOW,
        );
        let mut seen = Vec::new();
        while let Some(output) = world.twins.poll_output() {
            seen.push(output);
        }
        seen
    };
    let said = say("twin/water/valve/set/position", r#"{"value": 40}"#);
    assert_eq!(
        (topics(&said), said.last()),
        (vec!["twin/water/valve/desired/position".to_owned()], Some(&Output::Accept(Ticket(3))))
    );
    let said = say("twin/water/valve/set/position", "true");
    let why = "water/valve/position cannot be set to this: wrong type: expected Float, got true";
    assert_eq!(
        (topics(&said), said.last()),
        (vec!["twin/water/valve/result".to_owned()], Some(&Output::Reject(Ticket(3), why.to_owned())))
    );
    assert!(matches!(say("twin/water/valve/report/position", "1")[..], [Output::Reject(..)]));
    let said = say("$hw/events/device/water/valve/twin/get", r#"{"event_id": "g1"}"#);
    let [Output::Publish(answer), Output::Reject(..)] = &said[..] else { panic!("{said:?}") };
    assert_eq!(answer.topic.as_str(), "$hw/events/device/water/valve/twin/get/result");
    let why = "KubeEdge's topics are served at edges; in the cloud publish on twin/<namespace>/<device>/set/<property>";
    let expected = format!(r#"{{"event_id":"g1","timestamp":{},"code":404,"reason":"{why}"}}"#, NOW.wall.0);
    assert_eq!(answer.payload, expected);
    assert!(matches!(say("twin/water/valve/set/position", "{")[..], [Output::Reject(..)]));
    assert_eq!(world.view().version, Some(version(0, 1)));
}

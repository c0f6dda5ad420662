use bus::twin::Json;
use bus::{Mono, Quality, UnixMillis, Value};
use proptest::prelude::*;

use super::*;

fn now(ms: u64) -> Now {
    Now { mono: Mono(ms * 1000), wall: UnixMillis(1_000_000 + ms) }
}

fn device(name: &str) -> DeviceId {
    DeviceId { namespace: Name::new("water").unwrap(), name: Name::new(name).unwrap() }
}

fn property(name: &str, writable: bool) -> PropertyConfig {
    let (minimum, maximum) = (Some(0.0), Some(100.0));
    PropertyConfig { writable, minimum, maximum, ..crate::tests::property(name) }
}

fn config(name: &str) -> DeviceConfig {
    let properties = vec![property("position", true), property("pressure", false)];
    DeviceConfig { device: device(name), connection: Json::Null, properties }
}

fn configure(desk: &mut Desk, devices: &[DeviceConfig]) -> Vec<Output> {
    desk.handle_config(&serde_json::to_vec(&MapperConfig { devices: devices.to_vec() }).unwrap());
    drain(desk)
}

fn drain(desk: &mut Desk) -> Vec<Output> {
    std::iter::from_fn(|| desk.poll_output()).collect()
}

fn start(config: DeviceConfig) -> Output {
    Output::Start { config, after: Duration::ZERO }
}

/// A connected desk that serves `water/valve`.
fn desk() -> Desk {
    let mut desk = Desk::new(Name::new("virtual").unwrap());
    desk.handle_connected();
    configure(&mut desk, &[config("valve")]);
    desk.handle_acked();
    assert!(desk.is_quiet());
    desk
}

fn request(id: &str) -> WriteRequest {
    WriteRequest {
        id: id.into(),
        device: device("valve"),
        property: "position".into(),
        value: Value::Int(40),
        sent: now(0).wall,
        ttl_ms: 1000,
        cause: "test".into(),
    }
}

fn send(desk: &mut Desk, request: &WriteRequest, at: Now) -> Vec<Output> {
    desk.handle_write(&serde_json::to_vec(request).unwrap(), false, at);
    drain(desk)
}

fn results(outputs: Vec<Output>) -> Vec<(String, Outcome)> {
    let results = outputs.into_iter().filter_map(|output| {
        let Output::Publish { topic, payload, retain: false } = output else { panic!("{output:?}") };
        assert_eq!(topic.as_str(), "mapper/virtual/result");
        let result: WriteResult = serde_json::from_slice(&payload).ok()?;
        Some((result.id, result.outcome))
    });
    results.collect()
}

fn report(value: f64) -> BTreeMap<String, Sample> {
    let sample = Sample { value: Value::Float(value), time: UnixMillis(5), quality: Quality::Good };
    [("pressure".to_owned(), sample)].into()
}

#[test]
fn only_devices_that_changed_are_touched() {
    let mut desk = Desk::new(Name::new("virtual").unwrap());
    let changed = DeviceConfig { connection: Json::Int(1), ..config("b") };
    assert_eq!(configure(&mut desk, &[config("a"), config("b")]), [start(config("a")), start(config("b"))]);
    assert_eq!(configure(&mut desk, &[config("a"), config("b")]), []);
    assert_eq!(
        configure(&mut desk, &[config("a"), changed.clone(), config("c")]),
        [Output::Configure(changed.clone()), start(config("c"))]
    );
    assert_eq!(configure(&mut desk, &[changed, config("c")]), [Output::Stop(device("a"))]);
}

#[test]
fn a_device_that_comes_back_waits_until_its_old_task_has_let_go() {
    let mut desk = desk();
    assert_eq!(configure(&mut desk, &[]), [Output::Stop(device("valve"))]);
    assert_eq!(configure(&mut desk, &[config("valve")]), []);
    assert_eq!(results(send(&mut desk, &request("early"), now(0))), [("early".to_owned(), Outcome::Failed)]);
    desk.handle_ended(&device("valve"));
    assert_eq!(drain(&mut desk), [start(config("valve"))]);
}

#[test]
fn nonsense_leaves_the_configuration_as_it_was_and_an_empty_one_ends_it() {
    let mut desk = desk();
    desk.handle_config(b"{nonsense");
    assert!(matches!(&drain(&mut desk)[..], [Output::Warn(_)]));
    desk.handle_config(b"");
    assert_eq!(drain(&mut desk), [Output::Stop(device("valve"))]);
}

#[test]
fn a_crashed_task_starts_again_later_and_its_write_is_unknown() {
    let mut desk = desk();
    assert!(matches!(&send(&mut desk, &request("w"), now(0))[..], [Output::Write(_)]));
    desk.handle_ended(&device("valve"));
    let mut outputs = drain(&mut desk);
    assert_eq!(outputs.remove(0), Output::Start { config: config("valve"), after: LONGEST_WAIT });
    assert_eq!(results(outputs), [("w".to_owned(), Outcome::Unknown)]);
}

#[test]
fn what_was_read_at_another_address_is_not_told_again_under_the_same_name() {
    let reports_after_reconnecting = |change: fn(&mut PropertyConfig)| {
        let mut desk = desk();
        desk.handle_report(&device("valve"), report(3.0));
        let mut new = config("valve");
        change(&mut new.properties[1]);
        configure(&mut desk, &[new]);
        desk.handle_disconnected();
        desk.handle_connected();
        let is_report = |output: &Output| matches!(output, Output::Publish { topic, .. } if topic.as_str() == "twin/water/valve/report");
        drain(&mut desk).iter().filter(|output| is_report(output)).count()
    };
    assert_eq!(reports_after_reconnecting(|property| property.poll_ms = 7), 1);
    assert_eq!(reports_after_reconnecting(|property| property.address = Json::Int(41)), 0);
}

#[test]
fn a_write_is_let_in_once_and_its_result_repeated() {
    let mut desk = desk();
    let mut wanted = request("w");
    wanted.value = Value::Float(40.0);
    let deadline = Deadline { mono: Mono(1_010_000), wall: UnixMillis(1_001_000) };
    let target = Target::of(&config("valve"), &wanted.property).unwrap();
    let order = Output::Write(Box::new(Order { request: wanted, deadline, target }));
    assert_eq!(send(&mut desk, &request("w"), now(10)), [order], "an int fits a float");
    assert_eq!(send(&mut desk, &request("w"), now(20)), [], "it is on its way");
    desk.finish("w", Outcome::Succeeded, String::new());
    let done = [("w".to_owned(), Outcome::Succeeded)];
    assert_eq!(results(drain(&mut desk)), done);
    assert_eq!(results(send(&mut desk, &request("w"), now(30))), done);
    assert_eq!(results(send(&mut desk, &request("w"), now(5000))), done, "even when it would have expired");
}

#[test]
fn what_cannot_be_done_is_refused_before_the_driver_hears_of_it() {
    let base = || request("w");
    let table = [
        (WriteRequest { sent: UnixMillis(1), ..base() }, Outcome::Expired),
        (WriteRequest { ttl_ms: 0, ..base() }, Outcome::Expired),
        (WriteRequest { property: "pressure".into(), ..base() }, Outcome::Rejected),
        (WriteRequest { property: "nonsense".into(), ..base() }, Outcome::Rejected),
        (WriteRequest { device: device("pump"), ..base() }, Outcome::Rejected),
        (WriteRequest { value: Value::Text("open".into()), ..base() }, Outcome::Rejected),
        (WriteRequest { value: Value::Float(100.5), ..base() }, Outcome::Rejected),
        (WriteRequest { value: Value::Int(-1), ..base() }, Outcome::Rejected),
    ];
    for (request, expected) in table {
        let outputs = send(&mut desk(), &request, now(10));
        assert_eq!(results(outputs), [("w".to_owned(), expected)], "{request:?}");
    }
}

#[test]
fn a_retained_write_may_be_of_any_age_and_is_refused() {
    let mut desk = desk();
    desk.handle_write(&serde_json::to_vec(&request("w")).unwrap(), true, now(0));
    assert_eq!(results(drain(&mut desk)), [("w".to_owned(), Outcome::Rejected)]);
}

#[test]
fn a_new_connection_says_everything_again_and_writes_nothing() {
    let mut desk = desk();
    send(&mut desk, &request("w"), now(0));
    desk.handle_report(&device("valve"), report(3.0));
    desk.finish("w", Outcome::Succeeded, String::new());
    let said = drain(&mut desk);
    desk.handle_disconnected();
    desk.finish("never", Outcome::Failed, String::new());
    desk.handle_report(&device("valve"), report(3.0));
    assert_eq!(drain(&mut desk), []);

    desk.handle_connected();
    let mut again = drain(&mut desk);
    let online = again.remove(0);
    assert!(matches!(online, Output::Publish { retain: true, payload, .. } if payload == b"online"));
    assert_eq!(again, said);
    assert_eq!(said.len(), 2, "the result, then the report");
}

#[test]
fn a_result_without_a_connection_comes_with_the_next_one() {
    let mut desk = desk();
    send(&mut desk, &request("w"), now(0));
    desk.handle_disconnected();
    desk.finish("w", Outcome::Failed, "line cut".into());
    assert_eq!(drain(&mut desk), []);
    desk.handle_connected();
    assert_eq!(results(drain(&mut desk).split_off(1)), [("w".to_owned(), Outcome::Failed)]);
}

#[test]
fn a_full_window_melts_reports_into_the_latest_and_starves_nobody() {
    let mut desk = desk();
    configure(&mut desk, &[config("a"), config("b")]);
    let mut published = Vec::new();
    for i in 0..200 {
        desk.handle_report(&device("a"), report(f64::from(i)));
        desk.handle_report(&device("b"), report(f64::from(i)));
        published.extend(drain(&mut desk));
    }
    assert_eq!(published.len(), WINDOW);
    for _ in 0..2 {
        desk.handle_acked();
        let Some(Output::Publish { topic, payload, .. }) = desk.poll_output() else { panic!() };
        let report: ReportMany = serde_json::from_slice(&payload).unwrap();
        let [(name, ReportBody::Full { value, .. })] = &report.into_iter().collect::<Vec<_>>()[..] else {
            panic!()
        };
        assert_eq!((name.as_str(), value), ("pressure", &Value::Float(199.0)));
        published.push(Output::Warn(topic.as_str().to_owned()));
    }
    let topics = published.split_off(WINDOW);
    assert_eq!(topics, ["a", "b"].map(|d| Output::Warn(format!("twin/water/{d}/report"))));
    assert_eq!(desk.poll_output(), None);
}

#[test]
fn a_large_report_goes_out_in_parts() {
    let mut desk = desk();
    let names: Vec<_> = (0..MAX_REPORT + 1).map(|i| format!("p{i:04}")).collect();
    let mut large = config("valve");
    large.properties = names.iter().map(|name| property(name, false)).collect();
    configure(&mut desk, &[large]);
    let (_, sample) = report(1.0).pop_first().unwrap();
    desk.handle_report(&device("valve"), names.iter().map(|name| (name.clone(), sample.clone())).collect());
    let parts = drain(&mut desk).into_iter().map(|output| {
        let Output::Publish { payload, .. } = output else { panic!("{output:?}") };
        serde_json::from_slice::<ReportMany>(&payload).unwrap().into_keys().collect::<Vec<_>>()
    });
    assert_eq!(parts.collect::<Vec<_>>(), [names[..MAX_REPORT].to_vec(), names[MAX_REPORT..].to_vec()]);
}

#[test]
fn what_is_not_configured_is_not_reported() {
    let mut desk = desk();
    desk.handle_report(&device("pump"), report(1.0));
    let mut other = report(1.0);
    let (_, sample) = other.pop_first().unwrap();
    desk.handle_report(&device("valve"), [("nonsense".to_owned(), sample)].into());
    assert_eq!(drain(&mut desk), []);
}

proptest! {
    #[test]
    fn no_bytes_break_the_desk(config in proptest::collection::vec(any::<u8>(), 0..200), write in ".{0,200}") {
        let mut desk = desk();
        desk.handle_config(&config);
        desk.handle_write(write.as_bytes(), false, now(0));
        drain(&mut desk);
    }

    /// Whatever comes in whatever order, an id is ordered at most once and only while it is good.
    #[test]
    fn an_id_is_ordered_at_most_once_and_never_late(
        arrivals in proptest::collection::vec((0u8..4, 0u64..3000, 0u8..4), 1..60),
    ) {
        let mut desk = desk();
        let mut ordered = BTreeSet::new();
        let mut clock = 0;
        for (id, wait, event) in arrivals {
            clock += wait / 10;
            match event {
                0 => { desk.handle_disconnected(); desk.handle_connected(); }
                1 => desk.finish(&id.to_string(), Outcome::Succeeded, String::new()),
                _ => {}
            }
            for output in send(&mut desk, &request(&id.to_string()), now(clock)) {
                if let Output::Write(order) = output {
                    prop_assert!(ordered.insert(order.request.id));
                    prop_assert!(clock < 1000);
                }
            }
        }
    }
}

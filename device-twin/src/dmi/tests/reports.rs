//! What mappers report, and how the twins hear it.

use std::collections::BTreeMap;

use super::*;
use crate::dmi::api::{
    DeviceStatus, ReportDeviceStatesRequest, ReportDeviceStatusRequest, Twin, TwinProperty,
};

fn status(twins: Vec<Twin>) -> Request {
    Request::Status(ReportDeviceStatusRequest {
        device_name: "v1".to_owned(),
        device_namespace: "plant".to_owned(),
        reported_device: Some(DeviceStatus { twins, ..DeviceStatus::default() }),
    })
}

fn twin(property: &str, value: &str, metadata: &[(&str, &str)]) -> Twin {
    let metadata: BTreeMap<_, _> = pairs(metadata).into_iter().collect();
    Twin {
        property_name: property.to_owned(),
        observed_desired: Some(TwinProperty { value: "99".to_owned(), ..TwinProperty::default() }),
        reported: Some(TwinProperty { value: value.to_owned(), metadata }),
    }
}

/// What the twins hear of one value.
#[track_caller]
fn heard(world: &mut World, twin: Twin) -> serde_json::Value {
    let ticket = world.ask(&status(vec![twin]));
    let outputs = world.outputs();
    let [Output::Say(answers, topic, payload)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((answers, topic.as_str()), (&Some(ticket), "twin/plant/v1/report"));
    serde_json::from_slice(payload).unwrap()
}

#[test]
fn a_report_has_its_own_time_and_type_and_wishes_nothing() {
    let mut world = World::registered();
    let at = [("timestamp", "1700000000111"), ("type", "string")];
    let position = heard(&mut world, twin("position", "25", &at));
    let expected = json!({ "position": { "value": 25, "time": 1_700_000_000_111_u64, "quality": "good" } });
    assert_eq!(position, expected);
    for (property, text, value) in [
        ("position", "25.0", json!(25.0)),
        ("position", "wide open", json!("wide open")),
        ("pressure", "1e-3", json!(0.001)),
        ("pressure", "NaN", json!("NaN")),
        ("label", "25", json!("25")),
        ("no-such", "1", json!("1")),
    ] {
        let body = heard(&mut world, twin(property, text, &[]));
        assert_eq!(body, json!({ property: { "value": value, "quality": "good" } }), "{text}");
    }
}

#[test]
fn what_is_not_there_is_left_out_and_nothing_at_all_is_refused() {
    let mut world = World::registered();
    let nothing = Twin { property_name: "position".to_owned(), ..Twin::default() };
    assert_eq!(heard(&mut world, nothing), json!({}));
    let mut refused = |request: Request| {
        world.ask(&request);
        let outputs = world.outputs();
        let [Output::Reject(_, why)] = &outputs[..] else { panic!("{outputs:?}") };
        why.clone()
    };
    let no_twins = "ReportDeviceStatusRequest does not have twin data";
    assert_eq!(refused(status(vec![])), no_twins);
    let named = ReportDeviceStatusRequest { device_name: "v1".to_owned(), ..Default::default() };
    assert_eq!(refused(Request::Status(named)), no_twins);
    let invalid = "ReportDeviceStatesRequest is invalid data";
    let of = |device: &str, state: &str| {
        let (device_name, state) = (device.to_owned(), state.to_owned());
        Request::States(ReportDeviceStatesRequest { device_name, state, ..Default::default() })
    };
    assert_eq!(refused(of("v1", "")), invalid);
    assert_eq!(refused(of("", "ok")), invalid);
    assert_eq!(refused(of("No Name", "ok")), "no device has this name");
}

#[test]
fn a_mapper_that_knows_no_namespace_speaks_of_the_default_one() {
    let mut world = World::new();
    let ticket = world.ask(&Request::States(ReportDeviceStatesRequest {
        device_name: "v1".to_owned(),
        state: "OK".to_owned(),
        ..Default::default()
    }));
    let of_default = DeviceId { namespace: name("default"), name: name("v1") };
    assert_eq!(world.outputs(), [Output::State(ticket, of_default, "ok".to_owned())]);
}

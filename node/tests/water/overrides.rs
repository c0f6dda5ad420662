//! Somebody at the site takes the valve over while the cloud is away.

use serde_json::json;

use crate::harness::mqtt::{Subscriber, V5};
use crate::time::{hours, seconds};
use crate::works::{POSITION, Setup, Works};

const RESULT: &str = "twin/water/valve/result";

const MAY_OVERRIDE: &str = "\
apiVersion: kubebus.io/v1alpha1
kind: TwinPolicy
metadata: {name: valve-override, namespace: water}
spec: {model: valve, property: position, localOverride: true}
";

#[test]
fn a_wish_made_while_the_site_held_the_authority_is_superseded_and_the_valve_does_not_flap() {
    let works = Works::start(&Setup { more: MAY_OVERRIDE.to_owned(), ..Setup::default() });
    let told = Subscriber::start(works.cloud(), V5, RESULT);
    works.cut_off();
    works.edge.say(&["twin", "take", "water/valve", "--reason", "repair at the pump"]);
    let said = works.edge.say(&["twin", "set", "water/valve", "position", "40"]);
    assert_eq!(said, "water/valve position desired 40, version 1.1");
    works.edge.twin_becomes(POSITION, "/converged", json!(true));
    // The cloud does not know, and wishes otherwise, twice.
    works.wish(90.0);
    let version = works.wish(80.0);
    works.time.pass(hours(2), 300.0);
    assert!(works.is_cut_off());

    works.mend();
    let superseded = told.gets(RESULT, "/outcome", &json!("superseded")).json();
    assert_eq!((&superseded["property"], &superseded["version"]), (&json!("position"), &json!(version)));
    let why = superseded["detail"].as_str().unwrap();
    assert!(why.contains("repair at the pump"), "{why}");
    works.cloud().twin_becomes(POSITION, "/version", json!("1.1"));
    works.cloud().twin_becomes(POSITION, "/desired", json!(40.0));
    works.time.pass(seconds(60), 10.0);
    assert_eq!(works.plant.positions(), [40.0], "moved once, by whoever stood there");

    works
        .cloud()
        .run(&["twin", "set", "water/valve", "position", "80"])
        .refused(5, &["the edge holds the authority", "repair at the pump", "kubebus twin take"]);
    works.edge.say(&["twin", "hand-back", "water/valve"]);
    works.cloud().twin_becomes(POSITION, "/authority/epoch", json!(2));
    assert_eq!(works.plant.positions(), [40.0], "and handing back moves nothing");
    works.wish_acts(60.0);
    assert_eq!(works.plant.positions(), [40.0, 60.0]);
}

//! Two valves that are changed as one.

use serde_json::json;

use crate::time::seconds;
use crate::works::{POSITION, Setup, Works};

const SECOND: (&str, &str) = ("water/valve2", "position");

const SECOND_VALVE: &str = "\
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: valve2, namespace: water}
spec:
  deviceModelRef: {name: valve}
  nodeName: a
  protocol: {protocolName: virtual, configData: {socket: $SECOND}}
  properties:
    - {name: position, collectCycle: $CYCLE, visitors: {protocolName: virtual, configData: {register: position}}}
";

impl Works {
    fn with_two_valves() -> Self {
        let mut setup = Setup { more: SECOND_VALVE.to_owned(), ..Setup::default() };
        setup.utility.valve2 = Some(setup.utility.valve.clone());
        let works = Self::start(&setup);
        works.cloud().twin_becomes(SECOND, "/reported/quality", json!("good"));
        works
    }

    #[track_caller]
    fn wish_both(&self, one: f64, other: f64) {
        let (one, other) = (one.to_string(), other.to_string());
        self.cloud().say(&["twin", "set", POSITION.0, POSITION.1, &one, SECOND.0, SECOND.1, &other]);
    }

    #[track_caller]
    fn both_end(&self, outcome: &str) {
        for id in [POSITION, SECOND] {
            self.cloud().twin_becomes(id, "/ack/outcome", json!(outcome));
        }
    }

    fn told(&self) -> (Vec<f64>, Vec<f64>) {
        (self.plant.positions(), self.plant.positions2())
    }
}

#[test]
fn two_valves_are_moved_as_one_or_not_at_all() {
    let works = Works::with_two_valves();
    works.wish_both(20.0, 80.0);
    works.both_end("succeeded");
    assert_eq!(works.told(), (vec![20.0], vec![80.0]));

    // Somebody at the site holds the second one: the first is not closed alone.
    works.edge.say(&["twin", "set", "water/valve2", "position", "70"]);
    works.time.pass(seconds(15), 5.0);
    assert_eq!(works.told(), (vec![20.0], vec![80.0, 70.0]));
    works.wish_both(0.0, 100.0);
    works.both_end("superseded");
    let first = works.cloud().twin(POSITION.0, POSITION.1)["ack"]["detail"].clone();
    assert!(first.as_str().unwrap().starts_with("water/valve2/position: slot 8"), "{first}");
    assert_eq!(works.told(), (vec![20.0], vec![80.0, 70.0]));

    works
        .cloud()
        .run(&["twin", "set", "water/valve", "position", "0", "water/valve2", "position", "101"])
        .refused(2, &["101 is outside 0 to 100"]);
    assert_eq!(works.cloud().twin(POSITION.0, POSITION.1)["desired"], json!(0.0), "as before");
}

#[test]
fn two_valves_that_were_wished_during_an_outage_both_stay_where_they_are() {
    let works = Works::with_two_valves();
    works.cut_off();
    works.wish_both(0.0, 100.0);
    works.time.pass(seconds(600), 20.0);
    works.mend();
    works.both_end("expired");
    assert_eq!(works.told(), (vec![], vec![]));
}

//! The last words of one device: what is known of each point, and what of it has not been passed on.
//!
//! Pure. Memory is bounded by the number of points: what comes faster than it is passed on melts into the latest value.

use std::collections::{BTreeMap, BTreeSet};

use kubebus_sdk::{Error, Quality, UnixMillis, Value, ValueType};
use mapper_payload::{Body, NotAValue, Picked, Sought};

/// Points of one device that are remembered; beyond it those that are only polled are forgotten, and learnt again.
const MAX_POINTS: usize = 8192;

/// What a point listens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Messages on this topic.
    Topic(String, Sought),
    /// Any message of the device.
    Body(Sought),
    /// A Sparkplug metric.
    Metric(String),
}

/// What is known of a point.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Known {
    pub(crate) value: Value,
    pub(crate) quality: Quality,
    pub(crate) time: UnixMillis,
}

#[derive(Debug)]
struct Spot {
    source: Source,
    value_type: ValueType,
    pushed: bool,
    last: Option<Known>,
    /// What the device last said instead of a value.
    fault: Option<String>,
    /// The device itself has said it since the session began; counted, so that one can wait for the next time.
    live: u64,
}

/// How a value reached us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Live,
    /// Kept by the broker, who knows since when.
    Retained,
}

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Board {
    spots: BTreeMap<String, Spot>,
    changed: BTreeSet<String>,
    offline: bool,
    /// What it is reached through is gone, whatever it last said of itself.
    bridge_offline: bool,
    /// Said by the device about a command that it cannot carry out, with the command's name.
    refusals: Vec<String>,
}

impl Board {
    /// Listens for a point. What was known of it stays if its source does.
    pub(crate) fn watch(&mut self, name: &str, source: Source, value_type: ValueType, pushed: bool) {
        if let Some(spot) = self.spots.get_mut(name)
            && spot.source == source
            && spot.value_type == value_type
        {
            spot.pushed |= pushed;
            return;
        }
        if self.spots.len() >= MAX_POINTS {
            self.spots.retain(|_, spot| spot.pushed);
        }
        let spot = Spot { source, value_type, pushed, last: None, fault: None, live: 0 };
        self.spots.insert(name.to_owned(), spot);
    }

    pub(crate) fn listens_to(&self, name: &str, source: &Source) -> bool {
        self.spots.get(name).is_some_and(|spot| spot.source == *source)
    }

    /// From now on only these are pushed, from what is known of them on.
    pub(crate) fn push_only(&mut self, names: &BTreeSet<&str>) {
        for (name, spot) in &mut self.spots {
            spot.pushed = names.contains(name.as_str());
            if spot.pushed && spot.last.is_some() {
                self.changed.insert(name.clone());
            }
        }
        self.changed.retain(|name| names.contains(name.as_str()));
    }

    /// A message of the device.
    pub(crate) fn hear(&mut self, topic: &str, body: &Body, origin: Origin, now: UnixMillis) {
        for (name, spot) in &mut self.spots {
            let sought = match &spot.source {
                Source::Topic(own, sought) if own == topic => sought,
                Source::Body(sought) => sought,
                Source::Topic(..) | Source::Metric(_) => continue,
            };
            if let Some(picked) = sought.pick(body, spot.value_type)
                && spot.take(picked, origin, now)
            {
                self.changed.insert(name.clone());
            }
        }
    }

    /// A Sparkplug metric's value, of `quality`.
    pub(crate) fn hear_metric(&mut self, metric: &str, said: &Said, now: UnixMillis) {
        for (name, spot) in &mut self.spots {
            if spot.source != Source::Metric(metric.to_owned()) {
                continue;
            }
            spot.hear(said, now);
            self.changed.insert(name.clone());
        }
    }

    /// The device is gone: what it said last is no longer true for sure.
    pub(crate) fn go_offline(&mut self) {
        self.offline = true;
        self.worsen(Quality::Bad);
    }

    pub(crate) fn go_online(&mut self) {
        self.offline = false;
    }

    /// Its bridge is back, or gone; of the device itself the first says nothing.
    pub(crate) fn bridge(&mut self, is_online: bool) {
        self.bridge_offline = !is_online;
        if !is_online {
            self.worsen(Quality::Bad);
        }
    }

    /// Something was missed, or nobody listens any more.
    pub(crate) fn worsen(&mut self, to: Quality) {
        for (name, spot) in &mut self.spots {
            if let Some(known) = &mut spot.last
                && known.quality > to
            {
                known.quality = to;
                self.changed.insert(name.clone());
            }
        }
    }

    pub(crate) fn is_offline(&self) -> bool {
        self.offline || self.bridge_offline
    }

    pub(crate) fn known(&self, name: &str) -> Result<Known, Error> {
        let Some(spot) = self.spots.get(name) else {
            return Err(Error::Device("not listened to".to_owned()));
        };
        match (&spot.last, &spot.fault) {
            (Some(known), None) => Ok(known.clone()),
            (_, Some(fault)) => Err(Error::Device(fault.clone())),
            (None, None) if self.is_offline() => Err(Error::Device("the device is offline".to_owned())),
            (None, None) => Err(Error::Device("the device has not said it yet".to_owned())),
        }
    }

    /// How often the device has said it; and the last time what.
    pub(crate) fn live(&self, name: &str) -> (u64, Option<&Value>) {
        self.spots
            .get(name)
            .map_or((0, None), |spot| (spot.live, spot.last.as_ref().map(|known| &known.value)))
    }

    /// What is to be passed on, of the points that are pushed.
    pub(crate) fn take_changed(&mut self) -> Vec<(String, Result<Known, Error>)> {
        let changed = std::mem::take(&mut self.changed);
        let pushed = |name: &String| self.spots.get(name).is_some_and(|spot| spot.pushed);
        changed.into_iter().filter(pushed).map(|name| (name.clone(), self.known(&name))).collect()
    }

    pub(crate) fn refuse(&mut self, command: &str) {
        const REMEMBERED: usize = 8;
        if self.refusals.len() < REMEMBERED {
            self.refusals.push(command.to_owned());
        }
    }

    pub(crate) fn forget_refusals(&mut self) {
        self.refusals.clear();
    }

    pub(crate) fn has_refused(&self, command: &str) -> bool {
        self.refusals.iter().any(|refused| refused.eq_ignore_ascii_case(command))
    }
}

/// What a device says of one metric.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    Value { value: Value, time: Option<UnixMillis>, quality: Quality },
    Fault(String),
}

impl Spot {
    /// Returns whether that is news.
    fn take(&mut self, picked: Result<Picked, NotAValue>, origin: Origin, now: UnixMillis) -> bool {
        if origin == Origin::Retained && self.live != 0 {
            return false; // it is older than what the device has said since
        }
        let said = match picked {
            Ok(Picked { value, time }) => {
                // A retained value without its time may be years old.
                let known_age = origin == Origin::Live || time.is_some();
                let quality = if known_age { Quality::Good } else { Quality::Uncertain };
                Said::Value { value, time, quality }
            }
            Err(fault) => Said::Fault(fault.to_string()),
        };
        let live = self.live;
        self.hear(&said, now);
        if origin == Origin::Retained {
            self.live = live;
        }
        true
    }

    fn hear(&mut self, said: &Said, now: UnixMillis) {
        match said {
            Said::Value { value, time, quality } => {
                let Ok(value) = coerce(value, self.value_type) else {
                    self.fault = Some(format!("{value} is no {:?}", self.value_type));
                    return;
                };
                // A clock that runs ahead would make a value young for ever.
                let time = time.unwrap_or(now).min(now);
                self.last = Some(Known { value, quality: *quality, time });
                self.fault = None;
                self.live += 1;
            }
            Said::Fault(fault) => self.fault = Some(fault.clone()),
        }
    }
}

/// Numbers stay as they are: the SDK scales them before it asks for their type.
fn coerce(value: &Value, wanted: ValueType) -> Result<Value, ()> {
    match (wanted, value) {
        (ValueType::Int | ValueType::Float, Value::Int(_)) => Ok(value.clone()),
        (ValueType::Int | ValueType::Float, Value::Float(float)) if float.is_finite() => Ok(value.clone()),
        (ValueType::Int | ValueType::Float, _) => Err(()),
        _ => value.clone().coerce(wanted).map_err(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_709_208_000_000);

    fn board() -> Board {
        let mut board = Board::default();
        let sought = Sought {
            time: Some("at".parse().unwrap()),
            pointer: Some("t".parse().unwrap()),
            ..Sought::default()
        };
        board.watch("t", Source::Topic("boiler".into(), sought), ValueType::Float, true);
        board
    }

    fn hear(board: &mut Board, body: &str, origin: Origin) {
        board.hear("boiler", &Body::parse(body.as_bytes()).unwrap(), origin, NOW);
    }

    fn known(value: f64, quality: Quality, time: u64) -> Known {
        Known { value: Value::Float(value), quality, time: UnixMillis(time) }
    }

    #[test]
    fn a_retained_value_of_unknown_age_is_uncertain_and_gives_way() {
        let mut board = board();
        hear(&mut board, r#"{"t": 1.5}"#, Origin::Retained);
        assert_eq!(board.known("t"), Ok(known(1.5, Quality::Uncertain, NOW.0)));
        assert_eq!(board.live("t").0, 0);
        hear(&mut board, r#"{"t": 1.5, "at": 1709200000}"#, Origin::Retained);
        assert_eq!(
            board.known("t"),
            Ok(known(1.5, Quality::Good, 1_709_200_000_000)),
            "it says how old it is"
        );
        hear(&mut board, r#"{"t": 2.5}"#, Origin::Live);
        hear(&mut board, r#"{"t": 3.5}"#, Origin::Retained);
        assert_eq!(board.known("t"), Ok(known(2.5, Quality::Good, NOW.0)), "and never overtakes");
        assert_eq!(board.live("t").0, 1);
    }

    #[test]
    fn a_clock_that_runs_ahead_makes_nothing_younger() {
        let mut board = board();
        hear(&mut board, r#"{"t": 2.5, "at": 4000000000}"#, Origin::Live);
        assert_eq!(board.known("t").unwrap().time, NOW);
    }

    #[test]
    fn a_device_that_goes_makes_its_values_bad_with_their_time() {
        let mut board = board();
        hear(&mut board, r#"{"t": 2.5, "at": 1709200000}"#, Origin::Live);
        assert_eq!(board.take_changed().len(), 1);
        board.go_offline();
        let bad = known(2.5, Quality::Bad, 1_709_200_000_000);
        assert_eq!(board.take_changed(), [("t".to_owned(), Ok(bad))]);
        board.go_offline();
        assert_eq!((board.take_changed(), board.is_offline()), (vec![], true), "said once");
        board.go_online();
        assert_eq!(board.known("t").unwrap().quality, Quality::Bad, "until it says something");
        hear(&mut board, r#"{"t": 3.5}"#, Origin::Live);
        assert_eq!(board.known("t"), Ok(known(3.5, Quality::Good, NOW.0)));
    }

    #[test]
    fn what_is_no_value_is_a_fault_until_there_is_one() {
        let mut board = board();
        assert!(matches!(board.known("t"), Err(Error::Device(why)) if why.contains("not said it yet")));
        hear(&mut board, r#"{"other": 1}"#, Origin::Live);
        assert_eq!(board.take_changed(), []);
        hear(&mut board, r#"{"t": "warm"}"#, Origin::Live);
        assert!(matches!(&board.take_changed()[..], [(_, Err(Error::Device(why)))] if why.contains("warm")));
        hear(&mut board, r#"{"t": 3.5}"#, Origin::Live);
        assert_eq!(board.take_changed().len(), 1);
        board.hear("kettle", &Body::parse(br#"{"t": 9}"#).unwrap(), Origin::Live, NOW);
        assert_eq!(board.take_changed(), [], "another topic");
    }

    #[test]
    fn what_comes_too_fast_melts_into_the_latest() {
        let mut board = board();
        for t in 0..1000 {
            hear(&mut board, &format!(r#"{{"t": {t}}}"#), Origin::Live);
        }
        let latest = Known { value: Value::Int(999), quality: Quality::Good, time: NOW };
        assert_eq!(board.take_changed(), [("t".to_owned(), Ok(latest))]);
    }

    #[test]
    fn polled_points_do_not_pile_up() {
        let mut board = board();
        for i in 0..3 * MAX_POINTS {
            board.watch(&format!("p{i}"), Source::Metric("m".into()), ValueType::Int, false);
        }
        assert!(board.spots.len() <= MAX_POINTS && board.spots.contains_key("t"));
    }
}

//! Which points a device is asked to push, and when it is asked.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::twin::{Json, PropertyConfig};
use bus::{Mono, ValueType};

use crate::Error;
use crate::device::LONGEST_WAIT;

/// What a value says something about: the same name with another source is another property.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Source {
    address: Json,
    value_type: ValueType,
}

impl Source {
    pub(crate) fn of(property: &PropertyConfig) -> Self {
        Self { address: property.address.clone(), value_type: property.value_type }
    }
}

/// The subscription of one device.
///
/// ```text
///   wanted = asked for: nothing to do
///   otherwise: ask ---yes--------------------> asked for, until the session ends
///                 `---bad address------------> the point is left out; ask again
///                 `---the device refuses-----> ask again after a minute
///                 `---not supported----------> nothing more until what is wanted changes
/// ```
#[derive(Debug)]
pub(crate) struct Pushing {
    /// Whether the mapper's manifest says so; if not, nothing is ever wanted.
    pushes: bool,
    wanted: BTreeMap<String, Source>,
    asked: BTreeMap<String, Source>,
    not_before: Mono,
    unsupported: bool,
}

impl Pushing {
    pub(crate) fn new(pushes: bool) -> Self {
        Self {
            pushes,
            wanted: BTreeMap::new(),
            asked: BTreeMap::new(),
            not_before: Mono::ZERO,
            unsupported: false,
        }
    }

    /// Properties without a period are pushed.
    pub(crate) fn configure(&mut self, properties: &[PropertyConfig]) {
        let pushed = properties.iter().filter(|property| self.pushes && property.poll_ms == 0);
        self.wanted = pushed.map(|property| (property.name.clone(), Source::of(property))).collect();
        self.not_before = Mono::ZERO;
        self.unsupported = false;
    }

    /// Leaves a point out until the configuration changes; one that was asked for already is only not listened to.
    pub(crate) fn leave_out(&mut self, point: &str) {
        self.wanted.remove(point);
        self.asked.remove(point);
    }

    /// When the device is to be asked.
    pub(crate) fn due(&self) -> Option<Mono> {
        (self.wanted != self.asked && !self.unsupported).then_some(self.not_before)
    }

    pub(crate) fn wanted(&self) -> &BTreeMap<String, Source> {
        &self.wanted
    }

    pub(crate) fn handle_asked(&mut self, sources: BTreeMap<String, Source>) {
        self.asked = sources;
    }

    /// The device, or its driver, has said no and the session goes on.
    pub(crate) fn handle_refused(&mut self, error: &Error, now: Mono) {
        match error {
            Error::Unsupported(_) => self.unsupported = true,
            Error::BadAddress { .. }
            | Error::Device(_)
            | Error::Expired
            | Error::Transient { .. }
            | Error::Timeout(_)
            | Error::Auth(_)
            | Error::Config(_)
            | Error::Bug(_) => self.not_before = now + RETRY,
        }
    }

    pub(crate) fn handle_lost(&mut self) {
        self.asked.clear();
        self.not_before = Mono::ZERO;
    }
}

/// A device that refuses a subscription is asked again after this time.
const RETRY: Duration = LONGEST_WAIT;

#[cfg(test)]
mod tests {
    use super::*;

    fn property(name: &str, poll_ms: u64, register: i64) -> PropertyConfig {
        PropertyConfig { address: Json::Int(register), poll_ms, ..crate::tests::property(name) }
    }

    fn ask(pushing: &mut Pushing) {
        pushing.handle_asked(pushing.wanted().clone());
    }

    #[test]
    fn a_device_is_asked_when_it_is_open_and_when_the_set_changes() {
        let mut pushing = Pushing::new(true);
        assert_eq!(pushing.due(), None);
        pushing.configure(&[property("a", 0, 1), property("polled", 1000, 2)]);
        assert_eq!(pushing.wanted().keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(pushing.due(), Some(Mono::ZERO));
        ask(&mut pushing);
        pushing.configure(&[property("a", 0, 1), property("polled", 500, 2)]);
        assert_eq!(pushing.due(), None, "the set is the same");
        pushing.configure(&[property("a", 0, 7)]);
        assert_eq!(pushing.due(), Some(Mono::ZERO), "another register");
        ask(&mut pushing);
        pushing.handle_lost();
        assert_eq!(pushing.due(), Some(Mono::ZERO), "a new session");
        ask(&mut pushing);
        pushing.configure(&[]);
        assert_eq!(pushing.due(), Some(Mono::ZERO), "nothing is wanted any more");
    }

    #[test]
    fn a_mapper_that_does_not_push_is_never_asked() {
        let mut pushing = Pushing::new(false);
        pushing.configure(&[property("a", 0, 1)]);
        assert_eq!(pushing.due(), None);
    }

    #[test]
    fn a_refusal_is_taken_by_its_kind() {
        let start = || {
            let mut pushing = Pushing::new(true);
            pushing.configure(&[property("a", 0, 1), property("b", 0, 2)]);
            pushing
        };
        let now = Mono(5_000_000);
        let mut pushing = start();
        pushing.handle_refused(&Error::Device("busy".into()), now);
        assert_eq!(pushing.due(), Some(now + RETRY));
        let mut pushing = start();
        pushing.handle_refused(&Error::Unsupported("pushing".into()), now);
        assert_eq!(pushing.due(), None);
        pushing.handle_lost();
        assert_eq!(pushing.due(), None, "another session does not change it");
        pushing.configure(&[property("a", 0, 1)]);
        assert_eq!(pushing.due(), Some(Mono::ZERO));
    }

    #[test]
    fn a_point_that_is_left_out_does_not_make_the_others_asked_for_again() {
        let mut pushing = Pushing::new(true);
        pushing.configure(&[property("a", 0, 1), property("b", 0, 2)]);
        ask(&mut pushing);
        pushing.leave_out("a");
        assert_eq!(pushing.due(), None);
        pushing.handle_lost();
        assert_eq!((pushing.due(), pushing.wanted().len()), (Some(Mono::ZERO), 1));
    }
}

//! Which of KubeEdge's topics somebody subscribes to, so that what nobody hears costs nothing.

use std::collections::{BTreeMap, BTreeSet};

use bus::twin::DeviceId;
use bus::{Filter, Topic};

use super::topic::{HwTopic, Verb};

/// The filters below `$hw/` of all clients; as many as the broker lets them have.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Filters that name one topic: a mapper has one a device, thousands in all.
    exact: BTreeSet<Topic>,
    /// The others: an app or a technician has one or two.
    wild: BTreeSet<Filter>,
    /// Devices whose delta is subscribed to by name, in how many forms.
    served: BTreeMap<DeviceId, u8>,
}

impl Listeners {
    /// The first subscriber of a filter came, or its last one left.
    pub fn change(&mut self, filter: &Filter, wanted: bool) {
        let Ok(topic) = Topic::new(filter.as_str()) else {
            if wanted {
                self.wild.insert(filter.clone())
            } else {
                self.wild.remove(filter)
            };
            return;
        };
        let is_news = if wanted { self.exact.insert(topic) } else { self.exact.remove(&topic) };
        let Some(device) = Self::device_of(filter).filter(|_| is_news) else { return };
        let forms = self.served.entry(device.clone()).or_default();
        *forms = if wanted { *forms + 1 } else { forms.saturating_sub(1) };
        if *forms == 0 {
            self.served.remove(&device);
        }
    }

    /// The device whose delta a filter names.
    pub fn device_of(filter: &Filter) -> Option<DeviceId> {
        match HwTopic::parse(filter.as_str())? {
            HwTopic::Device(address, Verb::TwinUpdateDelta) => address.device(),
            HwTopic::Device(..) | HwTopic::Node(..) => None,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wild.is_empty()
    }

    pub fn wants(&self, topic: &Topic) -> bool {
        self.exact.contains(topic) || self.wild.iter().any(|filter| filter.matches(topic))
    }

    /// Whether somebody hears the device's delta by its name, as a mapper does that acts on it. With a wildcard one only
    /// watches.
    pub fn serve(&self, device: &DeviceId) -> bool {
        self.served.contains_key(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_served_while_its_delta_is_heard_by_name_in_any_form() {
        let mut listeners = Listeners::default();
        let device: DeviceId = "default/dev1".parse().unwrap();
        let mut change = |text: &str, wanted| {
            listeners.change(&Filter::new(text).unwrap(), wanted);
            (listeners.serve(&device), listeners.is_empty())
        };
        assert_eq!(change("$hw/events/device/+/+/twin/update/delta", true), (false, false));
        assert_eq!(change("$hw/events/device/dev1/twin/update/delta", true), (true, false));
        assert_eq!(change("$hw/events/device/default/dev1/twin/update/delta", true), (true, false));
        assert_eq!(change("$hw/events/device/dev1/twin/update/document", true), (true, false));
        assert_eq!(change("$hw/events/device/dev1/twin/update/delta", false), (true, false));
        assert_eq!(
            change("$hw/events/device/dev1/twin/update/delta", false),
            (true, false),
            "it was off already"
        );
        assert_eq!(change("$hw/events/device/default/dev1/twin/update/delta", false), (false, false));
        assert_eq!(change("$hw/events/device/dev1/twin/update/document", false), (false, false));
        assert_eq!(change("$hw/events/device/+/+/twin/update/delta", false), (false, true));
    }

    #[test]
    fn a_topic_is_wanted_by_name_and_by_wildcard() {
        let mut listeners = Listeners::default();
        let topic = |text: &str| Topic::new(text).unwrap();
        listeners.change(&Filter::new("$hw/events/device/dev1/twin/update/delta").unwrap(), true);
        listeners.change(&Filter::new("$hw/events/node/#").unwrap(), true);
        assert!(listeners.wants(&topic("$hw/events/device/dev1/twin/update/delta")));
        assert!(listeners.wants(&topic("$hw/events/node/a/membership/updated")));
        assert!(!listeners.wants(&topic("$hw/events/device/default/dev1/twin/update/delta")));
    }
}

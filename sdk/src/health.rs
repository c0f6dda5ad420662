//! What people are told of a mapper and its devices, and how often.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::Mono;
use bus::twin::{DeviceCondition, DeviceHealth, DeviceId, MapperCounts, MapperHealth};

/// A changed state is told this soon, so that a device that comes and goes does not flood the broker.
const SOON: Duration = Duration::from_secs(1);

/// Mere numbers, which change with each reading, are told this often.
const NOW_AND_THEN: Duration = Duration::from_secs(5);

/// Longest payload in bytes: some 1,500 devices. Brokers limit their packets, ours to 256 KiB.
const MAX_BYTES: usize = 192 * 1024;

/// Longest error text in bytes.
const MAX_TEXT: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    None,
    Numbers,
    State,
}

/// The health of all devices of a mapper.
#[derive(Debug)]
pub(crate) struct Health {
    devices: BTreeMap<DeviceId, DeviceHealth>,
    counts: MapperCounts,
    change: Change,
    /// When it was told last; `None`: not on this connection.
    told: Option<Mono>,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self { devices: BTreeMap::new(), counts: MapperCounts::default(), change: Change::State, told: None }
    }

    pub(crate) fn handle_connected(&mut self) {
        self.change = Change::State;
        self.told = None;
    }

    pub(crate) fn handle_device(&mut self, device: &DeviceId, health: DeviceHealth, counts: MapperCounts) {
        self.counts += counts;
        let known = self.devices.get(device);
        let is_news = known.is_none_or(|known| {
            let first_read = known.last_read.is_none() && health.last_read.is_some();
            (known.state, &known.error) != (health.state, &health.error) || first_read
        });
        self.change = self.change.max(if is_news { Change::State } else { Change::Numbers });
        self.devices.insert(device.clone(), health);
    }

    pub(crate) fn remove(&mut self, device: &DeviceId) {
        if self.devices.remove(device).is_some() {
            self.change = Change::State;
        }
    }

    /// When it is to be told.
    pub(crate) fn due(&self) -> Option<Mono> {
        let told = self.told.unwrap_or_default();
        match (self.change, self.told) {
            (Change::None, _) => None,
            (_, None) => Some(Mono::ZERO),
            (Change::State, _) => Some(told + SOON),
            (Change::Numbers, _) => Some(told + NOW_AND_THEN),
        }
    }

    /// The payload, which counts as told.
    pub(crate) fn take(&mut self, now: Mono) -> Vec<u8> {
        self.told = Some(now);
        self.change = Change::None;
        let named = |(device, health): (&DeviceId, &DeviceHealth)| (device.to_string(), health.clone());
        let devices = self.devices.iter().map(named).collect();
        fitting(MapperHealth { devices, unlisted: 0, counts: self.counts })
    }
}

/// Whole if it fits; without the devices that are online if not; then as many as fit.
fn fitting(mut health: MapperHealth) -> Vec<u8> {
    let all = health.devices.len();
    let mut payload = crate::desk::json(&health);
    if payload.len() > MAX_BYTES {
        health.devices.retain(|_, device| device.state != DeviceCondition::Online);
    }
    while payload.len() > MAX_BYTES {
        health.unlisted = (all - health.devices.len()) as u64;
        payload = crate::desk::json(&health);
        let half = health.devices.len() / 2;
        health.devices = std::mem::take(&mut health.devices).into_iter().take(half).collect();
    }
    payload
}

/// A text short enough for a list of thousands.
pub(crate) fn short(text: &str) -> String {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_TEXT).last();
    text[..end.unwrap_or_default()].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus::UnixMillis;

    fn device(number: usize) -> DeviceId {
        format!("plant/device-{number:04}").parse().unwrap()
    }

    fn health(state: DeviceCondition, error: &str, last_read: u64) -> DeviceHealth {
        let (since, last_read) = (UnixMillis(1), Some(UnixMillis(last_read)));
        DeviceHealth { state, since, failures: 0, error: error.into(), last_read }
    }

    fn read(health: &mut Health, now: Mono) -> MapperHealth {
        serde_json::from_slice(&health.take(now)).unwrap()
    }

    #[test]
    fn a_new_state_is_told_within_a_second_and_numbers_now_and_then() {
        let mut board = Health::new();
        assert_eq!(board.due(), Some(Mono::ZERO));
        board.take(Mono(5));
        assert_eq!(board.due(), None);
        let online = |last_read| health(DeviceCondition::Online, "", last_read);
        let one = MapperCounts { reads: 2, requests: 1, ..MapperCounts::default() };
        board.handle_device(&device(1), online(7), one);
        assert_eq!(board.due(), Some(Mono(1_000_005)));
        board.take(Mono(1_000_005));
        board.handle_device(&device(1), online(8), one);
        assert_eq!(board.due(), Some(Mono(6_000_005)), "only numbers");
        let offline = health(DeviceCondition::Offline, "no answer", 8);
        board.handle_device(&device(1), offline.clone(), MapperCounts::default());
        assert_eq!(board.due(), Some(Mono(2_000_005)));
        let told = read(&mut board, Mono(2_000_005));
        assert_eq!(told.devices, [("plant/device-0001".to_owned(), offline)].into());
        assert_eq!((told.counts.reads, told.counts.requests), (4, 2));
        board.handle_connected();
        assert_eq!(board.due(), Some(Mono::ZERO), "a new broker knows nothing");
        board.take(Mono(3_000_000));
        board.remove(&device(1));
        board.remove(&device(1));
        assert_eq!(board.due(), Some(Mono(4_000_000)));
        assert!(read(&mut board, Mono(4_000_000)).devices.is_empty());
    }

    #[test]
    fn a_list_that_is_too_long_leaves_out_first_what_is_well() {
        let mut board = Health::new();
        let (well, ill) = (3000, 300);
        for number in 0..well + ill {
            let state = if number < well { DeviceCondition::Online } else { DeviceCondition::Offline };
            board.handle_device(&device(number), health(state, "no answer", 1), MapperCounts::default());
        }
        let told = read(&mut board, Mono(0));
        assert_eq!((told.devices.len(), told.unlisted), (ill, well as u64));

        for number in 0..well + ill {
            let error = "\u{1}".repeat(MAX_TEXT);
            let offline = health(DeviceCondition::Offline, &error, 1);
            board.handle_device(&device(number), offline, MapperCounts::default());
        }
        let payload = board.take(Mono(0));
        let told: MapperHealth = serde_json::from_slice(&payload).unwrap();
        assert!(payload.len() <= MAX_BYTES && !told.devices.is_empty());
        assert_eq!(told.devices.len() as u64 + told.unlisted, (well + ill) as u64);
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(short("no answer"), "no answer");
        assert_eq!(short(""), "");
        let long = short(&"ä".repeat(300));
        assert_eq!((long.len(), long.chars().all(|c| c == 'ä')), (MAX_TEXT, true));
    }
}

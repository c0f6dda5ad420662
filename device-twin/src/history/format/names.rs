//! The properties that have samples, as the writer of the history knows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bus::twin::DeviceId;

use super::dictionary::Dictionary;
use super::entry::{Block, Part};

/// Most properties with samples: three times what a large edge has, some 4 MiB. Samples of further ones are not kept,
/// until others are forgotten with their last samples.
pub(super) const MAX_PROPERTIES: usize = 65_536;

/// Not defined in the segment that is being written.
const UNDEFINED: u32 = u32::MAX;

/// All properties with samples, their counts, and their numbers in the segment that is being written.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// The segment that is being written.
    segment: u32,
    devices: BTreeMap<DeviceId, Device>,
    /// One copy of each text, with its number.
    words: BTreeMap<Arc<str>, u32>,
    next: Numbers,
    /// Properties, of all devices.
    len: usize,
}

/// The next number of each.
#[derive(Debug, Default)]
struct Numbers {
    device: u32,
    word: u32,
    property: u32,
}

#[derive(Debug)]
struct Device {
    number: u32,
    /// By word.
    properties: Vec<Property>,
}

/// An edge has tens of thousands of them: 32 bytes.
#[derive(Debug)]
struct Property {
    word: Arc<str>,
    /// How many samples there were up to now.
    count: u64,
    number: u32,
    /// The newest segment that has any of them.
    segment: u32,
}

impl Names {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many samples of the property there were.
    pub(crate) fn count(&self, device: &DeviceId, word: &str) -> u64 {
        let property = || {
            let device = self.devices.get(device)?;
            Some(&device.properties[device.find(word).ok()?])
        };
        property().map_or(0, |property| property.count)
    }

    /// The number in this segment of a property that gets one more sample; `block` defines what it must. `None`: there
    /// are [`MAX_PROPERTIES`] others.
    pub(crate) fn add(
        &mut self,
        device: &DeviceId,
        word: &Arc<str>,
        block: &mut Block,
        part: Part,
    ) -> Option<u32> {
        let Self { segment, devices, words, next, len } = self;
        let is_known = || devices.get(device).is_some_and(|device| device.find(word).is_ok());
        if *len >= MAX_PROPERTIES && !is_known() {
            return None;
        }
        let device_entry = devices.entry(device.clone()).or_default();
        let before = device_entry.properties.len();
        let at = device_entry.find_or_insert(words, word);
        *len += device_entry.properties.len() - before;
        if device_entry.properties[at].number == UNDEFINED {
            next.define(device, device_entry, at, words, block);
        }
        let property = &mut device_entry.properties[at];
        property.segment = *segment;
        if part == Part::Fresh {
            property.count += 1;
        }
        Some(property.number)
    }

    /// From now on samples go into segment `number`, which defines nothing yet.
    pub(crate) fn begin_segment(&mut self, number: u32) {
        self.segment = number;
        self.next = Numbers::default();
        self.words.values_mut().for_each(|number| *number = UNDEFINED);
        for device in self.devices.values_mut() {
            device.number = UNDEFINED;
            device.properties.iter_mut().for_each(|property| property.number = UNDEFINED);
            device.properties.shrink_to_fit();
        }
    }

    /// The segments up to this are gone: so are properties that have samples nowhere else.
    pub(crate) fn forget_up_to(&mut self, segment: u32) {
        self.devices.retain(|_, device| {
            device.properties.retain(|property| property.segment > segment);
            !device.properties.is_empty()
        });
        self.words.retain(|word, _| Arc::strong_count(word) > 1);
        self.len = self.devices.values().map(|device| device.properties.len()).sum();
    }

    /// What a segment that was read says, an older one first; the last one is written on.
    pub(crate) fn learn(&mut self, segment: u32, dictionary: &Dictionary<'_>) {
        self.begin_segment(segment);
        for named in dictionary.properties() {
            let (device, word) = (named.device, named.word);
            if self.len >= MAX_PROPERTIES && self.count(device, word) == 0 {
                continue;
            }
            let device = self.devices.entry(device.clone()).or_default();
            let before = device.properties.len();
            let at = device.find_or_insert(&mut self.words, word);
            self.len += device.properties.len() - before;
            let property = &mut device.properties[at];
            (property.count, property.segment) = (property.count.max(named.next), segment);
            property.number = named.number;
        }
        self.learn_numbers(dictionary);
    }

    fn learn_numbers(&mut self, dictionary: &Dictionary<'_>) {
        for (number, device) in dictionary.devices() {
            if let Some(known) = self.devices.get_mut(device) {
                known.number = number;
            }
        }
        for (number, word) in dictionary.words() {
            if let Some(known) = self.words.get_mut(word) {
                *known = number;
            }
        }
        let [device, word, property] = dictionary.next_numbers();
        self.next = Numbers { device, word, property };
    }
}

#[cfg(test)]
impl Names {
    /// What it takes in memory, with what a map and an allocation cost each: an upper bound.
    pub(crate) fn heap_bytes(&self) -> usize {
        const MAP_NODE: usize = 16;
        const ALLOCATION: usize = 16;
        let device = |(id, device): (&DeviceId, &Device)| {
            let names = id.to_string().len() + 2 * (ALLOCATION + 16);
            let properties = device.properties.capacity() * size_of::<Property>() + ALLOCATION;
            2 * size_of::<(DeviceId, Device)>() + MAP_NODE + names + properties
        };
        let word =
            |word: &Arc<str>| 2 * size_of::<(Arc<str>, u32)>() + MAP_NODE + word.len() + 16 + ALLOCATION;
        self.devices.iter().map(device).sum::<usize>() + self.words.keys().map(word).sum::<usize>()
    }
}

impl Default for Device {
    fn default() -> Self {
        Self { number: UNDEFINED, properties: Vec::new() }
    }
}

impl Device {
    fn find(&self, word: &str) -> Result<usize, usize> {
        self.properties.binary_search_by(|property| (*property.word).cmp(word))
    }

    fn find_or_insert(&mut self, words: &mut BTreeMap<Arc<str>, u32>, word: &Arc<str>) -> usize {
        self.find(word).unwrap_or_else(|at| {
            let word = match words.get_key_value(word) {
                Some((word, _)) => word.clone(),
                None => {
                    words.insert(word.clone(), UNDEFINED);
                    word.clone()
                }
            };
            self.properties.insert(at, Property { word, count: 0, number: UNDEFINED, segment: 0 });
            at
        })
    }
}

impl Numbers {
    /// Gives numbers to the property at `at` and to what it is named by, where they have none.
    fn define(
        &mut self,
        id: &DeviceId,
        device: &mut Device,
        at: usize,
        words: &mut BTreeMap<Arc<str>, u32>,
        block: &mut Block,
    ) {
        let property = &mut device.properties[at];
        if device.number == UNDEFINED {
            device.number = take(&mut self.device);
            block.device(device.number, &id.to_string());
        }
        let word_number = words.entry(property.word.clone()).or_insert(UNDEFINED);
        if *word_number == UNDEFINED {
            *word_number = take(&mut self.word);
            block.word(*word_number, &property.word);
        }
        property.number = take(&mut self.property);
        block.property(property.number, device.number, *word_number, property.count);
    }
}

fn take(next: &mut u32) -> u32 {
    let number = *next;
    *next += 1;
    number
}

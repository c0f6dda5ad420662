//! What the numbers of one segment mean, to its reader.

use std::sync::Arc;

use bus::twin::DeviceId;

use super::entry::{Entry, Reading};
use crate::history::query::{Cursor, Which};
use crate::twin::PropertyId;

/// No segment gives out more numbers: it has no room for as many definitions. One that seems to is not read.
const MAX_NUMBERS: usize = 1 << 20;

/// Learns definitions while a segment is read from its beginning, those that are asked for.
#[derive(Debug)]
pub(crate) struct Dictionary<'q> {
    which: &'q Which,
    devices: Vec<Option<DeviceId>>,
    words: Vec<Option<Arc<str>>>,
    properties: Vec<Option<Known>>,
}

/// A property.
#[derive(Debug, Clone, Copy)]
struct Known {
    device: u32,
    word: u32,
    /// How many samples came before the segment.
    before: u64,
    /// How many fresh ones came in it.
    fresh: u64,
}

/// A property of a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<'d> {
    pub(crate) number: u32,
    pub(crate) device: &'d DeviceId,
    pub(crate) word: &'d Arc<str>,
    /// How many samples of it there were up to now.
    pub(crate) next: u64,
}

/// A sample, with the property that it is of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<'d> {
    pub(crate) device: &'d DeviceId,
    pub(crate) word: &'d Arc<str>,
    /// How many samples of it came before this.
    pub(crate) ordinal: u64,
}

impl Found<'_> {
    pub(crate) fn cursor(&self, reading: &Reading<'_>) -> Cursor {
        let id = PropertyId { device: self.device.clone(), property: self.word.clone() };
        Cursor { time: reading.time, id, ordinal: self.ordinal }
    }
}

impl<'q> Dictionary<'q> {
    pub(crate) fn new(which: &'q Which) -> Self {
        Self { which, devices: Vec::new(), words: Vec::new(), properties: Vec::new() }
    }

    /// Learns a definition.
    pub(crate) fn learn(&mut self, entry: &Entry<'_>) {
        match *entry {
            Entry::Device { number, name } => put(&mut self.devices, number, name.parse().ok()),
            Entry::Word { number, text } => put(&mut self.words, number, Some(text.into())),
            Entry::Property { number, device, word, next: before } => {
                let known = Known { device, word, before, fresh: 0 };
                let is_wanted = self.names(&known).is_some_and(|(device, word)| self.which.has(device, word));
                put(&mut self.properties, number, is_wanted.then_some(known));
            }
            Entry::Sample(_) | Entry::Gap(_) => {}
        }
    }

    /// What a sample is of; `None` if that was not asked for, or if its definition was damaged.
    pub(crate) fn find(&mut self, reading: &Reading<'_>) -> Option<Found<'_>> {
        let known = self.properties.get_mut(reading.property as usize)?.as_mut()?;
        let ordinal = match reading.age {
            0 => {
                known.fresh += 1;
                known.before.saturating_add(known.fresh - 1)
            }
            age => known.before.saturating_sub(age),
        };
        let known = *known;
        let (device, word) = self.names(&known)?;
        Some(Found { device, word, ordinal })
    }

    fn names(&self, known: &Known) -> Option<(&DeviceId, &Arc<str>)> {
        let device = self.devices.get(known.device as usize)?.as_ref()?;
        Some((device, self.words.get(known.word as usize)?.as_ref()?))
    }

    /// All that are known, with the numbers of the segment.
    pub(crate) fn properties(&self) -> impl Iterator<Item = Named<'_>> {
        (0..).zip(&self.properties).filter_map(|(number, known)| {
            let known = known.as_ref()?;
            let (device, word) = self.names(known)?;
            Some(Named { number, device, word, next: known.before.saturating_add(known.fresh) })
        })
    }

    pub(crate) fn devices(&self) -> impl Iterator<Item = (u32, &DeviceId)> {
        (0..).zip(&self.devices).filter_map(|(number, device)| Some((number, device.as_ref()?)))
    }

    pub(crate) fn words(&self) -> impl Iterator<Item = (u32, &Arc<str>)> {
        (0..).zip(&self.words).filter_map(|(number, word)| Some((number, word.as_ref()?)))
    }
}

impl Dictionary<'_> {
    /// What comes after the numbers of devices, words and properties that are taken.
    pub(crate) fn next_numbers(&self) -> [u32; 3] {
        [self.devices.len(), self.words.len(), self.properties.len()].map(|len| len as u32)
    }
}

fn put<T>(table: &mut Vec<Option<T>>, number: u32, value: Option<T>) {
    let number = number as usize;
    if number >= MAX_NUMBERS {
        return;
    }
    if number >= table.len() {
        table.resize_with(number + 1, || None);
    }
    table[number] = value;
}

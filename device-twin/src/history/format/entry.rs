//! What a block of the history says, in both directions.
//!
//! ```text
//! body    = part, entry*            part: 0 fresh, 1 carried over from an older segment
//! entry   = tag, fields             numbers are varints
//!
//! tag     7 6     5      4 3       2 1 0
//!         scale   late   quality   kind     a sample: bad 0, uncertain 1, good 2
//!         -       -      3         what     anything else
//!
//! sample  = property, time, [stored], [age], value     property: from the last sample's + 1; time: from the last
//!                                                      sample's; stored, if late: from time; age, if carried: how
//!                                                      many samples of the property, it too, came before the segment
//! device 0   = number, length, "<namespace>/<name>"
//! word 1     = number, length, the name that a property has in its device
//! property 2 = number, device, word, next              next: how many samples of it came before the segment
//! gap 3      = since, until, samples                   since: from the segment's base; until: from since
//! ```

use bus::{Quality, UnixMillis};

use super::value::{Packed, put_long, take_long};
use super::varint::{self, take_byte};
use crate::history::query::Gap;

/// Where a block's samples come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Fresh,
    Carried,
}

/// One thing that a block says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    Device { number: u32, name: &'a str },
    Word { number: u32, text: &'a str },
    Property { number: u32, device: u32, word: u32, next: u64 },
    Sample(Reading<'a>),
    Gap(Gap),
}

/// A sample of the property that has this number in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading<'a> {
    pub(crate) property: u32,
    pub(crate) time: UnixMillis,
    pub(crate) stored: UnixMillis,
    pub(crate) quality: Quality,
    pub(crate) value: Packed<'a>,
    /// 0 for a fresh one.
    pub(crate) age: u64,
}

const LATE: u8 = 1 << 5;
const SCALE_SHIFT: u32 = 6;
const QUALITY_SHIFT: u32 = 3;
/// In place of a quality.
const NO_SAMPLE: u8 = 3;

/// A body that is being written.
#[derive(Debug)]
pub(crate) struct Block {
    part: Part,
    body: Vec<u8>,
    /// What the next entry's differences are from.
    base: u64,
    time: u64,
    property: u64,
}

impl Block {
    /// `base`: the time in the head of the segment.
    pub(crate) fn new(part: Part, base: UnixMillis) -> Self {
        let mut block = Self { part, body: Vec::new(), base: base.0, time: base.0, property: 0 };
        block.restart(base);
        block
    }

    /// Empties it, and keeps the room.
    pub(crate) fn restart(&mut self, base: UnixMillis) {
        self.body.clear();
        self.body.push(self.part as u8);
        (self.base, self.time, self.property) = (base.0, base.0, 0);
    }

    /// The entries of a body that is whole; `None`: it is of a kind that is not known here.
    pub(crate) fn read(body: &[u8], base: UnixMillis) -> Option<Entries<'_>> {
        Entries::new(body, base)
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.body.len() <= 1
    }

    fn put(&mut self, number: impl Into<u64>) {
        varint::put(&mut self.body, number.into());
    }

    pub(crate) fn device(&mut self, number: u32, name: &str) {
        self.body.push(NO_SAMPLE << QUALITY_SHIFT);
        self.put(number);
        put_long(&mut self.body, name.as_bytes());
    }

    pub(crate) fn word(&mut self, number: u32, text: &str) {
        self.body.push(NO_SAMPLE << QUALITY_SHIFT | 1);
        self.put(number);
        put_long(&mut self.body, text.as_bytes());
    }

    pub(crate) fn property(&mut self, number: u32, device: u32, word: u32, next: u64) {
        self.body.push(NO_SAMPLE << QUALITY_SHIFT | 2);
        [number, device, word].into_iter().for_each(|number| self.put(number));
        self.put(next);
    }

    pub(crate) fn gap(&mut self, gap: &Gap) {
        let Gap { since, until, samples } = *gap;
        self.body.push(NO_SAMPLE << QUALITY_SHIFT | 3);
        self.put(varint::delta(self.base, since.0));
        self.put(varint::delta(since.0, until.0));
        self.put(samples);
    }

    pub(crate) fn sample(&mut self, reading: &Reading<'_>) {
        let Reading { property, time, stored, quality, value, age } = *reading;
        let late = if stored == time { 0 } else { LATE };
        self.body.push(value.scale << SCALE_SHIFT | late | (quality as u8) << QUALITY_SHIFT | value.kind);
        self.put(varint::delta(self.property, property.into()));
        self.put(varint::delta(self.time, time.0));
        if late > 0 {
            self.put(varint::delta(time.0, stored.0));
        }
        if self.part == Part::Carried {
            self.put(age);
        }
        self.body.extend_from_slice(value.bytes);
        (self.time, self.property) = (time.0, u64::from(property) + 1);
    }
}

/// Reads a body that is whole. Ends where it does not understand: a newer node may have written it.
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    part: Part,
    rest: &'a [u8],
    base: u64,
    time: u64,
    property: u64,
}

impl<'a> Entries<'a> {
    fn new(mut body: &'a [u8], base: UnixMillis) -> Option<Self> {
        let part = match take_byte(&mut body)? {
            0 => Part::Fresh,
            1 => Part::Carried,
            _ => return None,
        };
        Some(Self { part, rest: body, base: base.0, time: base.0, property: 0 })
    }

    pub(crate) fn part(&self) -> Part {
        self.part
    }

    fn entry(&mut self) -> Option<Entry<'a>> {
        let tag = take_byte(&mut self.rest)?;
        match (tag >> QUALITY_SHIFT & 3, tag & 7) {
            (NO_SAMPLE, 0) => Some(Entry::Device { number: self.number()?, name: self.text()? }),
            (NO_SAMPLE, 1) => Some(Entry::Word { number: self.number()?, text: self.text()? }),
            (NO_SAMPLE, 2) => Some(Entry::Property {
                number: self.number()?,
                device: self.number()?,
                word: self.number()?,
                next: varint::take(&mut self.rest)?,
            }),
            (NO_SAMPLE, 3) => self.gap(),
            (NO_SAMPLE, _) => None,
            (quality, kind) => self.sample(tag, quality, kind),
        }
    }

    fn sample(&mut self, tag: u8, quality: u8, kind: u8) -> Option<Entry<'a>> {
        let property = varint::add(self.property, varint::take(&mut self.rest)?);
        let time = varint::add(self.time, varint::take(&mut self.rest)?);
        let late = if tag & LATE > 0 { varint::take(&mut self.rest)? } else { 0 };
        let age = if self.part == Part::Carried { varint::take(&mut self.rest)? } else { 0 };
        let value = Packed::take(kind, tag >> SCALE_SHIFT, &mut self.rest)?;
        (self.time, self.property) = (time, property.wrapping_add(1));
        let quality = match quality {
            0 => Quality::Bad,
            1 => Quality::Uncertain,
            _ => Quality::Good,
        };
        Some(Entry::Sample(Reading {
            property: property.try_into().ok()?,
            time: UnixMillis(time),
            stored: UnixMillis(varint::add(time, late)),
            quality,
            value,
            age,
        }))
    }

    fn gap(&mut self) -> Option<Entry<'a>> {
        let since = varint::add(self.base, varint::take(&mut self.rest)?);
        let until = varint::add(since, varint::take(&mut self.rest)?);
        let samples = varint::take(&mut self.rest)?;
        Some(Entry::Gap(Gap { since: UnixMillis(since), until: UnixMillis(until), samples }))
    }

    fn number(&mut self) -> Option<u32> {
        varint::take(&mut self.rest)?.try_into().ok()
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(take_long(&mut self.rest)?).ok()
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        self.entry()
    }
}

#[cfg(test)]
mod tests {
    use bus::Value;

    use super::*;

    const BASE: UnixMillis = UnixMillis(1_760_000_000_000);

    fn reading<'a>(
        property: u32,
        time: u64,
        stored: u64,
        value: &Value,
        room: &'a mut Vec<u8>,
    ) -> Reading<'a> {
        let value = Packed::new(value, room);
        let (time, stored) = (UnixMillis(time), UnixMillis(stored));
        Reading { property, time, stored, quality: Quality::Good, value, age: 0 }
    }

    #[test]
    fn a_block_reads_back_entry_by_entry() {
        let mut rooms = [const { Vec::new() }; 5];
        let [a, b, c, d, e] = &mut rooms;
        let readings = [
            reading(0, BASE.0 + 5, BASE.0 + 9, &Value::Float(21.5), a),
            reading(1, BASE.0 + 5, BASE.0 + 5, &Value::Bool(true), b),
            Reading { quality: Quality::Bad, ..reading(70_000, 0, BASE.0, &Value::Text("é".into()), c) },
            Reading { quality: Quality::Uncertain, ..reading(2, u64::MAX, 7, &Value::Int(-3), d) },
            reading(u32::MAX, 3, 3, &Value::Struct([("x".to_owned(), Value::Float(0.1))].into()), e),
        ];
        let gap = Gap { since: UnixMillis(BASE.0 - 7), until: UnixMillis(BASE.0 + 8), samples: 900 };
        for part in [Part::Fresh, Part::Carried] {
            let age = if part == Part::Carried { 16 } else { 0 };
            let mut expected = vec![
                Entry::Device { number: 0, name: "water/tank" },
                Entry::Word { number: 3, text: "level" },
                Entry::Property { number: 1, device: 0, word: 3, next: 1 << 40 },
                Entry::Gap(gap),
            ];
            expected.extend(readings.map(|reading| Entry::Sample(Reading { age, ..reading })));
            let mut block = Block::new(part, BASE);
            for entry in &expected {
                match *entry {
                    Entry::Device { number, name } => block.device(number, name),
                    Entry::Word { number, text } => block.word(number, text),
                    Entry::Property { number, device, word, next } => {
                        block.property(number, device, word, next)
                    }
                    Entry::Sample(reading) => block.sample(&reading),
                    Entry::Gap(gap) => block.gap(&gap),
                }
            }
            let entries = Block::read(block.body(), BASE).unwrap();
            assert_eq!(entries.part(), part);
            assert_eq!(entries.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_device_that_reports_in_turn_takes_a_byte_for_each_property_and_time() {
        let mut block = Block::new(Part::Fresh, BASE);
        let mut room = Vec::new();
        block.sample(&reading(40, BASE.0 + 20_000, BASE.0 + 20_003, &Value::Float(3.21), &mut room));
        let first = block.body().len();
        block.sample(&reading(41, BASE.0 + 20_001, BASE.0 + 20_003, &Value::Float(3.22), &mut room));
        assert_eq!(block.body().len() - first, 1 + 1 + 1 + 1 + 2);
    }

    #[test]
    fn what_a_newer_node_wrote_ends_a_block_and_costs_nothing_before() {
        let mut block = Block::new(Part::Fresh, BASE);
        block.word(0, "level");
        let body = [block.body(), &[NO_SAMPLE << QUALITY_SHIFT | 7, 1, 2, 3]].concat();
        let entries: Vec<_> = Block::read(&body, BASE).unwrap().collect();
        assert_eq!(entries, [Entry::Word { number: 0, text: "level" }]);
        assert!(Block::read(&[2], BASE).is_none());
    }
}

//! A new segment takes the place of the oldest, and takes over what must not be lost with them.
//!
//! ```text
//! write next.seg: head, what is carried over --sync--> rename to its number --> remove the oldest
//! ```
//!
//! A crash before the rename leaves all as it was, one after it leaves segments that the new one says it replaces.

use std::io;

use bus::UnixMillis;

use super::super::disk::Disk;
use super::super::segment;
use super::{History, NEXT, Segment, Sizes, Writing, name_of};
use crate::history::Which;
use crate::history::format::keep::{KEPT, MAX_SILENT, Tally};
use crate::history::format::segment::{Head, frame};
use crate::history::format::{Block, Chain, Dictionary, Entry, Found, Names, Part, Reading};

/// What a reading takes besides its value where it is carried, about: so many bytes are planned with, and none is
/// carried beyond the room there is.
const READING_BYTES: u64 = 8;

/// The new segment while it is made.
struct Draft<'d> {
    disk: &'d dyn Disk,
    segment: Segment,
    base: UnixMillis,
    end: u64,
    chain: Chain,
    block: Block,
    samples: u64,
    /// The first error: nothing is written after it.
    failed: io::Result<()>,
}

impl History {
    /// Begins a segment; samples go there from now on.
    pub(super) fn begin(&mut self, now: UnixMillis) -> io::Result<()> {
        let surplus = self.surplus();
        let gone = surplus.checked_sub(1).and_then(|last| self.segments.get(last)).map_or(0, |s| s.number);
        let number = self.next_number;
        self.names.begin_segment(number);
        let dropped: Vec<u32> = self.segments.iter().take(surplus).map(|segment| segment.number).collect();
        let head = Head { number, replaces: gone, base: now };
        let made = make(&*self.disk, head, &dropped, &mut self.names, &self.sizes);
        if made.is_err() {
            // On a full disk its bytes are better than nothing for others.
            let _ = self.disk.remove(NEXT);
        }
        let (segment, writing, samples) = made?;
        self.segments.push_back(segment);
        self.next_number = number + 1;
        self.writing = Some(writing);
        self.stats.carried += samples;
        self.remove_up_to(gone);
        Ok(())
    }

    /// How many of the oldest must go, so that one more has room even while they are still there.
    fn surplus(&self) -> usize {
        let mut bytes: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
        let room = self.sizes.total.saturating_sub(self.sizes.segment + self.sizes.carried());
        let goes = |segment: &&Segment| {
            let is_over = bytes > room;
            bytes -= segment.bytes;
            is_over
        };
        self.segments.iter().take_while(goes).count()
    }
}

/// The new segment, where samples go next, and how many were carried over.
fn make(
    disk: &dyn Disk,
    head: Head,
    dropped: &[u32],
    names: &mut Names,
    sizes: &Sizes,
) -> io::Result<(Segment, Writing, u64)> {
    let mut draft = Draft::begin(disk, head)?;
    carry_over(dropped, names, sizes, &mut draft);
    draft.finish()
}

fn carry_over(dropped: &[u32], names: &mut Names, sizes: &Sizes, draft: &mut Draft<'_>) {
    // With so many properties, what was carried once already is not carried again.
    let again = names.len() <= MAX_SILENT;
    let mut tally = Tally::default();
    for number in dropped {
        visit(draft.disk, *number, again, &mut |found, reading| {
            let age = age(names, found);
            if age <= KEPT {
                tally.add(age, READING_BYTES + reading.value.len() as u64);
            }
        });
    }
    let level = tally.level(sizes.carried());
    for number in dropped {
        visit(draft.disk, *number, again, &mut |found, reading| {
            let age = age(names, found);
            if age <= level && draft.end + (draft.block.body().len() as u64) < sizes.carried() {
                draft.take(names, sizes, found, &Reading { age, ..*reading });
            }
        });
    }
}

/// 1: the newest of its property.
fn age(names: &Names, found: &Found<'_>) -> u64 {
    names.count(found.device, found.word).checked_sub(found.ordinal).unwrap_or(u64::MAX)
}

/// All samples of a segment, or those that are fresh there.
fn visit(disk: &dyn Disk, number: u32, with_carried: bool, take: &mut dyn FnMut(&Found<'_>, &Reading<'_>)) {
    let mut dictionary = Dictionary::new(&Which::All);
    let name = name_of(number);
    let read = segment::read(disk, &name, &mut |part, entry| {
        dictionary.learn(&entry);
        let Entry::Sample(reading) = entry else { return };
        if let Some(found) = dictionary.find(&reading)
            && (with_carried || part == Part::Fresh)
        {
            take(&found, &reading);
        }
    });
    if let Err(error) = read {
        tracing::warn!(file = name, %error, "a segment of the history cannot be read: its last samples are lost");
    }
}

impl<'d> Draft<'d> {
    fn begin(disk: &'d dyn Disk, head: Head) -> io::Result<Self> {
        let (bytes, chain) = head.encode();
        disk.write(NEXT, 0, &bytes)?;
        let Head { number, replaces: _, base } = head;
        let segment = Segment { number, bytes: 0, fresh: None, carried: None };
        let (end, block) = (bytes.len() as u64, Block::new(Part::Carried, base));
        Ok(Self { disk, segment, base, end, chain, block, samples: 0, failed: Ok(()) })
    }

    fn take(&mut self, names: &mut Names, sizes: &Sizes, found: &Found<'_>, reading: &Reading<'_>) {
        let Some(property) = names.add(found.device, found.word, &mut self.block, Part::Carried) else {
            return;
        };
        self.block.sample(&Reading { property, ..*reading });
        self.segment.cover(Part::Carried, reading.time);
        self.samples += 1;
        if self.block.body().len() >= sizes.block {
            self.write();
        }
    }

    fn write(&mut self) {
        if self.failed.is_err() || self.block.is_empty() {
            return;
        }
        let (frame, chain) = frame(self.block.body(), self.chain);
        self.failed = self.disk.write(NEXT, self.end, &frame);
        self.end += frame.len() as u64;
        self.chain = chain;
        self.block.restart(self.base);
    }

    /// From then on it is a segment like the others.
    fn finish(mut self) -> io::Result<(Segment, Writing, u64)> {
        self.write();
        self.failed?;
        self.disk.sync(NEXT)?;
        self.disk.rename(NEXT, &name_of(self.segment.number))?;
        let segment = Segment { bytes: self.end, ..self.segment };
        Ok((segment, Writing::at(self.end, self.chain, self.base), self.samples))
    }
}

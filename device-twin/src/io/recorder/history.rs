//! The history's segments in their folder: appended to, carried over, asked.

use std::collections::VecDeque;
use std::io;

use bus::{Sample, UnixMillis};
use thiserror::Error;

use super::disk::Disk;
use super::segment;
use crate::history::format::segment::{Head, frame};
use crate::history::format::{Block, Chain, Dictionary, Entry, Names, Packed, Part, Reading, Span};
use crate::history::{Gap, Which};
use crate::twin::PropertyId;

mod ask;
mod begin;
#[cfg(test)]
mod tests;

/// So many segments share the bytes of the history: one goes at a time, a sixteenth of what is kept, and it is read as
/// a whole then.
const SEGMENTS: u64 = 16;

/// A block that is this long is written at once: enough that its frame costs nothing, and the most that waits in memory
/// while a disk refuses.
const BLOCK_BYTES: usize = 64 << 10;

/// The longest text or struct that is kept: what is longer is a document, which a history of readings has no room for.
const MAX_VALUE_BYTES: usize = 16 << 10;

/// Quarters of a new segment that are filled with what is carried over, at most: each segment that goes makes room.
const MAX_CARRIED: u64 = 3;

/// The next segment while it is made; one that is found at a start was not finished, and all it has is in older ones.
const NEXT: &str = "next.seg";
/// Where a file that should be a segment and is none is kept; the last one.
const DAMAGED: &str = "damaged.seg";

/// How the bytes of a history are shared out.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    total: u64,
    segment: u64,
    block: usize,
    value: usize,
}

impl Sizes {
    fn of(total: u64) -> Self {
        let segment = (total / SEGMENTS).max(Head::LEN as u64);
        let eighth = usize::try_from(segment / 8).unwrap_or(usize::MAX);
        Self { total, segment, block: eighth.min(BLOCK_BYTES), value: eighth.min(MAX_VALUE_BYTES) }
    }

    fn carried(&self) -> u64 {
        self.segment / 4 * MAX_CARRIED
    }

    /// A segment of this length takes no further block.
    fn is_full(&self, length: u64) -> bool {
        length + 2 * self.block as u64 > self.segment
    }
}

/// Why a sample is not kept.
#[derive(Debug, Error)]
pub(super) enum NotKept {
    #[error("its value is too large")]
    TooLarge,
    #[error("there are samples of too many properties")]
    TooManyProperties,
    #[error("the disk did not take what came before")]
    Stuck,
    #[error(transparent)]
    Disk(#[from] io::Error),
}

/// What the history holds and did since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HistoryStats {
    /// Bytes on the disk, and in how many segments.
    pub bytes: u64,
    pub segments: u64,
    /// Properties with samples.
    pub properties: u64,
    /// Samples that were carried over from segments that went.
    pub carried: u64,
    /// Blocks and files that are not what was written, each time that they were read.
    pub damaged: u64,
}

/// The open history.
#[derive(Debug)]
pub(super) struct History {
    disk: Box<dyn Disk>,
    sizes: Sizes,
    /// By number.
    segments: VecDeque<Segment>,
    next_number: u32,
    names: Names,
    /// The end of the last segment; `None`: a new one is to begin.
    writing: Option<Writing>,
    /// Samples that were not kept, and are not told of yet.
    lost: Option<Gap>,
    /// The disk refused; only a flush tries it again.
    is_stuck: bool,
    /// For values that are packed.
    room: Vec<u8>,
    stats: HistoryStats,
}

/// A file of samples.
#[derive(Debug)]
struct Segment {
    number: u32,
    bytes: u64,
    /// The time that its samples span.
    fresh: Option<Span>,
    carried: Option<Span>,
}

impl Segment {
    fn cover(&mut self, part: Part, time: UnixMillis) {
        let span = match part {
            Part::Fresh => &mut self.fresh,
            Part::Carried => &mut self.carried,
        };
        *span = Some(span.map_or(Span::of(time), |span| span.with(time)));
    }

    fn cover_entry(&mut self, part: Part, entry: &Entry<'_>) {
        match entry {
            Entry::Sample(reading) => self.cover(part, reading.time),
            Entry::Gap(gap) => [gap.since, gap.until].iter().for_each(|time| self.cover(part, *time)),
            Entry::Device { .. } | Entry::Word { .. } | Entry::Property { .. } => {}
        }
    }

    fn spans(&self) -> impl Iterator<Item = Span> {
        self.fresh.into_iter().chain(self.carried)
    }
}

/// Where the next frame goes.
#[derive(Debug)]
struct Writing {
    end: u64,
    chain: Chain,
    base: UnixMillis,
    /// Not written yet.
    block: Block,
    /// The samples in it.
    waiting: Option<Gap>,
}

impl Writing {
    fn at(end: u64, chain: Chain, base: UnixMillis) -> Self {
        Self { end, chain, base, block: Block::new(Part::Fresh, base), waiting: None }
    }
}

impl History {
    /// Reads what is there. What is damaged is left out and named in the log; only a folder that cannot be listed is an
    /// error.
    pub(super) fn open(disk: Box<dyn Disk>, bytes: u64) -> io::Result<Self> {
        let mut files = disk.list()?;
        files.sort();
        let mut history = Self {
            disk,
            sizes: Sizes::of(bytes),
            segments: VecDeque::new(),
            next_number: 1,
            names: Names::default(),
            writing: None,
            lost: None,
            is_stuck: false,
            room: Vec::new(),
            stats: HistoryStats::default(),
        };
        let mut replaced = 0;
        for (name, length) in files {
            match number_of(&name) {
                Some(number) => replaced = replaced.max(history.take_in(number, length)),
                None if name == NEXT => drop(history.disk.remove(&name)),
                None if name == DAMAGED => history.sizes.total = history.sizes.total.saturating_sub(length),
                None => tracing::warn!(file = name, "no segment of the history: left alone"),
            }
        }
        history.remove_up_to(replaced);
        Ok(history)
    }

    /// A file that should be a segment; which ones it replaces.
    fn take_in(&mut self, number: u32, length: u64) -> u32 {
        self.next_number = number + 1;
        self.writing = None;
        let name = name_of(number);
        let mut segment = Segment { number, bytes: length, fresh: None, carried: None };
        let mut dictionary = Dictionary::new(&Which::All);
        let sound = segment::read(&*self.disk, &name, &mut |part, entry| {
            dictionary.learn(&entry);
            segment.cover_entry(part, &entry);
            if let Entry::Sample(reading) = &entry {
                dictionary.find(reading);
            }
        });
        let sound = match sound {
            Ok(Some(sound)) if sound.head.number == number => sound,
            Ok(_) => {
                self.set_aside(&name);
                return 0;
            }
            Err(error) => {
                tracing::warn!(file = name, %error, "a segment of the history cannot be read");
                self.stats.damaged += 1;
                self.segments.push_back(segment);
                return 0;
            }
        };
        self.note_damage(&name, sound.damaged);
        self.names.learn(number, &dictionary);
        self.go_on(&mut segment, &sound);
        self.segments.push_back(segment);
        sound.head.replaces
    }

    /// Writes on behind what counts, if there is room.
    fn go_on(&mut self, segment: &mut Segment, sound: &segment::Sound) {
        let is_clean =
            sound.end == segment.bytes || self.disk.truncate(&name_of(segment.number), sound.end).is_ok();
        if !is_clean || self.sizes.is_full(sound.end) {
            return;
        }
        segment.bytes = sound.end;
        self.writing = Some(Writing::at(sound.end, sound.chain, sound.head.base));
    }

    fn set_aside(&mut self, name: &str) {
        let kept = self.disk.rename(name, DAMAGED);
        tracing::warn!(
            file = name,
            kept_as = kept.is_ok().then_some(DAMAGED),
            "no segment of the history: left out"
        );
        self.stats.damaged += 1;
    }

    fn note_damage(&mut self, name: &str, damaged: u64) {
        if damaged > 0 {
            tracing::warn!(
                file = name,
                blocks = damaged,
                "the history is damaged: what is not whole is left out"
            );
            self.stats.damaged += damaged;
        }
    }

    fn remove_up_to(&mut self, number: u32) {
        while self.segments.front().is_some_and(|segment| segment.number <= number) {
            if let Some(segment) = self.segments.pop_front() {
                // Or the next start removes it: the segment that replaces it says so.
                let _ = self.disk.remove(&name_of(segment.number));
            }
        }
        self.names.forget_up_to(number);
    }

    /// Takes a sample; it is on its way to the disk after the next flush.
    pub(super) fn append(
        &mut self,
        id: &PropertyId,
        sample: &Sample,
        stored: UnixMillis,
    ) -> Result<(), NotKept> {
        let mut room = std::mem::take(&mut self.room);
        let taken = self.append_packed(id, sample, stored, &Packed::new(&sample.value, &mut room));
        self.room = room;
        if taken.is_err() {
            self.lose(Gap::one(stored));
        }
        taken
    }

    /// Samples were not kept: the history says so before its next one.
    pub(super) fn lose(&mut self, gap: Gap) {
        self.lost = Some(self.lost.map_or(gap, |lost| lost.merge(gap)));
    }

    fn append_packed(
        &mut self,
        id: &PropertyId,
        sample: &Sample,
        stored: UnixMillis,
        value: &Packed<'_>,
    ) -> Result<(), NotKept> {
        if value.len() > self.sizes.value {
            return Err(NotKept::TooLarge);
        }
        self.make_room(stored)?;
        let (Some(writing), Some(segment)) = (&mut self.writing, self.segments.back_mut()) else {
            return Err(NotKept::Stuck);
        };
        if let Some(gap) = self.lost.take() {
            writing.block.gap(&gap);
            segment.cover_entry(Part::Fresh, &Entry::Gap(gap));
        }
        let number = self.names.add(&id.device, &id.property, &mut writing.block, Part::Fresh);
        let property = number.ok_or(NotKept::TooManyProperties)?;
        let Sample { value: _, time, quality } = *sample;
        writing.block.sample(&Reading { property, time, stored, quality, value: *value, age: 0 });
        writing.waiting = Some(writing.waiting.map_or(Gap::one(stored), |gap| gap.merge(Gap::one(stored))));
        segment.cover(Part::Fresh, time);
        Ok(())
    }

    /// There is a block with room.
    fn make_room(&mut self, now: UnixMillis) -> Result<(), NotKept> {
        if self.writing.as_ref().is_some_and(|writing| writing.block.body().len() >= self.sizes.block) {
            if self.is_stuck {
                return Err(NotKept::Stuck);
            }
            self.flush()?;
        }
        if self.writing.is_none() {
            if self.is_stuck {
                return Err(NotKept::Stuck);
            }
            let begun = self.begin(now);
            self.is_stuck = begun.is_err();
            begun?;
        }
        Ok(())
    }

    /// Hands what waits to the system; whether anything did. An error leaves it waiting; the next flush tries again.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        self.is_stuck = false;
        let (Some(writing), Some(segment)) = (&mut self.writing, self.segments.back_mut()) else {
            return Ok(false);
        };
        if writing.block.is_empty() {
            return Ok(false);
        }
        let (frame, chain) = frame(writing.block.body(), writing.chain);
        let written = self.disk.write(&name_of(segment.number), writing.end, &frame);
        if let Err(error) = written {
            self.is_stuck = true;
            if error.kind() == io::ErrorKind::NotFound {
                self.abandon();
            }
            return Err(error);
        }
        writing.end += frame.len() as u64;
        (writing.chain, writing.waiting, segment.bytes) = (chain, None, writing.end);
        writing.block.restart(writing.base);
        if self.sizes.is_full(writing.end) {
            self.writing = None;
        }
        Ok(true)
    }

    /// Somebody removed the file that is written: what waits means nothing without it.
    fn abandon(&mut self) {
        let waiting = self.writing.take().and_then(|writing| writing.waiting);
        self.segments.pop_back();
        if let Some(gap) = waiting {
            self.lose(gap);
        }
    }

    /// What waits is on the disk when this returns.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        self.segments.back().map_or(Ok(()), |segment| self.disk.sync(&name_of(segment.number)))
    }

    pub(super) fn stats(&self) -> HistoryStats {
        HistoryStats {
            bytes: self.segments.iter().map(|segment| segment.bytes).sum(),
            segments: self.segments.len() as u64,
            properties: self.names.len() as u64,
            ..self.stats
        }
    }
}

fn name_of(number: u32) -> String {
    format!("{number:08}.seg")
}

fn number_of(name: &str) -> Option<u32> {
    let number = name.strip_suffix(".seg")?.parse().ok()?;
    (name_of(number) == name).then_some(number)
}

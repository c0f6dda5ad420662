//! Answers queries from the segments that can have an answer, and from what waits to be written.

use bus::{Sample, UnixMillis};

use super::super::segment;
use super::{History, Segment, name_of};
use crate::history::format::{Block, Dictionary, Entry, Found, Reading, Selection};
use crate::history::{Answer, Gap, Order, Overview, Query, Survey, Which, overview};

/// What a segment has of what is asked for.
enum Seen<'a> {
    Sample(&'a Reading<'a>, Found<'a>),
    Gap(Gap),
}

impl History {
    /// A page of samples; a segment that cannot be read is left out and named in the log.
    pub(in super::super) fn query(&mut self, query: &Query) -> Answer {
        let mut selection = Selection::new(query);
        let mut damaged = Vec::new();
        for segment in self.by_time(query.order) {
            if segment.spans().any(|span| selection.wants(&span)) {
                let mut take = |seen: Seen<'_>| match seen {
                    Seen::Sample(reading, found) => selection.offer(reading, || found.cursor(reading)),
                    Seen::Gap(gap) => selection.offer_gap(gap),
                };
                damaged.push((segment.number, self.search(segment, &query.which, &mut take)));
            }
        }
        self.note_all_damage(damaged);
        selection.finish()
    }

    /// The same at a glance: each segment is read once.
    pub(in super::super) fn survey(&mut self, span: &overview::Span) -> Overview {
        let (which, mut survey) = (Which::Property(span.id.clone()), Survey::new(span));
        let mut damaged = Vec::new();
        for segment in &self.segments {
            if segment.spans().any(|span| survey.wants(span.since, span.until)) {
                let mut take = |seen: Seen<'_>| match seen {
                    Seen::Sample(reading, found) if survey.wants(reading.time, reading.time) => {
                        let Some(value) = reading.value.unpack() else { return };
                        let sample = Sample { value, time: reading.time, quality: reading.quality };
                        survey.offer(&sample, found.ordinal);
                    }
                    Seen::Sample(..) => {}
                    Seen::Gap(gap) => survey.offer_gap(gap),
                };
                damaged.push((segment.number, self.search(segment, &which, &mut take)));
            }
        }
        self.note_all_damage(damaged);
        survey.finish()
    }

    fn note_all_damage(&mut self, damaged: Vec<(u32, u64)>) {
        damaged.into_iter().for_each(|(number, blocks)| self.note_damage(&name_of(number), blocks));
    }

    /// The ones first that can fill a page and so spare the others.
    fn by_time(&self, order: Order) -> Vec<&Segment> {
        let mut segments: Vec<&Segment> = self.segments.iter().collect();
        match order {
            Order::NewestFirst => segments.sort_by_key(|segment| std::cmp::Reverse(latest(segment))),
            Order::OldestFirst => segments.sort_by_key(|segment| earliest(segment)),
        }
        segments
    }

    /// How many of its blocks are damaged.
    fn search(&self, segment: &Segment, which: &Which, take: &mut dyn FnMut(Seen<'_>)) -> u64 {
        let mut dictionary = Dictionary::new(which);
        let mut offer = |entry: Entry<'_>| {
            dictionary.learn(&entry);
            match &entry {
                Entry::Sample(reading) => {
                    if let Some(found) = dictionary.find(reading) {
                        take(Seen::Sample(reading, found));
                    }
                }
                Entry::Gap(gap) => take(Seen::Gap(*gap)),
                Entry::Device { .. } | Entry::Word { .. } | Entry::Property { .. } => {}
            }
        };
        let name = name_of(segment.number);
        let read = segment::read(&*self.disk, &name, &mut |_, entry| offer(entry));
        if let Some(writing) = self.writing.as_ref().filter(|_| self.is_last(segment)) {
            Block::read(writing.block.body(), writing.base).into_iter().flatten().for_each(offer);
            // A frame that the disk took half is still waiting.
            return 0;
        }
        match read {
            Ok(sound) => sound.map_or(1, |sound| sound.damaged),
            Err(error) => {
                tracing::warn!(file = name, %error, "a segment of the history cannot be read: it is left out");
                1
            }
        }
    }

    fn is_last(&self, segment: &Segment) -> bool {
        self.segments.back().is_some_and(|last| last.number == segment.number)
    }
}

fn latest(segment: &Segment) -> Option<UnixMillis> {
    segment.spans().map(|span| span.until).max()
}

fn earliest(segment: &Segment) -> Option<UnixMillis> {
    segment.spans().map(|span| span.since).min()
}

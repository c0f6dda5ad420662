//! Answers queries from the segments that can have an answer, and from what waits to be written.

use bus::UnixMillis;

use super::super::segment;
use super::{History, Segment, name_of};
use crate::history::format::{Block, Dictionary, Entry, Selection};
use crate::history::{Answer, Order, Query};

impl History {
    /// A page of samples; a segment that cannot be read is left out and named in the log.
    pub(in super::super) fn query(&mut self, query: &Query) -> Answer {
        let mut selection = Selection::new(query);
        let mut damaged = Vec::new();
        for segment in self.by_time(query.order) {
            if segment.spans().any(|span| selection.wants(&span)) {
                damaged.push((segment.number, self.search(segment, &mut selection)));
            }
        }
        for (number, blocks) in damaged {
            self.note_damage(&name_of(number), blocks);
        }
        selection.finish()
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
    fn search(&self, segment: &Segment, selection: &mut Selection<'_>) -> u64 {
        let mut dictionary = Dictionary::new(selection.which());
        let mut offer = |entry: Entry<'_>| {
            dictionary.learn(&entry);
            match &entry {
                Entry::Sample(reading) => {
                    if let Some(found) = dictionary.find(reading) {
                        selection.offer(reading, || found.cursor(reading));
                    }
                }
                Entry::Gap(gap) => selection.offer_gap(*gap),
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

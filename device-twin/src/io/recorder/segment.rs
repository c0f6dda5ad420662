//! Reads one segment of the history from its file, a window at a time.

use std::io;

use super::disk::Disk;
use crate::history::format::segment::{Framed, Head};
use crate::history::format::{Block, Chain, Entry, Part};

/// Read at once: most of a block, so that a query costs little memory and no block many reads.
const CHUNK: usize = 64 << 10;

/// How far a segment counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sound {
    pub(super) head: Head,
    /// Bytes up to the end of the last frame that is whole.
    pub(super) end: u64,
    /// Where the next frame stands.
    pub(super) chain: Chain,
    /// Frames that are not what was written, and the rest of the file if it cannot be read.
    pub(super) damaged: u64,
}

/// Gives out all that is whole, in its order. `None`: it is no segment.
pub(super) fn read(
    disk: &dyn Disk,
    name: &str,
    take: &mut dyn FnMut(Part, Entry<'_>),
) -> io::Result<Option<Sound>> {
    let mut window = Window { disk, name, position: 0, bytes: Vec::new(), start: 0 };
    while window.rest().len() < Head::LEN && window.grow()? {}
    let Some((head, chain)) = Head::decode(window.rest()) else { return Ok(None) };
    window.pass(Head::LEN);
    let mut sound = Sound { head, end: window.position, chain, damaged: 0 };
    let mut here = chain;
    loop {
        match Framed::read(window.rest(), here) {
            Framed::Whole { body, length, next } => {
                read_body(body, &head, take);
                window.pass(length);
                (sound.end, sound.chain, here) = (window.position, next, next);
            }
            Framed::Damaged { length, next } => {
                sound.damaged += 1;
                window.pass(length);
                here = next;
            }
            Framed::Short => {
                if !window.grow()? {
                    break;
                }
            }
            Framed::None => break,
        }
    }
    sound.damaged += u64::from(!window.rest().is_empty());
    Ok(Some(sound))
}

fn read_body(body: &[u8], head: &Head, take: &mut dyn FnMut(Part, Entry<'_>)) {
    let Some(entries) = Block::read(body, head.base) else { return };
    let part = entries.part();
    entries.for_each(|entry| take(part, entry));
}

/// The part of a file that is looked at.
struct Window<'d> {
    disk: &'d dyn Disk,
    name: &'d str,
    /// Where in the file the rest begins.
    position: u64,
    bytes: Vec<u8>,
    start: usize,
}

impl Window<'_> {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn pass(&mut self, length: usize) {
        self.start += length;
        self.position += length as u64;
    }

    /// Reads on; false at the end of the file.
    fn grow(&mut self) -> io::Result<bool> {
        self.bytes.drain(..self.start);
        self.start = 0;
        let known = self.bytes.len();
        self.bytes.resize(known + CHUNK, 0);
        let read = self.disk.read(self.name, self.position + known as u64, &mut self.bytes[known..]);
        self.bytes.truncate(known + read.as_ref().map_or(0, |count| *count));
        Ok(read? > 0)
    }
}

//! Lines in files that take turns: the audit, and the log of the rules.

use std::collections::VecDeque;
use std::io;

use super::disk::Disk;
use super::history::NotKept;
use crate::history::format::Chain;
use crate::history::format::lines::{self, Reader, SEAL_BYTES};

/// So many files share the bytes of a log: when both are full, the older one goes.
const FILES: u64 = 2;

/// What waits is written at once when it is this long, and what comes while the disk refuses is not kept.
const WAITING_BYTES: usize = 64 << 10;

/// The longest line that is taken: one that is longer is no decision.
const MAX_LINE_BYTES: usize = 256 << 10;

/// Read at once.
const CHUNK: usize = 64 << 10;

/// The open log.
#[derive(Debug)]
pub(super) struct Log {
    disk: Box<dyn Disk>,
    /// What its files end with.
    extension: &'static str,
    file_bytes: u64,
    /// By number.
    files: VecDeque<u32>,
    next_number: u32,
    /// The end of the last file; `None`: a new one is to begin.
    writing: Option<Writing>,
    /// Lines that are not written yet.
    waiting: Vec<u8>,
    is_stuck: bool,
}

/// Where the next lines go.
#[derive(Debug, Clone, Copy)]
struct Writing {
    end: u64,
    chain: Chain,
}

impl Log {
    /// Reads what is there, for where to go on. Only a folder that cannot be listed is an error.
    pub(super) fn open(disk: Box<dyn Disk>, extension: &'static str, bytes: u64) -> io::Result<Self> {
        let mut numbers = Vec::new();
        for (name, length) in disk.list()? {
            match number_of(&name, extension) {
                Some(number) => numbers.push((number, length)),
                None => tracing::warn!(file = name, "no file of the log: left alone"),
            }
        }
        numbers.sort_unstable();
        let last = numbers.last().copied();
        let mut log = Self {
            disk,
            extension,
            file_bytes: bytes / FILES,
            files: numbers.into_iter().map(|(number, _)| number).collect(),
            next_number: last.map_or(1, |(number, _)| number + 1),
            writing: None,
            waiting: Vec::new(),
            is_stuck: false,
        };
        if let Some((number, length)) = last {
            log.writing = log.go_on(number, length);
        }
        Ok(log)
    }

    /// The end of what counts in a file; `None` if nothing can go there.
    fn go_on(&self, number: u32, length: u64) -> Option<Writing> {
        let name = self.name_of(number);
        let sound = self.read_file(number, &mut |_| ()).ok()?;
        if sound.damaged > 0 {
            tracing::warn!(file = name, "the log is damaged: lines that are not whole are left out");
        }
        let is_clean = sound.end == length || self.disk.truncate(&name, sound.end).is_ok();
        is_clean.then_some(Writing { end: sound.end, chain: sound.chain })
    }

    fn read_file(&self, number: u32, take: &mut dyn FnMut(&[u8])) -> io::Result<lines::Sound> {
        let (name, mut reader) = (self.name_of(number), Reader::new(&self.name_of(number)));
        let (mut chunk, mut at) = (vec![0; CHUNK], 0);
        loop {
            match self.disk.read(&name, at, &mut chunk)? {
                0 => return Ok(reader.finish()),
                count => {
                    reader.read(&chunk[..count], take);
                    at += count as u64;
                }
            }
        }
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Whether lines of so many bytes have room in the file that is written.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let end = self.writing.map_or(0, |writing| writing.end);
        end + (self.waiting.len() + bytes + SEAL_BYTES) as u64 <= self.file_bytes
    }

    /// How much of a file is used, in eighths.
    pub(super) fn eighths(&self) -> u64 {
        let end = self.writing.map_or(0, |writing| writing.end) + self.waiting.len() as u64;
        end.saturating_mul(8) / self.file_bytes.max(1)
    }

    /// Takes a line, into a new file where it has no room in this one.
    pub(super) fn append_in_turn(&mut self, line: &[u8]) -> Result<(), NotKept> {
        if !self.has_room(line.len() + 1) && !self.is_stuck {
            self.begin_file()?;
        }
        self.append(line)
    }

    /// Takes a line; it is on its way to the disk after the next flush.
    pub(super) fn append(&mut self, line: &[u8]) -> Result<(), NotKept> {
        if line.len() > MAX_LINE_BYTES || !lines::is_line(line) {
            return Err(NotKept::TooLarge);
        }
        if self.waiting.len() >= WAITING_BYTES {
            if self.is_stuck {
                return Err(NotKept::Stuck);
            }
            self.flush()?;
        }
        self.waiting.extend_from_slice(line);
        self.waiting.push(b'\n');
        Ok(())
    }

    /// What comes from now on begins a new file.
    pub(super) fn begin_file(&mut self) -> io::Result<()> {
        self.flush()?;
        self.writing = None;
        Ok(())
    }

    /// Hands what waits to the system; whether anything did. An error leaves it waiting; the next flush tries again.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        self.is_stuck = false;
        if self.waiting.is_empty() {
            return Ok(false);
        }
        let written = self.write();
        self.is_stuck = written.is_err();
        written.map(|()| true)
    }

    fn write(&mut self) -> io::Result<()> {
        if let Some(writing) = self.writing {
            match self.write_at(self.next_number - 1, writing) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // somebody removed it
                written => return written,
            }
        }
        self.make_room();
        let number = self.next_number;
        self.write_at(number, Writing { end: 0, chain: lines::beginning(&self.name_of(number)) })?;
        self.files.push_back(number);
        self.next_number += 1;
        Ok(())
    }

    fn write_at(&mut self, number: u32, Writing { end, chain }: Writing) -> io::Result<()> {
        let lines = self.waiting.len();
        let chain = lines::seal(&mut self.waiting, chain);
        let written = self.disk.write(&self.name_of(number), end, &self.waiting);
        match written {
            Ok(()) => {
                self.writing = Some(Writing { end: end + self.waiting.len() as u64, chain });
                self.waiting.clear();
                self.waiting.shrink_to(WAITING_BYTES);
            }
            Err(_) => self.waiting.truncate(lines),
        }
        written
    }

    /// The older files go before a new one comes.
    fn make_room(&mut self) {
        self.writing = None;
        while self.files.len() as u64 >= FILES {
            if let Some(number) = self.files.pop_front() {
                let _ = self.disk.remove(&self.name_of(number)); // or the next start finds and drops it
            }
        }
    }

    /// What waits is on the disk when this returns.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        match self.writing {
            Some(_) => self.disk.sync(&self.name_of(self.next_number - 1)),
            None => Ok(()),
        }
    }

    /// All lines in their order, each with the number of its file; those that wait too.
    pub(super) fn read(&mut self, take: &mut dyn FnMut(u32, &[u8])) {
        let _ = self.flush(); // what the disk does not take is read from memory below
        for number in &self.files {
            if let Err(error) = self.read_file(*number, &mut |line| take(*number, line)) {
                tracing::warn!(file = self.name_of(*number), %error, "a file of the log cannot be read");
            }
        }
        let number = if self.writing.is_some() { self.next_number - 1 } else { self.next_number };
        for line in self.waiting.split_inclusive(|byte| *byte == b'\n') {
            take(number, &line[..line.len() - 1]);
        }
    }

    fn name_of(&self, number: u32) -> String {
        name_of(number, self.extension)
    }
}

fn name_of(number: u32, extension: &str) -> String {
    format!("{number:08}.{extension}")
}

fn number_of(name: &str, extension: &str) -> Option<u32> {
    let number = name.strip_suffix(extension)?.strip_suffix('.')?.parse().ok()?;
    (number < u32::MAX && name_of(number, extension) == name).then_some(number)
}

//! The rules' log: lines that lead on from each other, and heads from which a reader can begin.
//!
//! A file begins with heads (what the rules are and what they hold), so that it can be replayed without the ones before.
//! Only the rules' engine can say them, so it is asked to: heads are *due* when a file is nearly full, when none is
//! there, and when lines were lost. Lines that follow a lost one are not kept either, until heads came: what stands in a
//! file can always be replayed.

use bytes::Bytes;

use super::disk::Disk;
use super::history::NotKept;
use super::log::Log;

/// Of a file: from then on heads are due, which begin the next one. The rest is room for what comes until then.
const NEARLY_FULL_EIGHTHS: u64 = 7;

/// Of a file, for heads: otherwise none of it would be left for what follows.
const MAX_HEADS_EIGHTHS: u64 = 4;

/// Bytes of lines in one page, at most, but for one line; a page is a message in memory.
const MAX_PAGE_BYTES: usize = 256 << 10;

/// A line of the rules' log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct RulePosition {
    /// Files are numbered as they are made.
    pub file: u32,
    /// Counted from 0.
    pub line: u64,
}

/// Lines of the rules' log, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RulePage {
    pub lines: Vec<(RulePosition, Bytes)>,
    /// Where the next page begins; `None`: there are no more lines now.
    pub next: Option<RulePosition>,
}

/// The open log of the rules.
#[derive(Debug)]
pub(super) struct RuleLog {
    log: Log,
    /// What is appended leads on from what is there.
    leads_on: bool,
    /// Heads were asked for, as they are from the start.
    is_due: bool,
}

impl RuleLog {
    pub(super) fn open(disk: Box<dyn Disk>, bytes: u64) -> std::io::Result<Self> {
        Ok(Self { log: Log::open(disk, "log", bytes)?, leads_on: false, is_due: true })
    }

    /// Heads; they begin a new file if this one is nearly full.
    pub(super) fn heads(&mut self, heads: &[Bytes]) -> Result<(), NotKept> {
        (self.leads_on, self.is_due) = (false, false);
        let bytes: usize = heads.iter().map(|head| head.len() + 1).sum();
        if bytes as u64 > self.log.file_bytes() * MAX_HEADS_EIGHTHS / 8 {
            return Err(NotKept::TooLarge);
        }
        if self.log.eighths() >= NEARLY_FULL_EIGHTHS || !self.log.has_room(bytes) {
            self.log.begin_file()?;
        }
        heads.iter().try_for_each(|head| self.log.append(head))?;
        self.leads_on = true;
        Ok(())
    }

    pub(super) fn line(&mut self, line: &[u8]) -> Result<(), NotKept> {
        if !self.leads_on {
            return Err(NotKept::Stuck);
        }
        let taken = match self.log.has_room(line.len() + 1) {
            true => self.log.append(line),
            false => Err(NotKept::TooLarge),
        };
        self.leads_on = taken.is_ok();
        taken
    }

    /// Whether the engine is to be asked for heads, once each time that they become due.
    pub(super) fn becomes_due(&mut self) -> bool {
        let is_due = !self.leads_on || self.log.eighths() >= NEARLY_FULL_EIGHTHS;
        let becomes_due = is_due && !self.is_due;
        self.is_due = is_due;
        becomes_due
    }

    pub(super) fn log(&mut self) -> &mut Log {
        &mut self.log
    }

    /// The lines from a position on.
    pub(super) fn page(&mut self, from: RulePosition) -> RulePage {
        let (mut page, mut bytes, mut at) = (RulePage::default(), 0, RulePosition::default());
        self.log.read(&mut |file, line| {
            at = RulePosition { file, line: if file == at.file { at.line + 1 } else { 0 } };
            if at < from || page.next.is_some() {
                return;
            }
            if bytes >= MAX_PAGE_BYTES {
                page.next = Some(at);
                return;
            }
            bytes += line.len() + 1;
            page.lines.push((at, Bytes::copy_from_slice(line)));
        });
        page
    }
}

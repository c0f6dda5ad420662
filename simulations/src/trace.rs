//! What happened, line by line: hashed always, kept for a replay.

use std::fmt::{self, Write as _};

use bus::Mono;
use sha2::{Digest, Sha256};

/// The event log of one run. Two runs of one seed have the same hash.
#[derive(Debug)]
pub struct Trace {
    hasher: Sha256,
    line: String,
    kept: Option<Vec<String>>,
}

impl Trace {
    /// `keep`: all lines are wanted in the end, not only their hash.
    pub fn new(keep: bool) -> Self {
        Self { hasher: Sha256::new(), line: String::new(), kept: keep.then(Vec::new) }
    }

    pub fn say(&mut self, at: Mono, what: fmt::Arguments<'_>) {
        self.line.clear();
        // Writing into a text cannot fail.
        let _ = write!(self.line, "{:>6}.{:06} {what}", at.0 / 1_000_000, at.0 % 1_000_000);
        self.hasher.update(self.line.as_bytes());
        self.hasher.update(b"\n");
        if let Some(kept) = &mut self.kept {
            kept.push(self.line.clone());
        }
    }

    /// The lines, if they were kept, and the hash of all of them.
    pub fn finish(self) -> (Vec<String>, TraceHash) {
        (self.kept.unwrap_or_default(), TraceHash(self.hasher.finalize().into()))
    }
}

/// SHA-256 of a run's event log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceHash(pub [u8; 32]);

impl fmt::Display for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

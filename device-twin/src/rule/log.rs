//! The lines of the rule log: see [`super`] for the format.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use bus::{Mono, Now, UnixMillis};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::document::RuleSpec;
use super::evaluate::{Evaluation, Reading, Seen};
use super::memory::RuleState;
use super::program::Program;
use super::units::Counting;
use crate::twin;

/// One line, written and read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line<'a> {
    pub(super) rule: Cow<'a, str>,
    /// Of the document and the units in which it counts.
    pub(super) spec: Hash,
    /// On the monotonic clock of the process, in microseconds.
    at: u64,
    wall: UnixMillis,
    pub(super) did: Did<'a>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Did<'a> {
    /// The rule began, or its document changed.
    Load(Head<'a>),
    /// The same again, for a file that begins.
    Head(Head<'a>),
    Evaluate(Evaluated<'a>),
    /// Every latch was opened.
    Reset(Step<'a>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head<'a> {
    pub(super) document: Cow<'a, RuleSpec>,
    pub(super) counting: Cow<'a, Counting>,
    pub(super) memory: Cow<'a, RuleState>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Evaluated<'a> {
    pub(super) step: Step<'a>,
    pub(super) made: Cow<'a, Evaluation>,
}

/// What went in, and what was remembered before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step<'a> {
    pub(super) before: Cow<'a, RuleState>,
    readings: BTreeMap<Cow<'a, str>, Cow<'a, Reading>>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    windows: Cow<'a, [Option<f64>]>,
    #[serde(default, skip_serializing_if = "is_false")]
    anew: bool,
    pub(super) after: Cow<'a, RuleState>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// The first 8 bytes of a SHA-256, in hex.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Hash(u64);

impl Hash {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(bytes));
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for Hash {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        u64::from_str_radix(&text, 16).map(Self).map_err(|why| why.to_string())
    }
}

/// Whose lines are written, and when.
#[derive(Debug, Clone, Copy)]
pub struct Scribe<'a> {
    pub rule: &'a str,
    pub program: &'a Program,
    pub now: Now,
}

impl<'a> Scribe<'a> {
    /// The rule began, or its document changed.
    pub fn load(&self, memory: &RuleState) -> Bytes {
        self.line(Did::Load(self.head(memory)))
    }

    /// The whole rule for a file that begins.
    pub fn again(&self, memory: &RuleState) -> Bytes {
        self.line(Did::Head(self.head(memory)))
    }

    pub fn evaluated(&self, seen: &Seen, made: &Evaluation, before: &RuleState, after: &RuleState) -> Bytes {
        let step = Step::new(self.program, seen, before, after);
        self.line(Did::Evaluate(Evaluated { step, made: Cow::Borrowed(made) }))
    }

    pub fn reset(&self, seen: &Seen, before: &RuleState, after: &RuleState) -> Bytes {
        self.line(Did::Reset(Step::new(self.program, seen, before, after)))
    }

    fn head<'b>(&'b self, memory: &'b RuleState) -> Head<'b> {
        Head {
            document: Cow::Borrowed(self.program.spec()),
            counting: Cow::Borrowed(self.program.counting()),
            memory: Cow::Borrowed(memory),
        }
    }

    fn line(&self, did: Did<'_>) -> Bytes {
        let line = Line {
            rule: Cow::Borrowed(self.rule),
            spec: self.program.hash,
            at: self.now.mono.0,
            wall: self.now.wall,
            did,
        };
        seal(&line)
    }
}

impl Line<'_> {
    pub(super) fn now(&self) -> Now {
        Now { mono: Mono(self.at), wall: self.wall }
    }
}

impl<'a> Step<'a> {
    pub(super) fn new(
        program: &'a Program,
        seen: &'a Seen,
        before: &'a RuleState,
        after: &'a RuleState,
    ) -> Self {
        let named = program.spec().inputs.keys().zip(&seen.readings);
        let readings = named.filter_map(|(name, reading)| {
            Some((Cow::Borrowed(name.as_str()), Cow::Borrowed(reading.as_ref()?)))
        });
        Self {
            before: Cow::Borrowed(before),
            readings: readings.collect(),
            windows: Cow::Borrowed(&seen.windows),
            anew: seen.anew,
            after: Cow::Borrowed(after),
        }
    }

    /// What went in.
    pub(super) fn seen(&self, program: &Program) -> Seen {
        let names = program.spec().inputs.keys();
        Seen {
            readings: names
                .map(|name| self.readings.get(name.as_str()).cloned().map(Cow::into_owned))
                .collect(),
            windows: self.windows.to_vec(),
            anew: self.anew,
        }
    }
}

/// What comes between a line's content and the hash over it.
const SUM: &str = ",\"sum\":\"";

/// A line's end: [`SUM`], 16 digits, `"}`.
const TAIL: usize = SUM.len() + 16 + 2;

/// The line as it is written, with its sum and without a line break.
pub(super) fn seal(line: &Line<'_>) -> Bytes {
    let mut text = twin::json(line).to_vec();
    text.pop();
    let sum = Hash::of(&text);
    text.extend_from_slice(format!("{SUM}{sum}\"}}").as_bytes());
    twin::exact(text)
}

/// A line, and whether its sum is right; `None` if it is no such line.
pub(super) fn unseal(text: &[u8]) -> Option<(Line<'static>, bool)> {
    let (content, tail) = text.split_at_checked(text.len().checked_sub(TAIL)?)?;
    let digits = std::str::from_utf8(tail).ok()?.strip_prefix(SUM)?.strip_suffix("\"}")?;
    let line = serde_json::from_slice(&[content, b"}"].concat()).ok()?;
    Some((line, digits == Hash::of(content).to_string()))
}

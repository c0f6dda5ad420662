//! The file as lines of words under headings.

use super::{InpError, Problem};

/// Sections that are read.
const READ: [&str; 12] = [
    "JUNCTIONS",
    "RESERVOIRS",
    "TANKS",
    "PIPES",
    "PUMPS",
    "VALVES",
    "STATUS",
    "PATTERNS",
    "CURVES",
    "CONTROLS",
    "TIMES",
    "OPTIONS",
];

/// Sections that say nothing about heads and flows.
const PASSED_OVER: [&str; 14] = [
    "TITLE",
    "TAGS",
    "ENERGY",
    "QUALITY",
    "SOURCES",
    "REACTIONS",
    "MIXING",
    "REPORT",
    "COORDINATES",
    "VERTICES",
    "LABELS",
    "BACKDROP",
    "ROUGHNESS",
    "END",
];

/// One line: its words without the comment, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Line<'a> {
    number: usize,
    section: &'a str,
    pub(super) words: Vec<&'a str>,
}

impl<'a> Line<'a> {
    pub(super) fn error(&self, problem: Problem) -> InpError {
        InpError { line: self.number, section: self.section.to_owned(), problem }
    }

    pub(super) fn invalid(&self, word: &str, wanted: &'static str) -> InpError {
        self.error(Problem::Invalid(word.to_owned(), wanted))
    }

    pub(super) fn unsupported(&self, what: impl Into<String>) -> InpError {
        self.error(Problem::Unsupported(what.into()))
    }

    pub(super) fn word(&self, index: usize, what: &'static str) -> Result<&'a str, InpError> {
        self.words.get(index).copied().ok_or_else(|| self.error(Problem::Missing(what)))
    }

    /// Whether the word at `index` is this one, in any case.
    pub(super) fn says(&self, index: usize, word: &str) -> bool {
        self.words.get(index).is_some_and(|w| w.eq_ignore_ascii_case(word))
    }

    pub(super) fn number(&self, index: usize, what: &'static str) -> Result<f64, InpError> {
        self.word(index, what).and_then(|word| self.finite(word))
    }

    pub(super) fn number_or(&self, index: usize, default: f64) -> Result<f64, InpError> {
        self.words.get(index).map_or(Ok(default), |word| self.finite(word))
    }

    pub(super) fn above_zero(&self, index: usize, what: &'static str) -> Result<f64, InpError> {
        let number = self.number(index, what)?;
        if number > 0.0 { Ok(number) } else { Err(self.invalid(self.words[index], "above 0")) }
    }

    pub(super) fn finite(&self, word: &str) -> Result<f64, InpError> {
        let number = word.parse::<f64>().ok().filter(|n| n.is_finite());
        number.ok_or_else(|| self.invalid(word, "a number"))
    }
}

/// All lines of the sections that are read, in the file's order.
#[derive(Debug)]
pub(super) struct Sections<'a>(Vec<Line<'a>>);

impl<'a> Sections<'a> {
    pub(super) fn split(text: &'a str) -> Result<Self, InpError> {
        let mut lines = Vec::new();
        let mut section = "";
        for (index, raw) in text.lines().enumerate() {
            let words: Vec<&str> = raw.split(';').next().unwrap_or("").split_whitespace().collect();
            let Some(first) = words.first() else { continue };
            if let Some(heading) = first.strip_prefix('[') {
                section = heading.trim_end_matches(']');
            } else if !is_one_of(section, &PASSED_OVER) {
                let line = Line { number: index + 1, section, words };
                if !is_one_of(section, &READ) {
                    return Err(line.unsupported(format!("[{section}]")));
                }
                lines.push(line);
            }
        }
        Ok(Self(lines))
    }

    pub(super) fn of(&self, section: &str) -> impl Iterator<Item = &Line<'a>> {
        self.0.iter().filter(move |line| line.section.eq_ignore_ascii_case(section))
    }
}

fn is_one_of(section: &str, names: &[&str]) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case(section))
}

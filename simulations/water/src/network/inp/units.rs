//! Units and times: what the numbers of a file mean.

use super::sections::{Line, Sections};
use super::{InpError, Problem};
use crate::network::model::Times;

const FOOT_M: f64 = 0.3048;
const FOOT3_M3: f64 = FOOT_M * FOOT_M * FOOT_M;
const INCH_M: f64 = FOOT_M / 12.0;

/// Flow units: their name, how many make one ft³/s (EPANET's numbers) or one m³/s, and whether lengths are metric.
const FLOWS: [(&str, f64, bool); 10] = [
    ("CFS", 1.0, false),
    ("GPM", 448.831, false),
    ("MGD", 0.646_32, false),
    ("IMGD", 0.538_2, false),
    ("AFD", 1.983_7, false),
    ("LPS", 1000.0, true),
    ("LPM", 60_000.0, true),
    ("MLD", 86.4, true),
    ("CMH", 3600.0, true),
    ("CMD", 86_400.0, true),
];

/// Factors to SI units, and what else [OPTIONS] says about hydraulics.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Options {
    /// m³/s per unit of flow.
    pub(super) flow: f64,
    /// Metres per unit of length, head and level.
    pub(super) length: f64,
    /// Metres per unit of a pipe's diameter.
    pub(super) diameter: f64,
    /// Of junctions that name none.
    pub(super) pattern: String,
    pub(super) demand_multiplier: f64,
}

impl Options {
    pub(super) fn read(sections: &Sections<'_>) -> Result<Self, InpError> {
        // EPANET's defaults.
        let mut options = Self {
            flow: FOOT3_M3 / 448.831,
            length: FOOT_M,
            diameter: INCH_M,
            pattern: "1".to_owned(),
            demand_multiplier: 1.0,
        };
        sections.of("OPTIONS").try_for_each(|line| options.line(line))?;
        Ok(options)
    }

    fn line(&mut self, line: &Line<'_>) -> Result<(), InpError> {
        if line.says(0, "UNITS") {
            self.units(line)?;
        } else if line.says(0, "HEADLOSS") && !line.says(1, "H-W") {
            return Err(line.unsupported(format!("headloss {}", line.word(1, "a formula")?)));
        } else if line.says(0, "PATTERN") {
            self.pattern = line.word(1, "a pattern")?.to_owned();
        } else if line.says(0, "DEMAND") && line.says(1, "MULTIPLIER") {
            self.demand_multiplier = line.number(2, "the multiplier")?;
        } else if line.says(0, "DEMAND") && line.says(1, "MODEL") && !line.says(2, "DDA") {
            return Err(line.unsupported("a demand model other than DDA"));
        }
        Ok(())
    }

    fn units(&mut self, line: &Line<'_>) -> Result<(), InpError> {
        let word = line.word(1, "the flow unit")?;
        let found = FLOWS.iter().find(|(name, ..)| name.eq_ignore_ascii_case(word));
        let &(_, per_unit, metric) = found.ok_or_else(|| line.unsupported(format!("flow unit {word}")))?;
        let (volume, length, diameter) = if metric { (1.0, 1.0, 1e-3) } else { (FOOT3_M3, FOOT_M, INCH_M) };
        (self.flow, self.length, self.diameter) = (volume / per_unit, length, diameter);
        Ok(())
    }
}

pub(super) fn times(sections: &Sections<'_>) -> Result<Times, InpError> {
    let mut times = Times::default();
    for line in sections.of("TIMES") {
        let target = match (line.words[0].to_ascii_uppercase().as_str(), line.words.get(1)) {
            ("DURATION", _) => {
                times.duration_s = seconds(line, 1)?;
                continue;
            }
            ("HYDRAULIC", _) => &mut times.hydraulic_step_s,
            ("PATTERN", Some(word)) if word.eq_ignore_ascii_case("TIMESTEP") => &mut times.pattern_step_s,
            ("PATTERN", Some(word)) if word.eq_ignore_ascii_case("START") => {
                times.pattern_start_s = seconds(line, 2)?;
                continue;
            }
            ("REPORT", Some(word)) if word.eq_ignore_ascii_case("TIMESTEP") => &mut times.report_step_s,
            ("REPORT", Some(word)) if word.eq_ignore_ascii_case("START") && seconds(line, 2)? > 0 => {
                return Err(line.unsupported("a report start other than 0"));
            }
            // Clock time, quality and rule steps, statistics.
            _ => continue,
        };
        let step = seconds(line, 2)?;
        *target = if step > 0 { step } else { return Err(line.invalid(line.words[2], "above 0")) };
    }
    Ok(times)
}

/// A time: `7` (hours), `7:30`, `7:30:15`, or a number with its unit, `90 min`.
pub(super) fn seconds(line: &Line<'_>, index: usize) -> Result<u64, InpError> {
    let word = line.word(index, "a time")?;
    let invalid = || line.invalid(word, "a time");
    let total = if word.contains(':') {
        let parts: Vec<u64> =
            word.split(':').map(|p| p.parse()).collect::<Result<_, _>>().map_err(|_| invalid())?;
        match parts[..] {
            [hours, minutes] => (hours * 60 + minutes) as f64 * 60.0,
            [hours, minutes, seconds] => ((hours * 60 + minutes) * 60 + seconds) as f64,
            _ => return Err(invalid()),
        }
    } else {
        line.finite(word)? * unit_of_time(line, index + 1)?
    };
    // A thousand years: beyond it a float no longer counts single seconds exactly enough to be cut at.
    if (0.0..3.2e10).contains(&total) { Ok(total.round() as u64) } else { Err(invalid()) }
}

/// Seconds in the unit named at `index`; hours where none is.
fn unit_of_time(line: &Line<'_>, index: usize) -> Result<f64, InpError> {
    let Some(word) = line.words.get(index) else { return Ok(3600.0) };
    let units = [("SEC", 1.0), ("MIN", 60.0), ("HOUR", 3600.0), ("DAY", 86_400.0)];
    let found = units.iter().find(|(name, _)| word.to_ascii_uppercase().starts_with(name));
    found
        .map(|(_, seconds)| *seconds)
        .ok_or_else(|| line.error(Problem::Invalid((*word).to_owned(), "a unit of time")))
}

//! Units of measure: UCUM codes (<https://ucum.org>, the case-sensitive ones) read, compared and converted.
//!
//! A code is a dimension, a factor and, for scales with a zero of their own, an offset: `m3/h` is length cubed by time
//! with 1/3600, `Cel` is a temperature with 1 and 273.15. Two units of one dimension are *commensurable*: what is
//! counted in one can be counted in the other. What automation meets is known (`atom`), with UCUM's metric prefixes,
//! products, quotients, exponents, parentheses and `{annotations}`; why it is our own table and no crate stands in
//! `docs/decisions/0008-units.md`.
//!
//! Where we part from UCUM: the mole is a dimension and not a number, so that an amount is not mistaken for a count.
//!
//! KubeEdge's models carry units as free text, which stays as it is: [`Unit::of_text`] recognises the common spellings
//! (`degree celsius`, `percent`), and what it does not recognise is shown and never converted.

mod atom;
mod dimension;
mod nearest;
mod parse;
mod spelling;

use std::fmt;

use thiserror::Error;

pub use dimension::Dimension;

/// A code that was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Unit {
    code: String,
    dimension: Dimension,
    /// A value counted in this unit is `(value + offset) * factor` in base units.
    factor: f64,
    offset: f64,
}

/// Longest code that is read: UCUM's own longest examples have some 30 characters. It bounds the parser's depth too.
pub const MAX_CODE_LEN: usize = 64;

/// Why a text is no unit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnitError {
    #[error("a unit is missing; what is just a number has the unit '1'")]
    Empty,
    #[error("a code of {0} characters is over the limit of {MAX_CODE_LEN}")]
    TooLong(usize),
    #[error("'{part}' is no UCUM unit{}", hint(.nearest.as_deref()))]
    Unknown { part: String, nearest: Option<String> },
    #[error("'{code}': {expected} at character {at}")]
    Syntax { code: String, at: usize, expected: &'static str },
    #[error("'{0}' has a zero of its own and must stand alone; differences are counted in K")]
    Special(&'static str),
    #[error("'{0}' has an exponent that no quantity has")]
    Exponent(String),
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map(|code| format!("; did you mean '{code}'?")).unwrap_or_default()
}

/// Two units that measure different things.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{from} cannot be converted to {to}: the one counts {from_dimension}, the other {to_dimension}")]
pub struct Incommensurable {
    pub from: String,
    pub to: String,
    pub from_dimension: Dimension,
    pub to_dimension: Dimension,
}

impl Unit {
    /// Reads a UCUM code.
    ///
    /// # Errors
    /// Say what was not understood, and the nearest code that is known.
    pub fn parse(code: &str) -> Result<Self, UnitError> {
        let parse::Magnitude { dimension, factor, offset } = parse::magnitude(code)?;
        Ok(Self { code: code.to_owned(), dimension, factor, offset })
    }

    /// The unit that people mean by a free text: a common spelling, else a code. `None`: not known, or not clear.
    pub fn of_text(text: &str) -> Option<Self> {
        match spelling::code_of(text) {
            spelling::Meaning::Code(code) => Self::parse(code).ok(),
            spelling::Meaning::Unclear => None,
            spelling::Meaning::PerhapsCode => Self::parse(text.trim()).ok(),
        }
    }

    pub fn code(&self) -> &str {
        &self.code
    }

    pub fn dimension(&self) -> Dimension {
        self.dimension
    }

    pub fn is_commensurable(&self, other: &Self) -> bool {
        self.dimension == other.dimension
    }

    /// Whether a number means the same in both, however they are written: `kW.h` and `h.kW`.
    pub fn is_same(&self, other: &Self) -> bool {
        let close = |a: f64, b: f64| (a - b).abs() <= a.abs().max(b.abs()) * 1e-12;
        self.is_commensurable(other) && close(self.factor, other.factor) && close(self.offset, other.offset)
    }

    /// How values counted in this unit become values counted in `to`.
    ///
    /// # Errors
    /// The two measure different things.
    pub fn to(&self, to: &Self) -> Result<Conversion, Incommensurable> {
        if self.is_commensurable(to) {
            return Ok(Conversion { before: self.offset, factor: self.factor / to.factor, after: to.offset });
        }
        Err(Incommensurable {
            from: self.code.clone(),
            to: to.code.clone(),
            from_dimension: self.dimension,
            to_dimension: to.dimension,
        })
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code)
    }
}

/// From one unit to another: `(value + before) * factor - after`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conversion {
    before: f64,
    factor: f64,
    after: f64,
}

/// Digits that a converted value keeps. A float has just under 16; the last is noise of the arithmetic, which would
/// put a reading of 8.63 bar at 863.0000000000001 kPa and so above a maximum of 863. No sensor has more than 8.
const DIGITS: i32 = 14;

impl Conversion {
    /// The way back.
    pub fn reversed(&self) -> Self {
        let Self { before, factor, after } = *self;
        Self { before: after, factor: factor.recip(), after: before }
    }

    /// The factor of `factor * value + offset`. It alone converts differences.
    pub fn factor(&self) -> f64 {
        rounded(self.factor, self.factor)
    }

    /// The offset of `factor * value + offset`.
    pub fn offset(&self) -> f64 {
        let before = self.before * self.factor;
        rounded(before - self.after, before.max(self.after))
    }

    /// Counts `value` in the other unit. What is not finite stays so.
    pub fn apply(&self, value: f64) -> f64 {
        let Self { before, factor, after } = *self;
        let scaled = (value + before) * factor;
        // Where an offset is taken off, the digits count from the larger of the two.
        rounded(scaled - after, scaled.abs().max(after.abs()))
    }
}

/// `value` to [`DIGITS`] digits of `size`.
fn rounded(value: f64, size: f64) -> f64 {
    if !size.is_finite() || size == 0.0 {
        return value;
    }
    // Dividing by a whole power of ten is exact to the last bit; multiplying by a fraction of one is not.
    let digits = DIGITS - size.log10().ceil() as i32;
    let power = 10f64.powi(digits.abs());
    let result = if digits >= 0 { (value * power).round() / power } else { (value / power).round() * power };
    if result.is_finite() { result } else { value }
}

#[cfg(test)]
mod tests;

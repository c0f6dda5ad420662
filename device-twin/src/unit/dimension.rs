//! What a unit measures, as exponents of base units.

use std::fmt;

/// Base units, in the order of the exponents. Mass is counted in grams, as UCUM does, so that prefixes are uniform.
const BASE: [&str; 8] = ["m", "s", "g", "rad", "K", "A", "cd", "mol"];

/// Exponents of the base units m, s, g, rad, K, A, cd and mol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Dimension(pub(super) [i8; 8]);

impl Dimension {
    /// A number: percentages, counts.
    pub const ONE: Self = Self([0; 8]);

    /// The dimension of a product; `None` beyond the exponents that fit.
    pub(super) fn times(self, other: Self) -> Option<Self> {
        self.zip(other, i8::checked_add)
    }

    /// The dimension of a quotient; `None` beyond the exponents that fit.
    pub(super) fn over(self, other: Self) -> Option<Self> {
        self.zip(other, i8::checked_sub)
    }

    /// The dimension of a power; `None` beyond the exponents that fit.
    pub(super) fn power(self, exponent: i8) -> Option<Self> {
        self.zip(Self([exponent; 8]), i8::checked_mul)
    }

    fn zip(self, other: Self, combine: fn(i8, i8) -> Option<i8>) -> Option<Self> {
        let mut all = [0; 8];
        for (place, (a, b)) in all.iter_mut().zip(self.0.into_iter().zip(other.0)) {
            *place = combine(a, b)?;
        }
        Some(Self(all))
    }
}

/// In UCUM's notation: `m3.s-1`; `1` for a number.
impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut is_first = true;
        for (unit, exponent) in BASE.iter().zip(self.0).filter(|(_, exponent)| *exponent != 0) {
            f.write_str(if is_first { "" } else { "." })?;
            is_first = false;
            f.write_str(unit)?;
            if exponent != 1 {
                write!(f, "{exponent}")?;
            }
        }
        if is_first { f.write_str("1") } else { Ok(()) }
    }
}

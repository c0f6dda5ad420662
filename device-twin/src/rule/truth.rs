//! Kleene's strong three-valued logic.

/// Whether something holds. Ordered so that `all` is the least and `any` the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Truth {
    False,
    Unknown,
    True,
}

impl Truth {
    /// Conjunction; true of nothing. Looks at every part, here and below.
    pub fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        parts.into_iter().fold(Self::True, Self::min)
    }

    /// Disjunction; false of nothing.
    pub fn any(parts: impl IntoIterator<Item = Self>) -> Self {
        parts.into_iter().fold(Self::False, Self::max)
    }

    /// True if so many are; false if they cannot be, whatever the unknown ones are.
    pub fn at_least(count: usize, parts: impl IntoIterator<Item = Self>) -> Self {
        let (mut holding, mut possible) = (0, 0);
        for part in parts {
            holding += usize::from(part == Self::True);
            possible += usize::from(part != Self::False);
        }
        match (holding >= count, possible >= count) {
            (true, _) => Self::True,
            (false, true) => Self::Unknown,
            (false, false) => Self::False,
        }
    }

    /// Negation.
    pub fn negated(self) -> Self {
        match self {
            Self::False => Self::True,
            Self::Unknown => Self::Unknown,
            Self::True => Self::False,
        }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

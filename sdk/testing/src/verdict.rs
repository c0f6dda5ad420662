//! How a case ends.

use serde::{Deserialize, Serialize};

/// Why a case did not go through to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The mapper or its fixture does not claim what the case is about.
    NotApplicable(String),
    Failed(String),
}

pub(crate) fn not_applicable(why: impl Into<String>) -> Stop {
    Stop::NotApplicable(why.into())
}

pub(crate) fn failed(why: impl Into<String>) -> Stop {
    Stop::Failed(why.into())
}

/// Fails the case unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err($crate::verdict::failed(format!($($why)+)));
        }
    };
}
pub(crate) use ensure;

/// What is said of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Passed,
    NotApplicable(String),
    Failed(String),
}

impl From<Result<(), Stop>> for Verdict {
    fn from(end: Result<(), Stop>) -> Self {
        match end {
            Ok(()) => Self::Passed,
            Err(Stop::NotApplicable(why)) => Self::NotApplicable(why),
            Err(Stop::Failed(why)) => Self::Failed(why),
        }
    }
}

/// How well a mapper does; each level asks for those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It reads, and never writes by itself.
    Bronze,
    /// It writes once and in time, and gets over what lines and devices do.
    Silver,
    /// Nothing that a line does makes it attribute, repeat or leak.
    Gold,
}

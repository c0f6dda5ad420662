//! One rule as people are shown it, at the edge and, by `rule/<namespace>/<rule>` in its outbox, in the cloud.

use bus::{UnixMillis, Value};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::evaluate::{By, Decision, Evaluation};
use super::memory::{RuleState, Trip};
use super::program::Program;

/// What a rule does and why. The cloud gets a new one when another case decides or something is latched or reset, not
/// when a value that it computes changes.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize, Deserialize)]
pub struct RuleView {
    /// `<namespace>/<name>`.
    #[n(0)]
    pub rule: String,
    /// `<namespace>/<device>/<property>`.
    #[n(1)]
    pub output: String,
    #[n(2)]
    pub slot: u8,
    /// `None`: it was not evaluated yet.
    #[n(3)]
    pub decision: Option<Decided>,
    /// The cases that are latched; the one that tripped first comes first.
    #[n(4)]
    pub latched: Vec<String>,
    /// The first of them, with what its inputs said then.
    #[n(5)]
    pub tripped: Option<Trip>,
    /// Inputs that are bad, too old or absent.
    #[n(6)]
    pub unknown: Vec<String>,
    /// When it began to decide so, on the edge's clock. A restart begins anew.
    #[n(7)]
    pub since: Option<UnixMillis>,
}

/// What a rule says, and because of what.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize, Deserialize)]
pub struct Decided {
    #[n(0)]
    pub does: Does,
    /// Of [`Does::Set`].
    #[n(1)]
    pub value: Option<Value>,
    /// The case that decides, or that cannot be told.
    #[n(2)]
    pub case: Option<String>,
    #[n(3)]
    pub because: Because,
}

/// A [`Decision`] without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Does {
    #[n(0)]
    Set,
    #[n(1)]
    FailSafe,
    #[n(2)]
    Hold,
    #[n(3)]
    Relinquish,
}

/// How the case stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Because {
    /// No case is true.
    #[n(0)]
    Nothing,
    /// Or unknown, where that counts as true.
    #[n(1)]
    True,
    #[n(2)]
    Latched,
    /// `onUnknown` decides.
    #[n(3)]
    Unknown,
    /// Its inputs still have time to be heard.
    #[n(4)]
    Waiting,
}

impl Does {
    pub(crate) fn of(decision: &Decision) -> Self {
        match decision {
            Decision::Set { .. } => Self::Set,
            Decision::FailSafe => Self::FailSafe,
            Decision::Hold => Self::Hold,
            Decision::Relinquish => Self::Relinquish,
        }
    }
}

impl Decided {
    pub(crate) fn new(program: &Program, state: &RuleState, evaluation: &Evaluation) -> Self {
        let Evaluation { decision, by } = evaluation;
        let (case, because) = match *by {
            By::Nothing => (None, Because::Nothing),
            By::Case(at) if state.is_tripped(at) => (Some(at), Because::Latched),
            By::Case(at) => (Some(at), Because::True),
            By::Unknown(at) => (Some(at), Because::Unknown),
            By::Waiting(at) => (Some(at), Because::Waiting),
        };
        let value = if let Decision::Set { value, .. } = decision { Some(value.clone()) } else { None };
        let case = case.and_then(|at| program.cases.get(at)).map(|case| case.title.clone());
        Self { does: Does::of(decision), value, case, because }
    }
}

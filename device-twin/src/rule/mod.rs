//! Local rules: documents that turn readings into what one actuator shall do.
//!
//! ```yaml
//! apiVersion: kubebus.io/v1alpha1
//! kind: Rule
//! metadata: {name: fill-tank, namespace: water}
//! spec:
//!   inputs:
//!     level:    {device: tank, property: level, maxAge: 10s}          # at another site: comes over the mesh
//!     setPoint: {device: valve, property: setPoint, from: desired}
//!     position: {device: valve, property: position, maxAge: 10s}
//!     pressure: {device: junction, property: pressure, maxAge: 10s}
//!   output: {device: valve, property: position, slot: 10, ttl: 30s}
//!   onUnknown: hold                                                   # or failSafe, or {value: 0}; must be stated
//!   cases:
//!     - name: do not close further while the pressure is high
//!       when: {input: pressure, op: above, value: 6, hysteresis: 0.5, for: 5s}
//!       then: {value: {input: level, minus: setPoint, gain: -40, offset: 50, min: position, max: 100}}
//!     - name: adjust
//!       then: {value: {input: level, minus: setPoint, gain: -40, offset: 50, min: 0, max: 100}}
//! ```
//!
//! Cases are tried in order in three-valued logic: the first that is true decides; one that is *unknown* (a sensor is
//! silent or bad) stops the search, since whether it applies cannot be told, and `onUnknown` decides. If no case is
//! true, the rule lets go of its slot.
//!
//! # Conditions
//!
//! `{all: [..]}`, `{any: [..]}`, `{not: ..}` and the vote `{atLeast: 2, of: [..]}` hold predicates and each other. A
//! predicate compares an input, or with `changeIn: 60s` its newest value minus the oldest of that span, or with
//! `spreadIn: 10m` the greatest minus the least, with a `value` or (`than`) another input. What a span is, and when it
//! is known, says [`Window`]; windows see every report, also those that a deadband keeps from being stored, but of
//! another site only what that site publishes. They begin anew with the process.
//!
//! ```yaml
//! - name: the sensor is frozen
//!   when: {input: pressure, spreadIn: 10m, op: at-most, value: 0.001}
//! - name: two of three say that it is hot
//!   when: {atLeast: 2, of: [
//!     {input: t1, op: above, value: 80, unit: Cel}, {input: t2, op: above, value: 80, unit: Cel},
//!     {input: t3, op: above, value: 80, unit: Cel}]}
//! ```
//!
//! An input with a `unit` is counted in it, one without in its property's own. The `unit` of a predicate is that of its
//! `value`, `margin` and `hysteresis`; of a change or a spread the zero of a unit falls out. What cannot be converted is
//! unknown.
//!
//! # Interlocks
//!
//! ```yaml
//! spec:
//!   inputs: {suction: {device: pump, property: suction, maxAge: 5s}}
//!   output: {device: pump, property: speed, slot: 2, ttl: 10s}
//!   onUnknown: trip
//!   cases:
//!     - name: the pump runs dry
//!       latch: true
//!       when: {input: suction, op: below, value: 0.4, unit: bar, for: 2s}
//!       then: {value: 0}
//! ```
//!
//! With `onUnknown: trip` a case that is unknown counts as true. A case that says `latch: true` decides, once it was
//! true, until [`crate::EdgeTwins::reset_rule`], also over restarts: it is stored in the commit of the write. It trips
//! also while a case above it decides. Cases above it that are true go before it as ever; one that is unknown does not.
//! A reset is refused while the condition holds or is unknown. Of the latches of a rule the one that tripped first is
//! kept apart, with the time and the readings ([`Trip`]).
//!
//! # The log
//!
//! A rule decides by nothing but what [`evaluate`] is given, so that what it did can be done again. Each evaluation that
//! changed the decision or the memory is one line of JSON:
//!
//! ```json
//! {"rule":"water/fill","spec":"5f1c09d2aa1e6b07","at":7000000,"wall":1760000000000,
//!  "did":{"evaluate":{
//!    "step":{"before":{"began":1000000,"tests":[{}]},
//!            "readings":{"level":{"value":2.5,"quality":"good","age":120000}},
//!            "windows":[0.25],
//!            "after":{"began":1000000,"tests":[{"held":true,"since":7000000}]}},
//!    "made":{"decision":{"set":{"value":70.0,"cause":"adjust"}},"by":{"case":1}}}},
//!  "sum":"0d4be3b1c2f05a97"}
//! ```
//!
//! | field | what |
//! |---|---|
//! | `spec` | the first 8 bytes of the SHA-256 of document and counting as the head writes them |
//! | `at`, `wall` | microseconds of the process's monotonic clock; milliseconds since 1970, which decide nothing |
//! | `did` | `load` (the rule began, or changed) or `head` (a file begins): the whole `document`, the `counting` (conversions of units) and the `memory`; `evaluate`; `reset` (every latch was opened): the `step` alone |
//! | `before`, `after` | the memory: since when inputs have had time to be heard, of each predicate whether it held and since when it has without a break, and what is latched |
//! | `readings` | by input, `age` in microseconds; what was not heard is left out |
//! | `windows` | what each predicate with a span saw, in the order of the document and the unit of the property; `null`: not covered. The readings in it are not logged |
//! | `anew` | true: the inputs' time to be heard began anew, since their mapper came |
//! | `made` | the decision, and the case that led to it, from 0: `case`, `unknown`, `waiting`, or `nothing` |
//! | `sum` | the first 8 bytes of the SHA-256 of all before `,"sum"`: a changed bit is found also where it changes no decision |
//!
//! [`replay()`] evaluates the lines again. Numbers are written so that they read back as the same bits. After a restart
//! `at` begins anew and `load` follows the last line: its memory is what that one's keeps over a restart.
//!
//! Reading order: [`document`](Rule), `program` (made ready), `look` and `evaluate` (one evaluation), `trip` (latches),
//! `memory`, `window`, `log` and `replay`.

mod check;
mod document;
mod evaluate;
mod log;
mod look;
mod memory;
mod micros;
mod program;
mod replay;
mod trip;
mod truth;
mod units;
mod view;
mod window;

pub use document::{
    All, Any, AtLeast, Case, Expression, From, Input, Linear, Not, OnUnknown, Op, Operand, Output, Over,
    Predicate, Rule, RuleSpec, Then, When,
};
pub use evaluate::{By, Decision, Evaluation, Reading, Seen, evaluate};
pub use log::Scribe;
pub use memory::{Evidence, Kept, RuleState, Trip};
pub use program::{Program, Through};
pub use replay::{Finding, Replay, What, replay};
pub use trip::{Refusal, reset};
pub use truth::Truth;
pub use units::{Counting, Scale};
pub use view::{Because, Decided, Does, RuleView};
pub use window::{SLICES, Window};

#[cfg(test)]
mod tests;

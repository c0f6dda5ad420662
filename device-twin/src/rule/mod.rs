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

mod document;
mod evaluate;
mod truth;

pub use document::{
    Case, Expression, From, Input, Linear, OnUnknown, Op, Operand, Output, Predicate, Rule, RuleSpec, Then,
    When,
};
pub use evaluate::{Decision, Reading, RuleState, evaluate};
pub use truth::Truth;

#[cfg(test)]
mod tests;

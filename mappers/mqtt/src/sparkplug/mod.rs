//! Sparkplug B (specification 3.0.0): typed metrics of edge nodes and their devices, born, changed and dead.
//!
//! [`message`] is the format, [`value`] its types, [`topic`] where messages go, [`node`] what one edge node has said.

pub(crate) mod message;
pub(crate) mod node;
pub(crate) mod topic;
pub(crate) mod value;

pub(crate) use node::{Effect, MAX_NAME, Node};
pub(crate) use topic::{NodeId, Unit};

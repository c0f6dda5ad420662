//! The deterministic world: the same node under loss, partition and crash.
//!
//! A run is a number. From it come the sites, the faults and everything that people, mappers and disks do; the nodes
//! are the real [`node::Cloud`] and [`node::Edge`]. After every event the [`oracle`] asks whether what must hold does.
//!
//! ```text
//! simulations run --seeds 200 [--from 1]    many worlds; exit 1 if an invariant did not hold
//! simulations hunt --seeds 200              many worlds; exit 0 at the first violation: for a broken build
//! simulations replay 17                     one world, its event log line by line
//! ```
//!
//! Reading order: [`world`] (time and events), [`player`](World) (plays the nodes), [`links`], [`disk`], [`devices`],
//! people (joins, manifests, wishes; deeds:
//! authority, commands, changes as one), [`faults`]; then [`oracle`], and [`plant`]: bugs to prove that it finds some.

mod deeds;
pub mod devices;
pub mod dice;
pub mod disk;
pub mod faults;
pub mod fleet;
mod host;
pub mod links;
pub mod machine;
pub mod manifests;
mod mishaps;
pub mod oracle;
mod people;
pub mod plant;
mod player;
pub mod report;
pub mod trace;
pub mod world;

pub use plant::Bug;
pub use report::{RunReport, Total};
pub use world::World;

//! Real processes on the small internet.
//!
//! 1. [`enter_user_namespace`], first thing in a process: from then on it is root over networks of its own.
//! 2. A [`Namespace`] for each node and each host behind one.
//! 3. A [`Wire`], whose thread `lab-wire` runs the [`Internet`](crate::Internet), and [`Wire::attach`] for each node.
//! 4. [`lan::connect`] for each host behind a node.
//! 5. [`Namespace::command`] starts programs inside, [`probe`] says who reaches whom.
//!
//! Everything goes with its owner: a namespace with its last process and handle, a TUN with its wire, a cable with
//! either end.

pub mod lan;
pub mod namespace;
pub mod probe;
pub mod wire;

pub use lan::LanLink;
pub use namespace::{EnterError, Entered, Namespace, NamespaceError, enter_user_namespace};
pub use wire::{Wire, WireError, WireStats};

//! Device twins, local rules, and the MQTT broker that serves them.
//!
//! A *twin* holds for each property of a device what it **reported** (written by its edge alone) and what is
//! **desired** of it (one authority at a time). This crate is both halves of it, as pure cores:
//!
//! ```text
//!  apps, mappers                 edge                                   cloud                 apps, CLI
//!  (MQTT) ---- report, set --> EdgeTwins --- Up: reported, results --> CloudTwins <-- set ---- (MQTT)
//!         <--- write, config --    |    <-- /m/desired/.. in metadata --   |     --- views -->
//!                                 rule -> arbiter (16 slots) -> one write at a time
//! ```
//!
//! The rule that shapes everything: **stale never actuates**. Only a fresh decision moves an actuator; not a restart,
//! a reconnect, a read or a message that was on its way for an hour.
//!
//! Reading order: [`model`] (manifests and the [`model::Catalog`]), [`arbiter`] (who wins), [`authority`] (who may wish),
//! [`command`], [`rule`] (what a document can say), [`twin`] (what is stored and sent), [`edge`], [`cloud`],
//! [`kubeedge`] (its topics on our twins); then the broker: [`gate`] (what faces clients,
//! pure) and `io` (sockets, behind the feature of that name).

pub mod announcement;
pub mod arbiter;
pub mod authority;
pub mod cloud;
pub mod command;
pub mod condition;
pub mod dmi;
pub mod edge;
pub mod external;
pub mod gate;
pub mod history;
pub mod kubeedge;
pub mod model;
pub mod patch;
pub mod reply;
pub mod rule;
pub mod twin;
pub mod unit;
pub mod view;

#[cfg(feature = "io")]
pub mod io;

#[cfg(test)]
mod two_halves;

pub use announcement::{Announcement, Receipt};
pub use authority::Authority;
pub use cloud::CloudTwins;
pub use edge::{EdgeTwins, Tally};
pub use twin::{Expiry, PropertyId, Publish, Ticket};
pub use view::{Gist, TwinView};

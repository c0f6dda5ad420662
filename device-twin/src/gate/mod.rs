//! The MQTT gate: the part of the broker that faces strangers. Pure; `io::broker` drives it.
//!
//! ```text
//!   socket bytes                                              node
//!        |                                                      ^ |
//!        v       Open, Subscribe, Publish       Publish, Keep   | | accepted: what was kept is stored
//!   [ Session ] ------------------------> [ Hub ] --------------+ v
//!        ^                                   | Deliver
//!        |                                   v
//!        +------------- next ----------- [ Queue ], one a session
//! ```
//!
//! [`session`] terminates one client's connection (MQTT 3.1.1 or 5.0) with `mqtt-protocol-core`; [`policy`] decides who
//! gets what a client says; [`hub`] knows all clients' sessions, their [`subscriptions`] and what is [`retained`];
//! [`access`] says who a client is and what it may do;
//! [`queue`] is what one session is owed; [`row`] is how the node keeps all of it.

pub mod access;
pub mod hub;
pub mod message;
pub mod policy;
pub mod properties;
pub mod queue;
pub mod retained;
pub mod row;
pub mod session;
pub mod subscriptions;

pub use hub::Hub;
pub use message::{ConnId, Delivery, Message, Qos, SessionId};
pub use policy::{Refusal, Route, route};
pub use queue::{Outgoing, Queue};
pub use row::Row;
pub use session::{CloseReason, Session};

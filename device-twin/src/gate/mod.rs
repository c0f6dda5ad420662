//! The MQTT gate: the part of the broker that faces strangers. Pure; `io::broker` drives it.
//!
//! ```text
//!   socket bytes                                                  node
//!        |                                                          ^
//!        v         Opened, Subscribe, Publish          Publish      |
//!   [ Session ] --------------------------------> route() ----------+
//!        ^                                           |
//!        |  Deliver                                  v
//!        +------------------------- [ Hub ] -- Carry --> rumqttd's router
//!                                      ^                      |
//!                                      +------ carried <------+
//! ```
//!
//! [`session`] terminates one client (MQTT 3.1.1 or 5.0) with `mqtt-protocol-core`; [`policy`] decides who gets what
//! a client says; [`hub`] knows all clients, their [`subscriptions`] and what is [`retained`]; [`name`] turns topics
//! into names that rumqttd's router can bear. The router behind matches topics with filters and fans out; it never
//! sees a byte of a client.

pub mod hub;
pub mod message;
pub mod name;
pub mod policy;
pub mod properties;
pub mod retained;
pub mod session;
pub mod subscriptions;

pub use hub::Hub;
pub use message::{ConnId, Delivery, Message, Numbered, Qos};
pub use policy::{Refusal, Route, route};
pub use session::{CloseReason, Session};

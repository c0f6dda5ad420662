//! Ways past the hub: which two edges get a link of their own, and when they give it up.
//!
//! ```text
//!   edge a === packets lane ==== hub ==== packets lane === edge b      first, and whenever nothing else works
//!      \________________ packets and bus lane _______________/         while it works
//! ```
//! Packets go by the hub first, always. Two edges whose hosts talk enough both tell it so, and it introduces them: each
//! is told where the hub sees the other and which key it has. One dials, from the socket that its NAT knows already; the
//! other sends a byte the other way, so that its own NAT lets the dial in. From the moment that this link stands, packets
//! take it; the one by the hub stays, and is used again as soon as the other fails to answer.
//!
//! 1. Only who was introduced is let in, with the key that the hub named: an edge has no open port for others.
//! 2. The hub introduces only those of whom *both* wish for it. Packets between two sites pass where a policy lets them:
//!    so nobody learns where another is without being allowed to talk to it.
//! 3. What comes by such a link is checked as ever: its source must be the neighbour's, and the receiver's policies hold.
//! 4. After a link that failed the next try waits, longer each time. One that held for a minute starts that over.
//! 5. While the hub is away, neighbours that lose each other try again where they met. Without a hub nobody new is met.
//!
//! Behind two symmetric NATs, or one and a strict other, no dial arrives: such a pair stays with the hub.
//!
//! Files: `introducer` (the hub's part), `neighbours` (the edge's).

mod introducer;
mod neighbours;

pub use self::introducer::Introducer;
pub use self::neighbours::{Accepted, LaneOf, Neighbours, Output, PathView};

//! Checks from both ends of a link: what the cloud asks an edge to look at, and what an edge asks its cloud.
//!
//! ```text
//!   cloud                                            edge
//!     | -- Ask --------------------------------------> |   its checks run, beside its owner loop
//!     | -- Echo, small, small, of 8 KiB -------------> |
//!     | <------------------------------------ Echoed --|   round trip and rate, downwards
//!     | <-------------------------- Answer, Refused ---|   what it found: at most 16 KiB
//!
//!     | <------------------------------------- Look ---|   what do you see of me?
//!     | -- Seen -------------------------------------> |   the cloud's side of the link, certificate, clock
//!     | <-------------- Echo, small, small, of 8 KiB --|   round trip and rate, upwards
//! ```
//! [`asking`] is the cloud's half, [`asked`] the edge's, [`wire`] what travels, [`echo`] the measurement. It is minicbor
//! on [`bus::Channel::Checkup`], class event: after twins and commands, before samples.
//!
//! Who may what: only its cloud makes an edge check, by the identity that the link was authenticated with. Checks read,
//! and send traffic only to where the node itself talks, but for questions to the name servers about devices' hosts. One run at a time, and one in [`asked::GAP`]. All else (another
//! edge that asks, an edge that asks the cloud to check, what is too long, too often or unreadable) is dropped and
//! counted, and ends no link: it carries twins.
//!
//! What it costs: nothing until somebody asks. Then some 17 KiB down and 10 to 25 KiB up, once. The large echoes are sent
//! once a minute at most, whoever asks; a look is some 100 bytes up without.

pub mod asked;
pub mod asking;
pub mod echo;
pub mod wire;

#[cfg(test)]
mod tests;

pub use self::asked::{Asked, Looked};
pub use self::asking::{Asking, Examined, Outcome};
pub use self::echo::Way;
pub use self::wire::{Check, LinkView, Refusal, Report, Seen, Told};

//! Apps' messages between sites, topics below `mesh/`, that must not get lost.
//!
//! ```text
//!   client at A                     cloud                                        client at B
//!     | PUBLISH                                                                      ^
//!     v          outbox, lane mesh            one block a slot: 16 an edge           |
//!   [ Leaf ] --------------------> [ Hub ] ====== /e/<B>/mesh/<slot> =====> [ Leaf, Desk ] --> broker
//!     PUBACK once durable           | log of what waits     <-- state: mesh/position --    Taken
//!                                   | what is retained      <-- state: mesh/want/.. --
//! ```
//! A message with QoS 0 that is not retained goes straight over the bus and is not repeated. All others take this way,
//! and come to each site that asked for them once, in the order of their site:
//!
//! 1. the edge acknowledges a message once its outbox holds it on the disk, and refuses it when there is no room;
//! 2. the cloud takes it once, in one commit with the row of its *log*, which names the sites that it waits for: those
//!    that asked for it then. A site's wishes outlive its absence. A replica that takes over has the log and not the
//!    outbox's position: it tells by a number in the message itself what was taken;
//! 3. up to [`SLOTS`] *blocks* of messages are under way to an edge. A slot is written again when the edge has said that
//!    it consumed the block before; rows that came and went would drown the deletions that the sync remembers, and a
//!    site that was away for long would be sent all it missed in one batch;
//! 4. the edge hands a block's messages to its broker and notes each that the broker has safe (`/mesh/position`).
//!
//! | key | at | what |
//! |---|---|---|
//! | `/o/mesh/<first number>` | edge | waits to go up |
//! | `/mesh/want/<hash>` | both | a filter that clients here ask for, told to the cloud |
//! | `/mesh/kept/<hash>` | both | a topic of another site for which the broker here keeps a retained message |
//! | `/mesh/position` | edge | what its broker has safe |
//! | `/c/interest/<edge>/<hash>` | cloud | a filter that the edge asks for |
//! | `/c/mesh/log/<number>` | cloud | a message, and the sites that it waits for |
//! | `/c/mesh/site/<edge>` | cloud | how far the edge is |
//! | `/c/mesh/from/<edge>` | cloud | how far the last processes of the edge were taken |
//! | `/c/mesh/here` | cloud | how far the cloud's own broker is |
//! | `/c/mesh/retained/<hash>` | cloud | the retained message of a topic |
//! | `/e/<edge>/mesh/<slot>` | cloud | a block under way |
//!
//! [`parcel`] is a message as it is kept; [`desk`] is the way to a node's own broker, with [`wants`] and [`shelf`];
//! [`leaf`] is an edge's part, [`hub`] the cloud's, with [`site`], [`log`] and [`retained`].

mod desk;
pub(crate) mod hub;
pub(crate) mod leaf;
mod log;
mod parcel;
mod retained;
mod shelf;
mod site;
#[cfg(test)]
mod tests;
mod wants;

pub(crate) use hub::Hub;
pub(crate) use leaf::Leaf;

use metadata::Key;
use minicbor::Encode;
use sha2::{Digest, Sha256};

/// Blocks under way to one edge. With one message each, as on a link that is up, 160 messages a second reach an edge 100
/// ms away; when more wait, blocks fill up.
pub(crate) const SLOTS: u64 = 16;

/// Whether a topic is for apps at all sites.
pub(crate) fn is_mesh(topic: &bus::Topic) -> bool {
    topic.as_str().starts_with("mesh/")
}

/// The end of a key for a text that is no key: a topic or filter may be longer, and in any language.
fn hash(text: &str) -> String {
    Sha256::digest(text)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A key of ours: a prefix, and a hash or a number.
fn key(text: &str) -> Key {
    #[expect(clippy::expect_used, reason = "short and printable by construction")]
    Key::new(text).expect("a key of the mesh")
}

/// Encoding into a `Vec` cannot fail: the writer is infallible and no type here refuses.
fn encode(value: &impl Encode<()>) -> bytes::Bytes {
    // Without what the encoder had to spare: many of them wait in memory.
    bytes::Bytes::copy_from_slice(&minicbor::to_vec(value).unwrap_or_default())
}

//! Bugs that are planted around the cores, to show that the checker finds such.

use bytes::Bytes;

use crate::sync::{Part, ToEdge, encode};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plant {
    /// The edge applies each part as it comes, without waiting for the last of its batch.
    AppliesParts,
    /// Both sides speak before their disk has what they speak of.
    SpeaksEarly,
    /// A cloud that starts again does not know what it took.
    ForgetsInbox,
    /// No timer fires.
    StopsClocks,
}

/// The frame as an edge that [`Plant::AppliesParts`] reads it.
pub(super) fn each_part_a_batch(frame: &Bytes) -> Bytes {
    match minicbor::decode(frame) {
        Ok(ToEdge::Part(part)) => {
            let advance = part.advance.or(Some(0));
            encode(&ToEdge::Part(Part { advance, ..part }))
        }
        _ => frame.clone(),
    }
}

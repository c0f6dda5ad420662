//! Frames: the unit that travels on a stream of the bus connection.
//!
//! ```text
//! stream  := class (1 byte) frame*
//! frame   := length (4 bytes, big endian, of what follows) channel (1 byte) payload
//! ```
//! The payload belongs to the channel's owner: the link and the bus here, metadata, joining, or paths.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// The largest frame, length field excluded: a snapshot chunk and a 256 KiB MQTT message fit, an attacker's
/// 4 GiB does not. A longer one closes the link.
pub const MAX_FRAME_LEN: usize = 1 << 20;

/// Whose payload a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Channel {
    /// [`crate::bus`]: hello, clock, interest, messages.
    Bus = 0,
    /// The metadata service's sync, both directions.
    Metadata = 1,
    /// The join conversation, on its own ALPN.
    Join = 2,
    /// [`crate::path`]: how two edges find a way past the hub.
    Path = 3,
    /// How an edge is, for its cloud. A version that does not know this channel ends the link over it, so it is used
    /// only towards a peer that said so in its hello ([`crate::Bus::takes_health`]).
    Health = 4,
    /// Checks that one end of a link asks of the other. As with [`Self::Health`], only towards a peer that takes it
    /// ([`crate::Bus::takes_checkups`]).
    Checkup = 7,
    /// The cloud asks an edge for its history. Used only towards a peer that said in its hello that it takes it
    /// ([`crate::Bus::takes_history`]).
    History = 6,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub channel: Channel,
    pub payload: Bytes,
}

/// What a peer did wrong; ends the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    #[error("frame of {0} bytes is over the limit")]
    TooLong(usize),
    #[error("empty frame")]
    Empty,
    #[error("unknown channel {0}")]
    UnknownChannel(u8),
}

impl Frame {
    pub fn new(channel: Channel, payload: impl Into<Bytes>) -> Self {
        Self { channel, payload: payload.into() }
    }

    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        debug_assert!(self.payload.len() < MAX_FRAME_LEN, "senders cut their payloads");
        out.reserve(5 + self.payload.len());
        out.put_u32(self.payload.len() as u32 + 1);
        out.put_u8(self.channel as u8);
        out.put_slice(&self.payload);
    }
}

/// Cuts a stream's bytes into frames. Holds at most one incomplete frame.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: BytesMut,
}

impl FrameDecoder {
    /// Takes bytes as they come; call [`Self::next_frame`] until `None` before the next `push`.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, `None` if more bytes are needed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(head) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_be_bytes(*head) as usize;
        if len > MAX_FRAME_LEN {
            return Err(FrameError::TooLong(len));
        }
        if len == 0 {
            return Err(FrameError::Empty);
        }
        if self.buffer.len() < 4 + len {
            return Ok(None);
        }
        self.buffer.advance(4);
        let mut body = self.buffer.split_to(len).freeze();
        let channel = match body.get_u8() {
            0 => Channel::Bus,
            1 => Channel::Metadata,
            2 => Channel::Join,
            3 => Channel::Path,
            4 => Channel::Health,
            7 => Channel::Checkup,
            6 => Channel::History,
            other => return Err(FrameError::UnknownChannel(other)),
        };
        Ok(Some(Frame { channel, payload: body }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_survive_any_cut_of_the_stream(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8), step in 1usize..50) {
            let frames: Vec<Frame> = payloads.into_iter().map(|p| Frame::new(Channel::Metadata, p)).collect();
            let mut wire = BytesMut::new();
            frames.iter().for_each(|f| f.encode(&mut wire));
            let mut decoder = FrameDecoder::default();
            let mut seen = Vec::new();
            for piece in wire.chunks(step) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn any_bytes_are_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = FrameDecoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }
    }

    #[test]
    fn a_giant_length_is_refused_before_it_is_buffered() {
        let mut decoder = FrameDecoder::default();
        decoder.push(&u32::MAX.to_be_bytes());
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLong(u32::MAX as usize)));
    }
}

//! Makes requests of KubeEdge's mappers fit for h2.
//!
//! A Go mapper dials the socket's path without a scheme, so grpc-go names that path as `:authority`:
//! `/etc/kubeedge/dmi.sock` before 1.57, `%2Fetc%2Fkubeedge%2Fdmi.sock` since. Neither is an authority of RFC 3986 §3.2,
//! and h2 resets each such stream (hyperium/h2#487). On a Unix socket it means nothing anyway. So this stands between the
//! client's bytes and h2: all frames go through as they are but HEADERS with its CONTINUATION (RFC 9113 §6.2, §6.10),
//! which is decoded and said again with `localhost` where there was no authority.
//!
//! It holds one header block and one decoder's table, 36 KiB at most, and does no IO.

use http::uri::Authority;
use thiserror::Error;

use super::hpack::{self, Decoder, Malformed};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Length, type, flags and stream (RFC 9113 §4.1).
const HEAD: usize = 9;

/// The largest frame that h2 takes unless told otherwise (RFC 9113 §6.5.2), and here the largest header block.
const MAX_BLOCK: usize = 16_384;

/// Frames that one header block may come in: more than a full one in pieces of a KiB, fewer than would keep us busy.
const MAX_PARTS: usize = 32;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Bytes of a stream's priority, which HTTP/2 has given up (RFC 9113 §5.3.2) and h2 does not look at.
const PRIORITY_FIELDS: usize = 5;

/// Why a connection is closed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Fault {
    #[error("this is not HTTP/2")]
    Preface,
    #[error("a header block of more than {MAX_BLOCK} bytes or {MAX_PARTS} frames")]
    TooLarge,
    #[error("a header block with another frame in it, or without its beginning")]
    Order,
    #[error("padding longer than its frame")]
    Padding,
    #[error(transparent)]
    Hpack(#[from] Malformed),
}

/// One frame's head.
#[derive(Debug, Clone, Copy)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: [u8; 4],
}

impl Head {
    fn read(bytes: [u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = bytes;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        Self { length, kind, flags, stream: [s0 & 0x7f, s1, s2, s3] }
    }

    fn write(self, out: &mut Vec<u8>) {
        let [_, a, b, c] = (self.length as u32).to_be_bytes();
        out.extend([a, b, c, self.kind, self.flags]);
        out.extend(self.stream);
    }
}

/// A header block that is not complete.
#[derive(Debug)]
struct Block {
    stream: [u8; 4],
    ends_stream: bool,
    fragment: Vec<u8>,
    parts: usize,
}

#[derive(Debug)]
enum State {
    Preface,
    Head,
    /// So much of a frame goes through as it is.
    Passing(usize),
    /// A frame that is read whole.
    Whole(Head),
}

/// The client's half of one connection.
#[derive(Debug)]
pub(super) struct Rewriter {
    state: State,
    /// What is waited for: the preface, a head or a whole frame, so at most [`MAX_BLOCK`].
    partial: Vec<u8>,
    block: Option<Block>,
    decoder: Decoder,
}

impl Default for Rewriter {
    fn default() -> Self {
        Self { state: State::Preface, partial: Vec::new(), block: None, decoder: Decoder::default() }
    }
}

impl Rewriter {
    /// Takes what the client sent, and appends what h2 shall read to `out`.
    ///
    /// # Errors
    /// The connection is to be closed; nothing more can be read of it.
    pub(super) fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        while !input.is_empty() {
            input = match self.state {
                State::Passing(left) => self.pass(left, input, out),
                State::Preface => self.collect(PREFACE.len(), input, out)?,
                State::Head => self.collect(HEAD, input, out)?,
                State::Whole(head) => self.collect(head.length, input, out)?,
            };
        }
        Ok(())
    }

    fn pass<'i>(&mut self, left: usize, input: &'i [u8], out: &mut Vec<u8>) -> &'i [u8] {
        let (passed, rest) = input.split_at(left.min(input.len()));
        out.extend_from_slice(passed);
        self.state = if passed.len() == left { State::Head } else { State::Passing(left - passed.len()) };
        rest
    }

    /// Waits until `wanted` bytes are there; what comes after them is left.
    fn collect<'i>(&mut self, wanted: usize, input: &'i [u8], out: &mut Vec<u8>) -> Result<&'i [u8], Fault> {
        let missing = wanted - self.partial.len();
        let (taken, rest) = input.split_at(missing.min(input.len()));
        self.partial.extend_from_slice(taken);
        if self.partial.len() == wanted {
            let whole = std::mem::take(&mut self.partial);
            self.take(&whole, out)?;
        }
        Ok(rest)
    }

    fn take(&mut self, whole: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        self.state = match (&self.state, <[u8; HEAD]>::try_from(whole)) {
            (State::Preface, _) if whole != PREFACE => return Err(Fault::Preface),
            (State::Preface, _) => {
                out.extend_from_slice(whole);
                State::Head
            }
            (State::Head, Ok(head)) => self.begin(Head::read(head), whole, out)?,
            (State::Whole(head), _) => {
                let head = *head;
                self.part(head, whole, out)?;
                State::Head
            }
            (State::Head | State::Passing(_), _) => State::Head,
        };
        Ok(())
    }

    fn begin(&mut self, head: Head, bytes: &[u8], out: &mut Vec<u8>) -> Result<State, Fault> {
        let is_block = matches!(head.kind, HEADERS | CONTINUATION);
        let continues = self.block.as_ref().is_some_and(|block| block.stream == head.stream);
        if (head.kind == CONTINUATION) != self.block.is_some() || (self.block.is_some() && !continues) {
            return Err(Fault::Order);
        }
        if !is_block {
            out.extend_from_slice(bytes);
            return Ok(if head.length == 0 { State::Head } else { State::Passing(head.length) });
        }
        if head.length > MAX_BLOCK {
            return Err(Fault::TooLarge);
        }
        if head.length == 0 {
            self.part(head, &[], out)?;
            return Ok(State::Head);
        }
        Ok(State::Whole(head))
    }

    /// A HEADERS or CONTINUATION frame is complete.
    fn part(&mut self, head: Head, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let fragment = if head.kind == HEADERS { fragment(head.flags, payload)? } else { payload };
        let ends_stream = head.flags & END_STREAM != 0;
        let block = self.block.get_or_insert(Block {
            stream: head.stream,
            ends_stream,
            fragment: Vec::new(),
            parts: 0,
        });
        block.parts += 1;
        if block.fragment.len() + fragment.len() > MAX_BLOCK || block.parts > MAX_PARTS {
            return Err(Fault::TooLarge);
        }
        block.fragment.extend_from_slice(fragment);
        if head.flags & END_HEADERS != 0
            && let Some(block) = self.block.take()
        {
            self.say(&block, out)?;
        }
        Ok(())
    }

    /// The block again, in one frame: [`hpack::MAX_LIST`] bytes of header list fit.
    fn say(&mut self, block: &Block, out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut fragment = Vec::with_capacity(block.fragment.len() * 2);
        for (name, value) in self.decoder.decode(&block.fragment)? {
            let is_wrong = name == b":authority" && Authority::try_from(&value[..]).is_err();
            hpack::encode(&name, if is_wrong { b"localhost" } else { &value }, &mut fragment);
        }
        let flags = END_HEADERS | if block.ends_stream { END_STREAM } else { 0 };
        Head { length: fragment.len(), kind: HEADERS, flags, stream: block.stream }.write(out);
        out.append(&mut fragment);
        Ok(())
    }
}

/// What a HEADERS frame holds of its block: without padding and priority.
fn fragment(flags: u8, payload: &[u8]) -> Result<&[u8], Fault> {
    let (padding, payload) = match payload.split_first() {
        Some((length, rest)) if flags & PADDED != 0 => (usize::from(*length), rest),
        None if flags & PADDED != 0 => return Err(Fault::Padding),
        Some(_) | None => (0, payload),
    };
    let skipped = if flags & PRIORITY != 0 { PRIORITY_FIELDS } else { 0 };
    let end = payload.len().checked_sub(padding).ok_or(Fault::Padding)?;
    payload.get(skipped..end).ok_or(Fault::Padding)
}

#[cfg(test)]
mod tests;

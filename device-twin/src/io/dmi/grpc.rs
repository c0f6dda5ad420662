//! gRPC's unary calls over HTTP/2 (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>), both ends: one
//! message each way, its length before it, a status after it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::RecvStream;
use http::HeaderMap;

/// Bytes of a message, what gRPC's libraries take unless told otherwise. A registration's answer to 1,000 devices is
/// about 1 MB.
pub(super) const MAX_MESSAGE: usize = 4 << 20;

/// A flag and four bytes of length.
const PREFIX: usize = 5;

pub(super) const CONTENT_TYPE: &str = "application/grpc";
pub(super) const STATUS: &str = "grpc-status";
pub(super) const MESSAGE: &str = "grpc-message";

/// How a call ended (<https://github.com/grpc/grpc/blob/master/doc/statuscodes.md>), as far as it is told apart here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Ok = 0,
    Cancelled = 1,
    /// What Go's servers make of any error.
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: Code,
    pub(super) message: String,
}

impl Status {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// A message with its length before it.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX + message.len());
    out.put_u8(0);
    out.put_u32(message.len() as u32);
    out.put_slice(message);
    out.freeze()
}

/// The one message of a stream.
pub(super) async fn message(body: &mut RecvStream) -> Result<Bytes, Status> {
    let mut read = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part.map_err(|why| Status::new(Code::Unavailable, why.to_string()))?;
        if read.len() + part.len() > MAX_MESSAGE + PREFIX {
            return Err(Status::new(Code::ResourceExhausted, "the message is too long"));
        }
        read.extend_from_slice(&part);
        // Refused only when the stream has ended, and then nobody waits for room.
        let _ = body.flow_control().release_capacity(part.len());
    }
    unframed(read.freeze())
}

fn unframed(mut read: Bytes) -> Result<Bytes, Status> {
    if read.len() < PREFIX {
        return Err(Status::new(Code::Internal, "there is no message"));
    }
    if read.get_u8() != 0 {
        return Err(Status::new(Code::Unimplemented, "compressed messages are not taken"));
    }
    if read.get_u32() as usize != read.remaining() {
        return Err(Status::new(Code::Internal, "the message is not as long as it says"));
    }
    Ok(read)
}

/// What a peer's trailers say of its call: `None` if nothing.
pub(super) fn status_of(trailers: &HeaderMap) -> Option<(u32, String)> {
    let code = trailers.get(STATUS)?.to_str().ok()?.parse().ok()?;
    let message = trailers.get(MESSAGE).map(|message| percent_decoded(message.as_bytes()));
    Some((code, message.unwrap_or_default()))
}

/// `grpc-message` holds printable ASCII, and all else by its hexadecimal digits.
pub(super) fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn percent_decoded(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let coded =
            after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match coded.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[2..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_length_before_it_and_nothing_after_it() {
        assert_eq!(framed(b"abc"), &[0, 0, 0, 0, 3, b'a', b'b', b'c'][..]);
        assert_eq!(unframed(framed(b"abc")), Ok(Bytes::from("abc")));
        for (wrong, code) in [
            (&b"\0\0\0\0"[..], Code::Internal),
            (b"\0\0\0\0\x02a", Code::Internal),
            (b"\0\0\0\0\0a", Code::Internal),
            (b"\x01\0\0\0\0", Code::Unimplemented),
        ] {
            assert_eq!(unframed(Bytes::from(wrong)).unwrap_err().code, code, "{wrong:?}");
        }
    }

    #[test]
    fn a_status_message_of_any_text_travels_as_printable_ascii() {
        let text = "grün 100 %\n";
        assert_eq!(percent_encoded(text), "gr%C3%BCn 100 %25%0A");
        assert_eq!(percent_decoded(percent_encoded(text).as_bytes()), text);
        assert_eq!(percent_decoded(b"100 % of %4"), "100 % of %4");
    }
}

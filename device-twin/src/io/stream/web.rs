//! MQTT in WebSocket's binary frames (MQTT 5.0 §6, RFC 6455). Packets and frames need not end together.

use std::io;

use bytes::{Buf, Bytes};
use tokio::io::Interest;
use tungstenite::handshake::HandshakeError;
use tungstenite::handshake::server::{ErrorResponse, Request, Response, ServerHandshake};
use tungstenite::http::{HeaderValue, StatusCode, header};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::Carrier;

/// The name under which MQTT is spoken (MQTT 5.0 §6, requirement 6.0.0-3).
const SUBPROTOCOL: &str = "mqtt";

/// What is read and written at once, in bytes: as the client's task does.
const CHUNK: usize = 16 * 1024;

/// Bytes that may wait for the socket, in bytes: a frame and answers to pings. When full, writing waits.
const MAX_UNSENT: usize = 4 * CHUNK;

/// Pings and the like in one go before others get their turn.
const MAX_CONTROL_FRAMES: usize = 32;

/// A client's WebSocket.
#[derive(Debug)]
pub(in crate::io) struct Web {
    socket: WebSocket<Carrier>,
    /// The rest of a frame that was read.
    rest: Bytes,
    unsent: bool,
}

impl Web {
    /// Shakes hands. Whoever calls this has a limit of time for it. `max`: most bytes of a message, and so of what is
    /// kept of one that is not whole yet.
    pub(in crate::io) async fn accept(carrier: Carrier, max: usize) -> io::Result<Self> {
        let config = WebSocketConfig::default()
            .read_buffer_size(CHUNK)
            .write_buffer_size(2 * CHUNK)
            .max_write_buffer_size(MAX_UNSENT)
            .max_message_size(Some(max))
            .max_frame_size(Some(max));
        let mut going_on = ServerHandshake::start(carrier, choose_subprotocol, Some(config));
        loop {
            match going_on.handshake() {
                Ok(socket) => return Ok(Self { socket, rest: Bytes::new(), unsent: false }),
                Err(HandshakeError::Interrupted(half)) => {
                    let carrier = half.get_ref().get_ref();
                    let unsent = carrier.has_unsent();
                    let interest =
                        if unsent { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
                    carrier.socket().ready(interest).await?;
                    going_on = half;
                }
                Err(HandshakeError::Failure(error)) => return Err(as_io(error)),
            }
        }
    }

    /// [`io::ErrorKind::Interrupted`]: come back, after others had their turn.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for _ in 0..MAX_CONTROL_FRAMES {
            if !self.rest.is_empty() {
                let length = self.rest.len().min(buffer.len());
                self.rest.copy_to_slice(&mut buffer[..length]);
                return Ok(length);
            }
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => self.rest = bytes,
                Ok(Message::Ping(_) | Message::Close(_)) => self.unsent = true,
                Ok(Message::Pong(_) | Message::Frame(_)) => {}
                // MQTT 5.0 §6, requirement 6.0.0-1: any other kind of frame ends the connection.
                Ok(Message::Text(_)) => return Err(self.refuse(CloseCode::Unsupported, "MQTT is binary")),
                Err(Error::Capacity(_)) => return Err(self.refuse(CloseCode::Size, "too large")),
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Ok(0),
                Err(error) => return Err(as_io(error)),
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// Tells the client, as far as that goes out at once.
    fn refuse(&mut self, code: CloseCode, why: &'static str) -> io::Error {
        let _ = self.socket.close(Some(CloseFrame { code, reason: why.into() }));
        let _ = self.socket.flush();
        io::Error::new(io::ErrorKind::InvalidData, why)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.unsent {
            self.flush()?;
        }
        let chunk = &bytes[..bytes.len().min(CHUNK)];
        match self.socket.write(Message::Binary(Bytes::copy_from_slice(chunk))) {
            Ok(()) => {}
            // It is kept all the same.
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(as_io(error)),
        }
        self.unsent = true;
        super::unless_blocked(self.flush())?;
        Ok(chunk.len())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self.socket.flush() {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                io::Write::flush(self.carrier_mut())?;
                self.unsent = false;
                Ok(())
            }
            Err(error) => Err(as_io(error)),
        }
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.unsent || self.carrier().has_unsent()
    }

    pub(super) fn say_goodbye(&mut self) {
        // It may have been said before.
        let _ = self.socket.close(None);
        self.unsent = true;
    }

    pub(super) fn carrier(&self) -> &Carrier {
        self.socket.get_ref()
    }

    pub(super) fn carrier_mut(&mut self) -> &mut Carrier {
        self.socket.get_mut()
    }
}

/// A client that does not offer `mqtt` is told so by 400: it would not understand us.
#[expect(clippy::result_large_err, reason = "tungstenite's signature")]
fn choose_subprotocol(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    if offered.any(|name| name.trim() == SUBPROTOCOL) {
        let chosen = HeaderValue::from_static(SUBPROTOCOL);
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, chosen);
        return Ok(response);
    }
    let mut refusal = ErrorResponse::new(Some("Sec-WebSocket-Protocol must offer mqtt\n".to_owned()));
    *refusal.status_mut() = StatusCode::BAD_REQUEST;
    Err(refusal)
}

fn as_io(error: Error) -> io::Error {
    #[expect(clippy::wildcard_enum_match_arm, reason = "all others are the client's mistakes")]
    match error {
        Error::Io(error) => error,
        Error::WriteBufferFull(_) => io::ErrorKind::WouldBlock.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

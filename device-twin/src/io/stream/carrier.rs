//! A socket, with TLS on it or not, as a reader and writer that never waits.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::unless_blocked;

/// What carries a client's bytes, or its WebSocket frames.
#[derive(Debug)]
pub(in crate::io) struct Carrier {
    socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
}

/// The socket as rustls wants it.
struct Wire<'a>(&'a TcpStream);

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Carrier {
    pub(in crate::io) fn plain(socket: TcpStream) -> Self {
        Self { socket, tls: None }
    }

    /// Shakes hands. Whoever calls this has a limit of time for it.
    pub(in crate::io) async fn accept(socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let mut tls = ServerConnection::new(config).map_err(io::Error::other)?;
        while tls.is_handshaking() || tls.wants_write() {
            let ready = socket.ready(interest(&tls)).await?;
            if ready.is_writable() && tls.wants_write() {
                unless_blocked(tls.write_tls(&mut Wire(&socket)))?;
            }
            if ready.is_readable() && tls.is_handshaking() {
                if unless_blocked(tls.read_tls(&mut Wire(&socket)))? == Some(0) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                process(&mut tls, &socket)?;
            }
        }
        Ok(Self { socket, tls: Some(Box::new(tls)) })
    }

    /// The client's certificate, verified.
    pub(in crate::io) fn certificate(&self) -> Option<&[u8]> {
        self.tls.as_ref()?.peer_certificates()?.first().map(AsRef::as_ref)
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(super) fn socket_mut(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    pub(super) fn say_goodbye(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
    }
}

fn interest(tls: &ServerConnection) -> Interest {
    match (tls.wants_write(), tls.is_handshaking()) {
        (true, true) => Interest::READABLE | Interest::WRITABLE,
        (true, false) => Interest::WRITABLE,
        (false, _) => Interest::READABLE,
    }
}

/// Takes in what was read. What is wrong with it the client is told, as far as that goes out at once.
fn process(tls: &mut ServerConnection, socket: &TcpStream) -> io::Result<()> {
    tls.process_new_packets().map(drop).map_err(|error| {
        let _ = tls.write_tls(&mut Wire(socket));
        io::Error::new(io::ErrorKind::InvalidData, error)
    })
}

impl Read for Carrier {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { socket, tls } = self;
        let Some(tls) = tls else { return socket.try_read(buffer) };
        loop {
            if let Some(length) = unless_blocked(tls.reader().read(buffer))? {
                return Ok(length);
            }
            // At the socket's end the reader above says how it ended.
            tls.read_tls(&mut Wire(socket))?;
            process(tls, socket)?;
        }
    }
}

impl Write for Carrier {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.tls.is_none() {
            return self.socket.try_write(bytes);
        }
        unless_blocked(self.flush())?;
        let Self { tls: Some(tls), .. } = self else { return Ok(0) };
        // As much as rustls buffers by default: 64 KiB.
        let taken = tls.writer().write(bytes)?;
        unless_blocked(self.flush())?;
        if taken == 0 && !bytes.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let Self { socket, tls } = self;
        let Some(tls) = tls else { return Ok(()) };
        while tls.wants_write() {
            tls.write_tls(&mut Wire(socket))?;
        }
        Ok(())
    }
}

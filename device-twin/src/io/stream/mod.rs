//! A client's bytes, however they come: TCP, TLS, WebSocket, or WebSocket in TLS.
//!
//! ```text
//!    Tcp      Tls              Web
//!             [Carrier: TLS]   [Web: frames]
//!                              [Carrier: TLS or none]
//!    [ ------------ TcpStream ------------- ]
//! ```
//!
//! The layers never wait: they are pushed by readiness of the one socket below, so that the client's task drives all
//! kinds alike, by `ready`, `try_read` and `try_write`.

mod carrier;
mod web;

use std::io;

use tokio::io::{AsyncWriteExt, Interest, Ready};
use tokio::net::TcpStream;

pub(super) use carrier::Carrier;
pub(super) use web::Web;

/// One client's connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Layered(Box<Layered>),
}

/// What lies on the socket.
#[derive(Debug)]
enum Layers {
    Tls(Carrier),
    Web(Box<Web>),
}

/// A connection with something between socket and client.
#[derive(Debug)]
pub(super) struct Layered {
    layers: Layers,
    /// The last read found nothing. Until then there may be bytes that came through the socket already.
    drained: bool,
}

impl Stream {
    pub(super) fn tls(carrier: Carrier) -> Self {
        Self::Layered(Box::new(Layered { layers: Layers::Tls(carrier), drained: false }))
    }

    pub(super) fn web(web: Web) -> Self {
        Self::Layered(Box::new(Layered { layers: Layers::Web(Box::new(web)), drained: false }))
    }

    /// Waits until what is asked for may be tried. Cancel-safe.
    pub(super) async fn ready(&mut self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Tcp(socket) => socket.ready(interest).await,
            Self::Layered(layered) => layered.ready(interest).await,
        }
    }

    /// As [`TcpStream::try_read`].
    pub(super) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_read(buffer),
            Self::Layered(layered) => layered.try_read(buffer),
        }
    }

    /// As [`TcpStream::try_write`]; what the layers have taken goes out with the next [`Stream::ready`].
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_write(bytes),
            Self::Layered(layered) => layered.layers.write(bytes),
        }
    }

    pub(super) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.write_all(bytes).await,
            Self::Layered(layered) => {
                while !bytes.is_empty() {
                    match unless_blocked(layered.layers.write(bytes))? {
                        Some(taken) => bytes = &bytes[taken..],
                        None => drop(layered.ready(Interest::WRITABLE).await?),
                    }
                }
                layered.flushed().await
            }
        }
    }

    /// Says the layers' goodbyes, then ends the socket.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.shutdown().await,
            Self::Layered(layered) => {
                if let Layers::Web(web) = &mut layered.layers {
                    web.say_goodbye();
                    layered.flushed().await?;
                }
                layered.layers.carrier_mut().say_goodbye();
                layered.flushed().await?;
                layered.layers.carrier_mut().socket_mut().shutdown().await
            }
        }
    }
}

impl Layered {
    async fn ready(&mut self, interest: Interest) -> io::Result<Ready> {
        if interest.is_readable() && !self.drained {
            // Without this a client that sends without end would never let others run.
            tokio::task::coop::consume_budget().await;
            let writable = if interest.is_writable() { Ready::WRITABLE } else { Ready::EMPTY };
            return Ok(Ready::READABLE | writable);
        }
        loop {
            let unsent = self.layers.has_unsent();
            let asked = if unsent { interest | Interest::WRITABLE } else { interest };
            let ready = self.layers.carrier().socket().ready(asked).await?;
            if unsent && ready.is_writable() {
                unless_blocked(self.layers.flush())?;
            }
            let is_wanted = (interest.is_readable() && ready.is_readable())
                || (interest.is_writable() && ready.is_writable())
                || ready.is_error();
            if is_wanted {
                return Ok(ready);
            }
        }
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let done = self.layers.read(buffer);
        self.drained = !matches!(done, Ok(1..));
        // More is to come as soon as the client's task looks again.
        if let Err(error) = &done
            && error.kind() == io::ErrorKind::Interrupted
        {
            self.drained = false;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        done
    }

    /// Waits until the layers hold nothing back.
    async fn flushed(&mut self) -> io::Result<()> {
        while unless_blocked(self.layers.flush())?.is_none() {
            self.layers.carrier().socket().writable().await?;
        }
        Ok(())
    }
}

impl Layers {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tls(carrier) => io::Read::read(carrier, buffer),
            Self::Web(web) => web.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tls(carrier) => io::Write::write(carrier, bytes),
            Self::Web(web) => web.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(carrier) => io::Write::flush(carrier),
            Self::Web(web) => web.flush(),
        }
    }

    fn has_unsent(&self) -> bool {
        match self {
            Self::Tls(carrier) => carrier.has_unsent(),
            Self::Web(web) => web.has_unsent(),
        }
    }

    fn carrier(&self) -> &Carrier {
        match self {
            Self::Tls(carrier) => carrier,
            Self::Web(web) => web.carrier(),
        }
    }

    fn carrier_mut(&mut self) -> &mut Carrier {
        match self {
            Self::Tls(carrier) => carrier,
            Self::Web(web) => web.carrier_mut(),
        }
    }
}

pub(super) fn unless_blocked<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

//! The bytes below the frames: a TCP connection or a serial port.

use std::io;
use std::time::Duration;

use kubebus_sdk::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::Link;
use crate::serial::Serial;

/// Longest wait for a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads that throw away what came unasked; a peer that talks without end is hung up on.
const DISCARDS: usize = 16;

#[derive(Debug)]
pub(crate) enum Port {
    Tcp(TcpStream),
    Serial(Serial),
}

/// What came while nobody asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unasked {
    Nothing,
    Bytes,
    /// The peer has hung up.
    Closed,
}

impl Port {
    pub(crate) async fn open(link: &Link) -> Result<Self, Error> {
        let named = |e: io::Error| Error::transient(format!("{link}: {e}"));
        match link {
            Link::Serial { path, speed } => Serial::open(path, *speed).map(Self::Serial).map_err(named),
            Link::Tcp { address, .. } => {
                let late = |_| Error::Timeout(format!("{link}: no connection within {CONNECT_TIMEOUT:?}"));
                let connecting = TcpStream::connect(address);
                let stream = timeout(CONNECT_TIMEOUT, connecting).await.map_err(late)?.map_err(named)?;
                stream.set_nodelay(true).map_err(named)?;
                Ok(Self::Tcp(stream))
            }
        }
    }

    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).await,
            Self::Serial(port) => port.write_all(bytes).await,
        }
    }

    /// At least one byte, added to `bytes`; the peer's goodbye is an error.
    pub(crate) async fn read(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mut some = [0; 256];
        let count = match self {
            Self::Tcp(stream) => stream.read(&mut some).await?,
            Self::Serial(port) => port.read(&mut some).await?,
        };
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer has hung up"));
        }
        bytes.extend_from_slice(&some[..count]);
        Ok(())
    }

    /// Throws away what came unasked.
    pub(crate) fn discard(&self) -> Unasked {
        match self {
            Self::Tcp(stream) => discard(stream),
            Self::Serial(port) => port.discard().map_or(Unasked::Closed, |()| Unasked::Nothing),
        }
    }
}

fn discard(stream: &TcpStream) -> Unasked {
    let mut found = Unasked::Nothing;
    for _ in 0..DISCARDS {
        match stream.try_read(&mut [0; 256]) {
            Ok(0) => return Unasked::Closed,
            Ok(_) => found = Unasked::Bytes,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return found,
            Err(_) => return Unasked::Closed,
        }
    }
    Unasked::Closed
}

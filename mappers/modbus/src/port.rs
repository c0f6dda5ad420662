//! The bytes below the frames: a TCP connection or a serial port.

use std::io;
use std::time::Duration;

use kubebus_sdk::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::Link;
use crate::frame::MAX_WAITING;
use crate::serial::Serial;

/// Longest wait for a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) enum Port {
    Tcp(TcpStream),
    Serial(Serial),
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
                // Else the kernel goes on sending what was given up when this is closed.
                stream.set_zero_linger().map_err(named)?;
                Ok(Self::Tcp(stream))
            }
        }
    }

    /// Forgets what has not left yet, and what has come. Returns whether the port is of use after that.
    pub(crate) fn give_up(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            // Closing it would help nothing, and lets modem lines fall.
            Self::Serial(port) => port.give_up().is_ok(),
        }
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

    /// What came unasked, added to `bytes`. Returns whether the peer is still there, and does not talk without end.
    pub(crate) fn collect(&self, bytes: &mut Vec<u8>) -> bool {
        match self {
            Self::Tcp(stream) => collect(stream, bytes),
            Self::Serial(port) => port.discard().is_ok(),
        }
    }
}

fn collect(stream: &TcpStream, bytes: &mut Vec<u8>) -> bool {
    let mut some = [0; 256];
    while bytes.len() <= MAX_WAITING {
        match stream.try_read(&mut some) {
            Ok(0) => return false,
            Ok(count) => bytes.extend_from_slice(&some[..count]),
            Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
        }
    }
    false
}

//! Where clients come in: addresses, and what is spoken there.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use super::pass::Pass;
use super::stream::{Carrier, Stream, Web};
use super::tls::{NoClient, Tls};
use crate::gate::access::Who;

/// How long handshakes of TLS and WebSocket may take together; a mobile link needs a few seconds. A client that is
/// slower is cut, and has cost one of the places for clients until then.
pub(super) const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

/// One address where clients come in.
#[derive(Debug, Clone)]
pub struct Listener {
    pub address: SocketAddr,
    pub tls: Option<Tls>,
    /// MQTT in WebSocket frames, and nothing else.
    pub websocket: bool,
    /// Clients that do not say who they are are let in.
    pub anonymous: bool,
}

impl Listener {
    /// Plain TCP, for everybody: on loopback.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None, websocket: false, anonymous: true }
    }

    pub(super) fn is_bare(&self) -> bool {
        self.tls.is_none() && !self.websocket
    }

    /// Shakes all hands that are to be shaken here; says who it is, if a certificate does.
    pub(super) async fn enter(
        &self,
        socket: TcpStream,
        max_packet: u32,
    ) -> io::Result<(Stream, Option<Known>)> {
        let carrier = match &self.tls {
            Some(tls) => Carrier::accept(socket, tls.config.clone()).await?,
            None => Carrier::plain(socket),
        };
        let known = match (&self.tls, carrier.certificate()) {
            (Some(tls), Some(certificate)) => Some(known(tls, certificate).map_err(io::Error::other)?),
            _ => None,
        };
        let stream = match self.websocket {
            true => Stream::web(Web::accept(carrier, largest_frame(max_packet)).await?),
            false => Stream::tls(carrier),
        };
        Ok((stream, known))
    }
}

/// Somebody with a certificate, and for how long.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) who: Who,
    pub(super) pass: Option<Pass>,
}

fn known(tls: &Tls, certificate: &[u8]) -> Result<Known, NoClient> {
    let who = tls.identify(certificate)?;
    let pass = tls.pass(certificate, &who);
    match pass.as_ref().is_none_or(Pass::holds) {
        true => Ok(Known { who, pass }),
        false => Err(NoClient::Barred),
    }
}

/// A packet of the largest size, and another behind it.
fn largest_frame(max_packet: u32) -> usize {
    usize::try_from(max_packet).unwrap_or(usize::MAX).saturating_mul(2)
}

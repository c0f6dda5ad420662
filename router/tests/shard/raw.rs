//! A peer that speaks QUIC but says what it likes.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event, StreamId,
};
use router::io::shard::Credentials;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

use crate::cluster::{PATIENCE, loopback};

pub(crate) struct RawPeer {
    socket: UdpSocket,
    endpoint: Endpoint,
    handle: ConnectionHandle,
    connection: Connection,
    connected: bool,
    lost: Option<String>,
}

impl RawPeer {
    /// Connects as `credentials` say, or as nobody.
    pub(crate) fn connect(to: SocketAddr, alpn: &[u8], credentials: Option<&Credentials>) -> Self {
        let mut config = ClientConfig::new(Arc::new(tls(alpn, credentials)));
        config.transport_config(Arc::default());
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
        let (handle, connection) = endpoint.connect(Instant::now(), config, to, "anyone").unwrap();
        let socket = UdpSocket::bind(loopback()).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
        let mut peer = Self { socket, endpoint, handle, connection, connected: false, lost: None };
        peer.run_until(|peer| peer.connected || peer.lost.is_some());
        peer
    }

    /// Opens a stream, once allowed, and says `bytes` on it as far as flow control lets it.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> StreamId {
        let mut stream = None;
        self.run_until(|peer| {
            stream = peer.connection.streams().open(Dir::Uni);
            stream.is_some() || peer.lost.is_some()
        });
        let stream = stream.unwrap_or_else(|| panic!("no stream: {:?}", self.lost));
        self.say_more(stream, bytes);
        stream
    }

    pub(crate) fn say_more(&mut self, stream: StreamId, mut bytes: &[u8]) {
        self.run_until(|peer| {
            if let Ok(written) = peer.connection.send_stream(stream).write(bytes) {
                bytes = &bytes[written..];
            }
            bytes.is_empty() || peer.lost.is_some()
        });
    }

    pub(crate) fn abandon(&mut self, stream: StreamId) {
        self.connection.send_stream(stream).reset(1u32.into()).unwrap();
    }

    pub(crate) fn send_datagram(&mut self, bytes: &[u8]) {
        let bytes = Bytes::copy_from_slice(bytes);
        self.run_until(|peer| {
            peer.connection.datagrams().send(bytes.clone(), false).is_ok() || peer.lost.is_some()
        });
    }

    /// The words with which the other side ended the connection.
    pub(crate) fn closed(&mut self) -> String {
        self.run_until(|peer| peer.lost.is_some());
        self.lost.clone().unwrap()
    }

    /// Moves packets until `done`, which is asked after each round.
    fn run_until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let patience = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < patience, "the peer waits in vain");
            self.transmit();
            self.receive();
            self.settle();
        }
        self.transmit();
    }

    fn transmit(&mut self) {
        let mut buffer = Vec::new();
        while let Some(transmit) = self.connection.poll_transmit(Instant::now(), 1, &mut buffer) {
            self.socket.send_to(&buffer[..transmit.size], transmit.destination).unwrap();
            buffer.clear();
        }
    }

    fn receive(&mut self) {
        let (mut buffer, mut answer) = ([0; 2048], Vec::new());
        match self.socket.recv_from(&mut buffer) {
            Ok((len, from)) => {
                let bytes = buffer[..len].into();
                let event = self.endpoint.handle(Instant::now(), from, None, None, bytes, &mut answer);
                if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
                    self.connection.handle_event(event);
                }
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}")
            }
        }
    }

    fn settle(&mut self) {
        self.connection.handle_timeout(Instant::now());
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(answer) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(answer);
            }
        }
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Connected => self.connected = true,
                Event::ConnectionLost { reason } => self.lost = Some(reason.to_string()),
                Event::HandshakeDataReady
                | Event::Stream(_)
                | Event::DatagramReceived
                | Event::DatagramsUnblocked => {}
            }
        }
    }
}

fn tls(alpn: &[u8], credentials: Option<&Credentials>) -> QuicClientConfig {
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone));
    let mut config = match credentials {
        Some(own) => builder.with_client_auth_cert(own.chain.clone(), own.key.clone_key()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.try_into().unwrap()
}

/// Takes any server for the right one.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

//! What strangers throw at a cloud's UDP port.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bus::backoff::Jitter;
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{ClientConfig, Endpoint, EndpointConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

/// The protocols of the bus lane and of the lane for joining: strangers may begin both.
const ALPN: [&[u8]; 2] = [b"kubebus/1", b"kubebus-join/1"];

/// The longest that UDP over IPv4 carries.
const LONGEST: usize = 65_507;

/// Datagrams sent between two looks at the clock.
const BURST: u64 = 20;

/// Everything that is thrown.
pub(crate) struct Ammunition {
    /// First datagrams of handshakes that nobody goes on with, each of another connection.
    half_open: Vec<Vec<u8>>,
    /// What somebody on the path wrote down of true handshakes.
    replayed: Vec<Vec<u8>>,
}

/// How many of each kind were thrown.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Thrown {
    pub(crate) half_open: u64,
    pub(crate) fuzzed: u64,
    pub(crate) replayed: u64,
    pub(crate) oversized: u64,
    pub(crate) garbage: u64,
}

impl Thrown {
    pub(crate) fn sum(&self) -> u64 {
        let Self { half_open, fuzzed, replayed, oversized, garbage } = *self;
        half_open + fuzzed + replayed + oversized + garbage
    }
}

impl Ammunition {
    /// `half_open` handshakes, each with keys of its own.
    pub(crate) fn prepare(target: SocketAddr, half_open: usize, replayed: Vec<Vec<u8>>) -> Self {
        let configs = ALPN.map(client);
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
        let first = |number: usize| {
            let config = configs[number % configs.len()].clone();
            let now = Instant::now();
            let (_, mut connection) = endpoint.connect(now, config, target, "anyone").unwrap();
            let mut datagram = Vec::new();
            let transmit = connection.poll_transmit(now, 1, &mut datagram).unwrap();
            datagram.truncate(transmit.size);
            datagram
        };
        Self { half_open: (0..half_open).map(first).collect(), replayed }
    }

    /// Throws `rate` datagrams a second from `sockets` in turn until told to stop. A third are handshakes that nobody goes
    /// on with, until all are used up; the rest is of the other kinds.
    pub(crate) fn throw(
        &self,
        sockets: &[UdpSocket],
        target: SocketAddr,
        rate: u64,
        stop: &AtomicBool,
    ) -> Thrown {
        let (mut thrown, mut random, began) = (Thrown::default(), Jitter::new(66), Instant::now());
        let mut count = 0u64;
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..BURST {
                let datagram = self.next(count, &mut thrown, &mut random);
                let socket = &sockets[count as usize % sockets.len()];
                // A full buffer is the attacker's own.
                let _ = socket.send_to(&datagram, target);
                count += 1;
            }
            let due = began + Duration::from_micros(count * 1_000_000 / rate);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        thrown
    }

    fn next(&self, count: u64, thrown: &mut Thrown, random: &mut Jitter) -> Vec<u8> {
        let number = |random: &mut Jitter, below: usize| random.next_u64() as usize % below.max(1);
        match count % 12 {
            0 | 3 | 6 | 9 if (thrown.half_open as usize) < self.half_open.len() => {
                thrown.half_open += 1;
                self.half_open[thrown.half_open as usize - 1].clone()
            }
            1 | 5 | 7 if !self.replayed.is_empty() => {
                thrown.replayed += 1;
                self.replayed[number(random, self.replayed.len())].clone()
            }
            11 => {
                thrown.oversized += 1;
                vec![0xc0; 1500 + number(random, LONGEST - 1500)]
            }
            2 | 4 | 8 => {
                thrown.garbage += 1;
                let len = 1 + number(random, 1500);
                let mut bytes: Vec<u8> = (0..len).map(|_| random.next_u64() as u8).collect();
                bytes[0] |= 0x40;
                bytes
            }
            _ => {
                thrown.fuzzed += 1;
                let mut bytes = self.half_open[number(random, self.half_open.len())].clone();
                for _ in 0..=number(random, 4) {
                    let at = number(random, bytes.len());
                    bytes[at] ^= random.next_u64() as u8 | 1;
                }
                bytes
            }
        }
    }
}

fn client(alpn: &[u8]) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

/// Takes any server for the right one: nobody waits for its answer.
#[derive(Debug)]
pub(crate) struct Anyone;

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

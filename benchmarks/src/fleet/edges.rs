//! A fleet: one lane of all edges in one process and on one socket, each with a certificate of its own.

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event,
    TransportConfig,
};
use router::io::shard::{Credentials, Lane};
use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::credentials::Authority;
use super::{AT_ONCE, EDGES};
use crate::attack::Anyone;

/// As an edge's: its link says something this often.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Answers of a whole second of handshakes.
const RECEIVE_BUFFER: usize = 8 << 20;

pub(super) fn name(number: u32) -> String {
    format!("edge-{number}")
}

/// Connects all, says how long that took, and keeps them connected.
pub(super) fn run(room: &Path, hub: SocketAddr, lane: Lane) -> Result<()> {
    let authority = Authority::load(room)?;
    let certificates: Vec<Credentials> = (0..EDGES as u32)
        .map(|number| authority.issue(&format!("bench/edge/{}", name(number))))
        .collect::<Result<_>>()?;
    let mut fleet = Fleet::new(hub)?;
    let began = Instant::now();
    for credentials in &certificates {
        while fleet.under_way >= AT_ONCE {
            fleet.turn()?;
        }
        fleet.dial(lane, credentials)?;
    }
    while fleet.under_way > 0 {
        fleet.turn()?;
    }
    println!("{:.3}", began.elapsed().as_secs_f64());
    loop {
        fleet.turn()?;
    }
}

struct Edge {
    connection: Connection,
    lane: Lane,
    deadline: Option<Instant>,
}

struct Fleet {
    hub: SocketAddr,
    socket: UdpSocket,
    endpoint: Endpoint,
    edges: HashMap<ConnectionHandle, Edge>,
    deadlines: BTreeSet<(Instant, usize)>,
    under_way: usize,
    transport: Arc<TransportConfig>,
}

impl Fleet {
    fn new(hub: SocketAddr) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("a socket for the fleet")?;
        set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER).context("room for what comes in")?;
        let mut transport = TransportConfig::default();
        transport.keep_alive_interval(Some(KEEPALIVE));
        Ok(Self {
            hub,
            socket,
            endpoint: Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None),
            edges: HashMap::new(),
            deadlines: BTreeSet::new(),
            under_way: 0,
            transport: Arc::new(transport),
        })
    }

    fn dial(&mut self, lane: Lane, credentials: &Credentials) -> Result<()> {
        let mut config = ClientConfig::new(Arc::new(tls(lane, credentials)?));
        config.transport_config(self.transport.clone());
        let (handle, connection) =
            self.endpoint.connect(Instant::now(), config, self.hub, "kubebus").context("dial")?;
        self.edges.insert(handle, Edge { connection, lane, deadline: None });
        self.under_way += 1;
        self.attend(handle)
    }

    /// Takes one datagram, or waits for the next deadline at most.
    fn turn(&mut self) -> Result<()> {
        let now = Instant::now();
        while let Some((at, handle)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(at, handle));
            let handle = ConnectionHandle(handle);
            if let Some(edge) = self.edges.get_mut(&handle) {
                edge.deadline = None;
                edge.connection.handle_timeout(now);
            }
            self.attend(handle)?;
        }
        let wait = self.deadlines.first().map(|(at, _)| at.saturating_duration_since(Instant::now()));
        let wait = wait.unwrap_or(KEEPALIVE).max(Duration::from_micros(100));
        self.socket.set_read_timeout(Some(wait)).context("wait")?;
        let (mut buffer, mut answer) = ([0; 2048], Vec::new());
        let Ok((len, from)) = self.socket.recv_from(&mut buffer) else { return Ok(()) };
        let event = self.endpoint.handle(Instant::now(), from, None, None, buffer[..len].into(), &mut answer);
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(edge) = self.edges.get_mut(&handle) {
                    edge.connection.handle_event(event);
                }
                self.attend(handle)
            }
            Some(DatagramEvent::NewConnection(_) | DatagramEvent::Response(_)) | None => Ok(()),
        }
    }

    /// Lets a connection say what it has to, after something happened to it.
    fn attend(&mut self, handle: ConnectionHandle) -> Result<()> {
        let Some(edge) = self.edges.get_mut(&handle) else { return Ok(()) };
        let Edge { connection, lane, deadline } = edge;
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(handle, event) {
                connection.handle_event(event);
            }
        }
        while let Some(event) = connection.poll() {
            match event {
                Event::Connected => {
                    self.under_way -= 1;
                    if *lane == Lane::Bus {
                        introduce(connection)?;
                    }
                }
                Event::ConnectionLost { reason } => bail!("an edge lost its link: {reason}"),
                Event::HandshakeDataReady
                | Event::Stream(_)
                | Event::DatagramReceived
                | Event::DatagramsUnblocked => {}
            }
        }
        let mut buffer = Vec::new();
        while let Some(transmit) = connection.poll_transmit(Instant::now(), 1, &mut buffer) {
            // What the kernel has no room for is sent again.
            let _ = self.socket.send_to(&buffer[..transmit.size], transmit.destination);
            buffer.clear();
        }
        if let Some(old) = deadline.take() {
            self.deadlines.remove(&(old, handle.0));
        }
        *deadline = connection.poll_timeout();
        if let Some(at) = *deadline {
            self.deadlines.insert((at, handle.0));
        }
        Ok(())
    }
}

/// An edge says who it is: a frame on the stream of the most urgent class.
fn introduce(connection: &mut Connection) -> Result<()> {
    let stream = connection.streams().open(Dir::Uni).context("the hub allows no stream")?;
    let frame = [&[0, 0, 0, 0, 51, 0][..], &[7; 50]].concat();
    let written = connection.send_stream(stream).write(&frame).context("say hello")?;
    ensure!(written == frame.len(), "the hub takes no hello");
    Ok(())
}

fn tls(lane: Lane, credentials: &Credentials) -> Result<QuicClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())
        .context("an edge's certificate")?;
    tls.alpn_protocols = vec![lane.alpn().to_vec()];
    tls.try_into().context("TLS for QUIC")
}

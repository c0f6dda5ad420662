//! Who reaches whom: short questions with a time limit, asked inside a namespace with
//! [`Namespace::run`](super::Namespace::run).

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use thiserror::Error;

use super::namespace::{Namespace, NamespaceError};

/// Why a probe got no answer.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// Silence: dropped on the way, filtered, or nobody there.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The host answers and the port does not.
    #[error("refused")]
    Refused,
    /// A router, or the machine itself, has no way there.
    #[error("unreachable")]
    Unreachable,
    #[error("cannot {step}")]
    Io { step: &'static str, source: io::Error },
}

impl ProbeError {
    fn of(step: &'static str, timeout: Duration) -> impl Fn(io::Error) -> Self {
        use io::ErrorKind as Kind;
        move |source| {
            let kind = source.kind();
            if matches!(kind, Kind::WouldBlock | Kind::TimedOut) {
                Self::Timeout(timeout)
            } else if matches!(kind, Kind::ConnectionRefused | Kind::ConnectionReset) {
                Self::Refused
            } else if matches!(kind, Kind::HostUnreachable | Kind::NetworkUnreachable) {
                Self::Unreachable
            } else {
                Self::Io { step, source }
            }
        }
    }
}

/// Sends one datagram to an [`EchoServer`]; returns the round trip.
pub fn udp_echo(target: SocketAddr, timeout: Duration) -> Result<Duration, ProbeError> {
    let failed = |step| ProbeError::of(step, timeout);
    let socket = UdpSocket::bind((any_address(target.ip()), 0)).map_err(failed("open a UDP socket"))?;
    socket.connect(target).map_err(failed("choose the target"))?;
    let question = next_question();
    let asked = Instant::now();
    socket.send(&question).map_err(failed("send a datagram"))?;
    await_answer(&socket, asked, timeout, |answer| *answer == question)
}

/// Opens and closes a TCP connection; returns the time of the handshake.
pub fn tcp_connect(target: SocketAddr, timeout: Duration) -> Result<Duration, ProbeError> {
    let asked = Instant::now();
    TcpStream::connect_timeout(&target, timeout).map_err(ProbeError::of("connect", timeout))?;
    Ok(asked.elapsed())
}

/// Sends a few bytes to an [`EchoServer`] over TCP; returns the time of connection and answer together.
pub fn tcp_echo(target: SocketAddr, timeout: Duration) -> Result<Duration, ProbeError> {
    let failed = |step| ProbeError::of(step, timeout);
    let asked = Instant::now();
    let mut stream = TcpStream::connect_timeout(&target, timeout).map_err(failed("connect"))?;
    let question = next_question();
    stream.write_all(&question).map_err(failed("write"))?;
    let mut answer = [0; QUESTION_LEN];
    let rest = remaining(asked, timeout)?;
    stream.set_read_timeout(Some(rest)).map_err(failed("set a time limit"))?;
    stream.read_exact(&mut answer).map_err(failed("read the echo"))?;
    if answer != question {
        return Err(ProbeError::Io { step: "recognise the echo", source: io::ErrorKind::InvalidData.into() });
    }
    Ok(asked.elapsed())
}

/// ICMP echo; returns the round trip. Needs the right to open raw sockets, which the owner of a namespace has.
pub fn ping(target: IpAddr, timeout: Duration) -> Result<Duration, ProbeError> {
    let failed = |step| ProbeError::of(step, timeout);
    let socket = icmp_socket(target).map_err(failed("open an ICMP socket"))?;
    socket.connect((target, 0)).map_err(failed("choose the target"))?;
    let echo = IcmpEcho::new(target, next_question());
    let asked = Instant::now();
    socket.send(&echo.request()).map_err(failed("send an echo request"))?;
    await_answer(&socket, asked, timeout, |answer| echo.is_answered_by(answer))
}

const QUESTION_LEN: usize = 16;

/// Different for each probe of each process on the machine: no probe takes another's answer for its own.
fn next_question() -> [u8; QUESTION_LEN] {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut question = [0; QUESTION_LEN];
    question[..8].copy_from_slice(&count.to_be_bytes());
    question[8..12].copy_from_slice(&std::process::id().to_be_bytes());
    question[12..].copy_from_slice(b"lab?");
    question
}

fn any_address(family_of: IpAddr) -> IpAddr {
    match family_of {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn remaining(asked: Instant, timeout: Duration) -> Result<Duration, ProbeError> {
    let rest = timeout.saturating_sub(asked.elapsed());
    if rest.is_zero() { Err(ProbeError::Timeout(timeout)) } else { Ok(rest) }
}

/// Reads until something is the answer or time is up.
fn await_answer(
    socket: &UdpSocket,
    asked: Instant,
    timeout: Duration,
    is_answer: impl Fn(&[u8]) -> bool,
) -> Result<Duration, ProbeError> {
    let failed = |step| ProbeError::of(step, timeout);
    let mut buffer = [0; 256];
    loop {
        let rest = remaining(asked, timeout)?;
        socket.set_read_timeout(Some(rest)).map_err(failed("set a time limit"))?;
        let len = socket.recv(&mut buffer).map_err(failed("receive the echo"))?;
        if is_answer(&buffer[..len]) {
            return Ok(asked.elapsed());
        }
    }
}

/// A raw ICMP socket in the clothes of a UDP one: send, receive and time limits are the same calls.
fn icmp_socket(target: IpAddr) -> io::Result<UdpSocket> {
    let (family, protocol) = match target {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let fd = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
    Ok(UdpSocket::from(fd))
}

/// Echo request and reply of RFC 792 and RFC 4443 §4.
struct IcmpEcho {
    request_type: u8,
    reply_type: u8,
    /// Bytes of IP header that the kernel leaves before an answer: IPv4's, without options.
    answer_at: usize,
    question: [u8; QUESTION_LEN],
}

impl IcmpEcho {
    fn new(target: IpAddr, question: [u8; QUESTION_LEN]) -> Self {
        match target {
            IpAddr::V4(_) => Self { request_type: 8, reply_type: 0, answer_at: 20, question },
            IpAddr::V6(_) => Self { request_type: 128, reply_type: 129, answer_at: 0, question },
        }
    }

    /// The id is random to nobody: the question in the payload is what counts. The kernel fills in the checksum
    /// of ICMPv6, which covers addresses that we do not know (RFC 3542 §3.1).
    fn request(&self) -> Vec<u8> {
        let id = std::process::id() as u16;
        let mut packet = vec![self.request_type, 0, 0, 0];
        packet.extend(id.to_be_bytes());
        packet.extend([0, 1]);
        packet.extend(self.question);
        let check = !crate::checksum::sum(&packet);
        packet[2..4].copy_from_slice(&check.to_be_bytes());
        packet
    }

    fn is_answered_by(&self, packet: &[u8]) -> bool {
        let Some(icmp) = packet.get(self.answer_at..) else { return false };
        icmp.first() == Some(&self.reply_type) && icmp.get(8..) == Some(&self.question[..])
    }
}

/// How long a silent TCP client may keep the next one waiting: clients are served one after the other.
const CLIENT_IDLE: Duration = Duration::from_secs(1);

/// Sends back what it gets, over UDP and TCP on one port. Two threads, `echo-udp` and `echo-tcp`; stops when
/// dropped.
#[derive(Debug)]
pub struct EchoServer {
    address: SocketAddr,
    stop: Arc<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
}

/// Why there is no echo server.
#[derive(Debug, Error)]
pub enum EchoError {
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot start the echo threads")]
    Start(#[source] io::Error),
}

impl EchoServer {
    /// Listens on `address` inside the namespace.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self, EchoError> {
        let listen = || -> io::Result<_> { Ok((UdpSocket::bind(address)?, TcpListener::bind(address)?)) };
        let (udp, tcp) = namespace.run(listen)?.map_err(|source| EchoError::Listen { address, source })?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(|errno| EchoError::Start(errno.into()))?;
        let mut server = Self { address, stop: Arc::new(stop), threads: Vec::new() };
        server.spawn("echo-udp", move |stop| {
            while is_readable(&udp, stop) {
                echo_datagram(&udp)
            }
        })?;
        server.spawn("echo-tcp", move |stop| {
            while is_readable(&tcp, stop) {
                echo_stream(&tcp)
            }
        })?;
        Ok(server)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce(&OwnedFd) + Send + 'static) -> Result<(), EchoError> {
        let stop = Arc::clone(&self.stop);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(&stop));
        self.threads.push(thread.map_err(EchoError::Start)?);
        Ok(())
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        // Cannot fail: the counter is at zero.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Waits for something to read; false when the server is to stop.
fn is_readable(socket: &impl AsFd, stop: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
    loop {
        match poll(&mut fds, None) {
            Ok(_) => return fds[1].revents().is_empty(),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// An error here is a client's that went away: the next one counts.
fn echo_datagram(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    if let Ok((len, from)) = socket.recv_from(&mut buffer) {
        let _ = socket.send_to(&buffer[..len], from);
    }
}

fn echo_stream(listener: &TcpListener) {
    if let Ok((mut stream, _)) = listener.accept()
        && stream.set_read_timeout(Some(CLIENT_IDLE)).is_ok()
    {
        let mut buffer = [0; 2048];
        while let Ok(len @ 1..) = stream.read(&mut buffer)
            && stream.write_all(&buffer[..len]).is_ok()
        {}
    }
}

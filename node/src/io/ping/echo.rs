//! ICMP echo over a socket: what is sent (RFC 792, RFC 4443 §4), and what is heard.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, bind, ipproto, socket_with};
use thiserror::Error;

/// Payload in bytes, as other pings have it: a token and a sequence number come first in it.
const PAYLOAD_LEN: usize = 56;

const HEADER_LEN: usize = 8;

const TOKEN_LEN: usize = 16;

/// An answer is as long as its request; a raw socket gets an IPv4 header of up to 60 bytes before it.
const BUFFER_LEN: usize = 512;

/// Why there is no ping.
#[derive(Debug, Error)]
pub(crate) enum EchoError {
    #[error(
        "this machine lets only root ping: run it as root, or allow it with \
         'sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"'"
    )]
    Forbidden,
    #[error("cannot open an ICMP socket")]
    Open(#[source] io::Error),
    #[error("this machine has no address {0}: is the overlay's interface up? See 'kubebus status'")]
    NoInterface(IpAddr),
    #[error("no way from this machine to {0}: see 'ip route get {0}'")]
    NoWay(IpAddr, #[source] io::Error),
    #[error("cannot hear an answer")]
    Hear(#[source] io::Error),
}

/// What came in.
#[derive(Debug)]
pub(super) enum Heard {
    /// To the request of this number.
    Answer(u16),
    /// An ICMP error of a router or host on the way.
    Refused(io::Error),
    /// What is no answer to this process.
    Other,
    /// Nothing in time.
    Nothing,
}

/// A socket between two addresses.
#[derive(Debug)]
pub(crate) struct Echo {
    socket: UdpSocket,
    shape: Shape,
}

impl Echo {
    pub(crate) fn open(from: IpAddr, to: IpAddr) -> Result<Self, EchoError> {
        let (fd, is_raw) = open(to.is_ipv6())?;
        bind(&fd, &SocketAddr::new(from, 0)).map_err(|_| EchoError::NoInterface(from))?;
        // The clothes of a UDP socket: send, receive and time limits are the same calls.
        let socket = UdpSocket::from(fd);
        socket.connect((to, 0)).map_err(|why| EchoError::NoWay(to, why))?;
        let has_ip_header = is_raw && to.is_ipv4();
        let shape = Shape { is_v6: to.is_ipv6(), has_ip_header, token: token(), payload: PAYLOAD_LEN };
        Ok(Self { socket, shape })
    }

    /// The same with this many bytes behind the ICMP header, at least as many as [`open`](Self::open) sends.
    pub(crate) fn with_payload(mut self, len: usize) -> Self {
        self.shape.payload = len.max(PAYLOAD_LEN);
        self
    }

    pub(super) fn send(&self, seq: u16) -> io::Result<()> {
        self.socket.send(&self.shape.request(seq)).map(drop)
    }

    pub(super) fn hear(&self, until: Instant) -> Result<Heard, EchoError> {
        let rest = until.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Ok(Heard::Nothing);
        }
        // Rounded down to zero it would wait for ever.
        let rest = rest.max(Duration::from_micros(1));
        self.socket.set_read_timeout(Some(rest)).map_err(EchoError::Hear)?;
        let mut buffer = [0; BUFFER_LEN];
        match self.socket.recv(&mut buffer) {
            Ok(len) => Ok(self.shape.answer(&buffer[..len]).map_or(Heard::Other, Heard::Answer)),
            Err(error) => heard(error),
        }
    }
}

/// As Linux names what routers and hosts say: unreachable, prohibited (IPv4's and IPv6's), no such protocol.
const REFUSALS: [io::ErrorKind; 4] = [
    io::ErrorKind::HostUnreachable,
    io::ErrorKind::NetworkUnreachable,
    io::ErrorKind::PermissionDenied,
    io::ErrorKind::ConnectionRefused,
];

/// Those for which Rust has no name: protocol unreachable, parameter problem, fragmentation needed, host down or isolated.
const NAMELESS_REFUSALS: [i32; 5] =
    [libc::ENOPROTOOPT, libc::EPROTO, libc::EMSGSIZE, libc::EHOSTDOWN, libc::ENONET];

fn heard(error: io::Error) -> Result<Heard, EchoError> {
    use io::ErrorKind as Kind;
    let is_any = |kinds: &[Kind]| kinds.contains(&error.kind());
    if is_any(&[Kind::WouldBlock, Kind::TimedOut]) {
        Ok(Heard::Nothing)
    } else if is_any(&[Kind::Interrupted]) {
        Ok(Heard::Other)
    } else if is_any(&REFUSALS) || error.raw_os_error().is_some_and(|code| NAMELESS_REFUSALS.contains(&code))
    {
        Ok(Heard::Refused(error))
    } else {
        Err(EchoError::Hear(error))
    }
}

/// A datagram socket, which needs no privilege where the group may ping, else a raw one; and whether it is raw.
fn open(is_v6: bool) -> Result<(OwnedFd, bool), EchoError> {
    let (family, protocol) = match is_v6 {
        true => (AddressFamily::INET6, ipproto::ICMPV6),
        false => (AddressFamily::INET, ipproto::ICMP),
    };
    if let Ok(fd) = of_type(SocketType::DGRAM, family, protocol) {
        return Ok((fd, false));
    }
    match of_type(SocketType::RAW, family, protocol) {
        Ok(fd) => Ok((fd, true)),
        Err(Errno::PERM | Errno::ACCESS) => Err(EchoError::Forbidden),
        Err(why) => Err(EchoError::Open(why.into())),
    }
}

fn of_type(kind: SocketType, family: AddressFamily, protocol: Protocol) -> rustix::io::Result<OwnedFd> {
    socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))
}

/// Tells this process' answers from those of others: a raw socket hears them all.
fn token() -> [u8; TOKEN_LEN] {
    let mut token = [0; TOKEN_LEN];
    if getrandom::fill(&mut token).is_err() {
        token[..4].copy_from_slice(&std::process::id().to_be_bytes());
    }
    token
}

/// How requests and answers look.
#[derive(Debug)]
struct Shape {
    is_v6: bool,
    has_ip_header: bool,
    token: [u8; TOKEN_LEN],
    payload: usize,
}

impl Shape {
    /// The kernel fills in the checksum of ICMPv6, which covers the addresses (RFC 3542 §3.1), and the id of what goes
    /// over a datagram socket.
    fn request(&self, seq: u16) -> Vec<u8> {
        let mut packet = vec![0; HEADER_LEN + self.payload];
        packet[0] = if self.is_v6 { 128 } else { 8 };
        packet[4..6].copy_from_slice(&self.token[..2]);
        packet[6..HEADER_LEN].copy_from_slice(&seq.to_be_bytes());
        packet[HEADER_LEN..HEADER_LEN + TOKEN_LEN].copy_from_slice(&self.token);
        if !self.is_v6 {
            let check = checksum(&packet);
            packet[2..4].copy_from_slice(&check.to_be_bytes());
        }
        packet
    }

    /// The number of the request that `packet` answers, if it is one of ours.
    fn answer(&self, packet: &[u8]) -> Option<u16> {
        let skip = if self.has_ip_header { usize::from(packet.first()? & 0xf) * 4 } else { 0 };
        let icmp = packet.get(skip..)?;
        let is_reply = icmp.first() == Some(if self.is_v6 { &129 } else { &0 });
        let is_ours = icmp.get(HEADER_LEN..HEADER_LEN + TOKEN_LEN) == Some(&self.token[..]);
        let seq = icmp.get(6..HEADER_LEN)?.try_into().ok()?;
        (is_reply && is_ours).then(|| u16::from_be_bytes(seq))
    }
}

/// RFC 1071, over an even number of bytes; of an odd one the last is zero here.
fn checksum(packet: &[u8]) -> u16 {
    let words = packet.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(is_v6: bool, has_ip_header: bool) -> Shape {
        Shape { is_v6, has_ip_header, token: [7; TOKEN_LEN], payload: PAYLOAD_LEN }
    }

    /// What a host makes of a request.
    fn answered(shape: &Shape, seq: u16) -> Vec<u8> {
        let mut packet = shape.request(seq);
        packet[0] = if shape.is_v6 { 129 } else { 0 };
        if shape.has_ip_header {
            packet.splice(0..0, [0x46].into_iter().chain([0; 23]));
        }
        packet
    }

    #[test]
    fn a_request_has_a_checksum_that_comes_out_as_zero() {
        let packet = shape(false, false).request(258);
        assert_eq!((packet.len(), &packet[..2], &packet[6..8]), (64, &[8, 0][..], &[1, 2][..]));
        assert_eq!(checksum(&packet), 0);
    }

    #[test]
    fn answers_are_known_with_and_without_an_ip_header() {
        for shape in [shape(false, false), shape(false, true), shape(true, false)] {
            assert_eq!(shape.answer(&answered(&shape, 3)), Some(3), "{shape:?}");
            assert_eq!(shape.answer(&shape.request(3)), None, "a request is no answer: {shape:?}");
            let other = Shape { token: [8; TOKEN_LEN], ..shape };
            assert_eq!(other.answer(&answered(&other, 3)), Some(3));
            assert_eq!(Shape { token: [9; TOKEN_LEN], ..other }.answer(&[0; 64]), None);
        }
    }

    #[test]
    fn what_is_too_short_is_no_answer() {
        let shape = shape(false, true);
        let whole = answered(&shape, 1);
        (0..whole.len() - PAYLOAD_LEN + TOKEN_LEN)
            .for_each(|len| assert_eq!(shape.answer(&whole[..len]), None));
    }
}

//! The shard's UDP socket: batches in, segmented batches out, and one transmit kept while the kernel has no room.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use bytes::BytesMut;
use quinn_proto::{EcnCodepoint, Transmit};
use quinn_udp::{RecvMeta, UdpSocketState};
use tracing::warn;

/// Buffers per receive call. 16 of 64 KiB took 11 % less time per GB than 4 did; more gave nothing.
const RECV_BUFFERS: usize = 16;

/// One GRO super-packet.
const RECV_BUFFER_LEN: usize = 1 << 16;

/// What the kernel may queue for us in either direction: 7 ms at 5 Gbit/s. Asked for by force, then politely; with
/// less, overload shows as loss sooner.
const SOCKET_BUFFER_LEN: usize = 4 << 20;

/// The most that one `sendmsg` can carry: an IPv4 datagram's payload. A segmented batch beyond it is lost whole.
const MAX_BATCH_LEN: usize = 65_507;

/// Segments per batch: 65507 / 1472; the kernel takes up to 64.
const MAX_BATCH_SEGMENTS: usize = 44;

/// A bound, non-blocking UDP socket.
#[derive(Debug)]
pub(super) struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    is_v6: bool,
    /// Sealed packets that the kernel had no room for. They are numbered already: dropping them would be loss.
    kept: Option<(Transmit, Vec<u8>)>,
    /// Sends that failed for another reason than room: counted as loss on the path.
    send_errors: u64,
}

/// What arrived in one buffer is decrypted where it lies if it is at least this long, and else copied: whatever keeps a
/// datagram keeps its whole buffer. Nothing keeps one for longer than a turn but frames that their owner does not take.
const IN_PLACE_LEN: usize = 4096;

/// Where received datagrams land, used again as soon as nobody needs them.
#[derive(Debug)]
pub(super) struct RecvBuffers {
    buffers: Vec<BytesMut>,
    metas: [RecvMeta; RECV_BUFFERS],
    /// Buffers that were filled by the last call.
    filled: usize,
    /// The one that is handed out now, and what of it is left.
    current: usize,
    rest: BytesMut,
}

/// One received UDP datagram.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) remote: SocketAddr,
    pub(super) local_ip: Option<IpAddr>,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) bytes: BytesMut,
}

impl Socket {
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        enlarge_buffers(&socket);
        let state = UdpSocketState::new((&socket).into())?;
        let is_v6 = socket.local_addr()?.is_ipv6();
        Ok(Self { socket, state, is_v6, kept: None, send_errors: 0 })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Whether the kernel promises not to fragment, so that path MTU discovery tells the truth.
    pub(super) fn may_discover_mtu(&self) -> bool {
        !self.state.may_fragment()
    }

    /// How many packets of `mtu` bytes one send may carry.
    pub(super) fn max_segments(&self, mtu: u16) -> usize {
        let fit = MAX_BATCH_LEN / usize::from(mtu.max(1));
        self.state.max_gso_segments().min(fit).clamp(1, MAX_BATCH_SEGMENTS)
    }

    /// Whether a transmit waits for room: then nothing else may be sent.
    pub(super) fn is_blocked(&self) -> bool {
        self.kept.is_some()
    }

    pub(super) fn send_errors(&self) -> u64 {
        self.send_errors
    }

    /// Sends the first `transmit.size` bytes of `buffer`, or keeps them until there is room.
    pub(super) fn send(&mut self, transmit: Transmit, buffer: &mut Vec<u8>) {
        if self.is_blocked() || !self.try_send(&transmit, buffer) {
            let unsent = std::mem::take(buffer);
            self.kept.get_or_insert((transmit, unsent));
        }
    }

    /// The kernel has room again: sends what was kept.
    pub(super) fn flush(&mut self) {
        if let Some((transmit, buffer)) = self.kept.take()
            && !self.try_send(&transmit, &buffer)
        {
            self.kept = Some((transmit, buffer));
        }
    }

    /// Returns false if there is no room.
    fn try_send(&mut self, transmit: &Transmit, buffer: &[u8]) -> bool {
        let Some(contents) = buffer.get(..transmit.size) else { return true };
        let result = self.state.try_send(
            (&self.socket).into(),
            &quinn_udp::Transmit {
                destination: transmit.destination,
                ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
                contents,
                segment_size: transmit.segment_size,
                src_ip: transmit.src_ip,
            },
        );
        match result {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            // A probe of a larger MTU than the interface takes: that is its answer.
            Err(error) if quinn_udp::is_msg_size_err(&error) => true,
            Err(error) => {
                self.note(transmit.destination, &error);
                true
            }
        }
    }

    /// QUIC repeats what was lost, so a failed send is only counted; the first is worth a line in the log.
    fn note(&mut self, destination: SocketAddr, error: &io::Error) {
        if self.send_errors == 0 {
            warn!(%destination, %error, "cannot send; further failures are only counted");
        }
        self.send_errors += 1;
    }

    /// `address` as this socket sends to it, and sees it as a sender; `None` if it is of a family that it cannot reach.
    pub(super) fn reachable(&self, address: SocketAddr) -> Option<SocketAddr> {
        match (address, self.is_v6) {
            (SocketAddr::V4(v4), true) => Some((v4.ip().to_ipv6_mapped(), v4.port()).into()),
            (SocketAddr::V6(_), false) => None,
            (SocketAddr::V4(_), false) | (SocketAddr::V6(_), true) => Some(address),
        }
    }

    /// Fills `buffers` with what has arrived; [`io::ErrorKind::WouldBlock`] if nothing has.
    pub(super) fn recv(&self, buffers: &mut RecvBuffers) -> io::Result<()> {
        buffers.make_ready();
        let RecvBuffers { buffers, metas, filled, .. } = buffers;
        let mut slices: [_; RECV_BUFFERS] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        for (slice, buffer) in slices.iter_mut().zip(buffers) {
            *slice = IoSliceMut::new(buffer);
        }
        *filled = self.state.recv((&self.socket).into(), &mut slices, metas)?;
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn enlarge_buffers(socket: &UdpSocket) {
    use rustix::net::sockopt;
    // Best effort: without CAP_NET_ADMIN the system's limit applies.
    if sockopt::set_socket_recv_buffer_size_force(socket, SOCKET_BUFFER_LEN).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(socket, SOCKET_BUFFER_LEN);
    }
    if sockopt::set_socket_send_buffer_size_force(socket, SOCKET_BUFFER_LEN).is_err() {
        let _ = sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER_LEN);
    }
}

impl RecvBuffers {
    /// A whole receive batch: connections must be able to queue this much before any of it is read.
    pub(super) const LEN: usize = RECV_BUFFERS * RECV_BUFFER_LEN;

    pub(super) fn new() -> Self {
        Self {
            buffers: (0..RECV_BUFFERS).map(|_| BytesMut::zeroed(RECV_BUFFER_LEN)).collect(),
            metas: Default::default(),
            filled: 0,
            current: 0,
            rest: BytesMut::new(),
        }
    }

    /// Makes every buffer whole again; one that somebody still reads is left to him.
    fn make_ready(&mut self) {
        self.rest = BytesMut::new();
        for buffer in self.buffers.iter_mut().take(self.filled) {
            buffer.clear();
            if buffer.try_reclaim(RECV_BUFFER_LEN) {
                assume_initialized(buffer);
            } else {
                *buffer = BytesMut::zeroed(RECV_BUFFER_LEN);
            }
        }
        (self.filled, self.current) = (0, 0);
    }

    /// The next datagram of the last [`Socket::recv`], super-packets cut at their stride.
    pub(super) fn next_datagram(&mut self) -> Option<Received> {
        while self.rest.is_empty() {
            if self.current == self.filled {
                return None;
            }
            let (buffer, meta) = (self.buffers.get_mut(self.current)?, self.metas.get(self.current)?);
            let len = meta.len;
            self.rest = if may_stay(buffer.get(..len).unwrap_or_default(), meta.stride) {
                buffer.split_to(len)
            } else {
                buffer.get(..len).unwrap_or_default().into()
            };
            self.current += 1;
        }
        let meta = self.metas.get(self.current - 1)?;
        let bytes = self.rest.split_to(meta.stride.max(1).min(self.rest.len()));
        Some(Received {
            remote: meta.addr,
            local_ip: meta.dst_ip,
            ecn: meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
            bytes,
        })
    }
}

/// Whether what was received may be handed out where it is: worth it, and no handshake (RFC 9000 §17.2), which a stranger
/// could leave lying about.
fn may_stay(received: &[u8], stride: usize) -> bool {
    let is_handshake = |datagram: &[u8]| datagram.first().is_some_and(|first| first & 0x80 != 0);
    received.len() >= IN_PLACE_LEN && !received.chunks(stride.max(1)).any(is_handshake)
}

#[expect(unsafe_code, reason = "zeroing 64 KiB for each receive would cost what a copy does")]
fn assume_initialized(buffer: &mut BytesMut) {
    // SAFETY: the memory is that of a `BytesMut::zeroed(RECV_BUFFER_LEN)`, all of which was written at its birth, and
    // `try_reclaim` has just said that all of it is ours again.
    unsafe { buffer.set_len(RECV_BUFFER_LEN) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn transmit(destination: SocketAddr, size: usize) -> Transmit {
        Transmit { destination, ecn: None, size, segment_size: None, src_ip: None }
    }

    #[test]
    fn a_kept_transmit_goes_first_and_nothing_passes_it() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let to = receiver.local_addr().unwrap();
        let mut socket = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        // As after WouldBlock, which a loopback never says.
        socket.kept = Some((transmit(to, 5), b"first and more".to_vec()));
        assert!(socket.is_blocked());
        socket.send(transmit(to, 6), &mut b"second".to_vec());
        socket.flush();
        assert!(!socket.is_blocked());
        socket.send(transmit(to, 5), &mut b"third".to_vec());
        let mut buffer = [0; 100];
        let received: Vec<_> =
            (0..2).map(|_| receiver.recv(&mut buffer).map(|len| buffer[..len].to_vec()).unwrap()).collect();
        assert_eq!(received, [b"first".to_vec(), b"third".to_vec()]);
    }

    #[test]
    fn segmented_batches_arrive_as_the_datagrams_that_they_were() {
        let any = "127.0.0.1:0".parse().unwrap();
        let (mut from, to) = (Socket::bind(any).unwrap(), Socket::bind(any).unwrap());
        let mut batch: Vec<u8> = (0..10u8).flat_map(|n| [n; 1200]).collect();
        batch.extend([10; 700]);
        let whole = Transmit { segment_size: Some(1200), ..transmit(to.local_addr().unwrap(), batch.len()) };
        assert!(from.max_segments(1200) >= 11, "this kernel has no UDP segmentation");
        from.send(whole, &mut batch);
        let mut buffers = RecvBuffers::new();
        let mut received = Vec::new();
        while received.len() < 11 {
            match to.recv(&mut buffers) {
                Ok(()) => {
                    let datagrams = std::iter::from_fn(|| buffers.next_datagram());
                    received.extend(datagrams.map(|got| (got.bytes[0], got.bytes.len())));
                }
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        let expected: Vec<(u8, usize)> = (0..10).map(|n| (n, 1200)).chain([(10, 700)]).collect();
        assert_eq!(received, expected);
    }

    #[test]
    fn a_batch_never_exceeds_what_one_send_carries() {
        let socket = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        for mtu in [0, 1, 1200, 1472, u16::MAX] {
            let segments = socket.max_segments(mtu);
            assert!(segments == 1 || segments * usize::from(mtu) <= MAX_BATCH_LEN, "{mtu}: {segments}");
            assert!((1..=MAX_BATCH_SEGMENTS).contains(&segments));
        }
    }
}

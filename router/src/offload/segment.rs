//! Cutting a super-packet into packets that a path carries.

use thiserror::Error;

use super::MAX_HEADERS;
use super::virtio::Gso;
use crate::checksum;
use crate::packet::{Fragment, Packet, TCP, UDP};

const FIN_PSH: u8 = 0x01 | 0x08;
const CWR: u8 = 0x80;

/// Why a super-packet cannot be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Uncuttable {
    #[error("its headers are not what its kind says")]
    Headers,
    #[error("its headers leave no room for payload")]
    NoRoom,
}

/// Yields the segments of a super-packet: the headers of each, changed as RFC 9293 and Linux' `tcp_gso_segment` have it,
/// and its part of the payload.
///
/// Per segment: IPv4's total length, identification (counts up) and header checksum, or IPv6's payload length; TCP's
/// sequence number, FIN and PSH only on the last, CWR only on the first; UDP's length. The transport's checksum is left
/// to whoever completes it: see [`crate::offload`].
#[derive(Debug)]
pub struct Segmenter<'p> {
    payload: &'p [u8],
    headers: [u8; MAX_HEADERS],
    headers_len: usize,
    transport: usize,
    is_tcp: bool,
    is_v6: bool,
    size: usize,
    sequence: u32,
    identification: u16,
    last_flags: u8,
    is_first: bool,
}

impl<'p> Segmenter<'p> {
    /// Of a super-packet that the kernel wants cut as `gso` says, into packets of at most `max_len` bytes. TCP segments may
    /// so become smaller than the kernel asked for, which TCP takes as it comes; datagrams may not.
    pub fn new(packet: &Packet<'p>, gso: Gso, max_len: usize) -> Result<Self, Uncuttable> {
        let (size, protocol) = match gso {
            Gso::Tcp(size) => (usize::from(size), TCP),
            Gso::Udp(size) => (usize::from(size), UDP),
            Gso::None => return Err(Uncuttable::Headers),
        };
        let (bytes, upper) = (packet.bytes(), packet.upper());
        if upper.protocol != protocol || upper.fragment != Fragment::Whole {
            return Err(Uncuttable::Headers);
        }
        let (transport, is_tcp) = (upper.offset, protocol == TCP);
        let transport_len = match (is_tcp, bytes.get(transport + 12)) {
            (true, Some(offset)) => usize::from(offset >> 4) * 4,
            (true, None) => return Err(Uncuttable::Headers),
            (false, _) => 8,
        };
        let headers_len = transport + transport_len;
        let mut headers = [0; MAX_HEADERS];
        match (bytes.get(..headers_len), headers.get_mut(..headers_len)) {
            (Some(from), Some(to)) if transport_len >= if is_tcp { 20 } else { 8 } => {
                to.copy_from_slice(from)
            }
            _ => return Err(Uncuttable::Headers),
        }
        let room = max_len.checked_sub(headers_len).filter(|room| *room > 0).ok_or(Uncuttable::NoRoom)?;
        if !is_tcp && size > room {
            return Err(Uncuttable::NoRoom);
        }
        let mut segmenter = Self {
            payload: bytes.get(headers_len..).unwrap_or_default(),
            headers,
            headers_len,
            transport,
            is_tcp,
            is_v6: packet.source().is_ipv6(),
            size: size.min(room),
            sequence: 0,
            identification: 0,
            last_flags: 0,
            is_first: true,
        };
        segmenter.sequence = u32::from_be_bytes(segmenter.read(transport + 4));
        segmenter.identification = u16::from_be_bytes(segmenter.read(4));
        let [flags] = segmenter.read(transport + 13);
        segmenter.last_flags = flags & FIN_PSH;
        Ok(segmenter)
    }

    /// The next segment: its headers and its payload.
    pub fn next_segment(&mut self) -> Option<(&[u8], &'p [u8])> {
        if self.payload.is_empty() && !self.is_first {
            return None;
        }
        let (segment, rest) = self.payload.split_at(self.size.min(self.payload.len()));
        self.payload = rest;
        let len = self.headers_len + segment.len();
        if self.is_v6 {
            self.write(4, short(len - 40));
        } else {
            self.write(2, short(len));
            self.write(4, self.identification.to_be_bytes());
            self.write(10, [0; 2]);
            let header = self.headers.get(..self.transport).unwrap_or_default();
            let sum = !checksum::sum(header);
            self.write(10, sum.to_be_bytes());
            self.identification = self.identification.wrapping_add(1);
        }
        if self.is_tcp {
            self.patch_tcp(segment.len());
        } else {
            self.write(self.transport + 4, short(8 + segment.len()));
        }
        self.is_first = false;
        Some((self.headers.get(..self.headers_len).unwrap_or_default(), segment))
    }

    fn patch_tcp(&mut self, len: usize) {
        let at = self.transport;
        self.write(at + 4, self.sequence.to_be_bytes());
        self.sequence = self.sequence.wrapping_add(u32::try_from(len).unwrap_or_default());
        let [mut flags] = self.read(at + 13);
        flags &= !FIN_PSH;
        if self.payload.is_empty() {
            flags |= self.last_flags;
        }
        if !self.is_first {
            flags &= !CWR;
        }
        self.write(at + 13, [flags]);
    }

    fn read<const N: usize>(&self, at: usize) -> [u8; N] {
        self.headers.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
    }

    fn write<const N: usize>(&mut self, at: usize, value: [u8; N]) {
        if let Some(place) = self.headers.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
            *place = value;
        }
    }
}

fn short(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}

//! IPv4 packets (RFC 791) with UDP, TCP or ICMP inside: what a NAT reads and rewrites.
//!
//! Bytes come from any process in any namespace: nothing here panics on them, and a packet that cannot be read is
//! an error or [`Content::Opaque`], never guessed at. Checksums are updated, not made anew, so that a packet that
//! was corrupt stays so.

use std::net::{Ipv4Addr, SocketAddrV4};

use thiserror::Error;

use crate::checksum::{sum, updated};
use crate::nat::{Flow, Protocol};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

const MIN_HEADER_LEN: usize = 20;
const ICMP_HEADER_LEN: usize = 8;
/// What every ICMP error quotes of the transport header at least (RFC 792).
const QUOTED_LEN: usize = 8;

const ECHO_REPLY: u8 = 0;
const DESTINATION_UNREACHABLE: u8 = 3;
const ECHO_REQUEST: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

/// Why bytes are no IPv4 packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Malformed {
    #[error("shorter than its header says")]
    Short,
    #[error("not version 4")]
    Version,
    #[error("a header length below 20 or beyond the packet")]
    HeaderLength,
}

/// Which end of a packet is rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Source,
    Destination,
}

/// What a packet carries, as far as a NAT cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// UDP, TCP or an echo request.
    Flow(Flow),
    /// The answer to an echo request: the id is the destination's port.
    EchoReply(Flow),
    /// An ICMP error about a packet of this flow.
    ErrorAbout(Flow),
    /// A fragment, another protocol, or cut off.
    Opaque,
}

/// One packet, header checked.
#[derive(Debug)]
pub struct Packet<'a> {
    bytes: &'a mut [u8],
    header: Header,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    len: usize,
    protocol: u8,
    is_fragment: bool,
    source: Ipv4Addr,
    destination: Ipv4Addr,
}

impl Header {
    /// Reads the header at the start of `bytes`; what follows it may be cut off, as in a quotation.
    fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let fixed: &[u8; MIN_HEADER_LEN] = bytes.first_chunk().ok_or(Malformed::Short)?;
        if fixed[0] >> 4 != 4 {
            return Err(Malformed::Version);
        }
        let len = usize::from(fixed[0] & 0x0f) * 4;
        if len < MIN_HEADER_LEN || len > bytes.len() {
            return Err(Malformed::HeaderLength);
        }
        // Three flags, of which "don't fragment" says nothing here, and the offset.
        let fragment = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff;
        Ok(Self {
            len,
            protocol: fixed[9],
            is_fragment: fragment != 0,
            source: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]),
            destination: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]),
        })
    }

    fn flow(&self, protocol: Protocol, ports: (u16, u16)) -> Flow {
        Flow {
            protocol,
            source: SocketAddrV4::new(self.source, ports.0),
            destination: SocketAddrV4::new(self.destination, ports.1),
        }
    }
}

impl<'a> Packet<'a> {
    /// Checks the header; bytes beyond the packet's own length are left out.
    pub fn parse(bytes: &'a mut [u8]) -> Result<Self, Malformed> {
        let header = Header::read(bytes)?;
        let total = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        if total < header.len {
            return Err(Malformed::HeaderLength);
        }
        let bytes = bytes.get_mut(..total).ok_or(Malformed::Short)?;
        Ok(Self { bytes, header })
    }

    pub fn source(&self) -> Ipv4Addr {
        self.header.source
    }

    pub fn destination(&self) -> Ipv4Addr {
        self.header.destination
    }

    pub fn content(&self) -> Content {
        let body = &self.bytes[self.header.len..];
        match self.header.protocol {
            ICMP if !self.header.is_fragment => icmp_content(&self.header, body),
            _ => flow_of(&self.header, body).map_or(Content::Opaque, Content::Flow),
        }
    }

    /// Replaces one end of a packet that is a [`Content::Flow`] or a [`Content::EchoReply`].
    pub fn rewrite(&mut self, end: End, to: SocketAddrV4) {
        rewrite_endpoint(self.bytes, self.header.len, self.header.protocol, end, to);
        self.reread();
    }

    /// Rewrites a packet that is a [`Content::ErrorAbout`]: the address of `end`, and the opposite end of the
    /// packet that it quotes, which went the other way (RFC 5508 §4.2).
    pub fn rewrite_error(&mut self, end: End, to: SocketAddrV4) {
        let quoted_end = match end {
            End::Source => End::Destination,
            End::Destination => End::Source,
        };
        let (head, body) = self.bytes.split_at_mut(self.header.len);
        rewrite_address(head, end, *to.ip());
        rewrite_quotation(body, quoted_end, to);
        self.reread();
    }

    fn reread(&mut self) {
        if let Ok(header) = Header::read(self.bytes) {
            self.header = header;
        }
    }
}

fn icmp_content(header: &Header, body: &[u8]) -> Content {
    let Some(icmp) = body.first_chunk::<ICMP_HEADER_LEN>() else { return Content::Opaque };
    match icmp[0] {
        ECHO_REQUEST => Content::Flow(header.flow(Protocol::Echo, (echo_id(icmp), 0))),
        ECHO_REPLY => Content::EchoReply(header.flow(Protocol::Echo, (0, echo_id(icmp)))),
        DESTINATION_UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM => {
            quoted_flow(&body[ICMP_HEADER_LEN..]).map_or(Content::Opaque, Content::ErrorAbout)
        }
        _ => Content::Opaque,
    }
}

fn echo_id(icmp: &[u8; ICMP_HEADER_LEN]) -> u16 {
    u16::from_be_bytes([icmp[4], icmp[5]])
}

/// The flow of a quoted packet. Of ICMP only echo requests are looked for: there is no error about an error
/// (RFC 1122 §3.2.2), and a reply's way is known to no NAT.
fn quoted_flow(quoted: &[u8]) -> Option<Flow> {
    let header = Header::read(quoted).ok()?;
    let body = quoted.get(header.len..)?;
    if header.protocol != ICMP {
        return flow_of(&header, body);
    }
    let icmp = body.first_chunk().filter(|icmp| icmp[0] == ECHO_REQUEST && !header.is_fragment)?;
    Some(header.flow(Protocol::Echo, (echo_id(icmp), 0)))
}

fn flow_of(header: &Header, body: &[u8]) -> Option<Flow> {
    let protocol = match header.protocol {
        UDP => Protocol::Udp,
        TCP => Protocol::Tcp,
        _ => return None,
    };
    let start = body.first_chunk::<QUOTED_LEN>().filter(|_| !header.is_fragment)?;
    let port = |at: usize| u16::from_be_bytes([start[at], start[at + 1]]);
    Some(header.flow(protocol, (port(0), port(2))))
}

/// Rewrites the packet that an ICMP message quotes, and lets the message's checksum follow.
fn rewrite_quotation(icmp: &mut [u8], end: End, to: SocketAddrV4) {
    let Some((head, quoted)) = icmp.split_at_mut_checked(ICMP_HEADER_LEN) else { return };
    let Ok(header) = Header::read(quoted) else { return };
    let before = sum(quoted);
    rewrite_endpoint(quoted, header.len, header.protocol, end, to);
    update(head, 2, before, sum(quoted));
}

/// Replaces address and port (or echo id) at one end of the packet in `bytes`.
fn rewrite_endpoint(bytes: &mut [u8], header_len: usize, protocol: u8, end: End, to: SocketAddrV4) {
    let (head, body) = bytes.split_at_mut(header_len);
    let (old, new) = rewrite_address(head, end, *to.ip());
    let (port_at, checksum_at) = match (protocol, end) {
        (UDP, End::Source) => (0, 6),
        (UDP, End::Destination) => (2, 6),
        (TCP, End::Source) => (0, 16),
        (TCP, End::Destination) => (2, 16),
        (ICMP, _) => (4, 2),
        _ => return,
    };
    let Some(field) = body.get_mut(port_at..port_at + 2) else { return };
    let (old_port, new_port) = (sum(field), to.port());
    field.copy_from_slice(&new_port.to_be_bytes());
    if protocol == UDP && body.get(checksum_at..checksum_at + 2) == Some(&[0, 0]) {
        return; // sent without a checksum (RFC 768)
    }
    if protocol != ICMP {
        update(body, checksum_at, old, new); // the pseudo header holds the address
    }
    update(body, checksum_at, old_port, new_port);
    if protocol == UDP && body.get(checksum_at..checksum_at + 2) == Some(&[0, 0]) {
        body[checksum_at..checksum_at + 2].fill(0xff); // zero would mean "none"
    }
}

/// Replaces one address in a header; returns the sums of the old and the new one.
fn rewrite_address(header: &mut [u8], end: End, to: Ipv4Addr) -> (u16, u16) {
    let at = match end {
        End::Source => 12,
        End::Destination => 16,
    };
    let field = &mut header[at..at + 4];
    let old = sum(field);
    field.copy_from_slice(&to.octets());
    let new = sum(field);
    update(header, 10, old, new);
    (old, new)
}

/// Updates the checksum at `at`; one that a quotation cut off stays away.
fn update(bytes: &mut [u8], at: usize, old: u16, new: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        let check = updated(u16::from_be_bytes([field[0], field[1]]), old, new);
        field.copy_from_slice(&check.to_be_bytes());
    }
}

#[cfg(test)]
mod tests;

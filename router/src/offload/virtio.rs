//! The header before each packet on a TUN with `IFF_VNET_HDR`: `struct virtio_net_hdr` of linux/virtio_net.h, in the
//! machine's byte order.

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// A bit beside the kind: the first segment alone has CWR (RFC 3168 §6.1.2), as we do anyway.
const GSO_ECN: u8 = 0x80;

/// How a super-packet is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gso {
    /// One packet as it is.
    None,
    /// Into TCP segments of this many bytes of payload.
    Tcp(u16),
    /// Into UDP datagrams of this many bytes of payload.
    Udp(u16),
}

/// What the kernel says about a packet, or we to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtioHeader {
    pub gso: Gso,
    /// Where the transport header begins and how long all headers are, if the transport's checksum is partial: its field
    /// holds the sum over the pseudo-header alone, not inverted.
    pub partial: Option<Partial>,
}

/// The place of a checksum that somebody still has to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    /// From the packet's start to what is summed: the transport header.
    pub start: u16,
    /// From there to the field.
    pub offset: u16,
}

impl VirtioHeader {
    pub const LEN: usize = 10;

    pub const PLAIN: Self = Self { gso: Gso::None, partial: None };

    /// `None` for a kind that we did not ask for.
    pub fn decode(bytes: [u8; Self::LEN]) -> Option<Self> {
        let [flags, kind, _, _, size_0, size_1, start_0, start_1, offset_0, offset_1] = bytes;
        let size = u16::from_ne_bytes([size_0, size_1]);
        let gso = match kind & !GSO_ECN {
            GSO_NONE => Gso::None,
            GSO_TCPV4 | GSO_TCPV6 if size > 0 => Gso::Tcp(size),
            GSO_UDP_L4 if size > 0 => Gso::Udp(size),
            _ => return None,
        };
        let partial = (flags & NEEDS_CHECKSUM != 0).then_some(Partial {
            start: u16::from_ne_bytes([start_0, start_1]),
            offset: u16::from_ne_bytes([offset_0, offset_1]),
        });
        Some(Self { gso, partial })
    }

    /// For a packet of IPv6 or not, with `headers` bytes before its payload.
    pub fn encode(self, is_v6: bool, headers: u16) -> [u8; Self::LEN] {
        let (kind, size) = match self.gso {
            Gso::None => (GSO_NONE, 0),
            Gso::Tcp(size) => (if is_v6 { GSO_TCPV6 } else { GSO_TCPV4 }, size),
            Gso::Udp(size) => (GSO_UDP_L4, size),
        };
        let (flags, start, offset) = match self.partial {
            Some(Partial { start, offset }) => (NEEDS_CHECKSUM, start, offset),
            None => (0, 0, 0),
        };
        let [head_0, head_1] = headers.to_ne_bytes();
        let [size_0, size_1] = size.to_ne_bytes();
        let [start_0, start_1] = start.to_ne_bytes();
        let [offset_0, offset_1] = offset.to_ne_bytes();
        [flags, kind, head_0, head_1, size_0, size_1, start_0, start_1, offset_0, offset_1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_to_the_kernel_reads_back() {
        let partial = Some(Partial { start: 20, offset: 16 });
        for gso in [Gso::None, Gso::Tcp(1360), Gso::Udp(64)] {
            for header in [VirtioHeader { gso, partial }, VirtioHeader { gso, partial: None }] {
                for is_v6 in [false, true] {
                    assert_eq!(VirtioHeader::decode(header.encode(is_v6, 40)), Some(header));
                }
            }
        }
    }

    #[test]
    fn kinds_that_were_not_asked_for_and_empty_segments_are_refused() {
        let bytes = VirtioHeader { gso: Gso::Tcp(1360), partial: None }.encode(false, 40);
        let with = |place: usize, value: u8| {
            let mut bytes = bytes;
            bytes[place] = value;
            VirtioHeader::decode(bytes)
        };
        assert_eq!(with(1, 3), None, "UFO, which cuts into IP fragments");
        assert_eq!(with(1, 0x7f), None);
        assert_eq!(with(1, GSO_TCPV4 | GSO_ECN).map(|header| header.gso), Some(Gso::Tcp(1360)));
        let mut empty = bytes;
        empty[4..6].fill(0);
        assert_eq!(VirtioHeader::decode(empty), None);
    }
}

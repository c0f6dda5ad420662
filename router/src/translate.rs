//! Stateless 1:1 prefix translation ("NETMAP"): a site whose range clashes with another's is known in the overlay
//! by a virtual prefix of the same length; hosts keep their host bits.
//!
//! ```text
//!   site, real 192.168.1.0/24              edge                       overlay, virtual 10.86.7.0/24
//!   192.168.1.20 -> 10.86.3.9    == outbound: source ==>        10.86.7.20 -> 10.86.3.9
//!   10.86.3.9 -> 192.168.1.20   <== inbound: destination ==     10.86.3.9 -> 10.86.7.20
//! ```
//! Like RFC 6296 there is no state, so both sides may begin, fragments follow, and a restart is not noticed. Unlike
//! there, checksums are updated instead of kept neutral, so that every host bit survives and IPv4 works too. Packets
//! quoted by ICMP errors are translated at their other end (RFC 5508 §4.2), or path MTU discovery and traceroute
//! would break.
//!
//! Left as they are: addresses inside payloads (FTP, SIP), in IPv4 options and in IPv6 routing headers, and checksums
//! over addresses of protocols other than TCP, UDP and ICMPv6.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use crate::checksum::{self, Change};
use crate::packet::{ICMP, Packet, Ports, Upper};

/// Mappings of one edge. A packet is held against all of them, one after another: that is cheaper than a tree for
/// the one or two that sites have, and bounded for those that exaggerate.
pub const MAX_MAPPINGS: usize = 64;

/// What ICMP messages have before the packet that they quote (RFC 792, RFC 4443 §3).
const ICMP_HEADER: usize = 8;

/// A site's prefix and the one that stands for it in the overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mapping {
    real: IpNet,
    virtual_: IpNet,
}

/// Why two prefixes are no [`Mapping`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidMapping {
    #[error("{real} and {virtual_} are not of one IP version")]
    Family { real: IpNet, virtual_: IpNet },
    #[error("{real} and {virtual_} are not of one length")]
    Length { real: IpNet, virtual_: IpNet },
}

impl Mapping {
    /// Host bits of a prefix are ignored.
    pub fn new(real: IpNet, virtual_: IpNet) -> Result<Self, InvalidMapping> {
        let (real, virtual_) = (real.trunc(), virtual_.trunc());
        if real.addr().is_ipv4() != virtual_.addr().is_ipv4() {
            Err(InvalidMapping::Family { real, virtual_ })
        } else if real.prefix_len() != virtual_.prefix_len() {
            Err(InvalidMapping::Length { real, virtual_ })
        } else {
            Ok(Self { real, virtual_ })
        }
    }

    /// What the site itself uses.
    pub fn real(&self) -> IpNet {
        self.real
    }

    /// What the overlay knows it by.
    pub fn virtual_(&self) -> IpNet {
        self.virtual_
    }
}

/// `address` moved from one prefix into the other of the same length, if it lies in the first.
fn moved(address: IpAddr, from: IpNet, to: IpNet) -> Option<IpAddr> {
    if !from.contains(&address) {
        return None;
    }
    match (address, to) {
        (IpAddr::V4(host), IpNet::V4(to)) => Some((host & to.hostmask() | to.network()).into()),
        (IpAddr::V6(host), IpNet::V6(to)) => Some((host & to.hostmask() | to.network()).into()),
        (IpAddr::V4(_), IpNet::V6(_)) | (IpAddr::V6(_), IpNet::V4(_)) => None,
    }
}

/// Why mappings do not make one translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidMappings {
    #[error("more than {MAX_MAPPINGS} mappings")]
    TooMany,
    #[error("{0} is mapped twice")]
    SameReal(IpNet),
    /// A packet to the shared part would have two real destinations.
    #[error("the virtual prefixes {0} and {1} overlap")]
    VirtualOverlap(IpNet, IpNet),
}

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Outbound,
    Inbound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

/// What was rewritten, as checksums see it.
#[derive(Debug, Clone, Copy)]
struct Rewritten {
    /// Of the address, which pseudo headers count.
    address: Change,
    /// Of all bytes, which an ICMP message that quotes them counts.
    bytes: Change,
}

/// The mappings of one edge.
///
/// ```
/// use router::translate::{Mapping, Translator};
///
/// let mapping = Mapping::new("192.168.1.0/24".parse()?, "10.86.7.0/24".parse()?)?;
/// let translator = Translator::new([mapping])?;
/// let real = "192.168.1.20".parse()?;
/// let known_as = translator.virtual_of(real);
/// assert_eq!(known_as, Some("10.86.7.20".parse()?));
/// assert_eq!(translator.real_of(known_as.unwrap()), Some(real));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Translator {
    /// The longest first.
    mappings: Vec<Mapping>,
}

impl Translator {
    /// Real prefixes may lie in each other, and the longest that holds an address counts.
    pub fn new(mappings: impl IntoIterator<Item = Mapping>) -> Result<Self, InvalidMappings> {
        let mut mappings: Vec<_> = mappings.into_iter().take(MAX_MAPPINGS + 1).collect();
        if mappings.len() > MAX_MAPPINGS {
            return Err(InvalidMappings::TooMany);
        }
        mappings.sort_by_key(|mapping| (u8::MAX - mapping.real.prefix_len(), *mapping));
        for (place, one) in mappings.iter().enumerate() {
            for other in mappings.iter().skip(place + 1) {
                if one.real == other.real {
                    return Err(InvalidMappings::SameReal(one.real));
                }
                if overlap(one.virtual_, other.virtual_) {
                    return Err(InvalidMappings::VirtualOverlap(one.virtual_, other.virtual_));
                }
            }
        }
        Ok(Self { mappings })
    }

    /// Whether every packet stays as it is.
    pub fn is_empty(&self) -> bool {
        self.mappings.is_empty()
    }

    /// The address by which the overlay knows a host of the site, if it has another one there.
    pub fn virtual_of(&self, real: IpAddr) -> Option<IpAddr> {
        self.mappings.iter().find_map(|mapping| moved(real, mapping.real, mapping.virtual_))
    }

    /// The host of the site that the overlay knows by this address.
    pub fn real_of(&self, virtual_: IpAddr) -> Option<IpAddr> {
        self.mappings.iter().find_map(|mapping| moved(virtual_, mapping.virtual_, mapping.real))
    }

    /// Translates a packet from the site into the overlay: its source becomes virtual, and so does the destination
    /// of a packet that an ICMP error quotes. Returns whether anything was rewritten; bytes that are no IP packet,
    /// and quoted ones that are none, stay.
    ///
    /// `partial`: the upper layer's checksum is left to the interface (virtio's NEEDS_CSUM), and its field holds at
    /// most a sum over the pseudo header. It is not touched, and the caller makes it from the translated packet:
    /// [`checksum::complete`], or [`checksum::begin`] if it is to stay partial.
    pub fn outbound(&self, packet: &mut [u8], partial: bool) -> bool {
        self.rewrite(packet, Way::Outbound, partial)
    }

    /// Translates a packet from the overlay into the site: its destination becomes real, and so does the source of a
    /// packet that an ICMP error quotes. All else is as in [`Self::outbound`].
    pub fn inbound(&self, packet: &mut [u8], partial: bool) -> bool {
        self.rewrite(packet, Way::Inbound, partial)
    }

    fn rewrite(&self, packet: &mut [u8], way: Way, partial: bool) -> bool {
        let (outer, quoted) = match way {
            Way::Outbound => (End::Source, End::Destination),
            Way::Inbound => (End::Destination, End::Source),
        };
        if self.is_empty() {
            return false;
        }
        let Ok(parsed) = Packet::parse(packet) else { return false };
        let (upper, is_v4) = (parsed.upper(), parsed.source().is_ipv4());
        let header = self.rewrite_header(packet, way, outer);
        let quote = quote_in(packet, &upper, is_v4).and_then(|quote| self.rewrite_quote(quote, way, quoted));
        if !partial {
            let address = header.map_or_else(Change::default, |header| header.address);
            checksum::update_upper(packet, &upper, address, quote.unwrap_or_default());
        }
        header.is_some() || quote.is_some()
    }

    /// Rewrites the address at `end` of the packet at the start of `bytes`, whose header must be whole, and IPv4's
    /// header checksum.
    fn rewrite_header(&self, bytes: &mut [u8], way: Way, end: End) -> Option<Rewritten> {
        match (bytes.first()? >> 4, end) {
            (4, End::Source) => self.rewrite_address::<4>(bytes, 12, way),
            (4, End::Destination) => self.rewrite_address::<4>(bytes, 16, way),
            (_, End::Source) => self.rewrite_address::<16>(bytes, 8, way),
            (_, End::Destination) => self.rewrite_address::<16>(bytes, 24, way),
        }
    }

    fn rewrite_address<const N: usize>(&self, bytes: &mut [u8], at: usize, way: Way) -> Option<Rewritten>
    where
        IpAddr: From<[u8; N]>,
    {
        let field: &mut [u8; N] = bytes.get_mut(at..)?.first_chunk_mut()?;
        let old = *field;
        let new = match way {
            Way::Outbound => self.virtual_of(old.into())?,
            Way::Inbound => self.real_of(old.into())?,
        };
        match new {
            IpAddr::V4(v4) => field.copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => field.copy_from_slice(&v6.octets()),
        }
        let address = Change::of(&old, field);
        let header = if N == 4 { checksum::update(bytes, 10, address) } else { Change::default() };
        Some(Rewritten { address, bytes: address.and(header) })
    }

    /// Rewrites a quoted packet with the checksums that it has. Returns how that changes its sum.
    fn rewrite_quote(&self, quote: &mut [u8], way: Way, end: End) -> Option<Change> {
        let upper = Upper::of_quoted(quote)?;
        let Rewritten { address, bytes } = self.rewrite_header(quote, way, end)?;
        Some(bytes.and(checksum::update_upper(quote, &upper, address, Change::default())))
    }
}

/// The packet that an ICMP error quotes, if it is of the error's own family.
fn quote_in<'a>(packet: &'a mut [u8], upper: &Upper, is_v4: bool) -> Option<&'a mut [u8]> {
    if upper.ports != Ports::IcmpError || (upper.protocol == ICMP) != is_v4 {
        return None;
    }
    let quote = packet.get_mut(upper.offset + ICMP_HEADER..)?;
    let version = quote.first()? >> 4;
    (version == if is_v4 { 4 } else { 6 }).then_some(quote)
}

fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

#[cfg(test)]
mod tests;

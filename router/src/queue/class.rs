//! What kind of traffic a packet is.

use crate::packet::{Fragment, ICMP, ICMPV6, Packet, Ports, TCP, UDP, Upper};

/// A packet of at most this many bytes is a question, an answer or a sample, not a part of a transfer: a voice frame
/// over RTP has 60 to 200, a Modbus or DNS question less than 100. On 3 Mbit/s it takes 0.5 ms.
pub const SMALL: usize = 128;

const DNS: u16 = 53;
/// QUIC puts data and acknowledgements of one flow into packets of all sizes and takes overtaking for loss
/// (RFC 9002 §6.1.1).
const HTTPS: u16 = 443;

const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;

/// How soon a packet travels when the link is full. Highest first; the weights are in [`Class::weight`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// What keeps networks standing: routing protocols.
    Control,
    /// Somebody waits for it: voice, calls, pings, names, acknowledgements.
    Interactive,
    /// Everything else.
    Default,
    /// Marked as not urgent: backups, updates.
    Bulk,
}

impl Class {
    pub const ALL: [Self; 4] = [Self::Control, Self::Interactive, Self::Default, Self::Bulk];

    /// The first rule that fits:
    ///
    /// 1. CS6, CS7 (RFC 4594 network control): control.
    /// 2. EF, VOICE-ADMIT (RFC 5865), CS5, CS4, AF4x (telephony, signalling, real-time, conferences), AF2x
    ///    (low-latency data: SSH's interactive sessions), CS2 (operation and maintenance): interactive.
    /// 3. A TCP segment with ACK or SYN, without data, FIN or RST: interactive, also where the flow is marked as bulk.
    ///    The transfer that it acknowledges goes the other way, and would stop with it.
    /// 4. LE (RFC 8622), CS1: bulk.
    /// 5. Any other mark but CS0 that RFC 4594 names (AF1x, AF3x, CS3: elastic or buffered): default.
    /// 6. A fragment: default. Later ones have no ports, and all of one packet must go the same way.
    /// 7. ICMP's echoes up to [`SMALL`] and its errors: interactive.
    /// 8. DNS, over UDP and TCP: interactive.
    /// 9. UDP up to [`SMALL`] bytes, but no port 443 (QUIC takes overtaking for loss): interactive.
    /// 10. Default. Among it TCP data of all sizes, since the small end of a transfer must not overtake the rest:
    ///     a flow that sends little goes first there too (RFC 8290 §4.2).
    pub fn of(packet: &Packet<'_>) -> Self {
        Self::with(packet, &packet.upper())
    }

    pub(super) fn with(packet: &Packet<'_>, upper: &Upper) -> Self {
        let marked = Self::of_dscp(packet.dscp());
        match marked {
            Some(class @ (Self::Control | Self::Interactive)) => class,
            _ if is_bare_acknowledgement(packet.bytes(), upper) => Self::Interactive,
            Some(class @ (Self::Default | Self::Bulk)) => class,
            None => Self::of_unmarked(packet.bytes().len(), upper),
        }
    }

    /// `None`: CS0, or a mark with no meaning beyond its own network.
    fn of_dscp(dscp: u8) -> Option<Self> {
        match dscp {
            48 | 56 => Some(Self::Control),
            46 | 44 | 40 | 32 | 34 | 36 | 38 | 18 | 20 | 22 | 16 => Some(Self::Interactive),
            1 | 8 => Some(Self::Bulk),
            10 | 12 | 14 | 24 | 26 | 28 | 30 => Some(Self::Default),
            _ => None,
        }
    }

    fn of_unmarked(len: usize, upper: &Upper) -> Self {
        if upper.fragment != Fragment::Whole {
            return Self::Default;
        }
        match (upper.protocol, upper.ports) {
            (ICMP | ICMPV6, Ports::Echo { .. }) if len <= SMALL => Self::Interactive,
            (ICMP | ICMPV6, Ports::IcmpError) => Self::Interactive,
            (TCP | UDP, Ports::Pair { source: DNS, .. } | Ports::Pair { destination: DNS, .. }) => {
                Self::Interactive
            }
            (UDP, Ports::Pair { source: HTTPS, .. } | Ports::Pair { destination: HTTPS, .. }) => {
                Self::Default
            }
            (UDP, _) if len <= SMALL => Self::Interactive,
            _ => Self::Default,
        }
    }

    /// Full packets that it may send in each round in which all four want to; see [`super::Queue`]. Of a full link
    /// control has at most 4/17, interactive traffic at least 8/17, default 4/17 and bulk 1/17: 176 kbit/s of
    /// 3 Mbit/s, on which a transfer still proceeds. What a class leaves goes to the others.
    pub const fn weight(self) -> u16 {
        match self {
            Self::Control | Self::Default => 4,
            Self::Interactive => 8,
            Self::Bulk => 1,
        }
    }

    /// Sub-queues that its flows are hashed to. With 64, each of eight transfers at once is alone with a probability
    /// of 0.9; control and interactive flows send little, and share one without harm.
    pub(super) const fn flows(self) -> u16 {
        match self {
            Self::Control => 8,
            Self::Interactive => 32,
            Self::Default | Self::Bulk => 64,
        }
    }

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Interactive => "interactive",
            Self::Default => "default",
            Self::Bulk => "bulk",
        }
    }

    /// Its place in [`Self::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// RFC 9293 §3.1: flags in byte 13, the header's length in words of four bytes in the high half of byte 12.
fn is_bare_acknowledgement(packet: &[u8], upper: &Upper) -> bool {
    let header = packet.get(upper.offset..).unwrap_or_default();
    let (TCP, Fragment::Whole, Some(words), Some(flags)) =
        (upper.protocol, upper.fragment, header.get(12), header.get(13))
    else {
        return false;
    };
    header.len() == usize::from(words >> 4) * 4
        && flags & (TCP_FIN | TCP_RST) == 0
        && flags & (TCP_ACK | TCP_SYN) != 0
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Build, v4, v6};
    use super::*;

    fn class(build: Build) -> Class {
        let bytes = build.bytes();
        Class::of(&Packet::parse(&bytes).unwrap())
    }

    #[test]
    fn a_mark_decides_before_the_contents() {
        let transfer = || v4(UDP).len(1400);
        for (dscp, expected) in [
            (48, Class::Control),
            (56, Class::Control),
            (46, Class::Interactive),
            (44, Class::Interactive),
            (40, Class::Interactive),
            (34, Class::Interactive),
            (38, Class::Interactive),
            (18, Class::Interactive),
            (1, Class::Bulk),
            (8, Class::Bulk),
            (10, Class::Default),
            (26, Class::Default),
            (0, Class::Default),
            (63, Class::Default),
        ] {
            assert_eq!(class(transfer().dscp(dscp)), expected, "{dscp}");
            assert_eq!(class(v6(UDP).len(1400).dscp(dscp)), expected, "{dscp} in IPv6");
        }
        assert_eq!(class(v4(UDP).len(60).dscp(8)), Class::Bulk, "small, but marked");
    }

    #[test]
    fn small_questions_go_first() {
        assert_eq!(class(v4(UDP).len(128)), Class::Interactive);
        assert_eq!(class(v4(UDP).len(129)), Class::Default);
        assert_eq!(class(v4(UDP).len(100).ports(50_000, 443)), Class::Default, "QUIC");
        assert_eq!(class(v4(UDP).len(1200).ports(53, 50_000)), Class::Interactive, "an answer of DNS");
        assert_eq!(class(v6(UDP).len(100)), Class::Interactive);
        assert_eq!(class(v4(ICMP).len(84).icmp(8)), Class::Interactive);
        assert_eq!(class(v4(ICMP).len(1400).icmp(8)), Class::Default, "a large ping is no question");
        assert_eq!(class(v4(ICMP).len(576).icmp(3)), Class::Interactive);
        assert_eq!(class(v6(ICMPV6).len(104).icmp(128)), Class::Interactive);
    }

    #[test]
    fn an_acknowledgement_of_a_bulk_transfer_is_not_bulk() {
        for mark in [0, 1, 8, 10] {
            assert_eq!(class(v4(TCP).tcp(0x10, 0).dscp(mark)), Class::Interactive, "{mark}");
        }
        assert_eq!(class(v4(TCP).tcp(0x02, 0)), Class::Interactive, "SYN");
        assert_eq!(class(v4(TCP).tcp(0x10, 1380).dscp(8)), Class::Bulk);
    }

    #[test]
    fn no_tcp_segment_overtakes_data_before_it() {
        for (flags, data) in [(0x10, 1), (0x18, 60), (0x10, 1380), (0x11, 0), (0x04, 0), (0x14, 0)] {
            assert_eq!(class(v4(TCP).tcp(flags, data)), Class::Default, "{flags:#x} with {data} bytes");
        }
    }

    #[test]
    fn all_fragments_of_a_packet_go_the_same_way() {
        for place in [0x2000, 0x2000 | 185, 370] {
            assert_eq!(class(v4(UDP).len(100).fragment(place)), Class::Default, "{place:#x}");
        }
    }

    #[test]
    fn every_class_has_its_place_and_its_own_label() {
        for (place, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class.index(), place);
        }
        let labels: std::collections::BTreeSet<_> = Class::ALL.map(Class::as_str).into();
        assert_eq!(labels.len(), Class::ALL.len());
    }
}

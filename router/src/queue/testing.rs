//! Packets for tests.

use crate::packet::{TCP, UDP};

/// A packet to be: flows differ by their source port.
#[derive(Debug, Clone)]
pub(super) struct Build {
    v6: bool,
    protocol: u8,
    dscp: u8,
    ecn: u8,
    fragment: u16,
    ports: (u16, u16),
    upper: Vec<u8>,
}

pub(super) fn v4(protocol: u8) -> Build {
    Build { v6: false, protocol, dscp: 0, ecn: 0, fragment: 0, ports: (40_000, 40_001), upper: vec![0; 8] }
}

pub(super) fn v6(protocol: u8) -> Build {
    Build { v6: true, ..v4(protocol) }
}

impl Build {
    /// Of the whole packet.
    pub(super) fn len(mut self, len: usize) -> Self {
        self.upper.resize(len - if self.v6 { 40 } else { 20 }, 0);
        self
    }

    pub(super) fn dscp(mut self, dscp: u8) -> Self {
        self.dscp = dscp;
        self
    }

    pub(super) fn ecn(mut self, ecn: u8) -> Self {
        self.ecn = ecn;
        self
    }

    pub(super) fn fragment(mut self, place: u16) -> Self {
        self.fragment = place;
        self
    }

    pub(super) fn ports(mut self, source: u16, destination: u16) -> Self {
        self.ports = (source, destination);
        self
    }

    pub(super) fn icmp(mut self, kind: u8) -> Self {
        self.upper[0] = kind;
        self
    }

    pub(super) fn tcp(mut self, flags: u8, data: usize) -> Self {
        self.upper = vec![0; 20 + data];
        (self.upper[12], self.upper[13]) = (0x50, flags);
        self
    }

    /// A number in the last bytes, to be found again by [`tag`].
    pub(super) fn tag(mut self, tag: u64) -> Self {
        let at = self.upper.len() - 8;
        self.upper[at..].copy_from_slice(&tag.to_be_bytes());
        self
    }

    pub(super) fn bytes(mut self) -> Vec<u8> {
        if matches!(self.protocol, TCP | UDP) {
            self.upper[..2].copy_from_slice(&self.ports.0.to_be_bytes());
            self.upper[2..4].copy_from_slice(&self.ports.1.to_be_bytes());
        }
        let class = self.dscp << 2 | self.ecn;
        if self.v6 {
            let length = (self.upper.len() as u16).to_be_bytes();
            let start = [0x60 | class >> 4, class << 4, 0, 0, length[0], length[1], self.protocol, 64];
            return [&start[..], &[0xfd; 32], &self.upper].concat();
        }
        let total = (20 + self.upper.len() as u16).to_be_bytes();
        let place = self.fragment.to_be_bytes();
        let start = [0x45, class, total[0], total[1], 0, 0, place[0], place[1], 64, self.protocol, 0, 0];
        [&start[..], &[10, 86, 0, 2, 10, 86, 0, 3], &self.upper].concat()
    }
}

pub(super) fn tag(packet: &[u8]) -> u64 {
    u64::from_be_bytes(*packet.last_chunk().unwrap())
}

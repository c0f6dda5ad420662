//! Packets by hand, for what a client of good make would not send, or not show. Both versions, as far as tests need it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::Node;

/// For one packet to come: many times what an idle machine needs.
const PATIENCE: Duration = Duration::from_secs(20);

/// MQTT 3.1.1 and 5 as CONNECT numbers them.
pub(crate) const V3: u8 = 4;
pub(crate) const V5: u8 = 5;
pub(crate) const BOTH: [u8; 2] = [V3, V5];

/// A packet as it came: its first byte and all after its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) first: u8,
    pub(crate) body: Vec<u8>,
}

impl Packet {
    pub(crate) fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// The packet id of an acknowledgement, and of what is to be acknowledged.
    pub(crate) fn id(&self) -> u16 {
        let at = if self.kind() == PUBLISH { 2 + usize::from(self.u16_at(0)) } else { 0 };
        self.u16_at(at)
    }

    /// The reason code of a CONNACK (second byte), a DISCONNECT (first), or an acknowledgement (third): 0 where left out.
    pub(crate) fn reason(&self) -> u8 {
        let at = match self.kind() {
            CONNACK => 1,
            DISCONNECT => 0,
            _ => 2,
        };
        self.body.get(at).copied().unwrap_or(0)
    }

    pub(crate) fn is_duplicate(&self) -> bool {
        self.first & 0b1000 != 0
    }

    fn u16_at(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.body[at], self.body[at + 1]])
    }
}

pub(crate) const CONNACK: u8 = 2;
pub(crate) const PUBLISH: u8 = 3;
pub(crate) const PUBACK: u8 = 4;
pub(crate) const PUBREC: u8 = 5;
pub(crate) const PUBREL: u8 = 6;
pub(crate) const PUBCOMP: u8 = 7;
pub(crate) const SUBACK: u8 = 9;
pub(crate) const UNSUBACK: u8 = 11;
pub(crate) const PINGRESP: u8 = 13;
pub(crate) const DISCONNECT: u8 = 14;

/// `first` and a body with its length before it.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    bytes.extend(number(body.len()));
    bytes.extend_from_slice(body);
    bytes
}

/// A variable byte integer (MQTT 5.0 §1.5.5).
pub(crate) fn number(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value % 128).unwrap();
        value /= 128;
        bytes.push(if value > 0 { low | 0x80 } else { low });
        if value == 0 {
            return bytes;
        }
    }
}

pub(crate) fn text(words: impl AsRef<[u8]>) -> Vec<u8> {
    let words = words.as_ref();
    let mut bytes = u16::try_from(words.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(words);
    bytes
}

/// With their length before them in 5, nothing in 3.1.1.
pub(crate) fn properties(version: u8, list: &[u8]) -> Vec<u8> {
    if version == V3 { Vec::new() } else { [number(list.len()), list.to_vec()].concat() }
}

pub(crate) const CLEAN: u8 = 0b10;

/// A CONNECT without will, name and password.
pub(crate) fn connect(version: u8, id: &str, flags: u8, keep_alive: u16, props: &[u8]) -> Vec<u8> {
    let body = [
        text("MQTT"),
        vec![version, flags],
        keep_alive.to_be_bytes().to_vec(),
        properties(version, props),
        text(id),
    ];
    packet(0x10, &body.concat())
}

/// `flags`: DUP, QoS and RETAIN; without an id for QoS 0.
pub(crate) fn publish(
    version: u8,
    flags: u8,
    topic: impl AsRef<[u8]>,
    id: u16,
    props: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let id = if flags & 0b110 == 0 { Vec::new() } else { id.to_be_bytes().to_vec() };
    packet(0x30 | flags, &[text(topic), id, properties(version, props), payload.to_vec()].concat())
}

pub(crate) fn subscribe(version: u8, id: u16, filter: impl AsRef<[u8]>, options: u8) -> Vec<u8> {
    packet(0x82, &[id.to_be_bytes().to_vec(), properties(version, &[]), text(filter), vec![options]].concat())
}

pub(crate) fn unsubscribe(version: u8, id: u16, filter: &str) -> Vec<u8> {
    packet(0xa2, &[id.to_be_bytes().to_vec(), properties(version, &[]), text(filter)].concat())
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
pub(crate) fn acknowledge(kind: u8, id: u16) -> Vec<u8> {
    packet(kind << 4 | if kind == PUBREL { 0b10 } else { 0 }, &id.to_be_bytes())
}

pub(crate) const PING: [u8; 2] = [0xc0, 0];
pub(crate) const GOODBYE: [u8; 2] = [0xe0, 0];

/// One connection.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
}

impl Wire {
    #[track_caller]
    pub(crate) fn open(node: &Node) -> Self {
        let stream = TcpStream::connect(node.mqtt()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// With a clean session and without a keep-alive.
    #[track_caller]
    pub(crate) fn connect(node: &Node, version: u8, id: &str) -> Self {
        Self::connect_with(node, version, id, CLEAN, 0, &[]).0
    }

    /// Says whether the session was there.
    #[track_caller]
    pub(crate) fn connect_with(
        node: &Node,
        version: u8,
        id: &str,
        flags: u8,
        keep_alive: u16,
        props: &[u8],
    ) -> (Self, bool) {
        let mut wire = Self::open(node);
        wire.say(&connect(version, id, flags, keep_alive, props));
        let connack = wire.hears(CONNACK);
        assert_eq!(connack.reason(), 0, "{id}: {connack:?}");
        (wire, connack.body[0] == 1)
    }

    #[track_caller]
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next packet; none when the broker closed the connection.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Option<Packet> {
        let first = self.byte()?;
        let mut length = 0;
        for shift in 0..4 {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7f) << (7 * shift);
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.fill(&mut body)?;
        Some(Packet { first, body })
    }

    /// The next packet, which is of this kind.
    #[track_caller]
    pub(crate) fn hears(&mut self, kind: u8) -> Packet {
        let packet = self.next().unwrap_or_else(|| panic!("closed instead of a packet of kind {kind}"));
        assert_eq!(packet.kind(), kind, "{packet:?}");
        packet
    }

    /// All packets up to the broker's end of the connection.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<Packet> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// The same, or up to the answer to a PINGREQ, which shows that the connection lives.
    #[track_caller]
    pub(crate) fn rest_or_ping(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        while let Some(packet) = self.next() {
            let lives = packet.kind() == PINGRESP;
            packets.push(packet);
            if lives {
                break;
            }
        }
        packets
    }

    fn byte(&mut self) -> Option<u8> {
        let mut one = [0];
        self.fill(&mut one)?;
        Some(one[0])
    }

    #[track_caller]
    fn fill(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                panic!("nothing came within {PATIENCE:?}")
            }
            // Closed in order, or with something unread.
            Err(_) => None,
        }
    }
}

/// Two clients that wish nobody ill: what one says the other hears.
#[derive(Debug)]
pub(crate) struct Pair {
    speaker: Wire,
    listener: Wire,
    topic: String,
    said: u64,
}

impl Pair {
    #[track_caller]
    pub(crate) fn connect(node: &Node, name: &str) -> Self {
        let speaker = Wire::connect(node, V5, &format!("{name}-speaker"));
        let mut listener = Wire::connect(node, V3, &format!("{name}-listener"));
        let topic = format!("pair/{name}");
        listener.say(&subscribe(V3, 1, &topic, 1));
        assert_eq!(listener.hears(SUBACK).reason(), 1);
        Self { speaker, listener, topic, said: 0 }
    }

    /// One message with QoS 1 there, both acknowledged.
    #[track_caller]
    pub(crate) fn exchange(&mut self) {
        self.said += 1;
        let payload = self.said.to_be_bytes();
        let id = u16::try_from(self.said % 60_000 + 1).unwrap();
        self.speaker.say(&publish(V5, 0b010, &self.topic, id, &[], &payload));
        let heard = self.listener.hears(PUBLISH);
        assert!(heard.body.ends_with(&payload), "{heard:?} instead of {}", self.said);
        self.listener.say(&acknowledge(PUBACK, heard.id()));
        assert_eq!(self.speaker.hears(PUBACK).id(), id);
    }
}

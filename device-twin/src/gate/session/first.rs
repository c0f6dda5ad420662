//! The first packet, looked at before the protocol layer does: what it lets pass (mqtt-protocol-core 0.7), and the one
//! legal thing that it dies of.

/// What the first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// The packet is not whole yet.
    Partial,
    /// Flags of CONNECT that the standard forbids (MQTT 5.0 §3.1.2.3 to §3.1.2.6), or no CONNECT at all.
    Malformed,
    /// CONNECT of a version that is to come: it is told which we speak in the form of 5.0 (§3.1.2.2).
    Future,
    /// A packet of this length. `no_aliases`: where the client says that it takes no topic aliases, which is what it
    /// would mean not to say it.
    Whole { length: usize, no_aliases: Option<usize> },
}

/// Looks at what came since the connection was made; at most `max` bytes of it are waited for.
pub(super) fn look(bytes: &[u8], max: u32) -> First {
    match bytes {
        [] => return First::Partial,
        [0x10, ..] => {}
        _ => return First::Malformed,
    }
    let Some((remaining, start)) = variable(bytes, 1) else {
        return if bytes.len() > 5 { First::Malformed } else { First::Partial };
    };
    let length = start + remaining;
    if u32::try_from(length).is_ok_and(|length| length > max) {
        return First::Malformed;
    }
    let Some(packet) = bytes.get(..length) else { return First::Partial };
    look_into(packet, start)
}

fn look_into(packet: &[u8], start: usize) -> First {
    let length = packet.len();
    let (Some(b"\x00\x04MQTT"), Some(&level), Some(&flags)) =
        (packet.get(start..start + 6), packet.get(start + 6), packet.get(start + 7))
    else {
        // Not MQTT, or a name of older days: the protocol layer says so.
        return First::Whole { length, no_aliases: None };
    };
    if level > 5 {
        return First::Future;
    }
    if !has_valid_flags(flags) {
        return First::Malformed;
    }
    let no_aliases = if level == 5 { alias_maximum_of_zero(packet, start + 10) } else { None };
    First::Whole { length, no_aliases }
}

/// The lowest bit is reserved; without a will, nothing is said about it; there is no QoS 3.
fn has_valid_flags(flags: u8) -> bool {
    let (will, about_will) = (flags & 0x04 != 0, flags & 0x38);
    flags & 0x01 == 0 && about_will & 0x18 != 0x18 && (will || about_will == 0)
}

/// A variable byte integer (§1.5.5) at `at`, and where it ends.
fn variable(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.get(at..)?.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, at + index + 1));
        }
    }
    None
}

/// Where the low byte of a Topic Alias Maximum of 0 is, among the properties at `at`.
fn alias_maximum_of_zero(packet: &[u8], at: usize) -> Option<usize> {
    let (length, mut at) = variable(packet, at)?;
    let end = at.checked_add(length).filter(|end| *end <= packet.len())?;
    while at < end {
        let text =
            |at: usize| Some(2 + usize::from(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?])));
        at += 1;
        at += match packet.get(at - 1)? {
            0x22 if packet.get(at..at + 2)? == [0, 0] => return Some(at + 1),
            0x11 | 0x27 => 4,
            0x21 | 0x22 => 2,
            0x17 | 0x19 => 1,
            0x15 | 0x16 => text(at)?,
            0x26 => {
                let key = text(at)?;
                key + text(at + key)?
            }
            // Not a property of CONNECT: the protocol layer refuses the packet.
            _ => return None,
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// CONNECT at `level` with these flags and properties, no client id.
    fn connect(level: u8, flags: u8, properties: &[u8]) -> Vec<u8> {
        let mut body = [b"\x00\x04MQTT", &[level, flags, 0, 60][..]].concat();
        if level == 5 {
            body.push(u8::try_from(properties.len()).unwrap());
            body.extend_from_slice(properties);
        }
        body.extend_from_slice(&[0, 0]);
        [&[0x10, u8::try_from(body.len()).unwrap()], &body[..]].concat()
    }

    fn whole(length: usize) -> First {
        First::Whole { length, no_aliases: None }
    }

    #[test]
    fn a_packet_is_waited_for_and_what_follows_is_left() {
        let packet = connect(4, 2, &[]);
        for cut in 0..packet.len() {
            assert_eq!(look(&packet[..cut], 1000), First::Partial, "{cut}");
        }
        assert_eq!(look(&[&packet[..], b"more"].concat(), 1000), whole(packet.len()));
    }

    #[test]
    fn flags_that_the_standard_forbids_are_malformed() {
        for flags in [0x01, 0x08, 0x10, 0x20, 0x1c, 0x03] {
            assert_eq!(look(&connect(5, flags, &[]), 1000), First::Malformed, "{flags:#x}");
        }
        for flags in [0x00, 0x02, 0x04, 0x0c, 0x34, 0xc6] {
            assert!(matches!(look(&connect(4, flags, &[]), 1000), First::Whole { .. }), "{flags:#x}");
        }
    }

    #[test]
    fn an_alias_maximum_of_zero_is_found_behind_any_property() {
        let before = [
            b"\x11\x00\x00\x00\x05\x21\x00\x07\x27\x00\x00\x10\x00\x19\x01\x17\x00",
            &b"\x15\x00\x01m\x16\x00\x02\x22\x00\x26\x00\x01k\x00\x03vvv"[..],
        ]
        .concat();
        let packet = connect(5, 2, &[&before[..], b"\x22\x00\x00\x21\x00\x01"].concat());
        let at = 2 + 10 + 1 + before.len() + 2;
        assert_eq!(look(&packet, 1000), First::Whole { length: packet.len(), no_aliases: Some(at) });
        let other = connect(5, 2, &[&before[..], b"\x22\x00\x01"].concat());
        assert_eq!(look(&other, 1000), whole(other.len()));
    }

    #[test]
    fn what_is_no_connect_or_too_long_is_not_waited_for() {
        assert_eq!(look(b"GET / HTTP/1.1", 1000), First::Malformed);
        assert_eq!(look(b"\x10\xff\xff\xff\x7f", 1000), First::Malformed);
        assert_eq!(look(b"\x10\xff\xff\xff\xff\x7f", 1000), First::Malformed);
        assert_eq!(look(&connect(6, 2, &[]), 1000), First::Future);
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), real in any::<bool>()) {
            if real {
                bytes = [&connect(5, 2, &[])[..11], &bytes].concat();
                bytes[1] = u8::try_from(bytes.len() - 2).unwrap();
            }
            look(&bytes, 1000);
        }
    }
}

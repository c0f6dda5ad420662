//! How protocol data units lie on the wire: with a header on TCP (MODBUS Messaging on TCP/IP Implementation Guide V1.0b,
//! §3.1.3), with a checksum on serial lines (MODBUS over Serial Line V1.02, §2.5.1).

use crate::pdu::{MAX_PDU, answer_len};

/// Transaction, protocol, length, unit.
const HEADER: usize = 7;

/// Most bytes that are kept while a frame is waited for; a serial frame is at most 256 long, one on TCP 260.
pub(crate) const MAX_WAITING: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Tcp,
    Rtu,
}

/// One answer, by whom and to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The number of the request; serial frames have none.
    pub(crate) transaction: Option<u16>,
    pub(crate) unit: u8,
    pub(crate) pdu: Vec<u8>,
}

/// Bytes that are no Modbus at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Framing {
    pub(crate) fn encode(self, transaction: u16, unit: u8, pdu: &[u8]) -> Vec<u8> {
        match self {
            Self::Tcp => {
                let len = u16::try_from(pdu.len() + 1).unwrap_or(u16::MAX);
                let mut frame = [transaction, 0, len].map(u16::to_be_bytes).concat();
                frame.push(unit);
                frame.extend_from_slice(pdu);
                frame
            }
            Self::Rtu => {
                let mut frame = [&[unit], pdu].concat();
                frame.extend_from_slice(&checksum(&frame).to_le_bytes());
                frame
            }
        }
    }

    /// The next whole frame, taken out of `bytes`. On a serial line bytes in which no frame begins are left out.
    pub(crate) fn take(self, bytes: &mut Vec<u8>) -> Result<Option<Frame>, Malformed> {
        match self {
            Self::Tcp => take_tcp(bytes),
            Self::Rtu => Ok(take_rtu(bytes)),
        }
    }
}

fn take_tcp(bytes: &mut Vec<u8>) -> Result<Option<Frame>, Malformed> {
    let Some(&[t1, t0, p1, p0, l1, l0, unit]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([l1, l0]));
    if [p1, p0] != [0, 0] || !(2..=MAX_PDU + 1).contains(&len) {
        return Err(Malformed);
    }
    let end = HEADER + len - 1;
    if bytes.len() < end {
        return Ok(None);
    }
    let pdu = bytes.drain(..end).skip(HEADER).collect();
    Ok(Some(Frame { transaction: Some(u16::from_be_bytes([t1, t0])), unit, pdu }))
}

fn take_rtu(bytes: &mut Vec<u8>) -> Option<Frame> {
    loop {
        let (unit, rest) = bytes.split_first()?;
        let len = answer_len(rest)?;
        if (1..=MAX_PDU).contains(&len) {
            let (pdu, sum) = (rest.get(..len)?, rest.get(len..len + 2)?);
            let frame = Frame { transaction: None, unit: *unit, pdu: pdu.to_vec() };
            if checksum(&bytes[..len + 1]).to_le_bytes() == sum {
                bytes.drain(..len + 3);
                return Some(frame);
            }
        }
        bytes.remove(0);
    }
}

/// CRC-16 (§6.2.2).
fn checksum(bytes: &[u8]) -> u16 {
    bytes
        .iter()
        .fold(0xffff, |sum, byte| (0..8).fold(sum ^ u16::from(*byte), |s, _| (s >> 1) ^ ((s & 1) * 0xa001)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_look_as_in_the_specifications() {
        let pdu = [3, 0, 4, 0, 1];
        assert_eq!(Framing::Tcp.encode(0x1501, 0xff, &pdu), [0x15, 1, 0, 0, 0, 6, 0xff, 3, 0, 4, 0, 1]);
        assert_eq!(checksum(&[2, 7]), 0x1241, "appendix B");
        assert_eq!(Framing::Rtu.encode(0, 1, &[3, 0, 0, 0, 10]), [1, 3, 0, 0, 0, 10, 0xc5, 0xcd]);
    }

    #[test]
    fn a_frame_comes_when_its_last_byte_does() {
        let pdu = vec![3, 4, 1, 2, 3, 4];
        for (framing, transaction) in [(Framing::Tcp, Some(7)), (Framing::Rtu, None)] {
            let frame = Frame { transaction, unit: 9, pdu: pdu.clone() };
            let wire = framing.encode(7, 9, &pdu);
            let mut bytes = Vec::new();
            for (i, byte) in wire.iter().enumerate() {
                assert_eq!(framing.take(&mut bytes), Ok(None), "{framing:?} {i}");
                bytes.push(*byte);
            }
            bytes.push(0x55);
            assert_eq!((framing.take(&mut bytes), bytes), (Ok(Some(frame)), vec![0x55]));
        }
    }

    #[test]
    fn a_damaged_serial_frame_is_none_and_noise_before_one_is_left_out() {
        let good = Framing::Rtu.encode(0, 9, &[3, 2, 1, 2]);
        for i in 0..good.len() {
            let mut bytes = good.clone();
            bytes[i] ^= 4;
            assert_eq!(Framing::Rtu.take(&mut bytes), Ok(None), "byte {i}");
        }
        let mut bytes = [&[0x55, 0x55, 0x55], &good[..]].concat();
        let frame = Frame { transaction: None, unit: 9, pdu: vec![3, 2, 1, 2] };
        assert_eq!((Framing::Rtu.take(&mut bytes), bytes.len()), (Ok(Some(frame)), 0));
    }

    #[test]
    fn what_is_no_header_is_malformed() {
        for header in [[0, 1, 0, 1, 0, 6, 1], [0, 1, 0, 0, 0, 1, 1], [0, 1, 0, 0, 0xff, 0xff, 1]] {
            assert_eq!(Framing::Tcp.take(&mut header.to_vec()), Err(Malformed));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            for framing in [Framing::Tcp, Framing::Rtu] {
                let mut bytes = bytes.clone();
                while let Ok(Some(_)) = framing.take(&mut bytes) {}
            }
        }
    }
}

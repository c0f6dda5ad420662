//! What a part of a batch changes, as it travels: names and values one after the other, compressed where that pays.

use bus::frame::MAX_FRAME_LEN;
use bytes::Bytes;
use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::sync::Misbehaviour;

/// Smaller ones do not shrink by what saying so takes.
const MIN_COMPRESSED: usize = 128;
/// LZ4 makes at most this many bytes of one: what claims more is not believed, and no room is made for it.
const MAX_RATIO: usize = 255;

/// What became of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub name: String,
    /// `None`: deleted.
    pub value: Option<Bytes>,
}

/// Some changes. Plain: a byte string, in which each is a text and a byte string, or null for a deletion. Compressed:
/// an array of the plain length and the LZ4 block, a byte string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Of the plain form, if compressed.
    len: Option<u32>,
    bytes: Bytes,
}

impl Packed {
    pub fn pack(changes: &[Change]) -> Self {
        let mut plain = Encoder::new(Vec::new());
        for change in changes {
            // Into a `Vec` nothing fails.
            drop(write(&mut plain, change));
        }
        let plain = plain.into_writer();
        if plain.len() >= MIN_COMPRESSED {
            let bytes = lz4_flex::block::compress(&plain);
            if bytes.len() + size_of::<u32>() < plain.len() {
                return Self { len: Some(plain.len() as u32), bytes: bytes.into() };
            }
        }
        Self { len: None, bytes: plain.into() }
    }

    /// Makes room for at most [`MAX_FRAME_LEN`] bytes and what each change takes besides.
    pub fn unpack(&self) -> Result<Vec<Change>, Misbehaviour> {
        match self.len {
            None => read_all(&self.bytes),
            Some(len) => read_all(&self.expand(len as usize).ok_or(Misbehaviour::Malformed)?),
        }
    }

    fn expand(&self, len: usize) -> Option<Vec<u8>> {
        if len > MAX_FRAME_LEN || len > self.bytes.len().saturating_mul(MAX_RATIO) {
            return None;
        }
        let mut plain = vec![0; len];
        let written = lz4_flex::block::decompress_into(&self.bytes, &mut plain).ok()?;
        (written == len).then_some(plain)
    }

    /// Bytes that travel.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

fn write(e: &mut Encoder<Vec<u8>>, change: &Change) -> Result<(), encode::Error<std::convert::Infallible>> {
    e.str(&change.name)?;
    match &change.value {
        Some(value) => e.bytes(value)?.ok(),
        None => e.null()?.ok(),
    }
}

fn read_all(plain: &[u8]) -> Result<Vec<Change>, Misbehaviour> {
    let mut d = Decoder::new(plain);
    let mut changes = Vec::new();
    while d.position() < plain.len() {
        changes.push(read(&mut d).map_err(|_| Misbehaviour::Malformed)?);
    }
    Ok(changes)
}

fn read(d: &mut Decoder<'_>) -> Result<Change, decode::Error> {
    let name = d.str()?.to_owned();
    let is_gone = d.datatype()? == Type::Null;
    let value = if is_gone {
        d.null().map(|()| None)?
    } else {
        // A copy: a slice would keep the whole part in memory.
        Some(Bytes::copy_from_slice(d.bytes()?))
    };
    Ok(Change { name, value })
}

impl<C> Encode<C> for Packed {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        if let Some(len) = self.len {
            e.array(2)?.u32(len)?;
        }
        e.bytes(&self.bytes)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Packed {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let mut len = None;
        if d.datatype()? == Type::Array {
            if d.array()? != Some(2) {
                return Err(decode::Error::message("two elements are expected"));
            }
            len = Some(d.u32()?);
        }
        Ok(Self { len, bytes: Bytes::copy_from_slice(d.bytes()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change(name: &str, value: Option<&'static str>) -> Change {
        Change { name: name.into(), value: value.map(Bytes::from) }
    }

    #[test]
    fn the_format_is_pinned() {
        let packed = Packed::pack(&[change("lease", Some("\x01")), change("a", None)]);
        let hex: String =
            minicbor::to_vec(&packed).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "4b656c656173654101".to_owned() + "6161f6");
    }

    #[test]
    fn what_repeats_itself_shrinks_and_what_does_not_is_left_as_it_is() {
        let devices: Vec<Change> = (0..50)
            .map(|n| {
                change(&format!("desired/default/pump-{n}/speed"), Some("{\"value\":1450,\"unit\":\"rpm\"}"))
            })
            .collect();
        let packed = Packed::pack(&devices);
        assert!(packed.len.is_some_and(|plain| packed.len() * 4 < plain as usize), "{packed:?}");
        assert_eq!(packed.unpack().unwrap(), devices);
        let noise: Vec<u8> = (0..4000_u32)
            .map(|n| (n.wrapping_mul(n) >> 7) as u8 ^ (n.wrapping_mul(0x9E37_79B9) >> 24) as u8)
            .collect();
        let noise = [Change { name: "k".into(), value: Some(noise.into()) }];
        let packed = Packed::pack(&noise);
        assert!(packed.len() <= 4000 + 5);
        assert_eq!(packed.unpack().unwrap(), noise);
    }

    #[test]
    fn no_room_is_made_for_what_cannot_be() {
        let bytes = Bytes::from_static(&[0x1f, 0, 1, 0, 255, 255, 255]);
        for len in [u32::MAX, MAX_FRAME_LEN as u32 + 1, 7 * 255 + 1, 3] {
            let packed = Packed { len: Some(len), bytes: bytes.clone() };
            assert_eq!(packed.unpack(), Err(Misbehaviour::Malformed), "{len}");
        }
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from));
        let change = ("[a-z/]{1,40}", value).prop_map(|(name, value)| Change { name, value });
        prop::collection::vec(change, 0..20)
    }

    proptest! {
        #[test]
        fn changes_survive(changes in changes()) {
            let packed = Packed::pack(&changes);
            let read: Packed = decode(&minicbor::to_vec(&packed).unwrap()).unwrap();
            prop_assert_eq!(read.unpack().unwrap(), changes);
        }

        #[test]
        fn any_bytes_are_changes_or_an_error(len in prop::option::of(0_u32..5000), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            if let Ok(changes) = (Packed { len, bytes }).unpack() {
                let all: usize = changes.iter().map(|c| c.name.len() + c.value.as_ref().map_or(0, Bytes::len)).sum();
                prop_assert!(all <= 5000);
            }
        }

        #[test]
        fn damaged_blocks_are_changes_or_an_error(changes in changes(), at in any::<prop::sample::Index>(), bit in 0..8) {
            let mut packed = Packed::pack(&changes);
            let mut bytes = packed.bytes.to_vec();
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= 1_u8 << bit;
            }
            packed.bytes = bytes.into();
            drop(packed.unpack());
        }
    }
}

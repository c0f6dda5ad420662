//! HPACK (RFC 7541), as much of it as reads what a client says and says it again.
//!
//! The encoder here uses no table at all, so that it has no state: each field is a literal (§6.2.2), 30 bytes longer than
//! it might be on a socket that never leaves the machine.

mod huffman;
mod table;

use thiserror::Error;

use table::Table;

/// Bytes of a header list as RFC 9113 §6.5.2 counts them: names, values, and 32 for each field. gRPC's clients hold to 8
/// KiB; what is longer costs its sender the connection.
pub(super) const MAX_LIST: usize = 16_000;

/// What RFC 7541 §4.1 and RFC 9113 §6.5.2 count for a field beside its name and value.
const OVERHEAD: usize = 32;

/// Why a header block cannot be read. Decoder and encoder share a state, so that nothing after it can be read either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Malformed {
    #[error("a header block ends too early")]
    Short,
    #[error("a number is too large")]
    Number,
    #[error("no such entry in the header table")]
    Index,
    #[error("no Huffman code")]
    Huffman,
    #[error("a table size beyond what was offered, or in the wrong place")]
    TableSize,
    #[error("a header list of more than {MAX_LIST} bytes")]
    TooLong,
}

/// A field's name and value.
pub(super) type Field = (Vec<u8>, Vec<u8>);

/// One connection's decoder.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    table: Table,
}

impl Decoder {
    /// The fields of one whole header block.
    pub(super) fn decode(&mut self, block: &[u8]) -> Result<Vec<Field>, Malformed> {
        let mut reader = Reader(block);
        let (mut fields, mut size) = (Vec::new(), 0);
        while let Some(first) = reader.peek() {
            if first & 0xe0 == 0x20 {
                // §4.2: at the beginning of a block only.
                if !fields.is_empty() || !self.table.resize(reader.number(5)?) || reader.0.is_empty() {
                    return Err(Malformed::TableSize);
                }
                continue;
            }
            let field = self.field(first, &mut reader)?;
            size += field.0.len() + field.1.len() + OVERHEAD;
            if size > MAX_LIST {
                return Err(Malformed::TooLong);
            }
            fields.push(field);
        }
        Ok(fields)
    }

    /// §6.1 and §6.2.
    fn field(&mut self, first: u8, reader: &mut Reader<'_>) -> Result<Field, Malformed> {
        if first & 0x80 != 0 {
            let (name, value) = self.table.get(reader.number(7)?).ok_or(Malformed::Index)?;
            return Ok((name.to_vec(), value.to_vec()));
        }
        let is_kept = first & 0x40 != 0;
        let name = match reader.number(if is_kept { 6 } else { 4 })? {
            0 => reader.string()?,
            index => self.table.get(index).ok_or(Malformed::Index)?.0.to_vec(),
        };
        let field = (name, reader.string()?);
        if is_kept {
            self.table.add(field.clone());
        }
        Ok(field)
    }
}

/// A field as a literal without a place in a table, and without Huffman's code.
pub(super) fn encode(name: &[u8], value: &[u8], block: &mut Vec<u8>) {
    block.push(0);
    encode_string(name, block);
    encode_string(value, block);
}

fn encode_string(text: &[u8], block: &mut Vec<u8>) {
    encode_length(text.len(), block);
    block.extend_from_slice(text);
}

/// §5.1, with a prefix of 7 bits and the bit for Huffman's code unset.
fn encode_length(length: usize, block: &mut Vec<u8>) {
    let Some(mut rest) = length.checked_sub(0x7f) else { return block.push(length as u8) };
    block.push(0x7f);
    while rest >= 0x80 {
        block.push((rest % 0x80) as u8 | 0x80);
        rest /= 0x80;
    }
    block.push(rest as u8);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn octet(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    /// §5.1. Four octets after the prefix hold more than any length or index here.
    fn number(&mut self, prefix: u32) -> Result<usize, Malformed> {
        let full = (1_usize << prefix) - 1;
        let mut number = usize::from(self.octet()?) & full;
        if number < full {
            return Ok(number);
        }
        for shift in [0, 7, 14, 21] {
            let octet = usize::from(self.octet()?);
            number += (octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed::Number)
    }

    /// §5.2.
    fn string(&mut self) -> Result<Vec<u8>, Malformed> {
        let is_coded = self.peek().ok_or(Malformed::Short)? & 0x80 != 0;
        let length = self.number(7)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(Malformed::Short)?;
        self.0 = rest;
        if is_coded { huffman::decode(text).ok_or(Malformed::Huffman) } else { Ok(text.to_vec()) }
    }
}

#[cfg(test)]
mod tests;

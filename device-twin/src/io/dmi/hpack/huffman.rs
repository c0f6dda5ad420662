//! HPACK's Huffman code (RFC 7541 §5.2, Appendix B). It is canonical: the length of each symbol's code says all.

/// Bits of each octet's code, and last of EOS.
const BITS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];

const LONGEST: usize = 30;
const EOS: usize = 256;

/// Symbols by the length of their codes, and for each length its first code and that one's place among the symbols.
struct Code {
    symbols: [u16; 257],
    first: [u32; LONGEST + 2],
    place: [usize; LONGEST + 2],
}

static CODE: Code = canonical();

const fn canonical() -> Code {
    let mut code = Code { symbols: [0; 257], first: [0; LONGEST + 2], place: [0; LONGEST + 2] };
    let (mut bits, mut next, mut place) = (1, 0_u32, 0);
    while bits <= LONGEST + 1 {
        next <<= 1;
        code.first[bits] = next;
        code.place[bits] = place;
        let mut symbol = 0;
        while symbol <= EOS {
            if BITS[symbol] as usize == bits {
                code.symbols[place] = symbol as u16;
                place += 1;
                next += 1;
            }
            symbol += 1;
        }
        bits += 1;
    }
    code
}

/// The octets that `coded` stands for; `None` if it is no such code: EOS is in it, or its padding is not the beginning of
/// EOS or longer than 7 bits.
pub(super) fn decode(coded: &[u8]) -> Option<Vec<u8>> {
    // The shortest code has 5 bits.
    let mut decoded = Vec::with_capacity(coded.len() * 8 / 5);
    let (mut code, mut bits) = (0_u32, 0);
    for bit in coded.iter().flat_map(|octet| (0..8).rev().map(move |at| u32::from(octet >> at & 1))) {
        (code, bits) = (code << 1 | bit, bits + 1);
        if let Some(symbol) = symbol(code, bits) {
            decoded.push(u8::try_from(symbol).ok()?);
            (code, bits) = (0, 0);
        } else if bits == LONGEST {
            return None;
        }
    }
    let is_padding = bits < 8 && code == (1 << bits) - 1;
    is_padding.then_some(decoded)
}

fn symbol(code: u32, bits: usize) -> Option<u16> {
    let (from, to) = (CODE.place[bits], CODE.place[bits + 1]);
    let at = usize::try_from(code.checked_sub(CODE.first[bits])?).ok()?;
    CODE.symbols[from..to].get(at).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541 Appendix C.4 and C.6.
    #[test]
    fn the_examples_of_the_standard_read_as_it_says() {
        let examples: [(&[u8], &str); 4] = [
            (&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff], "www.example.com"),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf], "custom-value"),
            (&[0xae, 0xc3, 0x77, 0x1a, 0x4b], "private"),
        ];
        for (coded, text) in examples {
            assert_eq!(decode(coded).as_deref(), Some(text.as_bytes()));
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        for coded in [&[0xff; 4][..], &[0xff], &[0x00], &[0x1f, 0xff], &[0x18, 0xfe]] {
            assert_eq!(decode(coded), None, "{coded:x?}");
        }
        assert_eq!(decode(&[]), Some(vec![]));
        assert_eq!(decode(&[0x1f]).as_deref(), Some(&b"a"[..]), "three bits of padding");
    }
}

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn fields(list: &[(&str, &str)]) -> Vec<Field> {
    list.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// RFC 7541 Appendix C.4: three requests on one connection.
#[test]
fn the_standards_requests_read_as_it_says() {
    let mut decoder = Decoder::default();
    let first = hex("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff");
    let second = hex("8286 84be 5886 a8eb 1064 9cbf");
    let third = hex("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf");
    let common = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
    assert_eq!(decoder.decode(&first), Ok(fields(&common)));
    let with_cache = [&common[..], &[("cache-control", "no-cache")]].concat();
    assert_eq!(decoder.decode(&second), Ok(fields(&with_cache)));
    let last = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ];
    assert_eq!(decoder.decode(&third), Ok(fields(&last)));
}

#[test]
fn what_is_no_block_is_refused() {
    for (block, why) in [
        ("80", Malformed::Index),
        ("be", Malformed::Index),
        ("7f", Malformed::Short),
        ("ff ff ff ff ff 00", Malformed::Number),
        ("00 03 61 62", Malformed::Short),
        ("00 01 61 81 00", Malformed::Huffman),
        ("3f e2 1f 82", Malformed::TableSize),
        ("82 20", Malformed::TableSize),
        ("20", Malformed::TableSize),
    ] {
        assert_eq!(Decoder::default().decode(&hex(block)), Err(why), "{block}");
    }
}

#[test]
fn a_small_block_does_not_become_a_large_list() {
    let mut block = hex("40 01 61");
    encode_string(&[b'x'; 4000], &mut block);
    block.extend([0xbe; 100]);
    assert_eq!(Decoder::default().decode(&block), Err(Malformed::TooLong));
}

fn list() -> impl Strategy<Value = Vec<Field>> {
    vec((vec(any::<u8>(), 1..20), vec(any::<u8>(), 0..200)), 0..20)
}

proptest! {
    #[test]
    fn what_is_encoded_reads_back(list in list()) {
        let mut block = Vec::new();
        list.iter().for_each(|(name, value)| encode(name, value, &mut block));
        prop_assert_eq!(Decoder::default().decode(&block), Ok(list));
    }

    /// loona-hpack's encoder, which uses the tables, over several blocks of one connection.
    #[test]
    fn what_another_encoder_says_reads_as_it_was_meant(lists in vec(list(), 1..6)) {
        let (mut encoder, mut decoder) = (loona_hpack::Encoder::new(), Decoder::default());
        for list in lists {
            let block = encoder.encode(list.iter().map(|(name, value)| (&name[..], &value[..])));
            prop_assert_eq!(decoder.decode(&block), Ok(list));
        }
    }

    /// loona-hpack's decoder takes some blocks that this one refuses (long lists, sizes in mid-block), none the other way.
    #[test]
    fn another_decoder_reads_the_same(blocks in vec(vec(any::<u8>(), 0..100), 1..4)) {
        let (mut other, mut decoder) = (loona_hpack::Decoder::new(), Decoder::default());
        other.set_max_allowed_table_size(4096);
        for block in blocks {
            let Ok(ours) = decoder.decode(&block) else { break };
            prop_assert_eq!(other.decode(&block).ok(), Some(ours));
        }
    }
}

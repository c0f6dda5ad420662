use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Head { length: payload.len(), kind, flags, stream: stream.to_be_bytes() }.write(&mut out);
    out.extend_from_slice(payload);
    out
}

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    fields.iter().for_each(|(name, value)| hpack::encode(name.as_bytes(), value.as_bytes(), &mut block));
    block
}

/// A whole connection, fed in pieces of `size`.
fn rewritten(frames: &[Vec<u8>], size: usize) -> Result<Vec<u8>, Fault> {
    let input = [PREFACE, &frames.concat()].concat();
    let (mut rewriter, mut out) = (Rewriter::default(), Vec::new());
    input.chunks(size).try_for_each(|piece| rewriter.feed(piece, &mut out))?;
    Ok(out.strip_prefix(PREFACE).unwrap().to_vec())
}

const PATH: (&str, &str) = (":path", "/v1beta1.DeviceManagerService/MapperRegister");

#[test]
fn what_is_no_authority_becomes_localhost_and_all_else_stays() {
    for (said, heard) in [
        ("/etc/kubeedge/dmi.sock", "localhost"),
        ("%2Fetc%2Fkubeedge%2Fdmi.sock", "localhost"),
        ("", "localhost"),
        ("localhost", "localhost"),
        ("edge:7000", "edge:7000"),
    ] {
        let request =
            frame(HEADERS, END_HEADERS, 1, &block(&[PATH, (":authority", said), ("te", "trailers")]));
        let expected =
            frame(HEADERS, END_HEADERS, 1, &block(&[PATH, (":authority", heard), ("te", "trailers")]));
        for size in [1, 7, 1000] {
            assert_eq!(rewritten(std::slice::from_ref(&request), size), Ok(expected.clone()), "{said}");
        }
    }
}

#[test]
fn padding_and_priority_go_and_the_end_of_the_stream_stays() {
    let fields = block(&[PATH]);
    let padded = [&[3][..], &[0, 0, 0, 0, 16], &fields, &[0; 3]].concat();
    let flags = END_STREAM | END_HEADERS | PADDED | PRIORITY;
    let expected = frame(HEADERS, END_STREAM | END_HEADERS, 5, &fields);
    assert_eq!(rewritten(&[frame(HEADERS, flags, 5, &padded)], 4), Ok(expected));
}

#[test]
fn a_block_in_pieces_is_one_frame_again() {
    let fields = block(&[PATH, (":authority", "/run/dmi.sock")]);
    let (head, tail) = fields.split_at(10);
    let frames = [
        frame(HEADERS, END_STREAM, 3, head),
        frame(CONTINUATION, 0, 3, &[]),
        frame(CONTINUATION, END_HEADERS, 3, tail),
    ];
    let expected = frame(HEADERS, END_STREAM | END_HEADERS, 3, &block(&[PATH, (":authority", "localhost")]));
    assert_eq!(rewritten(&frames, 5), Ok(expected));
}

#[test]
fn other_frames_go_through_as_they_are() {
    let frames = [
        frame(4, 0, 0, &[]),
        frame(0, END_STREAM, 1, &[7; 20_000]),
        frame(6, 0, 0, &[1; 8]),
        frame(200, 0xff, 9, &[1, 2, 3]),
        frame(8, 0, 0, &[0, 0, 1, 0]),
    ];
    for size in [1, 100, 30_000] {
        assert_eq!(rewritten(&frames, size), Ok(frames.concat()));
    }
}

#[test]
fn what_breaks_the_rules_ends_the_connection() {
    let fields = block(&[PATH]);
    let part = |flags, stream| frame(HEADERS, flags, stream, &fields);
    let many: Vec<_> =
        std::iter::once(part(0, 1)).chain((0..40).map(|_| frame(CONTINUATION, 0, 1, &[]))).collect();
    for (frames, fault) in [
        (vec![part(0, 1), frame(0, 0, 1, &[])], Fault::Order),
        (vec![part(0, 1), frame(CONTINUATION, END_HEADERS, 3, &[])], Fault::Order),
        (vec![frame(CONTINUATION, END_HEADERS, 1, &[])], Fault::Order),
        (vec![part(0, 1), part(END_HEADERS, 1)], Fault::Order),
        (vec![frame(HEADERS, PADDED | END_HEADERS, 1, &[200])], Fault::Padding),
        (vec![frame(HEADERS, PADDED | END_HEADERS, 1, &[])], Fault::Padding),
        (vec![frame(HEADERS, PRIORITY | END_HEADERS, 1, &[0; 4])], Fault::Padding),
        (vec![frame(HEADERS, END_HEADERS, 1, &[0; MAX_BLOCK + 1])], Fault::TooLarge),
        (many, Fault::TooLarge),
        (vec![frame(HEADERS, END_HEADERS, 1, &[0x80])], Fault::Hpack(Malformed::Index)),
    ] {
        assert_eq!(rewritten(&frames, 1000), Err(fault));
    }
    assert_eq!(
        Rewriter::default().feed(b"GET / HTTP/1.1\r\nhost: x\r\n", &mut Vec::new()),
        Err(Fault::Preface)
    );
}

#[test]
fn the_longest_list_that_is_taken_fits_one_frame() {
    let value = "x".repeat(200);
    let list: Vec<(String, &str)> = (0..67).map(|at| (format!("n{at}"), value.as_str())).collect();
    let fields: Vec<(&str, &str)> = list.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let request = frame(HEADERS, END_HEADERS, 1, &block(&fields));
    assert!(request.len() <= MAX_BLOCK + HEAD);
    assert_eq!(rewritten(std::slice::from_ref(&request), 1000), Ok(request));
}

proptest! {
    #[test]
    fn no_bytes_do_more_than_end_the_connection(bytes in vec(any::<u8>(), 0..2000), size in 1_usize..50) {
        let input = [PREFACE, &bytes].concat();
        let (mut rewriter, mut out) = (Rewriter::default(), Vec::new());
        let _ = input.chunks(size).try_for_each(|piece| rewriter.feed(piece, &mut out));
        prop_assert!(rewriter.partial.len() <= MAX_BLOCK);
    }

    /// Frames of any kind and size, most of them well-formed, so that the depths are reached.
    #[test]
    fn no_frames_do_either(
        frames in vec((prop_oneof![Just(HEADERS), Just(CONTINUATION), any::<u8>()], any::<u8>(), 0_u32..4,
            vec(any::<u8>(), 0..60)), 0..20),
        size in 1_usize..50,
    ) {
        let frames: Vec<_> = frames.iter().map(|(kind, flags, stream, payload)| frame(*kind, *flags, *stream, payload)).collect();
        let _ = rewritten(&frames, size);
    }

    #[test]
    fn any_headers_come_out_as_they_went_in(
        fields in vec(("[a-z-]{1,20}", "[ -~]{0,60}"), 0..20), size in 1_usize..200, cut in 0_usize..100,
    ) {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let whole = block(&fields);
        let (head, tail) = whole.split_at(cut.min(whole.len()));
        let frames = [frame(HEADERS, 0, 1, head), frame(CONTINUATION, END_HEADERS, 1, tail)];
        prop_assert_eq!(rewritten(&frames, size), Ok(frame(HEADERS, END_HEADERS, 1, &whole)));
    }
}

use super::*;
use proptest::prelude::*;

fn header() -> Header {
    Header {
        identity: "spiffe://water/cloud/hub".parse().unwrap(),
        revision: Revision(12),
        epoch: 3,
        taken: UnixMillis(1_700_000_000_000),
        authority: b"authority".to_vec(),
        key: b"key".to_vec(),
    }
}

fn row(key: &str, revision: u64, value: Option<&'static str>) -> Row {
    (Key::new(key).unwrap(), Revision(revision), value.map(Bytes::from))
}

fn rows() -> Vec<Row> {
    vec![row("/all/cloud", 7, Some("here")), row("/all/route/x", 12, None), row("/c/node/a", 2, Some(""))]
}

fn encode(rows: Vec<Row>) -> Vec<u8> {
    Encoder::new(&header(), rows).flatten().collect()
}

fn decode(bytes: &[u8]) -> Result<(Header, Vec<Row>), ReadError> {
    let mut rows = Vec::new();
    read(bytes, |row| rows.push(row)).map(|header| (header, rows))
}

/// Backups of years ago must be read: a change here is a new version, beside which the old one is still read.
#[test]
fn the_format_is_pinned() {
    let bytes = encode(vec![row("/a", 1, Some("x")), row("/b", 2, None)]);
    let text: String = bytes.escape_ascii().to_string();
    assert_eq!(
        text,
        "kubebus cloud backup 1\\n\\x00\\x00\\x004\\x86x\\x18spiffe://water/cloud/hub\\x0c\\x03\\x1b\\x00\\x00\\x01\\x8b\\xcf\\xe5h\\x00\
         IauthorityCkey\\x00\\x00\\x00\\x07\\x83b/a\\x01Ax\\x00\\x00\\x00\\x05\\x82b/b\\x02\\x00\\x00\\x00\\x00\
         \\x1e\\xa2\\x96\\xc2\\xf6\\xe5x~\\xae\\x02\\x93\\xfdD\\x94%1x\\xf07\\xf1d\\xbcd\\xfd\\xf1\\xe0R,\\xe2(3e"
    );
}

#[test]
fn a_backup_reads_back_whole() {
    assert_eq!(decode(&encode(rows())).unwrap(), (header(), rows()));
    assert_eq!(decode(&encode(Vec::new())).unwrap(), (header(), Vec::new()));
}

#[test]
fn a_large_backup_comes_in_pieces() {
    let value = "v".repeat(1000);
    let rows: Vec<Row> = (0..1000_u64)
        .map(|n| (Key::new(&format!("/c/{n:04}")).unwrap(), Revision(n), Some(value.clone().into())))
        .collect();
    let pieces: Vec<Bytes> = Encoder::new(&header(), rows.clone()).collect();
    assert!(pieces.len() > 10 && pieces.iter().all(|piece| piece.len() < 2 * CHUNK), "{}", pieces.len());
    assert_eq!(decode(&pieces.concat()).unwrap().1, rows);
}

#[test]
fn a_backup_cut_anywhere_is_refused() {
    let whole = encode(rows());
    for end in 0..whole.len() {
        let refused = decode(&whole[..end]);
        assert!(matches!(refused, Err(ReadError::Damaged { .. } | ReadError::Foreign)), "{end}: {refused:?}");
    }
}

#[test]
fn a_backup_with_any_byte_changed_is_refused() {
    let whole = encode(rows());
    for at in 0..whole.len() {
        let mut edited = whole.clone();
        edited[at] ^= 1;
        assert!(decode(&edited).is_err(), "byte {at}");
    }
}

#[test]
fn a_backup_with_something_after_it_is_refused() {
    let longer = [encode(rows()), vec![0]].concat();
    let Err(ReadError::Damaged { found }) = decode(&longer) else { panic!("taken") };
    assert_eq!(found, "something follows its end");
}

#[test]
fn another_version_is_named_and_another_file_is_not_taken_for_a_backup() {
    let newer = b"kubebus cloud backup 17\nanything";
    let Err(error @ ReadError::Version { found: 17 }) = decode(newer) else { panic!("taken") };
    assert!(error.to_string().contains("format 17"), "{error}");
    for foreign in [&b""[..], b"PK\x03\x04", b"kubebus cloud backup x\n", &[b'a'; 1000]] {
        assert!(matches!(decode(foreign), Err(ReadError::Foreign)), "{foreign:?}");
    }
}

#[test]
fn the_keys_are_not_shown() {
    let shown = format!("{:?}", header());
    assert!(shown.contains("water") && !shown.contains("authority") && !shown.contains("key"), "{shown}");
}

proptest! {
    #[test]
    fn any_bytes_are_a_backup_or_an_error(tail in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&tail);
        let bytes = [b"kubebus cloud backup 1\n", &tail[..]].concat();
        prop_assert!(decode(&bytes).is_err());
    }
}

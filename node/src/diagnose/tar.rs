//! Archives of small files: POSIX ustar (IEEE 1003.1, pax "ustar Interchange Format"), as far as `tar -x` needs it.

const BLOCK: usize = 512;

/// What a name may be long: ustar's field, without its prefix.
pub const MAX_NAME: usize = 100;

/// Appends a regular file, mode 0600. A name that is too long is cut, at a character's beginning.
pub fn append(archive: &mut Vec<u8>, name: &str, content: &[u8], time_s: u64) {
    archive.extend_from_slice(&header(name, content.len(), time_s));
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
}

/// Ends the archive: two empty blocks.
pub fn finish(archive: &mut Vec<u8>) {
    archive.resize(archive.len() + 2 * BLOCK, 0);
}

fn header(name: &str, len: usize, time_s: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name.as_bytes()[..name.floor_char_boundary(MAX_NAME)]);
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{len:011o}\0").as_bytes());
    put(136, format!("{time_s:011o}\0").as_bytes());
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_whole_blocks_with_a_sum_over_each_header() {
        let mut archive = Vec::new();
        append(&mut archive, "a/b.txt", b"hello", 1_700_000_000);
        finish(&mut archive);
        assert_eq!(archive.len(), 4 * BLOCK);
        assert_eq!(&archive[..8], b"a/b.txt\0");
        assert_eq!(&archive[124..136], b"00000000005\0");
        assert_eq!(&archive[257..265], b"ustar\x0000");
        assert_eq!(&archive[BLOCK..BLOCK + 6], b"hello\0");
        let sum = std::str::from_utf8(&archive[148..154]).unwrap();
        let blanked: u32 =
            (0..BLOCK).map(|at| if (148..156).contains(&at) { 32 } else { u32::from(archive[at]) }).sum();
        assert_eq!(u32::from_str_radix(sum, 8).unwrap(), blanked);
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let name = format!("{}ä", "x".repeat(MAX_NAME - 1));
        let block = header(&name, 0, 0);
        assert_eq!(&block[..MAX_NAME - 1], "x".repeat(MAX_NAME - 1).as_bytes());
        assert_eq!(block[MAX_NAME - 1], 0);
    }
}

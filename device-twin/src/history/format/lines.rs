//! Files of lines whose damage is seen.
//!
//! ```text
//! {"at":1760000000000,"event":"set",...}      lines, as they were given
//! {"at":1760000000200,"event":"rule",...}
//! {"sum":"5c27ae01"}                          what stands since the last such line was written like this
//! ```
//!
//! Lines count when their sum follows. A sum goes on from the file's name and from the one before ([`Chain`]). So what a
//! power cut left half written, or of another file, is left out. A program that reads the JSON skips the lines with a
//! `sum`.

use super::sum::Chain;

const BEFORE: &[u8] = b"{\"sum\":\"";
const AFTER: &[u8] = b"\"}";

/// Bytes of a sum's line, with its end.
pub(crate) const SEAL_BYTES: usize = BEFORE.len() + 8 + AFTER.len() + 1;

/// Whether `line` can be told from others: it is one line, and does not look like a sum's.
pub(crate) fn is_line(line: &[u8]) -> bool {
    !line.contains(&b'\n') && parse(line).is_none()
}

/// Where the first lines of a file stand.
pub(crate) fn beginning(name: &str) -> Chain {
    Chain::new(name.as_bytes())
}

/// Appends the line that makes `lines` count; where the next stand.
pub(crate) fn seal(lines: &mut Vec<u8>, chain: Chain) -> Chain {
    let sum = chain.sum(&[lines]);
    lines.extend_from_slice(BEFORE);
    lines.extend_from_slice(format!("{sum:08x}").as_bytes());
    lines.extend_from_slice(AFTER);
    lines.push(b'\n');
    chain.after(sum)
}

fn parse(line: &[u8]) -> Option<u32> {
    let digits = line.strip_prefix(BEFORE)?.strip_suffix(AFTER)?;
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.len() == 8)?;
    u32::from_str_radix(digits, 16).ok()
}

/// Reads the bytes of a file as they come, and gives out the lines that count.
#[derive(Debug)]
pub(crate) struct Reader {
    chain: Chain,
    /// Lines whose sum is not there yet, and the part of one.
    waiting: Vec<u8>,
    /// Where in `waiting` the last line begins, and how far it was looked for its end.
    line: usize,
    seen: usize,
    /// How many bytes stand before `waiting`.
    passed: u64,
    sound: Sound,
}

/// How far a file counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sound {
    /// Bytes up to the end of the last lines that count.
    pub(crate) end: u64,
    /// Where more lines stand.
    pub(crate) chain: Chain,
    /// Groups of lines that do not.
    pub(crate) damaged: u64,
}

impl Reader {
    pub(crate) fn new(name: &str) -> Self {
        let chain = beginning(name);
        let sound = Sound { end: 0, chain, damaged: 0 };
        Self { chain, waiting: Vec::new(), line: 0, seen: 0, passed: 0, sound }
    }

    pub(crate) fn read(&mut self, bytes: &[u8], take: &mut dyn FnMut(&[u8])) {
        self.waiting.extend_from_slice(bytes);
        while let Some(length) = self.waiting[self.seen..].iter().position(|byte| *byte == b'\n') {
            let end = self.seen + length;
            match parse(&self.waiting[self.line..end]) {
                Some(stored) => self.close(stored, end + 1, take),
                None => (self.line, self.seen) = (end + 1, end + 1),
            }
        }
        self.seen = self.waiting.len();
    }

    /// The lines up to `self.line` are what `stored` says, or they are not.
    fn close(&mut self, stored: u32, end: usize, take: &mut dyn FnMut(&[u8])) {
        let lines = &self.waiting[..self.line];
        let (is_sound, next) = (self.chain.sum(&[lines]) == stored, self.chain.after(stored));
        if is_sound {
            lines.split_inclusive(|byte| *byte == b'\n').for_each(|line| take(&line[..line.len() - 1]));
            (self.sound.end, self.sound.chain) = (self.passed + end as u64, next);
        } else {
            self.sound.damaged += 1;
        }
        self.chain = next;
        self.waiting.drain(..end);
        self.passed += end as u64;
        (self.line, self.seen) = (0, 0);
    }

    /// After the last byte.
    pub(crate) fn finish(self) -> Sound {
        let torn = u64::from(!self.waiting.is_empty());
        Sound { damaged: self.sound.damaged + torn, ..self.sound }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two groups of lines in file `log`, and what stands in each.
    fn file() -> (Vec<u8>, Vec<Vec<&'static str>>) {
        let groups = vec![vec!["{\"a\":1}", "", "b"], vec!["{\"sum\":\"beside\"}"]];
        let (mut file, mut chain) = (Vec::new(), beginning("log"));
        for group in &groups {
            let mut lines: Vec<u8> =
                group.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect();
            chain = seal(&mut lines, chain);
            file.extend(lines);
        }
        (file, groups)
    }

    fn read(name: &str, pieces: &[&[u8]]) -> (Vec<String>, Sound) {
        let (mut reader, mut lines) = (Reader::new(name), Vec::new());
        for piece in pieces {
            reader.read(piece, &mut |line| lines.push(String::from_utf8(line.to_vec()).unwrap()));
        }
        (lines, reader.finish())
    }

    #[test]
    fn lines_come_back_in_whatever_pieces_the_file_is_read() {
        let (file, groups) = file();
        for at in 0..file.len() {
            let (lines, sound) = read("log", &[&file[..at], &file[at..]]);
            assert_eq!(lines, groups.concat());
            assert_eq!((sound.end, sound.damaged), (file.len() as u64, 0));
        }
        assert_eq!(read("log2", &[&file]).0, Vec::<String>::new(), "lines of another file");
    }

    #[test]
    fn a_file_cut_anywhere_gives_the_groups_that_are_whole() {
        let (file, groups) = file();
        let first = file.len() - "{\"sum\":\"beside\"}\n".len() - SEAL_BYTES;
        for end in 0..file.len() {
            let (lines, sound) = read("log", &[&file[..end]]);
            let whole = if end >= first { (groups[0].clone(), first as u64) } else { (Vec::new(), 0) };
            assert_eq!(
                (lines, sound.end),
                (whole.0.iter().map(|line| (*line).to_owned()).collect(), whole.1)
            );
        }
    }

    #[test]
    fn any_changed_bit_leaves_out_lines_and_makes_none_up() {
        let (file, groups) = file();
        for bit in 0..file.len() * 8 {
            let mut file = file.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            let (lines, _) = read("log", &[&file]);
            // All are there if the bit made a digit of a sum a capital.
            let all = [groups.concat(), groups[0].clone(), groups[1].clone(), Vec::new()];
            assert!(all.iter().any(|some| lines == *some), "bit {bit}: {lines:?}");
        }
    }

    #[test]
    fn what_looks_like_a_sum_or_is_more_than_a_line_is_no_line() {
        assert!(is_line(b"") && is_line(b"{\"sum\":\"5c27ae0\"}") && is_line(b"{\"sum\":\"5c27ae01\" }"));
        assert!(!is_line(b"a\nb") && !is_line(b"{\"sum\":\"5c27ae01\"}"));
    }
}

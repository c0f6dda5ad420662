//! A ring of files of lines.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::audit::{Line, Query, Ring};

/// A file that is this long is followed by another: what goes at a time is a sixteenth of the log.
const FILE_BYTES: u64 = 1 << 20;

/// Files that are kept: with 250 bytes a line, 67,000 lines. Then the oldest goes.
const FILES: usize = 16;

/// Longest line that is read back; ours are at most 1.5 KB.
const MAX_LINE: u64 = 16 << 10;

/// The folder is looked at for each batch: one that was moved away in between is no trouble.
#[derive(Debug, Clone)]
pub(super) struct Files {
    dir: PathBuf,
    /// How the names of these files begin.
    start: &'static str,
    file_bytes: u64,
}

impl Files {
    pub(super) fn new(dir: &Path, ring: Ring) -> Self {
        let start = match ring {
            Ring::Cluster => "",
            Ring::Devices => "devices-",
        };
        Self { dir: dir.to_owned(), start, file_bytes: FILE_BYTES }
    }

    /// On the disk when this returns.
    pub(super) fn append(&self, lines: &[Line]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut bytes, line)?;
            bytes.push(b'\n');
        }
        std::fs::create_dir_all(&self.dir)?;
        let mut numbers = self.numbers()?;
        let number = match numbers.back() {
            Some(last) if self.path(*last).metadata()?.len() < self.file_bytes => *last,
            Some(last) => *last + 1,
            None => 1,
        };
        let is_new = numbers.back() != Some(&number);
        let path = self.path(number);
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        if !is_new && ends_torn(&mut file)? {
            bytes.insert(0, b'\n');
        }
        file.write_all(&bytes)?;
        file.sync_data()?;
        if is_new {
            numbers.push_back(number);
            File::open(&self.dir)?.sync_all()?;
        }
        while numbers.len() > FILES {
            numbers.pop_front().map_or(Ok(()), |oldest| std::fs::remove_file(self.path(oldest)))?;
        }
        Ok(())
    }

    /// The newest lines that are wanted, oldest first. What was not written whole is left out. `is_over` is asked before
    /// each file, of which no more are read than it takes.
    pub(super) fn read(&self, query: &Query, is_over: impl Fn() -> bool) -> io::Result<Vec<Line>> {
        let numbers = match self.numbers() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            numbers => numbers?,
        };
        let mut found: VecDeque<Line> = VecDeque::new();
        for number in numbers.into_iter().rev() {
            if found.len() >= query.limit || is_over() {
                break;
            }
            let newest = self.read_file(number, query, query.limit - found.len())?;
            newest.into_iter().rev().for_each(|line| found.push_front(line));
        }
        Ok(found.into())
    }

    fn read_file(&self, number: u32, query: &Query, limit: usize) -> io::Result<VecDeque<Line>> {
        let file = match File::open(self.path(number)) {
            // It was the oldest, and went meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(VecDeque::new()),
            file => file?,
        };
        let (mut reader, mut line) = (BufReader::new(file), Vec::new());
        let mut found = VecDeque::new();
        while reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? > 0 {
            found.extend(Line::parse(&line).filter(|line| query.wants(line)));
            if found.len() > limit {
                found.pop_front();
            }
            line.clear();
        }
        Ok(found)
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{}{number:08}.jsonl", self.start))
    }

    /// In order.
    fn numbers(&self) -> io::Result<VecDeque<u32>> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let name = name.to_str().and_then(|name| name.strip_prefix(self.start));
            let number = name.and_then(|name| name.strip_suffix(".jsonl"));
            numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers.into())
    }
}

/// Whether the last line has no end: the process or the machine died over it.
fn ends_torn(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Count;
    use bus::UnixMillis;

    fn line(time: u64) -> Line {
        Line::Count(Count {
            time: UnixMillis(time),
            strangers: 1,
            last_from: String::new(),
            refused: 0,
            lost: 0,
        })
    }

    fn all() -> Query {
        Query { limit: usize::MAX, ..Query::default() }
    }

    #[test]
    fn the_oldest_file_goes_and_the_newest_lines_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files { dir: dir.path().join("audit"), start: "", file_bytes: 100 };
        assert_eq!(files.read(&all(), || false).unwrap(), []);
        (0..200).for_each(|time| files.append(&[line(time)]).unwrap());
        assert_eq!(files.numbers().unwrap().len(), FILES);
        let kept = files.read(&all(), || false).unwrap();
        assert!(kept.len() < 60 && kept.last() == Some(&line(199)), "{}", kept.len());
        let query = Query { since: UnixMillis(190), limit: 3, ..Query::default() };
        assert_eq!(files.read(&query, || false).unwrap(), [line(197), line(198), line(199)]);
        let asked = std::cell::Cell::new(0);
        let counts = || {
            asked.set(asked.get() + 1);
            false
        };
        assert_eq!(files.read(&query, counts).unwrap().len(), 3);
        assert!(asked.get() <= 3, "{} files were read for three lines", asked.get());
        assert_eq!(files.read(&query, || true).unwrap(), [], "nobody waits for it");
        let apart = Files { start: "devices-", ..files.clone() };
        apart.append(&[line(1)]).unwrap();
        assert_eq!(
            (apart.read(&all(), || false).unwrap(), files.numbers().unwrap().len()),
            (vec![line(1)], FILES)
        );
    }

    #[test]
    fn a_torn_line_costs_itself_alone() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path(), Ring::Cluster);
        files.append(&[line(1)]).unwrap();
        let mut file = OpenOptions::new().append(true).open(files.path(1)).unwrap();
        file.write_all(br#"{"time":2,"stran"#).unwrap();
        files.append(&[line(3)]).unwrap();
        assert_eq!(files.read(&all(), || false).unwrap(), [line(1), line(3)]);
    }
}

//! The files of the recorder: a folder's, or in tests those of a disk that is full, torn or damaged.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// One folder of files. A file is opened for each operation: that is once a second, and a folder that was moved away or
/// mounted again in between is no trouble.
pub(super) trait Disk: Debug + Send {
    /// Names and lengths of the files that are there. Makes the folder if it is not.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// Fills `buffer` as far as the file goes; how many bytes that are.
    fn read(&self, name: &str, at: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes`, or an error and perhaps some of them. The file is made if `at` is 0.
    fn write(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()>;

    fn truncate(&self, name: &str, length: u64) -> io::Result<()>;

    /// What was written is on the disk when this returns.
    fn sync(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, also one that is taken; durable on return.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A directory of the system.
#[derive(Debug)]
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.0.join(name))
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        std::fs::create_dir_all(&self.0)?;
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_file() {
                files.push((entry.file_name().to_string_lossy().into_owned(), metadata.len()));
            }
        }
        Ok(files)
    }

    fn read(&self, name: &str, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let file = File::open(self.0.join(name))?;
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read_at(&mut buffer[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        let is_new = at == 0;
        if is_new {
            std::fs::create_dir_all(&self.0)?;
        }
        let file = OpenOptions::new().write(true).create(is_new).truncate(is_new).open(self.0.join(name))?;
        file.write_all_at(bytes, at)
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        self.open(name)?.set_len(length)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.open(name)?.sync_data()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.0.join(from), self.0.join(to))?;
        File::open(&self.0)?.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.0.join(name))
    }
}

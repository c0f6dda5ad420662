//! Files that hold a private key: made whole or not at all, and never readable by others.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A key and a certificate take 2 KiB; a longer file is something else and is not read into memory.
const MAX_LEN: u64 = 64 * 1024;

/// Why a secret file could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    #[error("cannot read {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} can be read by others (mode {mode:04o}); run 'chmod 600 {path}', and replace the key if somebody did", path = path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{path} is longer than {MAX_LEN} bytes: no key file", path = path.display())]
    TooLong { path: PathBuf },
}

/// Reads a file that only its owner may read.
pub fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    let failed = |source| ReadError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(ReadError::Exposed { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    file.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(ReadError::TooLong { path: path.to_owned() });
    }
    Ok(bytes)
}

/// Creates `path` with mode 0600 and `bytes`, durably: after a crash it holds all of them or does not exist.
///
/// Of several creators one wins; the others get [`io::ErrorKind::AlreadyExists`] and the winner's file is untouched.
pub fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = draft_path(path)?;
    let done = write_draft(&draft, bytes).and_then(|()| std::fs::hard_link(&draft, path));
    // The draft goes in every case; what counts is whether the link was made.
    let removed = std::fs::remove_file(&draft);
    done.and(removed)?;
    // Of a bare name it is empty, and means here.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

/// A secret file that was made before its secret is: what cannot be kept need not be asked for. Goes again when it is
/// dropped before it was filled.
#[derive(Debug)]
pub struct Reserved {
    path: PathBuf,
    file: File,
    is_filled: bool,
}

/// Makes an empty file of mode 0600. One that is there stays as it is: [`io::ErrorKind::AlreadyExists`].
pub fn reserve(path: &Path) -> io::Result<Reserved> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(Reserved { path: path.to_owned(), file, is_filled: false })
}

impl Reserved {
    pub fn fill(mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.file.sync_all()?;
        self.is_filled = true;
        Ok(())
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.is_filled {
            // An empty file that stays is in the way, and no more.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn draft_path(path: &Path) -> io::Result<PathBuf> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::from)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}.new", u64::from_be_bytes(random)));
    Ok(path.with_file_name(name))
}

fn write_draft(draft: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_file_is_its_owners_alone_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create(&path, b"secret").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(read(&path).unwrap(), b"secret");
    }

    #[test]
    fn the_second_creator_changes_nothing_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create(&path, b"first").unwrap();
        assert_eq!(create(&path, b"second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read(&path).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_reserved_goes_again_unless_it_is_filled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        drop(reserve(&path).unwrap());
        assert!(!path.exists());
        let reserved = reserve(&path).unwrap();
        assert_eq!(reserve(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        reserved.fill(b"secret").unwrap();
        assert_eq!(
            (read(&path).unwrap(), std::fs::metadata(&path).unwrap().mode() & 0o7777),
            (b"secret".to_vec(), 0o600)
        );
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_command_that_helps() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create(&path, b"secret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = read(&path).unwrap_err();
        assert!(matches!(error, ReadError::Exposed { mode: 0o640, .. }), "{error}");
        assert!(error.to_string().contains(&format!("chmod 600 {}", path.display())));
    }

    #[test]
    fn a_giant_file_is_not_read_into_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create(&path, &vec![0; MAX_LEN as usize + 1]).unwrap();
        assert!(matches!(read(&path), Err(ReadError::TooLong { .. })));
    }
}

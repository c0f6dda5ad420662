//! A disk for tests that can be full, refuse, and be damaged.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::Disk;

/// Files that are there as long as a clone is.
#[derive(Debug, Clone, Default)]
pub(super) struct MemoryDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    /// Most bytes of all files; what is over is not written.
    capacity: Option<usize>,
    /// Every change is refused.
    is_read_only: bool,
    /// Not even a list is given.
    is_away: bool,
    /// Changes until the power goes, and nothing is changed any more.
    fuse: Option<u64>,
    written: u64,
    read: u64,
    refused: u64,
}

impl MemoryDisk {
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> T {
        work(&mut self.state().files)
    }

    pub(super) fn bytes(&self) -> usize {
        self.with(|files| files.values().map(Vec::len).sum())
    }

    /// Bytes written since the beginning.
    pub(super) fn written(&self) -> u64 {
        self.state().written
    }

    /// Bytes read since the beginning.
    pub(super) fn bytes_read(&self) -> u64 {
        self.state().read
    }

    /// Changes that were refused.
    pub(super) fn refused(&self) -> u64 {
        self.state().refused
    }

    /// The power went.
    pub(super) fn is_blown(&self) -> bool {
        self.state().fuse == Some(0)
    }

    pub(super) fn set_capacity(&self, bytes: Option<usize>) {
        self.state().capacity = bytes;
    }

    pub(super) fn set_read_only(&self, is_read_only: bool) {
        self.state().is_read_only = is_read_only;
    }

    pub(super) fn set_away(&self, is_away: bool) {
        self.state().is_away = is_away;
    }

    pub(super) fn set_fuse(&self, changes: Option<u64>) {
        self.state().fuse = changes;
    }

    /// The same files on another disk.
    pub(super) fn copy(&self) -> Self {
        let copy = Self::default();
        copy.state().files = self.state().files.clone();
        copy
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn change<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state();
        if state.is_read_only || state.is_away || state.fuse == Some(0) {
            state.refused += 1;
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        state.fuse = state.fuse.map(|left| left - 1);
        work(&mut state)
    }
}

impl State {
    fn file(&mut self, name: &str) -> io::Result<&mut Vec<u8>> {
        self.files.get_mut(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// How many of `bytes` have room at `at`.
    fn room(&self, name: &str, at: usize, bytes: usize) -> usize {
        let Some(capacity) = self.capacity else { return bytes };
        let others: usize =
            self.files.iter().filter(|(other, _)| *other != name).map(|(_, file)| file.len()).sum();
        capacity.saturating_sub(others + at).min(bytes)
    }
}

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        if self.state().is_away {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(self.with(|files| files.iter().map(|(name, file)| (name.clone(), file.len() as u64)).collect()))
    }

    fn read(&self, name: &str, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state();
        let file = state.file(name)?.get(at as usize..).unwrap_or_default();
        let count = file.len().min(buffer.len());
        buffer[..count].copy_from_slice(&file[..count]);
        state.read += count as u64;
        Ok(count)
    }

    fn write(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.change(|state| {
            let at = at as usize;
            if at == 0 {
                state.files.insert(name.to_owned(), Vec::new());
            }
            let room = state.room(name, at, bytes.len());
            let file = state.file(name)?;
            if file.len() < at + room {
                file.resize(at + room, 0);
            }
            file[at..at + room].copy_from_slice(&bytes[..room]);
            state.written += room as u64;
            if room < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        })
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        self.change(|state| state.file(name).map(|file| file.truncate(length as usize)))
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.change(|state| state.file(name).map(drop))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|state| {
            let file = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
            state.files.insert(to.to_owned(), file);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(|state| state.files.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into()))
    }
}

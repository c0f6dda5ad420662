//! A disk with a fuse: what was not synced when the power goes is lost, torn or there, in any mixture.
//!
//! ```text
//! write, set_len --> shown, pending --sync--> durable
//!                          |
//!             power cut: any subset of pending is on the disk, any of it torn
//!             failed sync: any subset of pending is forgotten, and shown all the same
//! ```

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bus::backoff::Jitter;
use redb::StorageBackend;

use super::disk::Disk;

const SECTOR: usize = 512;

/// Files that share a power supply. A clone is another handle of the same disk.
#[derive(Debug, Clone)]
pub(super) struct BadDisk(Arc<Mutex<State>>);

/// What was done to a disk.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Damage {
    pub(super) power_cuts: u64,
    /// Unsynced writes and changes of length when the power went.
    pub(super) landed: u64,
    pub(super) torn: u64,
    pub(super) lost: u64,
    /// Operations that ended in an error, and writes that a failed sync forgot.
    pub(super) refused: u64,
    pub(super) forgotten: u64,
    /// Files that took a name.
    pub(super) renamed: u64,
}

#[derive(Debug)]
struct State {
    files: Vec<Platter>,
    names: BTreeMap<String, Name>,
    jitter: Jitter,
    /// Operations until the power goes.
    fuse: Option<u64>,
    dark: bool,
    /// One operation in so many is refused; 0: none.
    refuse_one_in: u64,
    damage: Damage,
}

/// A new name may be gone after the next power cut.
#[derive(Debug)]
struct Name {
    file: usize,
    is_durable: bool,
}

#[derive(Debug, Default)]
struct Platter {
    durable: Vec<u8>,
    shown: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { at: usize, data: Vec<u8> },
    SetLen(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::SetLen(len) => bytes.resize(*len, 0),
            Self::Write { at, data } => {
                let end = at + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(data);
            }
        }
    }

    /// The pieces of a torn write that reach the disk.
    fn torn(&self, jitter: &mut Jitter) -> Vec<Self> {
        let Self::Write { at, data } = self else { return vec![] };
        let somewhere = below(jitter, data.len() as u64 + 1) as usize;
        let piece = |from: usize, to: usize| Self::Write { at: at + from, data: data[from..to].to_vec() };
        match below(jitter, 4) {
            0 => vec![piece(0, somewhere)],
            1 => vec![piece(somewhere, data.len())],
            _ => (0..data.len())
                .step_by(SECTOR)
                .filter(|_| below(jitter, 2) == 0)
                .map(|from| piece(from, (from + SECTOR).min(data.len())))
                .collect(),
        }
    }
}

fn below(jitter: &mut Jitter, limit: u64) -> u64 {
    jitter.next_u64() % limit
}

impl Platter {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.shown);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            change.apply(&mut self.durable);
        }
    }

    fn read_anew(&mut self) {
        self.shown.clone_from(&self.durable);
        self.pending.iter().for_each(|change| change.apply(&mut self.shown));
    }

    fn lose_power(&mut self, jitter: &mut Jitter, damage: &mut Damage) {
        // Of four: none, or one half, or three quarters, or all.
        let landing = [0, 2, 3, 4][below(jitter, 4) as usize];
        for change in std::mem::take(&mut self.pending) {
            if below(jitter, 4) >= landing {
                damage.lost += 1;
            } else if below(jitter, 4) == 0 {
                damage.torn += 1;
                change.torn(jitter).iter().for_each(|piece| piece.apply(&mut self.durable));
            } else {
                damage.landed += 1;
                change.apply(&mut self.durable);
            }
        }
        self.shown.clone_from(&self.durable);
    }
}

impl State {
    /// Damage one operation down; `Err` when there is no power for it.
    fn spend(&mut self) -> io::Result<()> {
        if self.dark {
            return Err(io::Error::other("there is no power"));
        }
        match &mut self.fuse {
            None => Ok(()),
            Some(0) => {
                self.dark = true;
                Err(io::Error::other("the power went"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn refuses(&mut self) -> Option<io::Error> {
        if self.refuse_one_in == 0 || below(&mut self.jitter, self.refuse_one_in) > 0 {
            return None;
        }
        self.damage.refused += 1;
        let full = below(&mut self.jitter, 2) == 0;
        Some(if full { io::ErrorKind::StorageFull.into() } else { io::Error::from_raw_os_error(5) })
    }
}

impl BadDisk {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: Vec::new(),
            names: BTreeMap::new(),
            jitter: Jitter::new(seed),
            fuse: None,
            dark: false,
            refuse_one_in: 0,
            damage: Damage::default(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The power goes at the operation after `operations` more.
    pub(super) fn light_the_fuse(&self, operations: u64) {
        self.state().fuse = Some(operations);
    }

    pub(super) fn is_dark(&self) -> bool {
        self.state().dark
    }

    /// The power stays; it was the process that died. What it wrote is there and may be lost yet; what a failed sync
    /// forgot is not shown to the next process, as that one lets go of what the system has in memory.
    pub(super) fn start_process(&self) {
        let mut state = self.state();
        state.files.iter_mut().for_each(Platter::read_anew);
        (state.dark, state.fuse) = (false, None);
    }

    /// Refuses one operation in `one_in` from now on; 0: none.
    pub(super) fn refuse_one_in(&self, one_in: u64) {
        self.state().refuse_one_in = one_in;
    }

    /// The power goes, and is back.
    pub(super) fn lose_power(&self) {
        let State { files, names, jitter, fuse, dark, damage, .. } = &mut *self.state();
        files.iter_mut().for_each(|file| file.lose_power(jitter, damage));
        names.retain(|_, name| std::mem::replace(&mut name.is_durable, true) || below(jitter, 2) == 0);
        damage.power_cuts += 1;
        (*dark, *fuse) = (false, None);
    }

    pub(super) fn damage(&self) -> Damage {
        self.state().damage
    }
}

impl Disk for BadDisk {
    fn length(&self, name: &str) -> io::Result<Option<u64>> {
        let mut state = self.state();
        state.spend()?;
        Ok(state.names.get(name).map(|name| state.files[name.file].shown.len() as u64))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        let mut state = self.state();
        state.spend()?;
        let State { files, names, .. } = &mut *state;
        let name = names.entry(name.to_owned()).or_insert_with(|| {
            files.push(Platter::default());
            Name { file: files.len() - 1, is_durable: false }
        });
        Ok(Box::new(OpenFile { disk: self.clone(), file: name.file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let spent = state.spend();
        // In the middle of a power cut it may have come about.
        if spent.is_ok() || below(&mut state.jitter, 2) == 0 {
            let name = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            state.names.insert(to.to_owned(), Name { is_durable: true, ..name });
            state.damage.renamed += 1;
        }
        spent
    }
}

#[derive(Debug)]
struct OpenFile {
    disk: BadDisk,
    file: usize,
}

impl OpenFile {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.disk.state();
        if let Some(error) = state.refuses() {
            return Err(error);
        }
        let was_dark = state.dark;
        let spent = state.spend();
        if !was_dark {
            state.files[self.file].change(change);
            // The system writes on its own, too, what waits.
            if below(&mut state.jitter, 32) == 0 {
                state.files[self.file].sync();
            }
        }
        spent
    }
}

impl StorageBackend for OpenFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.spend()?;
        Ok(state.files[self.file].shown.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.dark {
            return state.spend();
        }
        let from = offset as usize;
        let bytes = state.files[self.file].shown.get(from..from + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::SetLen(len as usize))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write { at: offset as usize, data: data.to_vec() })
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.spend()?;
        let refused = state.refuses();
        let State { files, jitter, damage, .. } = &mut *state;
        let platter = &mut files[self.file];
        match refused {
            None => platter.sync(),
            Some(_) => platter.pending.retain(|change| {
                // A file's length is in the file system's journal.
                let stays = matches!(change, Change::SetLen(_)) || below(jitter, 2) == 0;
                damage.forgotten += u64::from(!stays);
                stays
            }),
        }
        refused.map_or(Ok(()), Err)
    }
}

//! The store on a real disk.

mod disk;
mod redb;

#[cfg(test)]
mod bad_disk;
#[cfg(test)]
mod power_cuts;

pub use self::redb::RedbStore;

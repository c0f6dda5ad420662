//! The store on a real disk.

mod redb;

pub use self::redb::RedbStore;

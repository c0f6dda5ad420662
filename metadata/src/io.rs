//! Stores on a real disk, and in etcd.

mod disk;
#[cfg(feature = "etcd")]
mod etcd;
mod redb;
mod ring;
#[cfg(feature = "etcd")]
mod split;

#[cfg(test)]
mod bad_disk;
#[cfg(test)]
mod power_cuts;

#[cfg(feature = "etcd")]
pub use self::etcd::{EtcdConfig, EtcdStore, EtcdTls, Turn};
pub use self::redb::RedbStore;
#[cfg(feature = "etcd")]
pub use self::split::{LocalPart, SplitStore};

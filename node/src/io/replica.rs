//! A cloud in several replicas, over one etcd: one leads, the others stand by until its turn ends.
//!
//! What makes a cloud that cloud, its authority and its keys, is shared through etcd as well: a replica needs nothing but
//! the configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bus::Identity;
use bytes::Bytes;
use metadata::io::{EtcdConfig, EtcdStore, EtcdTls, LocalPart, RedbStore, SplitStore, Turn};
use metadata::{Row, Store, StoreError};
use thiserror::Error;
use tracing::info;

use super::backup::{AUTHORITY, CACHE, LOCAL_STORE, STORE, sync_dir};
use super::damage::is_damage;
use super::identity::{self, IdentityError};
use super::restore::commits_of;
use crate::config::EtcdPlace;

/// A cloud's store from before it was in etcd is kept under this name.
const MOVED: &str = "store.redb.moved";

/// Files of the data directory that all replicas have.
const SHARED: [&str; 3] = [AUTHORITY, identity::KEY, identity::CLOUD];

/// Why this replica cannot lead.
#[derive(Debug, Error)]
pub enum ReplicaError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path} is damaged: delete it and start again; edges say again what was in it")]
    LocalDamage {
        path: PathBuf,
        #[source]
        source: StoreError,
    },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("{path}: needed for cloud.store.etcd")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cloud.store.etcd: https needs 'ca' at least; 'certificate' and 'key' go together")]
    HalfTls,
    #[error(
        "{path} is not the one of the cluster in etcd: start this replica in an empty data directory, or give its \
         cluster another name (cloud.cluster)"
    )]
    OtherCloud { path: PathBuf },
    #[error(
        "{path} holds a cloud, and etcd another one: keep one of them (move the file away, or 'etcdctl del --prefix \
         {prefix}')"
    )]
    TwoClouds { path: PathBuf, prefix: String },
    #[error("the thread that talks to etcd has ended")]
    Ended,
}

/// A replica of a cloud, on its way to lead.
#[derive(Debug)]
pub struct Replica {
    etcd: EtcdStore,
    local: LocalPart<RedbStore>,
    data_dir: PathBuf,
    prefix: String,
}

/// What etcd answered.
pub type Asked = Result<Turn, StoreError>;

impl Replica {
    /// Asks etcd nothing yet. `run` and `fresh` are random.
    pub async fn new(
        place: &EtcdPlace,
        me: &Identity,
        data_dir: &Path,
        (run, fresh): (u64, u64),
    ) -> Result<Self, ReplicaError> {
        let tls = read_tls(place)?;
        let prefix = format!("/kubebus/{}/", me.cluster);
        let local = open_local(data_dir, fresh)?;
        let config = EtcdConfig {
            endpoints: place.endpoints.clone(),
            tls,
            prefix: prefix.clone(),
            me: call_oneself(me),
            writer: local.writer(),
            run,
        };
        let etcd = blocking(move || EtcdStore::new(&config)).await??;
        Ok(Self { etcd, local, data_dir: data_dir.to_owned(), prefix })
    }

    /// Asks once for the turn; before that, ends the turn of a replica that is silent.
    pub async fn stand(mut self, depose: Option<u64>) -> Result<(Self, Asked), ReplicaError> {
        blocking(move || {
            let deposed = depose.map_or(Ok(()), |term| self.etcd.depose(term));
            let turn = deposed.and_then(|()| self.etcd.stand());
            (self, turn)
        })
        .await
    }

    /// Brings the files that replicas share in place; whether there are any yet.
    pub async fn fetch(mut self) -> Result<(Self, Result<bool, ReplicaError>), ReplicaError> {
        blocking(move || {
            let are_there = self.fetch_files();
            (self, are_there)
        })
        .await
    }

    /// Of the turn that is ours.
    pub fn term(&self) -> Option<u64> {
        self.etcd.term()
    }

    /// What another replica shared. A file that is here already must be the same.
    fn fetch_files(&mut self) -> Result<bool, ReplicaError> {
        let shared: BTreeMap<String, Bytes> = self.etcd.shared()?.into_iter().collect();
        for name in SHARED {
            let Some(file) = shared.get(name) else { continue };
            let path = self.data_dir.join(name);
            match std::fs::read(&path) {
                Ok(here) if here == *file => {}
                Ok(_) => return Err(ReplicaError::OtherCloud { path }),
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                    let dir = path.parent().unwrap_or(&self.data_dir);
                    identity::create_data_dir(dir)?;
                    identity::write(&path, file)?;
                }
                Err(source) => return Err(ReplicaError::File { path, source }),
            }
        }
        Ok(SHARED.iter().all(|name| shared.contains_key(*name)))
    }

    /// Shares this cloud's files, if nobody did, and reads all rows. What a cloud kept in a file goes to etcd first.
    pub async fn open(self) -> Result<(SplitStore<RedbStore>, Vec<Row>), ReplicaError> {
        blocking(move || self.open_blocking()).await?
    }

    fn open_blocking(mut self) -> Result<(SplitStore<RedbStore>, Vec<Row>), ReplicaError> {
        self.share_files()?;
        let is_new = self.etcd.last_writer().is_none();
        let was_ours = self.etcd.last_writer() == Some(self.local.writer());
        let Self { etcd, local, data_dir, prefix } = self;
        let mut store = SplitStore::new(etcd, local)?;
        let file = data_dir.join(STORE);
        if file.exists() {
            if is_new {
                let rows = RedbStore::open(&file, CACHE)?.load()?;
                store.commit(&commits_of(&rows))?;
            } else if !was_ours {
                return Err(ReplicaError::TwoClouds { path: file, prefix });
            }
            let moved = std::fs::rename(&file, data_dir.join(MOVED)).and_then(|()| sync_dir(&file));
            moved.map_err(|source| ReplicaError::File { path: file.clone(), source })?;
            info!(file = %file.display(), "what this cloud knew is in etcd now");
        }
        let rows = store.load()?;
        Ok((store, rows))
    }

    fn share_files(&mut self) -> Result<(), ReplicaError> {
        if !self.etcd.shared()?.is_empty() {
            return Ok(());
        }
        let mut files = Vec::new();
        for name in SHARED {
            let file = identity::read(&self.data_dir.join(name))?;
            files.push((name.to_owned(), Bytes::from(file)));
        }
        Ok(self.etcd.share(&files)?)
    }
}

fn open_local(data_dir: &Path, fresh: u64) -> Result<LocalPart<RedbStore>, ReplicaError> {
    let path = data_dir.join(LOCAL_STORE);
    let opened = RedbStore::open(&path, CACHE).and_then(|store| LocalPart::open(store, fresh));
    opened.map_err(|error| match is_damage(&error) {
        true => ReplicaError::LocalDamage { path, source: error },
        false => error.into(),
    })
}

/// The store waits for etcd: not on the owner loop's thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ReplicaError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ReplicaError::Ended)
}

fn call_oneself(me: &Identity) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{} on {host}, process {}", me.node, std::process::id())
}

fn read_tls(place: &EtcdPlace) -> Result<Option<EtcdTls>, ReplicaError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| ReplicaError::File { path: path.clone(), source })
    };
    match (&place.ca, &place.certificate, &place.key) {
        (None, None, None) => Ok(None),
        (Some(ca), None, None) => Ok(Some(EtcdTls { ca: read(ca)?, identity: None })),
        (Some(ca), Some(certificate), Some(key)) => {
            Ok(Some(EtcdTls { ca: read(ca)?, identity: Some((read(certificate)?, read(key)?)) }))
        }
        _ => Err(ReplicaError::HalfTls),
    }
}

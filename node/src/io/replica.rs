//! A cloud in several replicas, over one etcd: one leads, the others stand by until its turn ends.
//!
//! What makes a cloud that cloud, its authority and its keys, is shared through etcd as well: a replica needs nothing but
//! the configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bus::Identity;
use bytes::Bytes;
use metadata::io::{EtcdConfig, EtcdStore, EtcdTls, LocalPart, RedbStore, SplitStore, Turn};
use metadata::{Row, Store, StoreError};
use thiserror::Error;
use tracing::{info, warn};

use super::backup::{AUTHORITY, CACHE, LOCAL_STORE, STORE, sync_dir};
use super::damage::is_damage;
use super::identity::{self, IdentityError};
use super::restore::commits_of;
use super::shutdown::Shutdown;
use crate::admin::describe;
use crate::config::EtcdPlace;

/// A cloud's store from before it was in etcd is kept under this name.
const MOVED: &str = "store.redb.moved";

/// Between two tries to lead: a standby takes over a second after the turn is free.
const RETRY: Duration = Duration::from_secs(1);

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

/// A replica whose turn it is.
#[derive(Debug)]
pub struct Replica {
    etcd: EtcdStore,
    local: LocalPart<RedbStore>,
    data_dir: PathBuf,
    prefix: String,
}

impl Replica {
    /// Waits for the turn, and brings the files that replicas share in place; `None` if told to stop before.
    /// `run` and `fresh` are random.
    pub async fn lead(
        place: &EtcdPlace,
        me: &Identity,
        data_dir: &Path,
        (run, fresh): (u64, u64),
        shutdown: &mut Shutdown,
    ) -> Result<Option<Self>, ReplicaError> {
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
        let Some(etcd) = stand(etcd, shutdown).await? else { return Ok(None) };
        let mut replica = Self { etcd, local, data_dir: data_dir.to_owned(), prefix };
        let replica = blocking(move || {
            replica.fetch_files()?;
            Ok::<_, ReplicaError>(replica)
        });
        replica.await?.map(Some)
    }

    /// What another replica shared. A file that is here already must be the same.
    fn fetch_files(&mut self) -> Result<(), ReplicaError> {
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
        Ok(())
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

/// Asks for the turn until it is ours.
async fn stand(mut etcd: EtcdStore, shutdown: &mut Shutdown) -> Result<Option<EtcdStore>, ReplicaError> {
    let mut last = String::new();
    loop {
        let (asked, turn) = blocking(move || {
            let turn = etcd.stand();
            (etcd, turn)
        })
        .await?;
        etcd = asked;
        let waits_for = match turn {
            Ok(Turn::Ours) => return Ok(Some(etcd)),
            Ok(Turn::Held { by }) => {
                format!("standby: {by} leads, and this cloud takes over when it does not")
            }
            Err(why @ StoreError::Unreachable { .. }) => format!("waiting for etcd: {}", describe(&why)),
            Err(other) => return Err(other.into()),
        };
        if waits_for != last {
            warn!("{waits_for}");
            last = waits_for;
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = shutdown.requested() => return Ok(None),
        }
    }
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

//! A cloud's store, as `cloud.store` says.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use bus::bus::LinkId;
use metadata::{Keyspace, Store};
use router::io::shard::Lane;

use super::backup::LOCAL_STORE;
use super::damage::{self, DamageError};
use super::node::{CLOUD_CACHE, CloudStart, Equipment, open_store};
use super::shutdown::Shutdown;
use crate::config::{CloudStore, EtcdPlace};
use crate::seam::Input;

/// What a cloud begins with.
pub(super) struct Begun {
    pub(super) equipment: Equipment,
    /// Of the links that stand.
    pub(super) lanes: BTreeMap<LinkId, Lane>,
    /// What it is to be told first.
    pub(super) inputs: Vec<Input>,
}

impl Begun {
    /// Nothing has happened yet.
    pub(super) fn new(equipment: Equipment) -> Self {
        Self { equipment, lanes: BTreeMap::new(), inputs: Vec::new() }
    }
}

/// A store that this cloud may use.
pub(super) enum Granted {
    File,
    #[cfg(feature = "etcd")]
    Etcd(Box<super::replica::Replica>, Option<Box<Begun>>),
}

impl Granted {
    /// Waits until this cloud may lead; `None` if told to stop before. The files that make it that cloud are in place
    /// then, if there are any yet.
    pub(super) async fn wait(start: &CloudStart<'_>, shutdown: &mut Shutdown) -> Result<Option<Self>> {
        let data_dir = start.data_dir;
        match &start.config.cloud.store {
            CloudStore::File if data_dir.join(LOCAL_STORE).exists() => bail!(
                "{} belongs to a cloud whose state is in etcd: set cloud.store.etcd, or restore a backup of it into \
                 another directory",
                data_dir.display()
            ),
            CloudStore::File => {
                damage::check_cloud_has_its_store(data_dir)?;
                Ok(Some(Self::File))
            }
            CloudStore::Etcd(place) => Self::wait_for_turn(place, start, shutdown).await,
        }
    }

    #[cfg(feature = "etcd")]
    async fn wait_for_turn(
        place: &EtcdPlace,
        start: &CloudStart<'_>,
        shutdown: &mut Shutdown,
    ) -> Result<Option<Self>> {
        use super::node::{equip, prove, seed};
        use super::replica::Replica;
        use super::upstream::parse_endpoints;
        use super::waiting::{Files, Waiting, wait_for_files};

        let replica = Replica::new(place, start.me, start.data_dir, (seed()?, seed()?)).await?;
        let turns = match wait_for_files(replica, shutdown).await? {
            None => return Ok(None),
            // Or they were made before all replicas ended.
            Some(Files::ToBeMade(replica)) => {
                let (replica, are_there) = replica.fetch().await?;
                are_there?;
                return Ok(Some(Self::Etcd(Box::new(replica), None)));
            }
            Some(Files::InPlace(turns)) => *turns,
        };
        let is_watched = !place.takeover_after.is_zero();
        let endpoints =
            start.config.cloud.endpoints.iter().filter(|_| is_watched).cloned().collect::<Vec<_>>();
        let endpoints = parse_endpoints(&endpoints).unwrap_or_default();
        let equipment = equip(start, prove(start)?)?;
        let waiting = Waiting::new(start, equipment, endpoints)?;
        let turn = waiting.run(turns, shutdown).await?;
        Ok(turn.map(|(replica, waited)| Self::Etcd(Box::new(replica), Some(Box::new(waited)))))
    }

    #[cfg(not(feature = "etcd"))]
    #[expect(clippy::unused_async, reason = "with the feature it waits")]
    async fn wait_for_turn(_: &EtcdPlace, _: &CloudStart<'_>, _: &mut Shutdown) -> Result<Option<Self>> {
        bail!(
            "cloud.store.etcd: this kubebus was built without etcd. Build it with 'cargo build --release --features \
             etcd', which needs protoc (apt-get install protobuf-compiler)"
        )
    }

    /// What stands already, if this cloud waited.
    pub(super) fn begun(&mut self) -> Option<Begun> {
        match self {
            Self::File => None,
            #[cfg(feature = "etcd")]
            Self::Etcd(_, begun) => begun.take().map(|begun| *begun),
        }
    }

    /// Of a replica that leads.
    pub(super) fn term(&self) -> Option<u64> {
        match self {
            Self::File => None,
            #[cfg(feature = "etcd")]
            Self::Etcd(replica, _) => replica.term(),
        }
    }

    /// With all that is in it.
    #[cfg_attr(not(feature = "etcd"), expect(clippy::unused_async, reason = "etcd is waited for"))]
    pub(super) async fn open(self, data_dir: &Path) -> Result<(Box<dyn Store + Send>, Keyspace)> {
        match self {
            Self::File => {
                Ok(open_store(data_dir, CLOUD_CACHE)
                    .map_err(|error| DamageError::of_cloud(data_dir, error))?)
            }
            #[cfg(feature = "etcd")]
            Self::Etcd(replica, _) => {
                let (store, rows) = replica.open().await?;
                Ok((Box::new(store), Keyspace::load(rows)))
            }
        }
    }
}

//! A cloud's store, as `cloud.store` says.

use std::path::Path;

use anyhow::{Result, bail};
use bus::Identity;
use metadata::{Keyspace, Store};

use super::backup::LOCAL_STORE;
use super::damage::{self, DamageError};
use super::node::{CLOUD_CACHE, open_store};
use super::shutdown::Shutdown;
use crate::config::{CloudStore, EtcdPlace};

/// A store that this cloud may use.
#[derive(Debug)]
pub(super) enum Granted {
    File,
    #[cfg(feature = "etcd")]
    Etcd(Box<super::replica::Replica>),
}

impl Granted {
    /// Waits until this cloud may lead; `None` if told to stop before. The files that make it that cloud are in place
    /// then, if there are any yet.
    pub(super) async fn wait(
        store: &CloudStore,
        me: &Identity,
        data_dir: &Path,
        shutdown: &mut Shutdown,
    ) -> Result<Option<Self>> {
        match store {
            CloudStore::File if data_dir.join(LOCAL_STORE).exists() => bail!(
                "{} belongs to a cloud whose state is in etcd: set cloud.store.etcd, or restore a backup of it into \
                 another directory",
                data_dir.display()
            ),
            CloudStore::File => {
                damage::check_cloud_has_its_store(data_dir)?;
                Ok(Some(Self::File))
            }
            CloudStore::Etcd(place) => Self::wait_for_turn(place, me, data_dir, shutdown).await,
        }
    }

    #[cfg(feature = "etcd")]
    async fn wait_for_turn(
        place: &EtcdPlace,
        me: &Identity,
        data_dir: &Path,
        shutdown: &mut Shutdown,
    ) -> Result<Option<Self>> {
        use super::node::seed;
        let replica = super::replica::Replica::lead(place, me, data_dir, (seed()?, seed()?), shutdown);
        Ok(replica.await?.map(|replica| Self::Etcd(Box::new(replica))))
    }

    #[cfg(not(feature = "etcd"))]
    #[expect(clippy::unused_async, reason = "with the feature it waits")]
    async fn wait_for_turn(_: &EtcdPlace, _: &Identity, _: &Path, _: &mut Shutdown) -> Result<Option<Self>> {
        bail!(
            "cloud.store.etcd: this kubebus was built without etcd. Build it with 'cargo build --release --features \
             etcd', which needs protoc (apt-get install protobuf-compiler)"
        )
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
            Self::Etcd(replica) => {
                let (store, rows) = replica.open().await?;
                Ok((Box::new(store), Keyspace::load(rows)))
            }
        }
    }
}

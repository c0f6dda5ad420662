//! What this node shows of itself to those who come by HTTPS and MQTT: its newest certificate, from one connection to the
//! next.

use std::sync::{Arc, PoisonError, RwLock};

use bus::Name;
use router::io::shard::Credentials;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The certificate that is shown at present.
#[derive(Debug)]
pub(super) struct Shown(RwLock<Arc<CertifiedKey>>);

impl Shown {
    pub(super) fn set(&self, credentials: &Credentials) -> Result<(), rustls::Error> {
        let key = certified(credentials)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = key;
        Ok(())
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// What a listener is told about its node.
#[derive(Debug, Clone)]
pub(super) struct Served {
    pub(super) cluster: Name,
    /// The cluster's authority, by which clients are known.
    pub(super) ca: CertificateDer<'static>,
    pub(super) shown: Arc<Shown>,
}

impl Served {
    pub(super) fn new(credentials: &Credentials) -> Result<Self, rustls::Error> {
        Ok(Self {
            cluster: credentials.identity.cluster.clone(),
            ca: credentials.ca.clone(),
            shown: Arc::new(Shown(RwLock::new(certified(credentials)?))),
        })
    }
}

fn certified(credentials: &Credentials) -> Result<Arc<CertifiedKey>, rustls::Error> {
    let Credentials { chain, key, .. } = credentials;
    CertifiedKey::from_der(chain.clone(), key.clone_key(), &ring::default_provider()).map(Arc::new)
}

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

    fn now(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now())
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bus::{Identity, UnixMillis};
    use controller::io::{CertificateAuthority, new_key_and_csr};
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    #[test]
    fn listeners_show_the_newest_certificate_from_the_next_connection_on() {
        let room = tempfile::tempdir().unwrap();
        let me: Identity = "spiffe://water/edge/a".parse().unwrap();
        let authority =
            CertificateAuthority::open_or_create(room.path(), &me.cluster, UnixMillis(1_800_000_000_000))
                .unwrap();
        let next = || {
            let (key, csr) = new_key_and_csr().unwrap();
            let signed =
                authority.issue(&csr, &me, UnixMillis(1_800_000_000_000), Duration::from_secs(60)).unwrap();
            Credentials {
                chain: vec![CertificateDer::from(signed.certificate_der)],
                key: PrivateKeyDer::Pkcs8(key),
                ca: authority.ca_der().clone(),
                identity: me.clone(),
            }
        };
        let (first, second) = (next(), next());
        let served = Served::new(&first).unwrap();
        let listener = served.clone();
        assert_eq!(listener.shown.now().cert, first.chain);
        served.shown.set(&second).unwrap();
        assert_eq!(listener.shown.now().cert, second.chain);
        let no_pair = Credentials { key: first.key.clone_key(), ..second.clone() };
        assert!(served.shown.set(&no_pair).is_err());
        assert_eq!(listener.shown.now().cert, second.chain);
    }
}

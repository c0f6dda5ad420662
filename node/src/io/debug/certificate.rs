//! The node's certificate, as it lies on the disk.

use router::io::shard::Credentials;
use router::io::tls;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::diagnose::Certificate;
use crate::io::identity::EdgeIdentity;

pub(super) fn credentials(stored: &EdgeIdentity) -> Credentials {
    Credentials {
        chain: vec![CertificateDer::from(stored.certificate.clone())],
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(stored.key.clone())),
        ca: CertificateDer::from(stored.ca.clone()),
        identity: stored.identity(),
    }
}

pub(super) fn look(stored: &EdgeIdentity) -> Certificate {
    let problem = tls::check(&credentials(stored)).err().map(|why| bus::with_causes(&why));
    match tls::validity_of(&stored.certificate) {
        Some((not_before_ms, not_after_ms)) => {
            Certificate { not_before_ms, not_after_ms, problem, ..Certificate::default() }
        }
        None => Certificate {
            problem: Some("what is there is no certificate".to_owned()),
            not_after_ms: u64::MAX,
            ..Certificate::default()
        },
    }
}

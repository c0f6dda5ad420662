//! A certificate authority for tests, and what it signs, as files for tools and as listeners for the broker.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bus::Name;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, SanType,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

use crate::io::{ClientCa, Listener, Tls};

pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: CertificateDer<'static>,
    room: TempDir,
}

/// A key and a certificate for it, in files.
pub(super) struct Papers {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = new_key();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let certificate = params.self_signed(&key).unwrap();
        let room = tempfile::tempdir().unwrap();
        std::fs::write(room.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { certificate: certificate.der().clone(), issuer: Issuer::new(params, key), room }
    }

    pub(super) fn file(&self) -> PathBuf {
        self.room.path().join("ca.pem")
    }

    fn sign(&self, name: SanType, common: &str, years: (i32, i32)) -> (rcgen::Certificate, KeyPair) {
        let key = new_key();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common);
        params.subject_alt_names = vec![name];
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// For the holder of a SPIFFE identity.
    pub(super) fn issue(&self, uri: &str) -> Papers {
        self.issue_for(uri, (2020, 2120))
    }

    pub(super) fn issue_for(&self, uri: &str, years: (i32, i32)) -> Papers {
        let common = uri.rsplit('/').next().unwrap();
        let (certificate, key) = self.sign(SanType::URI(uri.try_into().unwrap()), common, years);
        let file = |end: &str| self.room.path().join(format!("{}.{end}", uri.replace(['/', ':'], "-")));
        std::fs::write(file("crt"), certificate.pem()).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
        Papers { certificate: file("crt"), key: file("key") }
    }

    /// A listener that shows a certificate for 127.0.0.1 and believes clients' certificates of this authority.
    pub(super) fn listener(&self, required: bool) -> Listener {
        let cluster = Name::new("water").unwrap();
        self.listener_for(ClientCa::Cluster { ca: self.certificate.clone(), name: cluster }, required)
    }

    pub(super) fn listener_for(&self, clients: ClientCa, required: bool) -> Listener {
        let name = SanType::IpAddress([127, 0, 0, 1].into());
        let (certificate, key) = self.sign(name, "broker", (2020, 2120));
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let tls = Tls::new(vec![certificate.der().clone()], key, clients, required).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Listener { tls: Some(tls), anonymous: false, ..Listener::plain(address) }
    }
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

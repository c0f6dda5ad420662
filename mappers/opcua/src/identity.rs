//! The certificate that we show to servers: made once, and kept, because people tell servers to trust it.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use kubebus_sdk::Error;
use opcua::crypto::{CertificateStore, X509Data, random};
use tokio::sync::Mutex;
use x509_parser::extensions::GeneralName;

use crate::config::Settings;
use crate::trust::{Fingerprint, read};

/// As long as people leave such a device alone; a server would refuse us after it.
const VALID_DAYS: u32 = 3650;
/// The least that Basic256Sha256 allows (OPC 10000-7), and the most that small servers calculate in time.
const KEY_BITS: u32 = 2048;

/// Our application, as a certificate names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) uri: String,
    pub(crate) fingerprint: Fingerprint,
    /// Where it lives: `trusted` below it is for the certificates of servers.
    pub(crate) home: PathBuf,
}

impl Identity {
    /// The certificate that the settings name, or our own one, which is made if there is none yet.
    pub(crate) async fn of(settings: &Settings) -> Result<Self, Error> {
        let home = match &settings.identity {
            Some(home) => home.clone(),
            None => default_home()?,
        };
        make_private(&home.join("trusted")).map_err(|e| unusable(&home, e))?;
        if let Some((certificate, key)) = &settings.own {
            return Self::load(certificate, key, home);
        }
        let (certificate, key) = (home.join("own/certificate.der"), home.join("own/key.pem"));
        let _turn = MAKING.lock().await;
        if !(certificate.exists() && key.exists()) {
            let own = home.join("own");
            let made = tokio::task::spawn_blocking(move || make(&own)).await;
            made.map_err(|e| Error::Bug(e.to_string()))?.map_err(|e| unusable(&home, e))?;
        }
        Self::load(&certificate, &key, home)
    }

    fn load(certificate: &Path, key: &Path, home: PathBuf) -> Result<Self, Error> {
        let wrong = |what: &Path, why: &str| Error::Config(format!("{}: {why}", what.display()));
        let der = read(certificate).ok_or_else(|| wrong(certificate, "no certificate in DER or PEM"))?;
        let uri = application_uri(&der)
            .ok_or_else(|| wrong(certificate, "it names no application URI among its alternative names"))?;
        CertificateStore::read_pkey(key).map_err(|_| wrong(key, "no RSA key in PEM"))?;
        let absolute = |path: &Path| std::path::absolute(path).map_err(|e| wrong(path, &e.to_string()));
        let fingerprint = Fingerprint::of(&der);
        Ok(Self { certificate: absolute(certificate)?, key: absolute(key)?, uri, fingerprint, home })
    }
}

/// Two devices that are opened at once must not make two.
static MAKING: Mutex<()> = Mutex::const_new(());

fn default_home() -> Result<PathBuf, Error> {
    let state = |key: &str, below: &str| std::env::var_os(key).map(|dir| PathBuf::from(dir).join(below));
    state("STATE_DIRECTORY", "opcua").or_else(|| state("HOME", ".local/state/kubebus/opcua")).ok_or_else(
        || Error::Config("identity: name a directory in which this mapper's certificate is kept".to_owned()),
    )
}

fn unusable(home: &Path, why: impl std::fmt::Display) -> Error {
    Error::Config(format!("identity: {}: {why}", home.display()))
}

fn make_private(dir: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Under another name first, the certificate last: a certificate that is there has its key.
fn make(own: &Path) -> io::Result<()> {
    make_private(own)?;
    let (new_certificate, new_key) = (own.join("new.der"), own.join("new.pem"));
    let uri = format!("urn:kubebus:mapper:opcua:{}", HEXLOWER.encode(random::byte_string(8).as_ref()));
    let data = X509Data {
        key_size: KEY_BITS,
        common_name: "KubeBus OPC UA mapper".to_owned(),
        organization: "KubeBus".to_owned(),
        organizational_unit: String::new(),
        country: String::new(),
        state: String::new(),
        alt_host_names: X509Data::alt_host_names(&uri, None, false, true, false),
        certificate_duration_days: VALID_DAYS,
    };
    CertificateStore::create_certificate_and_key(&data, true, &new_certificate, &new_key)
        .map_err(io::Error::other)?;
    std::fs::set_permissions(&new_key, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(new_key, own.join("key.pem"))?;
    std::fs::rename(new_certificate, own.join("certificate.der"))
}

/// The first URI among the alternative names (OPC 10000-6 §6.2.2); servers compare it with what we say we are.
fn application_uri(der: &[u8]) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let uri = names
        .value
        .general_names
        .iter()
        .find_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
    uri.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn our_certificate_is_made_once_and_its_key_is_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("state/opcua");
        let json = serde_json::json!({ "url": "opc.tcp://h", "policy": "Basic256Sha256", "identity": home });
        let config: Config = serde_json::from_value(json).unwrap();
        let settings = Settings::of(&config).unwrap();
        let (first, second) = tokio::join!(Identity::of(&settings), Identity::of(&settings));
        let first = first.unwrap();
        assert_eq!(second.unwrap(), first);
        assert!(first.uri.starts_with("urn:kubebus:mapper:opcua:"), "{}", first.uri);
        for private in [first.key.clone(), home.join("own"), home.join("trusted")] {
            let mode = std::fs::metadata(&private).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", private.display());
        }
        assert_eq!(Identity::of(&settings).await.unwrap(), first);
    }
}

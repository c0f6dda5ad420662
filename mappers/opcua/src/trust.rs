//! Which server's certificate is the right one.

use std::fmt;
use std::path::{Path, PathBuf};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use kubebus_sdk::Error;
use opcua::crypto::X509;
use sha2::{Digest, Sha256};

/// Files of a directory of certificates that are looked at.
const MAX_CERTIFICATES: usize = 1000;
/// Largest file that is taken for a certificate.
const MAX_CERTIFICATE_BYTES: u64 = 64 * 1024;

/// SHA-256 of a certificate's DER, written `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// With or without `sha256:` and colons; `None` if it is none.
    fn parse(text: &str) -> Option<Self> {
        let digits: String =
            text.strip_prefix("sha256:").unwrap_or(text).chars().filter(|c| *c != ':').collect();
        let bytes = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?;
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", HEXLOWER.encode(&self.0))
    }
}

/// Whom to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    Fingerprint(Fingerprint),
    /// A certificate, or a directory of some.
    Path(PathBuf),
}

impl Trust {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        match Fingerprint::parse(text) {
            Some(fingerprint) => Ok(Self::Fingerprint(fingerprint)),
            None if text.starts_with("sha256:") || text.is_empty() => Err(Error::Config(format!(
                "trust: '{text}' is no fingerprint: it is sha256: and 64 hexadecimal digits"
            ))),
            None => Ok(Self::Path(text.into())),
        }
    }

    /// Whether the server that shows this certificate (DER) is the one that is meant.
    pub(crate) fn check(&self, der: &[u8]) -> Result<(), Error> {
        let shown = Fingerprint::of(der);
        let trusted = match self {
            Self::Fingerprint(expected) => *expected == shown,
            Self::Path(path) => holds(path, der)?,
        };
        if trusted {
            return Ok(());
        }
        Err(Error::Auth(format!(
            "the server's certificate {shown} ({}) is not the one that {self} trusts: if it is the server's own, set trust to \
             this fingerprint or put the certificate into a trusted directory",
            subject(der)
        )))
    }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fingerprint(fingerprint) => fingerprint.fmt(f),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

fn subject(der: &[u8]) -> String {
    X509::from_der(der).map_or_else(|_| "not readable".to_owned(), |certificate| certificate.subject_name())
}

fn holds(path: &Path, der: &[u8]) -> Result<bool, Error> {
    let wrong = |why: &str| Error::Config(format!("trust: {}: {why}", path.display()));
    if !path.is_dir() {
        let certificate =
            read(path).ok_or_else(|| wrong("neither a certificate (DER or PEM) nor a directory"))?;
        return Ok(certificate == der);
    }
    let files = std::fs::read_dir(path).map_err(|e| wrong(&e.to_string()))?;
    let files = files.filter_map(Result::ok).take(MAX_CERTIFICATES);
    Ok(files.filter_map(|file| read(&file.path())).any(|trusted| trusted == der))
}

/// A certificate in DER or PEM, as DER.
pub(crate) fn read(path: &Path) -> Option<Vec<u8>> {
    if std::fs::metadata(path).ok()?.len() > MAX_CERTIFICATE_BYTES {
        return None;
    }
    let bytes = std::fs::read(path).ok()?;
    let certificate = X509::from_der(&bytes).or_else(|_| X509::from_pem(&bytes)).ok()?;
    certificate.to_der().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_may_be_written_as_openssl_writes_it() {
        let fingerprint = Fingerprint::of(b"x");
        let digits = HEXLOWER.encode(&fingerprint.0);
        let pairs: Vec<&str> = (0..32).map(|i| &digits[2 * i..2 * i + 2]).collect();
        for text in [fingerprint.to_string(), digits.clone(), pairs.join(":").to_uppercase()] {
            assert_eq!(Trust::parse(&text), Ok(Trust::Fingerprint(fingerprint)), "{text}");
        }
        assert_eq!(Trust::parse("/etc/trusted"), Ok(Trust::Path("/etc/trusted".into())));
        assert!(matches!(Trust::parse("sha256:12"), Err(Error::Config(_))));
    }

    #[test]
    fn an_unknown_certificate_is_refused_with_its_fingerprint_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let nobody = [Trust::Fingerprint(Fingerprint::of(b"other")), Trust::Path(dir.path().into())];
        for trust in nobody {
            let Err(Error::Auth(why)) = trust.check(b"shown") else { panic!("{trust} trusts") };
            assert!(
                why.contains(&Fingerprint::of(b"shown").to_string()) && why.contains("set trust to"),
                "{why}"
            );
        }
        assert_eq!(Trust::Fingerprint(Fingerprint::of(b"shown")).check(b"shown"), Ok(()));
        let missing = Trust::Path(dir.path().join("server.der"));
        assert!(matches!(missing.check(b"shown"), Err(Error::Config(_))));
    }
}

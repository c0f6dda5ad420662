//! A node's identity on disk: who it is, its key, its certificate and its cluster's.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bus::{Identity, Name, NodeId, RENEWABLE_FOR, UnixMillis};
use router::io::tls::validity_of;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What `kubebus join` learned, besides keys and certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    pub cluster: Name,
    pub name: Name,
    /// The cloud node's name, as its certificate says it.
    pub cloud: Name,
    /// Where the cloud is dialled, `host:port`, tried in turn.
    pub endpoints: Vec<String>,
}

/// Everything an edge needs to connect. Certificates and key in DER.
#[derive(Clone)]
pub struct EdgeIdentity {
    pub membership: Membership,
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
    pub ca: Vec<u8>,
}

/// A certificate and its key, in DER.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for EdgeIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeIdentity").field("membership", &self.membership).finish_non_exhaustive()
    }
}

impl EdgeIdentity {
    pub fn identity(&self) -> Identity {
        let Membership { cluster, name, .. } = &self.membership;
        Identity { cluster: cluster.clone(), node: NodeId::edge(name.clone()) }
    }
}

/// Why the identity could not be read or written.
#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("{0} holds no identity: join first with 'kubebus join <cloud> --token <token>'")]
    NotJoined(PathBuf),
    #[error("{0} is a member already, as {1}: remove the directory to join as another node")]
    AlreadyJoined(PathBuf, Identity),
    #[error("{0} belongs to an edge, {1}: give the cloud a directory of its own")]
    EdgesDir(PathBuf, Identity),
    #[error("{0} belongs to a cloud: give the edge a directory of its own")]
    CloudsDir(PathBuf),
    #[error(
        "{dir} belongs to {was}, not {now}: its edges know it by that name; put the name back into the configuration \
         (cloud.name), or start a new cluster in another directory"
    )]
    Renamed { dir: PathBuf, was: String, now: Identity },
    #[error(
        "{dir} was stopped for a move by 'kubebus cloud backup --stop', and its cluster goes on where that backup is \
         restored; to go on here, and only if it was restored nowhere, remove {dir}/{MOVED}"
    )]
    Moved { dir: PathBuf },
    #[error("{path} names no cloud: '{text}'")]
    NoCloud { path: PathBuf, text: String },
    #[error("{path} holds no certificate and key: restore it, or remove it to go on with those of the joining", path = path.display())]
    Pair {
        path: PathBuf,
        #[source]
        source: pem::Error,
    },
    #[error("{0} is half restored: run 'kubebus cloud restore' again")]
    HalfRestored(PathBuf),
    #[error("{path}")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is damaged: restore it, or remove the directory and join again")]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

const MEMBERSHIP: &str = "identity.json";
const CERTIFICATE: &str = "node.crt.der";
/// The node's own key.
pub const KEY: &str = "node.key.der";
const CA: &str = "ca.crt.der";
/// Certificate and key since the last renewal, in one file: no crash leaves a certificate without its key.
const RENEWED: &str = "node.pem";
/// Those before them: a cloud that was restored from an older backup knows no others.
const FORMER: &str = "node.former.pem";
/// A cloud's SPIFFE id.
pub const CLOUD: &str = "cloud.id";
/// There while a restore is at work, and after one that was interrupted: nothing starts in such a directory.
pub const RESTORING: &str = "restoring";
/// Left by a cloud that was stopped for a move, so that it does not go on beside the cloud that it moved to.
const MOVED: &str = "moved";
/// What is restored of these files.
pub const RESTORED: [&str; 2] = [KEY, CLOUD];

/// Creates the data directory, mode 0700, if it is not there. From now on this process makes files for its user only,
/// whatever the directory's mode.
pub fn create_data_dir(dir: &Path) -> Result<(), IdentityError> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| IdentityError::File { path: dir.to_owned(), source })
}

/// Reads what [`save`] and [`renew`] wrote.
pub fn load(dir: &Path) -> Result<EdgeIdentity, IdentityError> {
    let path = dir.join(MEMBERSHIP);
    let text = std::fs::read_to_string(&path).map_err(|source| {
        if source.kind() == ErrorKind::NotFound {
            IdentityError::NotJoined(dir.to_owned())
        } else {
            IdentityError::File { path: path.clone(), source }
        }
    })?;
    let membership = serde_json::from_str(&text).map_err(|source| IdentityError::Damaged { path, source })?;
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read(&path).map_err(|source| IdentityError::File { path, source })
    };
    let Pair { certificate, key } = match load_pair(&dir.join(RENEWED))? {
        Some(renewed) => renewed,
        None => Pair { certificate: read(CERTIFICATE)?, key: read(KEY)? },
    };
    Ok(EdgeIdentity { membership, certificate, key, ca: read(CA)? })
}

/// The certificate and key before the present ones, if there were any.
pub fn load_former(dir: &Path) -> Result<Option<Pair>, IdentityError> {
    load_pair(&dir.join(FORMER))
}

fn load_pair(path: &Path) -> Result<Option<Pair>, IdentityError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(IdentityError::File { path: path.to_owned(), source }),
    };
    let damaged = |source| IdentityError::Pair { path: path.to_owned(), source };
    let certificate = CertificateDer::from_pem_slice(&text).map_err(damaged)?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(damaged)?;
    Ok(Some(Pair { certificate: certificate.to_vec(), key: key.secret_pkcs8_der().to_vec() }))
}

/// Puts the next certificate in the place of the one that is shown now. Wherever this is cut off, one of the two is there
/// whole.
pub fn renew(dir: &Path, shown: &Pair, next: &Pair) -> Result<(), IdentityError> {
    write(&dir.join(FORMER), pair_pem(shown).as_bytes())?;
    write(&dir.join(RENEWED), pair_pem(next).as_bytes())
}

fn pair_pem(pair: &Pair) -> String {
    controller::pem::encode("CERTIFICATE", &pair.certificate)
        + &controller::pem::encode("PRIVATE KEY", &pair.key)
}

/// Takes the directory for a cloud at its first start, and lets no edge and no other cloud in afterwards.
pub fn claim_for_cloud(dir: &Path, me: &Identity) -> Result<(), IdentityError> {
    check_whole(dir)?;
    if dir.join(MOVED).exists() {
        return Err(IdentityError::Moved { dir: dir.to_owned() });
    }
    match load(dir) {
        Ok(found) => return Err(IdentityError::EdgesDir(dir.to_owned(), found.identity())),
        Err(IdentityError::NotJoined(_)) => {}
        Err(other) => return Err(other),
    }
    let path = dir.join(CLOUD);
    match std::fs::read_to_string(&path) {
        // Another cluster is for the certificate authority to refuse.
        Ok(was) if was.parse::<Identity>().is_ok_and(|was| was == *me || was.cluster != me.cluster) => Ok(()),
        Ok(was) => Err(IdentityError::Renamed { dir: dir.to_owned(), was, now: me.clone() }),
        Err(error) if error.kind() == ErrorKind::NotFound => write(&path, me.to_string().as_bytes()),
        Err(source) => Err(IdentityError::File { path, source }),
    }
}

/// The cloud whose directory this is.
pub fn cloud_of(dir: &Path) -> Result<Option<Identity>, IdentityError> {
    check_whole(dir)?;
    let path = dir.join(CLOUD);
    match std::fs::read_to_string(&path) {
        Ok(text) => match text.parse() {
            Ok(identity) => Ok(Some(identity)),
            Err(_) => Err(IdentityError::NoCloud { path, text }),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::File { path, source }),
    }
}

/// Gives the directory to the cloud that is restored into it.
pub fn claim_restored(dir: &Path, cloud: &Identity) -> Result<(), IdentityError> {
    write(&dir.join(CLOUD), cloud.to_string().as_bytes())
}

/// From now on no cloud starts here.
pub fn mark_moved(dir: &Path) -> Result<(), IdentityError> {
    write(&dir.join(MOVED), b"")
}

/// Takes [`mark_moved`] back.
pub fn unmark_moved(dir: &Path) -> Result<(), IdentityError> {
    let path = dir.join(MOVED);
    std::fs::remove_file(&path).map_err(|source| IdentityError::File { path, source })
}

fn check_whole(dir: &Path) -> Result<(), IdentityError> {
    match dir.join(RESTORING).exists() {
        true => Err(IdentityError::HalfRestored(dir.to_owned())),
        false => Ok(()),
    }
}

/// Refuses a directory that holds an identity already, unless that has no certificate any more which a cloud would renew:
/// such a node joins again as what it was, and keeps its store.
pub fn check_vacant(dir: &Path, name: &Name, now: UnixMillis) -> Result<(), IdentityError> {
    check_whole(dir)?;
    if dir.join(CLOUD).exists() {
        return Err(IdentityError::CloudsDir(dir.to_owned()));
    }
    match load(dir) {
        Ok(found) if found.membership.name == *name && is_lost(&found.certificate, now) => Ok(()),
        Ok(found) => Err(IdentityError::AlreadyJoined(dir.to_owned(), found.identity())),
        Err(IdentityError::NotJoined(_)) => Ok(()),
        Err(other) => Err(other),
    }
}

fn is_lost(certificate: &[u8], now: UnixMillis) -> bool {
    validity_of(certificate).is_some_and(|(_, until)| now.since(UnixMillis(until)) > RENEWABLE_FOR)
}

/// The key of a join that was begun, or of the node's last certificate.
pub fn load_key(dir: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    if let Some(renewed) = load_pair(&dir.join(RENEWED))? {
        return Ok(Some(renewed.key));
    }
    let path = dir.join(KEY);
    match std::fs::read(&path) {
        Ok(key) => Ok(Some(key)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::File { path, source }),
    }
}

/// Keeps the key before the cloud hears of it.
pub fn save_key(dir: &Path, key: &[u8]) -> Result<(), IdentityError> {
    write(&dir.join(KEY), key)
}

/// Writes the identity; the membership last, so that a crash in between leaves a directory that can join again. What was
/// renewed before counts no more.
pub fn save(dir: &Path, identity: &EdgeIdentity) -> Result<(), IdentityError> {
    let EdgeIdentity { membership, certificate, key, ca } = identity;
    create_data_dir(dir)?;
    write(&dir.join(CERTIFICATE), certificate)?;
    write(&dir.join(KEY), key)?;
    write(&dir.join(CA), ca)?;
    let path = dir.join(MEMBERSHIP);
    let text = serde_json::to_vec_pretty(membership)
        .map_err(|source| IdentityError::Damaged { path: path.clone(), source })?;
    write(&path, &text)?;
    for gone in [RENEWED, FORMER] {
        let path = dir.join(gone);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                return Err(IdentityError::File { path, source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// A small file, read whole.
pub fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    std::fs::read(path).map_err(|source| IdentityError::File { path: path.to_owned(), source })
}

/// A whole file or none: written beside, flushed, renamed. Readable by its owner only.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    let fail = |source| IdentityError::File { path: path.to_owned(), source };
    let beside = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .map_err(fail)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(fail)?;
    std::fs::rename(&beside, path).map_err(fail)?;
    // The new name itself must survive a power cut: the token is used up by then.
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(fail)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use controller::io::{CertificateAuthority, new_key_and_csr};

    use super::*;

    fn sample() -> EdgeIdentity {
        let name = |text| Name::new(text).unwrap();
        EdgeIdentity {
            membership: Membership {
                cluster: name("water"),
                name: name("a"),
                cloud: name("cloud"),
                endpoints: vec!["203.0.113.10:10001".into()],
            },
            certificate: vec![1],
            key: vec![2],
            ca: vec![3],
        }
    }

    #[test]
    fn an_identity_reads_back_and_blocks_a_second_join() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(load(dir.path()), Err(IdentityError::NotJoined(_))));
        check_vacant(dir.path(), &sample().membership.name, UnixMillis(0)).unwrap();
        save(dir.path(), &sample()).unwrap();
        let found = load(dir.path()).unwrap();
        assert_eq!((found.membership, found.key), (sample().membership, vec![2]));
        assert!(matches!(
            check_vacant(dir.path(), &sample().membership.name, UnixMillis(0)),
            Err(IdentityError::AlreadyJoined(..))
        ));
    }

    #[test]
    fn a_renewal_that_is_cut_off_anywhere_leaves_a_pair_that_fits() {
        let pair = |number: u8| Pair { certificate: vec![number; 40], key: vec![number + 100; 40] };
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        save(dir, &EdgeIdentity { certificate: pair(1).certificate, key: pair(1).key, ..sample() }).unwrap();
        let shown =
            || load(dir).map(|found| Pair { certificate: found.certificate, key: found.key }).unwrap();
        // Cut off before its first file has its name, between the two, and before the second has it.
        std::fs::write(dir.join("node.former.new"), "half").unwrap();
        assert_eq!((shown(), load_former(dir).unwrap()), (pair(1), None));
        write(&dir.join(FORMER), pair_pem(&pair(1)).as_bytes()).unwrap();
        std::fs::write(dir.join("node.new"), "half").unwrap();
        assert_eq!((shown(), load_former(dir).unwrap()), (pair(1), Some(pair(1))));
        renew(dir, &pair(1), &pair(2)).unwrap();
        assert_eq!((shown(), load_former(dir).unwrap()), (pair(2), Some(pair(1))));
        renew(dir, &pair(2), &pair(3)).unwrap();
        assert_eq!((shown(), load_former(dir).unwrap()), (pair(3), Some(pair(2))));
        assert_eq!(load_key(dir).unwrap(), Some(pair(3).key));
        // Joined again.
        save(dir, &EdgeIdentity { certificate: vec![9], key: pair(3).key, ..sample() }).unwrap();
        assert_eq!((shown().certificate, load_former(dir).unwrap()), (vec![9], None));
    }

    #[test]
    fn a_node_whose_certificate_no_cloud_renews_joins_again_where_it_is() {
        const DAY: u64 = 24 * 3_600_000;
        let room = tempfile::tempdir().unwrap();
        let (dir, me) = (room.path().join("edge"), sample().identity());
        let day = |day: u64| UnixMillis(1_800_000_000_000 + day * DAY);
        let authority = CertificateAuthority::open_or_create(room.path(), &me.cluster, day(0)).unwrap();
        let (key, csr) = new_key_and_csr().unwrap();
        let signed = authority.issue(&csr, &me, day(0), Duration::from_millis(90 * DAY)).unwrap();
        let key = key.secret_pkcs8_der().to_vec();
        save(&dir, &EdgeIdentity { certificate: signed.certificate_der, key: key.clone(), ..sample() })
            .unwrap();
        let (own, other) = (me.node.name, Name::new("other").unwrap());
        assert!(matches!(check_vacant(&dir, &own, day(180)), Err(IdentityError::AlreadyJoined(..))));
        check_vacant(&dir, &own, day(181)).unwrap();
        assert!(matches!(check_vacant(&dir, &other, day(181)), Err(IdentityError::AlreadyJoined(..))));
        assert_eq!(load_key(&dir).unwrap(), Some(key), "the cloud knows it by that");
    }

    #[test]
    fn the_key_is_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), &sample()).unwrap();
        let mode = std::fs::metadata(dir.path().join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

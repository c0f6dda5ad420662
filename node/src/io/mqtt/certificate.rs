//! `kubebus mqtt certificate`, and the files that a client's certificate is written to.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bus::NodeId;
use controller::io::secret_file::{self, Reserved};

use super::clients;
use crate::io::cli::CertificateArgs;
use crate::io::commands::{read_config, say};
use crate::io::issue::{Issued, issue};

/// Issues a certificate, and has the cloud put it on its list. In this order, so that what the cloud refuses is written
/// nowhere.
pub(in crate::io) async fn run(args: &CertificateArgs) -> Result<()> {
    let CertificateArgs { who, out, lasting, place } = args;
    let key = reserve(who, out)?;
    let config = read_config(place)?;
    let issued = issue(who, *lasting, place.data_dir(&config))?;
    if !clients::register(&issued, place).await? {
        eprintln!(
            "kubebus: the cloud does not run, so this certificate is not in 'kubebus mqtt list', and where {who} was \
             revoked it does not count: better issue it while the cloud runs"
        );
    }
    write(&issued, key, out)?;
    say(&describe(&issued, out))
}

/// The file for a key, before there is one: for what could not be written, nobody is let in.
pub(in crate::io) fn reserve(who: &NodeId, out: &Path) -> Result<Reserved> {
    let key = Files::of(who, out).key;
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    match secret_file::reserve(&key) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} is there: move it away, or name another directory with --out", key.display())
        }
        reserved => reserved.with_context(|| key.display().to_string()),
    }
}

/// Writes key, certificate and the authority's certificate.
pub(in crate::io) fn write(issued: &Issued, key: Reserved, out: &Path) -> Result<()> {
    let files = Files::of(&issued.identity.node, out);
    key.fill(issued.key.as_bytes()).with_context(|| files.key.display().to_string())?;
    let plain =
        |path: &Path, text: &str| std::fs::write(path, text).with_context(|| path.display().to_string());
    plain(&files.certificate, &issued.certificate)?;
    plain(&files.authority, &issued.authority)
}

/// What was written, and what to do with it.
pub(in crate::io) fn describe(issued: &Issued, out: &Path) -> String {
    let Files { key, certificate, authority } = Files::of(&issued.identity.node, out);
    format!(
        "{}, valid until {}\nkey          {} (move it to the client: nobody else has it)\n\
         certificate  {}\nauthority    {}",
        issued.identity,
        issued.until(),
        key.display(),
        certificate.display(),
        authority.display()
    )
}

/// Where they are.
#[derive(Debug)]
struct Files {
    key: PathBuf,
    certificate: PathBuf,
    authority: PathBuf,
}

impl Files {
    fn of(who: &NodeId, out: &Path) -> Self {
        let name = format!("{}-{}", who.kind.as_str(), who.name);
        Self {
            key: out.join(format!("{name}.key")),
            certificate: out.join(format!("{name}.pem")),
            authority: out.join("cluster-ca.pem"),
        }
    }
}

//! `kubebus mqtt certificate`, and the files that a client's certificate is written to.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bus::NodeId;
use controller::io::secret_file;

use crate::io::cli::CertificateArgs;
use crate::io::issue::{Issued, issue};

/// Issues a certificate; what to say of it.
pub(in crate::io) fn run(args: &CertificateArgs, data_dir: &Path) -> Result<String> {
    let CertificateArgs { who, out, lasting, place: _ } = args;
    let issued = issue(who, *lasting, data_dir)?;
    write(&issued, out)?;
    Ok(describe(&issued, out))
}

/// Writes key, certificate and the authority's certificate.
pub(in crate::io) fn write(issued: &Issued, out: &Path) -> Result<()> {
    let files = Files::of(&issued.identity.node, out);
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    secret_file::create(&files.key, issued.key.as_bytes())
        .with_context(|| files.key.display().to_string())?;
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
pub(in crate::io) struct Files {
    pub(in crate::io) key: PathBuf,
    certificate: PathBuf,
    authority: PathBuf,
}

impl Files {
    pub(in crate::io) fn of(who: &NodeId, out: &Path) -> Self {
        let name = format!("{}-{}", who.kind.as_str(), who.name);
        Self {
            key: out.join(format!("{name}.key")),
            certificate: out.join(format!("{name}.pem")),
            authority: out.join("cluster-ca.pem"),
        }
    }
}

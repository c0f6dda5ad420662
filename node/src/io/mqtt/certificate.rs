//! `kubebus mqtt certificate`.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use bus::io::Clock;
use bus::{Identity, NodeKind};
use controller::io::secret_file;
use controller::io::{CertificateAuthority, new_key_and_csr};
use data_encoding::BASE64;

use crate::io::cli::CertificateArgs;
use crate::io::commands::Usage;
use crate::io::identity;

/// Longest validity: longer than a machine's life is a mistake, and nothing revokes a certificate of a client yet.
const MAX_VALIDITY: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Characters of base64 in a line of PEM (RFC 7468 §2).
const PEM_WIDTH: usize = 64;

/// Issues a certificate; what to say of it.
pub(in crate::io) fn run(args: &CertificateArgs, data_dir: &Path) -> Result<String> {
    let CertificateArgs { who, out, lasting, place: _ } = args;
    if !matches!(who.kind, NodeKind::Mapper | NodeKind::User) {
        return Err(Usage(anyhow::anyhow!("'{who}' is no client: write mapper/NAME or user/NAME")).into());
    }
    if *lasting > MAX_VALIDITY {
        return Err(Usage(anyhow::anyhow!("--for: at most ten years")).into());
    }
    let dir = data_dir.join("ca");
    let cloud = identity::cloud_of(data_dir)?.filter(|_| dir.join("ca.pem").exists());
    let Some(cloud) = cloud else {
        bail!("{} is no cloud's data directory: issue certificates at the cloud", data_dir.display());
    };
    let now = Clock::start().now().wall;
    let authority = CertificateAuthority::open_or_create(&dir, &cloud.cluster, now)
        .context("the cluster's certificate authority")?;
    let (key, csr) = new_key_and_csr().context("make a key")?;
    let identity = Identity { cluster: cloud.cluster, node: who.clone() };
    let signed = authority.issue(&csr, &identity, now, *lasting)?;
    let files = Files::of(args);
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let secret = pem("PRIVATE KEY", key.secret_pkcs8_der());
    secret_file::create(&files.key, secret.as_bytes()).with_context(|| files.key.display().to_string())?;
    write(&files.certificate, &pem("CERTIFICATE", &signed.certificate_der))?;
    write(&files.authority, &pem("CERTIFICATE", authority.ca_der()))?;
    let until = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(signed.not_after.0));
    let Files { key, certificate, authority } = files;
    Ok(format!(
        "{identity}, valid until {until}\nkey          {} (move it to the client: nobody else has it)\n\
         certificate  {}\nauthority    {}",
        key.display(),
        certificate.display(),
        authority.display()
    ))
}

struct Files {
    key: PathBuf,
    certificate: PathBuf,
    authority: PathBuf,
}

impl Files {
    fn of(args: &CertificateArgs) -> Self {
        let name = format!("{}-{}", args.who.kind.as_str(), args.who.name);
        let file = |name: String| args.out.join(name);
        Self {
            key: file(format!("{name}.key")),
            certificate: file(format!("{name}.pem")),
            authority: file("cluster-ca.pem".to_owned()),
        }
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let mut lines = vec![format!("-----BEGIN {label}-----")];
    lines.extend(text.as_bytes().chunks(PEM_WIDTH).map(|line| String::from_utf8_lossy(line).into_owned()));
    lines.push(format!("-----END {label}-----\n"));
    lines.join("\n")
}

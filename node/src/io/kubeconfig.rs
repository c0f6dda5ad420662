//! `kubebus kubeconfig`: all that kubectl needs, in one file.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bus::{Identity, Name, NodeId, NodeKind};
use clap::Args;
use controller::io::ca::server_name;
use controller::io::secret_file::{self, Reserved};
use controller::role::Role;
use data_encoding::BASE64;
use serde_json::{Value, json};

use super::cli::Place;
use super::commands::{read_config, say};
use super::issue::Issued;
use super::upstream::parse_endpoints;
use super::user::register;
use crate::config::Config;

/// Issue a certificate and write a kubeconfig with it; at the cloud
///
/// kubebus kubeconfig --out cloud.yaml; kubectl --kubeconfig cloud.yaml get devices
#[derive(Debug, Args)]
pub struct KubeconfigArgs {
    /// Who it is for
    #[arg(long, default_value = "admin")]
    pub user: Name,
    /// What he may do: admin, operator, viewer, mapper or app (docs/roles.md)
    #[arg(long, default_value = "admin")]
    pub role: Role,
    /// How long the certificate holds
    #[arg(long = "for", value_name = "TIME", default_value = "90d", value_parser = humantime::parse_duration)]
    pub lasting: Duration,
    /// Where the API is asked, https://HOST:PORT; the cloud's own api.listen if not given
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// The server is this edge, not the cloud
    #[arg(long, value_name = "NAME", requires = "server")]
    pub edge: Option<Name>,
    /// Who signed the server's certificate, where api.certificate names one of your own: a file in PEM
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The file to write, mode 0600; standard output if not given
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Issue another certificate to a user who has one, in place of it
    #[arg(long)]
    pub replace: bool,
    #[command(flatten)]
    pub place: Place,
}

pub(super) async fn run(args: KubeconfigArgs) -> Result<()> {
    let config = read_config(&args.place)?;
    let server = match &args.server {
        Some(server) => checked(server)?,
        None => default_server(&config)?,
    };
    let own = args.ca.as_deref().map(std::fs::read_to_string).transpose().context("--ca")?;
    // Before anybody is let in, or has his certificate replaced, by a file that then cannot be written.
    let file = args.out.as_deref().map(reserve).transpose()?;
    let who = NodeId { kind: NodeKind::User, name: args.user.clone() };
    let issued = register(&who, args.role, args.lasting, args.replace, &args.place).await?;
    let trust = match (own, &config.api.certificate, &args.edge) {
        (Some(authority), ..) => Trust::Authority { authority, name: None },
        (None, Some(_), None) => Trust::Machine,
        (None, ..) => Trust::cluster(&issued, args.edge),
    };
    let text = render(&issued, &server, &trust)?;
    match args.out.as_deref().zip(file) {
        None => say(text.trim_end()),
        Some((out, file)) => {
            file.fill(text.as_bytes()).with_context(|| out.display().to_string())?;
            tell(out, &issued, args.role)
        }
    }
}

/// By what a client knows the server.
enum Trust {
    Authority {
        authority: String,
        /// What the certificate says, whatever the server is called.
        name: Option<String>,
    },
    /// By the authorities that its machine trusts.
    Machine,
}

impl Trust {
    fn cluster(issued: &Issued, edge: Option<Name>) -> Self {
        let node = edge.map_or_else(|| issued.cloud.node.clone(), NodeId::edge);
        let server = Identity { cluster: issued.cloud.cluster.clone(), node };
        Self::Authority { authority: issued.authority.clone(), name: server_name(&server) }
    }
}

fn checked(server: &str) -> Result<String> {
    match server.strip_prefix("https://") {
        Some(host) if !host.is_empty() => Ok(server.trim_end_matches('/').to_owned()),
        _ => bail!("--server: '{server}' is no https://HOST:PORT"),
    }
}

/// Where the cloud listens, by the name that edges dial it by if that is any address.
fn default_server(config: &Config) -> Result<String> {
    let Some(address) = config.api.listen.first() else {
        bail!(
            "api.listen is empty, so the API is not served: write 'api: {{listen: [\"0.0.0.0:10443\"]}}' into the \
             configuration and start the cloud again, or name a --server"
        );
    };
    if !address.ip().is_unspecified() {
        return Ok(format!("https://{address}"));
    }
    let endpoints = parse_endpoints(&config.cloud.endpoints).unwrap_or_default();
    let host = endpoints.into_iter().next().map_or_else(|| "127.0.0.1".to_owned(), |(host, _)| host);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Ok(format!("https://{host}:{}", address.port()))
}

fn render(issued: &Issued, server: &str, trust: &Trust) -> Result<String> {
    let cluster = issued.cloud.cluster.as_str();
    let user = format!("{}@{cluster}", issued.identity.node.name);
    let mut place = json!({ "server": server });
    if let Trust::Authority { authority, name } = trust {
        place["certificate-authority-data"] = data(authority);
        name.iter().for_each(|name| place["tls-server-name"] = json!(name));
    }
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": cluster, "cluster": place }],
        "users": [{ "name": user, "user": {
            "client-certificate-data": data(&issued.certificate), "client-key-data": data(&issued.key),
        } }],
        "contexts": [{ "name": user, "context": { "cluster": cluster, "user": user } }],
        "current-context": user,
    });
    serde_saphyr::to_string(&config).context("write YAML")
}

fn data(pem: &str) -> Value {
    Value::from(BASE64.encode(pem.as_bytes()))
}

fn reserve(out: &Path) -> Result<Reserved> {
    match secret_file::reserve(out) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} is there: move it away, or name another file with --out", out.display())
        }
        reserved => reserved.with_context(|| out.display().to_string()),
    }
}

fn tell(out: &Path, issued: &Issued, role: Role) -> Result<()> {
    say(&format!(
        "{}: {} as {role}, valid until {}\ntry: kubectl --kubeconfig {} get devices -A",
        out.display(),
        issued.identity,
        issued.until(),
        out.display()
    ))
}

//! `kubebus page`: a link by which a browser gets in.

use anyhow::{Result, bail};
use clap::Args;
use controller::role::Role;
use serde_json::{Value, json};

use super::cli::Place;
use super::commands::{post, say, text};

/// Print a one-time link to the web page of this node, good for five minutes
///
/// Whoever opens it first is logged in for twelve hours, or until the node starts again. A browser that has a user's
/// certificate needs no link.
#[derive(Debug, Args)]
pub struct PageArgs {
    /// What may be done there: viewer, operator or admin
    #[arg(long, default_value = "viewer")]
    pub role: Role,
    /// How the browser reaches this node, https://HOST:PORT; where it listens if not given
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    #[command(flatten)]
    pub place: Place,
}

pub(super) async fn run(args: PageArgs) -> Result<()> {
    let order = json!({ "role": args.role.as_str() });
    let link = post(&args.place, "/kubebus/v1/page/links", &order).await?;
    let server = match (args.server, link["servers"].get(0).and_then(Value::as_str)) {
        (Some(server), _) => server.trim_end_matches('/').to_owned(),
        (None, Some(server)) => server.to_owned(),
        (None, None) => bail!(
            "this node serves no page: write 'api: {{listen: [\"127.0.0.1:10443\"]}}' into its configuration and start it \
             again, or name a --server"
        ),
    };
    say(&format!("{server}{}", text(&link["path"])))
}

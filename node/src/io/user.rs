//! `kubebus user`: who is let in over HTTPS, and as what.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use bus::{Name, NodeId, NodeKind};
use clap::{Args, Subcommand};
use controller::role::Role;
use hyper::Method;
use serde_json::{Value, json};

use super::cli::{AskArgs, Place};
use super::commands::{call, fetch, read_config, say, show, text};
use super::issue::{Issued, issue};
use super::mqtt::certificate;
use super::table::{rows, table, time};
use crate::users::{UserOrder, shown_key};

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Issue a certificate and let its holder in; at the cloud
    ///
    /// kubebus user add alice --role operator --out alice writes key, certificate and the authority's certificate into the
    /// directory. The cloud keeps no copy of the key. For kubectl use 'kubebus kubeconfig' instead, which does the same and
    /// writes one file.
    Add(AddArgs),
    /// List users: their roles, when their certificates end, who was revoked
    List {
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Give a user another role, from his next request on
    Role {
        name: Name,
        /// admin, operator, viewer, mapper or app
        role: Role,
        #[command(flatten)]
        place: Place,
    },
    /// Let a user in no more, here and at all edges; connections that he has end
    Revoke {
        name: Name,
        #[command(flatten)]
        place: Place,
    },
    /// Forget a user; a certificate that he may still have lets nobody in
    Remove {
        name: Name,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
pub struct AddArgs {
    pub name: Name,
    /// admin, operator, viewer, mapper or app: see docs/roles.md
    #[arg(long)]
    pub role: Role,
    /// How long the certificate holds
    #[arg(long = "for", value_name = "TIME", default_value = "90d", value_parser = humantime::parse_duration)]
    pub lasting: Duration,
    /// The directory to write into
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
    /// Issue another certificate to a user who has one, in place of it
    #[arg(long)]
    pub replace: bool,
    #[command(flatten)]
    pub place: Place,
}

pub(super) async fn carry_out(command: UserCommand) -> Result<()> {
    match command {
        UserCommand::Add(args) => add(args).await,
        UserCommand::List { ask } => show(&fetch(&ask.place, "/kubebus/v1/users").await?, ask.output, listed),
        UserCommand::Role { name, role, place } => {
            let path = format!("/kubebus/v1/users/{name}/role");
            call(&place, Method::PUT, &path, Some(&json!({ "role": role.as_str() }))).await?;
            say(&format!("user {name} is {role}"))
        }
        UserCommand::Revoke { name, place } => {
            call(&place, Method::POST, &format!("/kubebus/v1/users/{name}/revoke"), None).await?;
            say(&format!("user {name} revoked"))
        }
        UserCommand::Remove { name, place } => {
            call(&place, Method::DELETE, &format!("/kubebus/v1/users/{name}"), None).await?;
            say(&format!("user {name} removed"))
        }
    }
}

async fn add(args: AddArgs) -> Result<()> {
    let AddArgs { name, role, lasting, out, replace, place } = args;
    let who = NodeId { kind: NodeKind::User, name };
    let key = certificate::reserve(&who, &out)?;
    let issued = register(&who, role, lasting, replace, &place).await?;
    certificate::write(&issued, key, &out)?;
    say(&format!("{}\nrole         {role}", certificate::describe(&issued, &out)))
}

/// Issues a certificate, and tells the cloud whose it is. In this order, so that what the cloud refuses is written nowhere.
pub(super) async fn register(
    who: &NodeId,
    role: Role,
    lasting: Duration,
    replace: bool,
    place: &Place,
) -> Result<Issued> {
    let config = read_config(place)?;
    let issued = issue(who, lasting, place.data_dir(&config))?;
    let order = UserOrder {
        role: role.to_string(),
        key: shown_key(&issued.key_hash),
        not_after_ms: issued.not_after.0,
        replace,
    };
    let path = format!("/kubebus/v1/users/{}", who.name);
    call(place, Method::PUT, &path, Some(&serde_json::to_value(order)?)).await?;
    Ok(issued)
}

fn listed(users: &Value) -> String {
    let row = |user: &Value| {
        let state = match user["revoked"].is_null() {
            true => "let in".to_owned(),
            false => format!("revoked {}", time(&user["revoked"])),
        };
        vec![text(&user["name"]), text(&user["role"]), time(&user["not_after"]), state]
    };
    table(&["NAME", "ROLE", "CERTIFICATE ENDS", "STATE"], &rows(users, row))
}

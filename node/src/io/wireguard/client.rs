//! `kubebus wireguard`: the client's side of an invitation is made here, so that its private key never leaves this process
//! but in the configuration that is printed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bus::{Name, NodeId, WireguardKey};
use clap::{Args, Subcommand};
use controller::io::secret_file;
use hyper::Method;
use router::io::wireguard::{CLIENT_MTU, PrivateKey, preshared_key};
use serde_json::{Value, json};

use super::qr;
use crate::io::cli::{AskArgs, Format, Place};
use crate::io::commands::{call, fetch, post, say, show};
use crate::io::table;

/// How often a client that is silent says something: NATs forget a UDP flow after 30 s at the earliest.
const KEEPALIVE_S: u16 = 25;

#[derive(Debug, Subcommand)]
pub enum WireguardCommand {
    /// Let a client in, and print its configuration and a QR code of it; at the cloud
    ///
    /// Its private key is made here, printed once, and kept nowhere. The configuration goes to standard output, the QR
    /// code, which phones scan, to standard error. It reaches nobody outside its site until an AccessPolicy says so.
    Add(AddArgs),
    /// List clients: at their gateway with how their tunnels are, at the cloud all of them
    List {
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Let a client in no more; its traffic ends at once
    Remove {
        name: Name,
        #[command(flatten)]
        place: Place,
    },
    /// Give a client other keys, and print its new configuration; the old one lets nobody in any more
    ///
    /// The same prints what the client may reach as things are now, in AllowedIPs.
    Rotate(RotateArgs),
}

#[derive(Debug, Args)]
pub struct AddArgs {
    /// The client's name, as policies call it: node: NAME
    pub name: Name,
    /// The site that it is in, and all of which it may reach; one of its own if not given
    #[arg(long)]
    pub site: Option<Name>,
    /// The node that it comes in by, edge/NAME or cloud/NAME; the cloud, or the only gateway, if not given
    #[arg(long, value_name = "NODE")]
    pub gateway: Option<NodeId>,
    #[command(flatten)]
    pub invite: InviteArgs,
}

#[derive(Debug, Args)]
pub struct RotateArgs {
    pub name: Name,
    #[command(flatten)]
    pub invite: InviteArgs,
}

#[derive(Debug, Args)]
pub struct InviteArgs {
    /// The client's public key, if it keeps its private key to itself
    #[arg(long, value_name = "KEY")]
    pub public_key: Option<WireguardKey>,
    /// Write the configuration into this file, which only its owner may read, instead of printing it
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub ask: AskArgs,
}

pub(in crate::io) async fn carry_out(command: WireguardCommand) -> Result<()> {
    match command {
        WireguardCommand::Add(AddArgs { name, site, gateway, invite }) => {
            let keys = Keys::of(&invite)?;
            let body = json!({
                "name": name, "site": site, "gateway": gateway.map(|node| node.to_string()),
                "public_key": keys.public, "preshared_key": keys.preshared,
            });
            let answer = post(&invite.ask.place, "/kubebus/v1/wireguard", &body).await?;
            hand_over(answer, &keys, &invite)
        }
        WireguardCommand::Rotate(RotateArgs { name, invite }) => {
            let keys = Keys::of(&invite)?;
            let body = json!({ "public_key": keys.public, "preshared_key": keys.preshared });
            let path = format!("/kubebus/v1/wireguard/{name}/keys");
            let answer = call(&invite.ask.place, Method::PUT, &path, Some(&body)).await?;
            hand_over(answer, &keys, &invite)
        }
        WireguardCommand::Remove { name, place } => {
            call(&place, Method::DELETE, &format!("/kubebus/v1/wireguard/{name}"), None).await?;
            say(&format!("{name} is let in no more"))
        }
        WireguardCommand::List { ask } => {
            show(&fetch(&ask.place, "/kubebus/v1/wireguard").await?, ask.output, table::wireguard)
        }
    }
}

struct Keys {
    /// Not known where the client keeps it to itself.
    private: Option<PrivateKey>,
    public: WireguardKey,
    preshared: WireguardKey,
}

impl Keys {
    /// Looks at the file first: a client that is let in and whose key could not be written would be of no use.
    fn of(invite: &InviteArgs) -> Result<Self> {
        if let Some(file) = invite.out.as_deref().filter(|file| file.exists()) {
            bail!("{} is there already: choose another file", file.display());
        }
        let preshared = preshared_key();
        if let Some(public) = invite.public_key {
            return Ok(Self { private: None, public, preshared });
        }
        let private = PrivateKey::generate();
        Ok(Self { public: private.public(), private: Some(private), preshared })
    }
}

fn hand_over(mut answer: Value, keys: &Keys, InviteArgs { out, ask, .. }: &InviteArgs) -> Result<()> {
    let config = config(&answer, keys.private.as_ref());
    match out {
        Some(file) => {
            let written =
                std::path::absolute(file).and_then(|at| secret_file::create(&at, config.as_bytes()));
            written.with_context(|| lost(file, &answer))?;
        }
        None => answer["config"] = json!(config),
    }
    match (ask.output, out) {
        (Format::Name, Some(_)) => return show(&answer, ask.output, table::any),
        (Format::Table | Format::Wide, Some(file)) => {
            say(&format!("{}: for its owner's eyes alone", file.display()))?
        }
        (Format::Table | Format::Wide | Format::Name, None) => say(config.trim_end())?,
        (format @ (Format::Json | Format::Yaml), _) => return show(&answer, format, table::any),
    }
    // The key is in it: for eyes, and neither beside the file that it went to nor in the log of a job.
    if keys.private.is_some() && out.is_none() && rustix::termios::isatty(std::io::stderr()) {
        match qr::code(&config, true) {
            Some(code) => eprintln!("{code}"),
            None => eprintln!("the configuration is too long for a QR code: its AllowedIPs are many"),
        }
    }
    Ok(())
}

fn lost(file: &Path, answer: &Value) -> String {
    format!(
        "cannot write {}, and the key is lost with it: make another with 'kubebus wireguard rotate {}'",
        file.display(),
        table::cell(&answer["name"])
    )
}

/// In the words of wg-quick(8), which all clients read.
fn config(answer: &Value, private: Option<&PrivateKey>) -> String {
    let of = |key: &str| table::cell(&answer[key]);
    let nets = |key: &str, length: fn(&str) -> &'static str| -> String {
        let nets = answer[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        nets.map(|net| format!("{net}{}", length(net))).collect::<Vec<_>>().join(", ")
    };
    let alone: fn(&str) -> &'static str = |address| if address.contains(':') { "/128" } else { "/32" };
    let private = private.map_or_else(
        || "# PrivateKey = the one that belongs to the public key that you gave".to_owned(),
        |key| format!("PrivateKey = {}", key.to_base64()),
    );
    let mut text = format!("# {} at cluster {}, by {}\n", of("name"), of("cluster"), of("gateway"));
    // Writing into a String does not fail.
    let _ = write!(
        text,
        "[Interface]\n{private}\nAddress = {}\nMTU = {CLIENT_MTU}\n\n[Peer]\nPublicKey = {}\nPresharedKey = {}\n\
         Endpoint = {}\nAllowedIPs = {}\nPersistentKeepalive = {KEEPALIVE_S}\n",
        nets("addresses", alone),
        of("gateway_key"),
        of("preshared_key"),
        of("gateway_endpoint"),
        nets("allowed_ips", |_| ""),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVATE: &str = "SGb+ojrRNDuMePufwtIYhXzA//k6wF3R21tEBgKlzlM=";

    fn answer() -> Value {
        json!({
            "name": "phone", "cluster": "water", "gateway": "cloud/hq", "addresses": ["10.86.32.1", "fd00::1:0:1"],
            "gateway_key": "DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=", "preshared_key": "cHNr",
            "gateway_endpoint": "vpn.example.org:51820",
            "allowed_ips": ["10.86.0.0/16", "192.168.10.0/24", "fd00::/48"],
        })
    }

    #[test]
    fn a_configuration_is_what_stock_clients_read() {
        let key = PrivateKey::from_base64(PRIVATE).unwrap();
        let want = format!(
            "\
# phone at cluster water, by cloud/hq
[Interface]
PrivateKey = {PRIVATE}
Address = 10.86.32.1/32, fd00::1:0:1/128
MTU = 1280

[Peer]
PublicKey = DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=
PresharedKey = cHNr
Endpoint = vpn.example.org:51820
AllowedIPs = 10.86.0.0/16, 192.168.10.0/24, fd00::/48
PersistentKeepalive = 25
"
        );
        assert_eq!(config(&answer(), Some(&key)), want);
        assert!(qr::code(&want, false).is_some());
        assert!(!config(&answer(), None).contains("\nPrivateKey"));
    }

    #[test]
    fn the_public_key_is_the_private_keys() {
        let key = PrivateKey::from_base64(PRIVATE).unwrap();
        assert_eq!(key.public().to_string(), "DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=");
    }
}

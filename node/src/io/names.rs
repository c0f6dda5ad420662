//! `kubebus dns`: names of machines on LANs.

use std::net::IpAddr;

use anyhow::Result;
use bus::Name;
use clap::Subcommand;
use serde_json::{Value, json};

use super::cli::Place;
use super::commands::{post, say, text};
use super::table::{cell, rows, table};

#[derive(Debug, Subcommand)]
pub enum DnsCommand {
    /// Name a machine on a LAN of a site: <HOST>.<SITE>.<cluster>.kb.internal; at the cloud
    ///
    /// What the host was given before is replaced. List hosts with 'kubebus get hosts', remove one with
    /// 'kubebus delete host SITE/HOST'.
    Set {
        /// The machine's name
        host: Name,
        /// The site that it is at
        site: Name,
        /// Its addresses as the site itself has them, also if the site is known by virtual ones
        #[arg(required = true)]
        addresses: Vec<IpAddr>,
        #[command(flatten)]
        place: Place,
    },
}

pub(super) async fn carry_out(command: DnsCommand) -> Result<()> {
    let DnsCommand::Set { host, site, addresses, place } = command;
    let manifest = json!({
        "apiVersion": "kubebus.io/v1alpha1", "kind": "Host",
        "metadata": { "namespace": site, "name": host }, "spec": { "addresses": addresses },
    });
    let answer = post(&place, "/kubebus/v1/resources", &manifest).await?;
    let placement = answer["placement"].as_str().map(|p| format!(" ({p})")).unwrap_or_default();
    say(&format!(
        "{} {} {}{placement}",
        text(&answer["kind"]),
        text(&answer["name"]),
        text(&answer["applied"])
    ))
}

pub(super) fn hosts(list: &Value) -> String {
    let row = |host: &Value| {
        let [site, name] = ["namespace", "name"].map(|field| cell(&host["metadata"][field]));
        vec![name, site, cell(&host["spec"]["addresses"])]
    };
    table(&["HOST", "SITE", "ADDRESSES"], &rows(list, row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_read_as_a_table() {
        let list = json!([{ "metadata": { "namespace": "plant-b", "name": "plc-3" },
                            "spec": { "addresses": ["192.168.10.20", "fd12::20"] } }]);
        let expected = "\
HOST    SITE      ADDRESSES
plc-3   plant-b   192.168.10.20,fd12::20";
        assert_eq!(hosts(&list), expected);
    }
}

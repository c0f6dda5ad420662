//! `kubebus debug`: whether a machine is fit, what is wrong with a node, and all of it in one file for whoever helps.

mod certificate;
mod check;
mod collect;
pub(super) mod dials;
pub(super) mod examiner;
mod facts;
mod far;
mod hosts;
mod known;
mod machine;
mod mqtt;
mod probe;
mod progress;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use self::progress::Progress;
use super::cli::{AskArgs, Place};
use super::commands::{read_config, show};
use super::exit::Exit;
use super::table::{cell, rows, table};
use crate::diagnose::check::{Grade, judge};
use crate::diagnose::{diagnose, ends};

#[derive(Debug, Subcommand)]
pub enum DebugCommand {
    /// Whether this machine is fit to be a node, before it joins or while it runs; exits with 10 if it is not
    ///
    /// Kernel, TUN, privileges, ports, UDP buffers, disk and how long it takes to flush, memory, clock, DNS, the
    /// configuration file, the data directory. Each line says what was found, why it matters, and what to do.
    Check(CheckArgs),
    /// Name the culprit for a node, a link or a device that does not work; exits with 10 if there is one
    ///
    /// Asks the node if it runs, reads what it met last, and knocks at the cloud's door: name, host, port, large packets,
    /// certificate. Works without the cloud, and while the node is down. Takes at most 15 seconds. Of an edge that is named
    /// at the cloud, the edge itself is asked too, over its link; an edge asks its cloud what that sees of it.
    Diagnose(DiagnoseArgs),
    /// Write one archive of all that helps somebody to help, without secrets
    ///
    /// Status, fleet, metrics, configuration, versions, findings, the end of the log, and facts of kernel and network.
    /// Keys, passwords and tokens are taken out; look at it before you send it.
    Collect(CollectArgs),
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// What the machine is to be; taken from the data directory if that holds an identity
    #[arg(long = "for", value_name = "ROLE", value_enum)]
    pub role: Option<RoleArg>,
    /// The cloud that it is to join, host or host:port: its name is looked up
    #[arg(long, value_name = "HOST")]
    pub cloud: Option<String>,
    /// Not this machine, but that edge's, which is asked over its link; at the cloud
    #[arg(long, value_name = "EDGE", conflicts_with_all = ["role", "cloud"])]
    pub node: Option<String>,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    Cloud,
    Edge,
}

#[derive(Debug, Args)]
pub struct DiagnoseArgs {
    /// An edge, asked for at the cloud, or a device (namespace/name); all that this node knows if not given
    #[arg(value_name = "NODE|DEVICE")]
    pub about: Option<String>,
    /// An edge, at the cloud: the same as its name alone
    #[arg(long, value_name = "EDGE", conflicts_with = "about")]
    pub node: Option<String>,
    /// Also why this node does not reach that one over the overlay: a node's name, or an address
    #[arg(long, value_name = "NODE|ADDRESS")]
    pub to: Option<String>,
    /// Not this node, but that one does not reach it; ask at the cloud, whose policies decide
    #[arg(long, value_name = "NODE|ADDRESS", requires = "to")]
    pub from: Option<String>,
    /// tcp, udp, icmp, or a number of IANA's
    #[arg(long, requires = "to")]
    pub protocol: Option<String>,
    /// The port there
    #[arg(long, requires = "protocol")]
    pub port: Option<u16>,
    #[command(flatten)]
    pub ask: AskArgs,
}

impl DiagnoseArgs {
    /// All that this node knows.
    fn of(ask: AskArgs) -> Self {
        Self { about: None, node: None, to: None, from: None, protocol: None, port: None, ask }
    }
}

#[derive(Debug, Args)]
pub struct CollectArgs {
    /// Where to; '-' for standard output. kubebus-<node>-<time>.tar.gz if not given
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The node's log, if it goes to a file; found by itself where the running node writes to one, or to the journal
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    #[command(flatten)]
    pub place: Place,
}

/// With a runtime that does not wait for lookups that hang.
pub(super) fn run(command: DebugCommand) -> Result<Exit> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let done = runtime.block_on(async {
        match command {
            DebugCommand::Check(args) => check(args).await,
            DebugCommand::Diagnose(args) => find(args).await,
            DebugCommand::Collect(args) => collect::run(&args).await,
        }
    });
    runtime.shutdown_background();
    done
}

async fn check(args: CheckArgs) -> Result<Exit> {
    let progress = Progress::new();
    if let Some(node) = &args.node {
        return progress.watch(far::check(node, &args.ask, &progress)).await;
    }
    let machine = progress.watch(check::measure(&args, &progress)).await?;
    let lines = judge(&machine);
    let worst = lines.iter().map(|line| line.grade).max();
    let document = json!({ "fit": worst != Some(Grade::Fail), "checks": lines, "measured": machine });
    show(&document, args.ask.output, checks)?;
    Ok(if worst == Some(Grade::Fail) { Exit::Faulty } else { Exit::Ok })
}

fn checks(document: &Value) -> String {
    let row = |line: &Value| {
        let advice = match line["advice"].as_str().unwrap_or_default() {
            "" => String::new(),
            advice => format!("{}; {advice}", cell(&line["why"])),
        };
        vec![cell(&line["grade"]), cell(&line["check"]), cell(&line["found"]), advice]
    };
    table(&["", "CHECK", "FOUND", "WHY AND WHAT TO DO"], &rows(&document["checks"], row))
}

async fn find(mut args: DiagnoseArgs) -> Result<Exit> {
    args.about = args.about.take().or(args.node.take());
    // A broken configuration is a finding of `check`; the node would not run with it.
    let config = read_config(&args.ask.place)?;
    let progress = Progress::new();
    let gathered = progress.watch(facts::gather(&args, &config, &progress)).await?;
    let findings = diagnose(&gathered);
    let document = json!({
        "healthy": findings.is_empty(), "findings": findings, "ends": ends(&gathered), "facts": gathered,
    });
    show(&document, args.ask.output, told)?;
    Ok(if findings.is_empty() { Exit::Ok } else { Exit::Faulty })
}

/// For people: findings, the culprit first, then the link from both ends, and what the other end says besides.
fn told(document: &Value) -> String {
    let parts =
        [findings(document), far::checks_that_fail(document), both_ends(document), far::seen(document)];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n\n")
}

fn findings(document: &Value) -> String {
    let findings = document["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let me = cell(&document["facts"]["identity"]["name"]);
    if findings.is_empty() {
        let from = if far::has_answered(document) { "at either end" } else { "from here" };
        return format!("{me}: nothing wrong that can be seen {from}");
    }
    let one = |(number, finding): (usize, &Value)| {
        let evidence = finding["evidence"].as_array().into_iter().flatten();
        let evidence: String = evidence.map(|line| format!("\n   {}", cell(line))).collect();
        let elsewhere = finding["node"].as_str().filter(|node| !me.ends_with(&format!("/{node}")));
        let elsewhere = elsewhere.map(|node| format!(", found at {node}")).unwrap_or_default();
        format!(
            "{}. {} ({}, {}): {}{elsewhere}{evidence}\n   -> {}",
            number + 1,
            cell(&finding["says"]),
            cell(&finding["cause"]),
            cell(&finding["certainty"]),
            cell(&finding["about"]),
            cell(&finding["advice"]),
        )
    };
    findings.iter().enumerate().map(one).collect::<Vec<_>>().join("\n\n")
}

/// Empty where the other end was not heard.
fn both_ends(document: &Value) -> String {
    let one = |end: &Value| {
        let number = |field: &str, unit: &str| {
            end[field].as_f64().map_or_else(|| "-".to_owned(), |number| format!("{number:.1} {unit}"))
        };
        vec![
            cell(&end["from"]),
            cell(&end["lane"]),
            number("rtt_ms", "ms"),
            number("loss_percent", "%"),
            cell(&end["mtu"]),
            number("message_ms", "ms"),
            end["kbit_per_s"].as_u64().map_or_else(|| "-".to_owned(), |kbit| format!("{kbit} kbit/s")),
        ]
    };
    let rows = rows(&document["ends"], one);
    if rows.is_empty() {
        return String::new();
    }
    table(&["MEASURED AT", "LANE", "RTT", "LOST OF SENT", "MTU", "MESSAGE", "8 KIB WENT AT"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::{Facts, Identity};

    #[test]
    fn findings_read_as_a_list_with_the_culprit_first() {
        let facts = Facts {
            identity: Identity { data_dir: "/var/lib/kubebus".into(), ..Identity::default() },
            ..Facts::default()
        };
        let document = json!({ "findings": diagnose(&facts), "facts": facts });
        let expected = "\
1. this machine has not joined a cluster (not-joined, certain): /var/lib/kubebus
   /var/lib/kubebus holds no identity
   -> join with 'kubebus join <cloud> --token <token>', or name the node's --data-dir";
        assert_eq!(told(&document), expected);
    }
}

//! `kubebus audit`.

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::super::cli::{AskArgs, Moment, parse_moment};
use super::super::commands::{fetch, show};
use super::super::table::{cell, rows, table, time};

/// Who changed what at this node, when, from where, and what came of it
///
/// What becomes of a desired value at its device is in 'kubebus twin audit'. Refused strangers are counted.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// From then on: how long ago ('2h'), or a time ('2026-11-28T10:00:00Z')
    #[arg(long, value_parser = parse_moment)]
    pub since: Option<Moment>,
    /// Only what this user did: alice, or mapper/pump
    #[arg(long, value_name = "NAME")]
    pub who: Option<String>,
    /// The newest so many
    #[arg(long, default_value_t = 200)]
    pub limit: usize,
    #[command(flatten)]
    pub ask: AskArgs,
}

pub(in crate::io) async fn run(args: AuditArgs) -> Result<()> {
    let AuditArgs { since, who, limit, ask } = args;
    let since = since.map_or(0, |Moment(since)| since);
    let who = who.map(|who| format!("&who={who}")).unwrap_or_default();
    let path = format!("/kubebus/v1/audit-log?since={since}&limit={limit}{who}");
    show(&fetch(&ask.place, &path).await?, ask.output, listed)
}

fn listed(lines: &Value) -> String {
    let row = |line: &Value| {
        let counted = |name: &str, what: &str| {
            line[name].as_u64().filter(|count| *count > 0).map(|count| format!("{count} {what}"))
        };
        if line["who"].is_null() {
            let counts = [
                counted("strangers", "strangers turned away"),
                counted("refused", "more refusals"),
                counted("lost", "mutations that the disk did not take"),
            ];
            let told = counts.into_iter().flatten().collect::<Vec<_>>().join(", ");
            return vec![time(&line["time"]), "-".into(), cell(&line["last_from"]), told, "-".into()];
        }
        let what = match line["detail"].as_str() {
            Some(detail) => format!("{} {detail}", cell(&line["what"])),
            None => cell(&line["what"]),
        };
        let outcome = match line["why"].as_str() {
            Some(why) => format!("{} {why}", cell(&line["status"])),
            None => cell(&line["status"]),
        };
        let who = format!("{} ({})", cell(&line["who"]), cell(&line["role"]));
        vec![time(&line["time"]), who, cell(&line["from"]), what, outcome]
    };
    table(&["TIME", "WHO", "FROM", "WHAT", "OUTCOME"], &rows(lines, row))
}

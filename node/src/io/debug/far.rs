//! Another node, asked over its link by way of the node here: an edge by its cloud.

use std::time::Duration;

use anyhow::{Result, anyhow};
use controller::api::object::timestamp;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::checks;
use super::progress::Progress;
use crate::checkup::asking::DEADLINE;
use crate::checkup::{Examined, Outcome, Seen};
use crate::io::admin::{AskError, ask};
use crate::io::cli::AskArgs;
use crate::io::commands::{read_config, show};
use crate::io::exit::Exit;
use crate::io::table::{cell, printable, rows, table};

/// The cloud waits for the edge, and then says so.
const PATIENCE: Duration = DEADLINE.saturating_add(Duration::from_secs(2));

/// What an edge found at itself, asked by the cloud whose data directory that is.
pub(super) async fn examine(data_dir: &std::path::Path, edge: &str) -> Result<Examined, AskError> {
    let path = format!("/kubebus/v1/nodes/{edge}/checks");
    let asked = timeout(PATIENCE, ask(data_dir, Method::POST, &path, None)).await;
    let refused = |message: String| AskError::Refused { status: 503, message, faults: Vec::new() };
    let text = asked.unwrap_or_else(|_| Err(refused(format!("no answer within {PATIENCE:?}"))))?;
    let read = serde_json::from_str(&text);
    read.map_err(|why| refused(format!("the cloud's answer cannot be read ({why}): it runs another version")))
}

/// `kubebus debug check --node`.
pub(super) async fn check(node: &str, args: &AskArgs, progress: &Progress) -> Result<Exit> {
    let edge = node.strip_prefix("edge/").unwrap_or(node);
    let config = read_config(&args.place)?;
    progress.at("the other node");
    let examined = examine(args.place.data_dir(&config), edge).await?;
    let Outcome::Answered(report) = &examined.outcome else {
        return Err(anyhow!("{}: {}", examined.node, why(&examined.outcome)));
    };
    let is_fit = report.checks.iter().all(|line| line.grade != "fail");
    let document = json!({
        "fit": is_fit, "node": examined.node, "version": report.version, "checks": report.checks,
    });
    show(&document, args.output, checks)?;
    Ok(if is_fit { Exit::Ok } else { Exit::Faulty })
}

/// Why there is no answer, and what to do.
fn why(outcome: &Outcome) -> String {
    let there = "run 'kubebus debug check' on that machine";
    match outcome {
        Outcome::Answered(_) => String::new(),
        Outcome::NotConnected => format!("it is not connected, so it cannot be asked; {there}"),
        Outcome::Cannot => format!("it runs a version from before it could be asked; {there}, or upgrade it"),
        Outcome::Silent => format!("it is connected, and did not answer within {DEADLINE:?}; {there}"),
        Outcome::LinkEnded => format!("its link ended while it was asked; {there}"),
        Outcome::Refused(why) => why.to_string(),
        Outcome::Full => {
            "this cloud asks as many edges as it may at a time: ask again in a few seconds".to_owned()
        }
    }
}

fn report(document: &Value) -> &Value {
    &document["facts"]["far"]["outcome"]["answered"]
}

/// Whether both ends were heard.
pub(super) fn has_answered(document: &Value) -> bool {
    !report(document).is_null() || document["facts"]["looked"]["answer"] == "heard"
}

/// At an edge: what its cloud sees of it, or saw last.
pub(super) fn seen(document: &Value) -> String {
    let looked = &document["facts"]["looked"];
    let Ok(seen) = Seen::deserialize(&looked["seen"]) else { return String::new() };
    let cloud = cell(&document["facts"]["upstream"]["cloud"]);
    let head = match (looked["answer"] == "heard", looked["heard_ms_ago"].as_u64()) {
        (true, _) | (_, None) => format!("{cloud} sees of this edge:"),
        (false, Some(ms)) => {
            let ago = humantime::format_duration(Duration::from_secs(ms / 1000));
            format!("{cloud} said last of this edge, {ago} ago:")
        }
    };
    let clock = seen.clock_offset_ms.map(|offset| format!("this clock is {offset} ms ahead of its own"));
    let ends = seen.certificate_ends.map(|ends| format!("certificate ends {}", timestamp(ends)));
    let behind = seen.behind.map(|keys| format!("{keys} keys of metadata on their way"));
    let error = seen.last_error.map(|error| format!("heard last of trouble: {error}"));
    let lines = [ends, clock, behind, error].into_iter().flatten();
    let lines: String = lines.map(|line| format!("\n   {}", printable(&line))).collect();
    format!("{head}{lines}")
}

/// Lines of the other node's checks that are not well: what they say need not be what is wrong.
pub(super) fn checks_that_fail(document: &Value) -> String {
    let checks = Vec::<Value>::deserialize(&report(document)["checks"]).unwrap_or_default();
    let bad: Vec<Value> = checks.into_iter().filter(|line| line["grade"] != "ok").collect();
    if bad.is_empty() {
        return String::new();
    }
    let row = |line: &Value| {
        let advice = format!("{}; {}", cell(&line["why"]), cell(&line["advice"]));
        vec![cell(&line["grade"]), cell(&line["check"]), cell(&line["found"]), advice]
    };
    let at = format!("CHECK AT {}", cell(&document["facts"]["far"]["node"]).to_uppercase());
    table(&["", &at, "FOUND", "WHY AND WHAT TO DO"], &rows(&Value::Array(bad), row))
}

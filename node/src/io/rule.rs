//! `kubebus rule`: what rules do, and whether their log replays.

use std::path::Path;

use anyhow::{Result, bail};
use device_twin::rule::{Replay, What, replay};

use super::cli::RuleCommand;
use super::commands::{Usage, fetch, say, show, text};
use super::table;

pub(super) async fn carry_out(command: RuleCommand) -> Result<()> {
    match command {
        RuleCommand::List { ask } => {
            show(&fetch(&ask.place, "/kubebus/v1/rules").await?, ask.output, table::rules)
        }
        RuleCommand::Log { place } => {
            let lines = fetch(&place, "/kubebus/v1/rule-log").await?;
            lines.as_array().into_iter().flatten().try_for_each(|line| say(&text(line)))
        }
        RuleCommand::Replay { file } => replay_file(&file),
    }
}

fn replay_file(file: &Path) -> Result<()> {
    let read = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let log = read.map_err(|error| Usage(anyhow::Error::new(error).context(file.display().to_string())))?;
    let replayed = replay(log.lines().map(str::as_bytes));
    for finding in &replayed.findings {
        say(&format!("line {}: rule {}: {}", finding.line, finding.rule, words(finding.what)))?;
    }
    let Replay { lines, heads, evaluations, resets, divergences, gaps, unread, findings: _ } = &replayed;
    say(&format!(
        "{lines} lines: {evaluations} evaluations and {resets} resets of rules stated {heads} times; {divergences} \
         diverge, {gaps} gaps, {unread} not read"
    ))?;
    if replayed.is_faithful() { Ok(()) } else { bail!("the log does not replay to the same decisions") }
}

fn words(what: What) -> &'static str {
    match what {
        What::Decision => "another decision comes out",
        What::Memory => "the rule remembers something else afterwards",
        What::Reset => "its latches would not have opened",
        What::Document => "the document is not the one that the hash names",
        What::Altered => "the line is not as it was written",
        What::Gap => "lines are missing before it",
        What::Headless => "the rule itself is not in the log before it",
        What::Unreadable => "no line of a rule log, or torn",
    }
}

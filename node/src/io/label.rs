//! `kubebus label`: what access policies select sites and edges by.

use anyhow::Result;
use clap::Args;
use controller::label::Labelled;
use serde_json::{Value, json};

use super::cli::AskArgs;
use super::commands::{fetch, post, show};
use super::table::{cell, table};

#[derive(Debug, Args)]
pub struct LabelArgs {
    /// site/NAME or edge/NAME
    #[arg(value_name = "WHO")]
    pub of: Labelled,
    /// KEY=VALUE sets a label, KEY- removes it; without any, the labels are shown
    #[arg(value_parser = parse_change)]
    pub changes: Vec<LabelChange>,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelChange {
    Set(String, String),
    Remove(String),
}

fn parse_change(text: &str) -> Result<LabelChange, String> {
    match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) => Ok(LabelChange::Set(key.to_owned(), value.to_owned())),
        (None, Some(key)) => Ok(LabelChange::Remove(key.to_owned())),
        (None, None) => Err(format!("'{text}' changes nothing: write {text}=VALUE, or {text}- to remove it")),
    }
}

pub(super) async fn carry_out(LabelArgs { of, changes, ask }: LabelArgs) -> Result<()> {
    let path = format!("/kubebus/v1/labels/{of}");
    let answer = match changes.is_empty() {
        true => fetch(&ask.place, &path).await?,
        false => post(&ask.place, &path, &order(changes)).await?,
    };
    show(&answer, ask.output, labels)
}

fn order(changes: Vec<LabelChange>) -> Value {
    let mut order = json!({ "set": {}, "remove": [] });
    let mut removed = Vec::new();
    for change in changes {
        match change {
            LabelChange::Set(key, value) => order["set"][key] = json!(value),
            LabelChange::Remove(key) => removed.push(key),
        }
    }
    order["remove"] = json!(removed);
    order
}

fn labels(answer: &Value) -> String {
    let labels = answer["labels"].as_object().into_iter().flatten();
    let rows: Vec<_> = labels.map(|(key, value)| vec![key.clone(), cell(value)]).collect();
    table(&["LABEL", &cell(&answer["name"])], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_set_and_removed_as_in_kubectl() {
        let parsed = ["tier=pump", "zone-", "note="].map(|text| parse_change(text).unwrap());
        let expected = json!({ "set": { "tier": "pump", "note": "" }, "remove": ["zone"] });
        assert_eq!(order(parsed.to_vec()), expected);
        assert!(parse_change("tier").unwrap_err().contains("tier=VALUE"));
    }

    #[test]
    fn labels_read_as_a_table() {
        let answer = json!({ "name": "site/plant-a", "labels": { "tier": "pump", "zone": "north" } });
        let expected = "\
LABEL   site/plant-a
tier    pump
zone    north";
        assert_eq!(labels(&answer), expected);
    }
}

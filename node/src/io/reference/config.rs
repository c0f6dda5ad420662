//! The configuration file: its keys and their reasons from `config.rs`, its defaults from the program itself.

use std::fmt::Write;

use serde_json::Value;

use super::source::{Row, Types, rows};
use super::{cell, plain, read};
use crate::config::Config;

const HEAD: &str = "\
# The configuration file

`--config FILE`, one YAML document. Every key can be left out: a node runs without a file. A key that does not exist is
refused, with those that do. [kubebus.example.yaml](../../kubebus.example.yaml) has all of them with their defaults, to copy.

Durations are written `15s`, `2m` or `1h 30m`; rates `3Mbit` or `2500kbit`; networks `192.168.10.0/24`. `[]` stands for each
entry of a list.
";

pub(super) fn page() -> String {
    let types = Types::read(&[&read("node/src/config.rs")]);
    let schema = types.schema("Config");
    let default = serde_json::to_value(Config::default()).unwrap();
    let mut page = HEAD.to_owned();
    let mut section = "";
    let all = rows(&schema, "");
    for row in &all {
        let first = row.path.split('.').next().unwrap_or_default();
        if first != section {
            section = first;
            let _ = write!(page, "\n## {first}\n\n{}\n\n{TABLE}", about(row, &default));
        }
        if row.path != first || !default[first].is_object() {
            page += &line(row, &default);
        }
    }
    page
}

const TABLE: &str = "| key | what may stand there | default | |\n|---|---|---|---|\n";

fn about(row: &Row, default: &Value) -> String {
    let what = if default[&row.path].is_object() { &row.what } else { "Of the whole node." };
    plain(what)
}

fn line(row: &Row, default: &Value) -> String {
    assert!(!row.what.is_empty(), "'{}' has no doc comment that says what it is for", row.path);
    let pointer = format!("/{}", row.path.replace('.', "/"));
    let default = match default.pointer(&pointer) {
        Some(Value::String(text)) => format!("`{text}`"),
        Some(other) => format!("`{other}`"),
        None if row.required => "must be said".to_owned(),
        None => "-".to_owned(),
    };
    format!("| `{}` | {} | {default} | {} |\n", row.path, cell(&row.kind), cell(&row.what))
}

/// Each key that serde knows is found: a section with a key that cannot be is refused with those that can.
#[test]
fn no_key_is_left_out() {
    let page = page();
    for section in known("{\"no such key\": 0}") {
        assert!(page.contains(&format!("## {section}\n")), "no section {section}");
        for key in known(&format!("{{\"{section}\": {{\"no such key\": 0}}}}")) {
            assert!(page.contains(&format!("| `{section}.{key}` |")), "no key {section}.{key}");
        }
    }
}

/// The keys that a refusal of this document names.
fn known(document: &str) -> Vec<String> {
    let refused = serde_json::from_str::<Config>(document).unwrap_err().to_string();
    match refused.split_once("unknown field `no such key`, expected ") {
        Some((_, keys)) => keys.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect(),
        None => Vec::new(), // a key with a value, and no section
    }
}

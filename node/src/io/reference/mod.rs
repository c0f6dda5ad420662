//! The pages below `docs/reference/`, made from the code, and the tests that they are as the code is.
//!
//! `cargo xtask docs` writes them: it runs these tests with `KUBEBUS_WRITE_REFERENCE` set. None of this is in what ships.
//!
//! - [`cli`]: the command line, from clap's own tree;
//! - [`commands`]: no page, but a look at the commands that the other pages tell people to type;
//! - [`config`]: the configuration file, from `kubebus.example.yaml`, held against the keys that serde knows;
//! - [`resources`]: the manifests, from schemas; [`source`] makes these of the types and their doc comments.

mod cli;
mod commands;
mod config;
mod resources;
mod source;

use std::path::{Path, PathBuf};

/// Set: pages are written instead of compared.
const WRITE: &str = "KUBEBUS_WRITE_REFERENCE";

/// Stands at the top of each page.
const MADE: &str = "<!-- Made from the code: change that, then run `cargo xtask docs`. -->\n";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file of the repository.
fn read(path: &str) -> String {
    let path = repository().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Writes the page, or says where it is not as the code is.
#[track_caller]
fn is_as_the_code(page: &str, text: &str) {
    let path = repository().join("docs/reference").join(page);
    let text = format!("{MADE}{text}");
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        return;
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = text.lines().zip(there.lines()).position(|(code, page)| code != page);
    let line = differs.unwrap_or_else(|| text.lines().count().min(there.lines().count()));
    let at = |text: &str| text.lines().nth(line).unwrap_or("the end").to_owned();
    assert!(
        there == text,
        "docs/reference/{page} is not as the code is: run 'cargo xtask docs'\nline {}: {}\nthe code: {}",
        line + 1,
        at(&there),
        at(&text)
    );
}

/// Text for one cell of a table.
fn cell(text: &str) -> String {
    plain(&text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|"))
}

/// What is in angle brackets is no HTML; between backticks it is none anyway.
fn plain(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let parts = parts.map(|(at, part)| if at % 2 == 0 { part.replace('<', "&lt;") } else { part.to_owned() });
    parts.collect::<Vec<_>>().join("`")
}

#[test]
fn the_command_line_is_documented() {
    is_as_the_code("cli.md", &cli::page());
}

#[test]
fn the_configuration_is_documented() {
    is_as_the_code("config.md", &config::page());
}

#[test]
fn the_manifests_are_documented() {
    is_as_the_code("resources.md", &resources::page());
}

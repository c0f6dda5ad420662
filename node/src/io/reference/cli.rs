//! The command line, from clap's tree: what `--help` says, on one page.

use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};

use super::{cell, plain};
use crate::io::cli::Cli;
use crate::io::exit::Exit;

const HEAD: &str = "\
# The command line

What `kubebus --help` says of each command, on one page. Data goes to standard output, everything else to standard error.
A command that asks a node speaks to the node on this machine, over the socket in its data directory.

";

/// Options that most commands have: they are explained once.
const EVERYWHERE: [&str; 4] = ["config", "data_dir", "output", "log"];

pub(super) fn page() -> String {
    let mut program = Cli::command().bin_name("kubebus");
    program.build();
    let mut page = HEAD.to_owned();
    page += &options_everywhere(&program);
    page += "\n## Exit codes\n\nScripts may rely on them.\n\n| code | means |\n|---|---|\n";
    for exit in Exit::ALL {
        let _ = writeln!(page, "| {} | {} |", exit as u8, cell(exit.meaning()));
    }
    for command in shown(&program) {
        page += &section(command);
    }
    page
}

/// In the order of `--help`.
fn shown(of: &Command) -> Vec<&Command> {
    of.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help").collect()
}

fn options_everywhere(program: &Command) -> String {
    let mut found: Vec<Option<&Arg>> = vec![None; EVERYWHERE.len()];
    let mut waiting = shown(program);
    while let Some(command) = waiting.pop() {
        for (found, id) in found.iter_mut().zip(EVERYWHERE) {
            *found = found.or_else(|| command.get_arguments().find(|arg| arg.get_id() == id));
        }
        waiting.extend(shown(command));
    }
    let rows: String = found.into_iter().flatten().map(row).collect();
    format!("## Options that many commands have\n\n{TABLE}{rows}")
}

const TABLE: &str = "| | what |\n|---|---|\n";

fn section(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let level = "#".repeat(name.split(' ').count());
    let about = command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string);
    let mut text = format!("\n{level} {name}\n\n{}\n", plain(&about.unwrap_or_default()));
    let inner = shown(command);
    if inner.is_empty() || command.is_args_conflicts_with_subcommands_set() {
        let usage = command.clone().render_usage().to_string();
        let _ = writeln!(text, "\n```text\n{}\n```", usage.trim_start_matches("Usage: ").trim());
    }
    let own = command.get_arguments().filter(|arg| !is_left_out(arg));
    let rows: String = own.map(row).collect();
    if !rows.is_empty() {
        let _ = write!(text, "\n{TABLE}{rows}");
    }
    inner.into_iter().fold(text, |text, command| text + &section(command))
}

fn is_left_out(arg: &Arg) -> bool {
    let id = arg.get_id().as_str();
    arg.is_hide_set() || EVERYWHERE.contains(&id) || ["help", "version"].contains(&id)
}

fn row(arg: &Arg) -> String {
    let what = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut what = cell(&what);
    let mut add = |more: String| what += &format!("{}{more}", if what.is_empty() { "" } else { "; " });
    let possible: Vec<_> = arg.get_possible_values().iter().map(|v| format!("`{}`", v.get_name())).collect();
    if !possible.is_empty() && arg.get_action().takes_values() {
        add(possible.join(", "));
    }
    let default: Vec<_> = arg.get_default_values().iter().filter_map(|value| value.to_str()).collect();
    if !default.is_empty() && arg.get_action().takes_values() {
        add(format!("default `{}`", default.join(" ")));
    }
    if let Some(variable) = arg.get_env().and_then(|variable| variable.to_str()) {
        add(format!("or `{variable}` in the environment"));
    }
    format!("| `{}` | {what} |\n", named(arg))
}

/// `-o`, `--output <OUTPUT>`; `[FILE]` where it is no option.
fn named(arg: &Arg) -> String {
    let short = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let values = arg.get_value_names().unwrap_or_default();
    let values: Vec<_> = values.iter().map(|value| format!("<{value}>")).collect();
    let values = if arg.get_action().takes_values() { values.join(" ") } else { String::new() };
    match arg.get_long() {
        Some(long) => format!("{short}--{long} {values}").trim_end().to_owned(),
        None => values,
    }
}

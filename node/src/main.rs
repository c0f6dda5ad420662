//! `kubebus`: see `kubebus --help`.

use std::process::ExitCode;

use clap::Parser;
use node::io::cli::Cli;
use node::io::commands;

fn main() -> ExitCode {
    commands::run(Cli::parse()).into()
}

//! `kubebus`: see `kubebus --help`.

use std::process::ExitCode;

use clap::Parser;
use node::io::cli::Cli;
use node::io::{commands, heap};

fn main() -> ExitCode {
    heap::give_back();
    commands::run(Cli::parse()).into()
}

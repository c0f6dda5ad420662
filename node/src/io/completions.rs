//! `kubebus completions` and `kubebus man`: what follows from the definition of the command line.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use super::cli::Cli;
use super::commands::say;
use super::exit::Exit;

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// For which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// The directory to write into, a page for each command; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Prints the script that the shell is to load.
pub(super) fn print(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "kubebus", &mut script);
    say(String::from_utf8_lossy(&script).trim_end())
}

/// Writes `kubebus.1`, and `kubebus-token-create.1` and so on for each command that people see.
pub(super) fn write(args: &ManArgs) -> Result<()> {
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let written = write_page(&command, "kubebus", &args.out)?;
    say(&format!("{written} pages in {}; read one with 'man -l {0}/kubebus.1'", args.out.display()))
}

fn write_page(command: &clap::Command, name: &str, dir: &Path) -> Result<usize> {
    let path = dir.join(format!("{name}.1"));
    let page = page(command, name).with_context(|| path.display().to_string())?;
    std::fs::write(&path, page).with_context(|| path.display().to_string())?;
    let mut written = 1;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help")
    {
        written += write_page(below, &format!("{name}-{}", below.get_name()), dir)?;
    }
    Ok(written)
}

/// The top page tells the exit codes too, since they are the same for all.
fn page(command: &clap::Command, name: &str) -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let man = Man::new(command.clone()).title(name.to_owned());
    man.render(&mut page)?;
    if name == "kubebus" {
        page.extend_from_slice(b".SH \"EXIT STATUS\"\n");
        for exit in Exit::ALL {
            page.extend_from_slice(
                format!(".TP\n\\fB{}\\fR\n{}\n", exit as u8, exit.meaning().replace('`', "")).as_bytes(),
            );
        }
    }
    Ok(page)
}

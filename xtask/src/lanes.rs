//! Runs the tests of the workspace in two lanes at once.
//!
//! Mappers wait for devices that are slow, silent or dead more than they work, as the water works do for water to flow, and
//! nodes for links that are cut: side by side they take little longer than either. Cargo runs one test program after the other, so the programs that it
//! has built are started here.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{cargo, cargo_command, step};

/// A program with tests, and the crate whose directory it runs in.
struct Program {
    crate_dir: PathBuf,
    executable: PathBuf,
}

impl Program {
    fn name(&self) -> String {
        self.executable.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Passes if all tests of the workspace, built with these features, do.
pub(crate) fn test(features: &str) -> Result<()> {
    let build = ["test", "--workspace", "--features", features, "--locked"];
    cargo(&[&build[..], &["--no-run"]].concat())?;
    let (second, first): (Vec<_>, Vec<_>) = programs(&build)?.into_iter().partition(is_of_second_lane);
    let mut told = tempfile().context("a file for what the second lane prints")?;
    let out = told.try_clone().context("the same file again")?;
    let beside = thread::spawn(move || run_all(&second, Some(&out)));
    let first = run_all(&first, None);
    let second = beside.join().map_err(|_| anyhow::anyhow!("the second lane ended with a panic"))?;
    step("the tests of the SDK, the mappers, the water works and the page, which ran beside these");
    told.rewind().and_then(|()| copy(&mut told)).context("show what the second lane printed")?;
    let failed = [first?, second?].concat();
    ensure!(failed.is_empty(), "tests failed in {}", failed.join(", "));
    cargo(&[&build[..], &["--doc"]].concat())
}

/// The SDK's, the mappers', the water works' and the page's, which take as long as all others together.
fn is_of_second_lane(program: &Program) -> bool {
    let is_of = |name: &str| program.crate_dir.components().any(|part| part.as_os_str() == name);
    let waits = ["water-", "page-"].iter().any(|name| program.name().starts_with(name));
    is_of("sdk") || is_of("mappers") || waits
}

/// What `cargo test` would run, in its order.
fn programs(build: &[&str]) -> Result<Vec<Program>> {
    let list = cargo_command()
        .args(build)
        .args(["--no-run", "--message-format", "json"])
        .stderr(Stdio::null())
        .output()
        .context("list the test programs")?;
    let text = String::from_utf8(list.stdout).context("cargo's messages")?;
    text.lines().filter_map(|line| program(line).transpose()).collect()
}

fn program(line: &str) -> Result<Option<Program>> {
    let message: Value = serde_json::from_str(line).context("a message of cargo's")?;
    let (Some(executable), Some(manifest)) =
        (message["executable"].as_str(), message["manifest_path"].as_str())
    else {
        return Ok(None);
    };
    if message["profile"]["test"] != true {
        return Ok(None); // a program that tests start
    }
    let crate_dir = Path::new(manifest).parent().context("a manifest lies in a directory")?.to_owned();
    Ok(Some(Program { crate_dir, executable: executable.into() }))
}

/// One after the other; those that failed.
fn run_all(programs: &[Program], out: Option<&File>) -> Result<Vec<String>> {
    let mut failed = Vec::new();
    for program in programs {
        let (name, Program { crate_dir, executable }) = (program.name(), program);
        let mut command = Command::new(executable);
        command.current_dir(crate_dir).env("CARGO_MANIFEST_DIR", crate_dir).env("CARGO", env!("CARGO"));
        let title = format!("\n     Running {} {name}\n", crate_dir.display());
        match out {
            Some(mut out) => {
                out.write_all(title.as_bytes())?;
                command.stdout(out.try_clone()?).stderr(out.try_clone()?);
            }
            None => std::io::stdout().write_all(title.as_bytes())?,
        }
        let status = command.status().with_context(|| format!("start {}", executable.display()))?;
        if !status.success() {
            failed.push(name);
        }
    }
    Ok(failed)
}

fn copy(from: &mut impl Read) -> std::io::Result<()> {
    std::io::copy(from, &mut std::io::stdout().lock()).map(drop)
}

/// Gone when it is closed.
fn tempfile() -> Result<File> {
    let path = std::env::temp_dir().join(format!("kubebus-xtask-{}", std::process::id()));
    let file = File::options().read(true).append(true).create_new(true).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

//! `kubebus mqtt passwd`.

use std::io::{BufRead, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use device_twin::gate::access::Who;
use device_twin::gate::access::passwords::{ITERATIONS, check_name, edited};
use device_twin::io::passwords::hash;
use rustix::termios::{LocalModes, OptionalActions, isatty, tcgetattr, tcsetattr};

use crate::io::commands::Usage;
use crate::io::identity;

/// Longest password in bytes: MQTT could carry more (§3.1.3.6), nobody types it.
const MAX_PASSWORD: usize = 1024;

/// Sets or removes the password of `name`; what to say of it.
pub(in crate::io) fn run(name: &str, file: Option<&Path>, remove: bool) -> Result<String> {
    check_name(name).map_err(|why| Usage(why.into()))?;
    if Who::of_login(name).is_none() {
        return Err(Usage(anyhow::anyhow!("'{name}': a mapper's name follows 'mapper/'")).into());
    }
    let Some(file) = file else {
        let why = anyhow::anyhow!("which file? Name it by --file, or in the configuration as mqtt.passwords");
        return Err(Usage(why).into());
    };
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !remove => String::new(),
        Err(error) => return Err(error).with_context(|| file.display().to_string()),
    };
    let hash = match remove {
        true => None,
        false => Some(hash(&read_password()?, ITERATIONS).context("the system's randomness")?),
    };
    let new = edited(&text, name, hash.as_ref());
    if remove && new.lines().count() == text.lines().count() {
        bail!("{} has no '{name}'", file.display());
    }
    identity::write(file, new.as_bytes())?;
    let done = if remove { "removed from" } else { "written to" };
    Ok(format!("{name} {done} {}; a node reads it at its next start", file.display()))
}

/// Typed twice without being shown, or one line of a pipe.
fn read_password() -> Result<Vec<u8>> {
    let stdin = std::io::stdin();
    let password = if isatty(&stdin) {
        let first = ask("Password: ")?;
        if ask("Again: ")? != first {
            bail!("the two differ; nothing is changed");
        }
        first
    } else {
        read_line(&mut stdin.lock())?
    };
    match password.len() {
        0 => bail!("an empty password; nothing is changed"),
        1..=MAX_PASSWORD => Ok(password),
        _ => bail!("longer than {MAX_PASSWORD} bytes; nothing is changed"),
    }
}

fn ask(prompt: &str) -> Result<Vec<u8>> {
    let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
    write!(stderr, "{prompt}")?;
    stderr.flush()?;
    let before = tcgetattr(&stdin).context("the terminal")?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &silent).context("the terminal")?;
    let typed = read_line(&mut stdin.lock());
    tcsetattr(&stdin, OptionalActions::Flush, &before).context("the terminal")?;
    writeln!(stderr)?;
    typed
}

fn read_line(input: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    std::io::Read::take(input, MAX_PASSWORD as u64 + 2)
        .read_until(b'\n', &mut line)
        .context("read the password")?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(line)
}

//! One archive for whoever helps: what the node says, what the machine is, what is wrong. Each part goes through
//! [`redact`] before it is put in.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::facts::{Console, gather};
use super::progress::Progress;
use super::{CheckArgs, CollectArgs, DiagnoseArgs, check, machine};
use crate::config::Config;
use crate::diagnose::check::judge;
use crate::diagnose::{diagnose, redact, tar};
use crate::io::admin::process_of;
use crate::io::cli::{AskArgs, Format};
use crate::io::commands::{read_config, say};
use crate::io::exit::Exit;
use crate::io::table::table;
use crate::io::version;

/// Of one part; what is longer keeps its end, where logs have what is new.
const MAX_PART: usize = 512 << 10;

/// Of all parts together, before they are compressed to about a tenth: a mail takes it. Parts past it are left out, and
/// the list says so.
const MAX_ARCHIVE: usize = 6 << 20;

/// What the node answers about itself; nothing under these paths is a secret by itself.
const ANSWERS: [(&str, &str); 9] = [
    ("status.json", "/kubebus/v1/status"),
    ("fleet.json", "/kubebus/v1/fleet"),
    ("nodes.json", "/kubebus/v1/nodes"),
    ("twins.json", "/kubebus/v1/twins"),
    ("rules.json", "/kubebus/v1/rules"),
    ("routes.json", "/kubebus/v1/routes"),
    ("devices.json", "/kubebus/v1/resources/device"),
    ("models.json", "/kubebus/v1/resources/devicemodel"),
    ("policies.json", "/kubebus/v1/resources/accesspolicy"),
];

const KERNEL: [&str; 7] = [
    "/proc/version",
    "/etc/os-release",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/pressure/io",
    "/proc/pressure/memory",
];

const NETWORK: [&str; 9] = [
    "/proc/net/dev",
    "/proc/net/route",
    "/proc/net/if_inet6",
    "/proc/net/snmp",
    "/proc/sys/net/core/rmem_max",
    "/proc/sys/net/core/wmem_max",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv4/conf/all/rp_filter",
    "/etc/resolv.conf",
];

const FOREWORD: &str = "\
What 'kubebus debug collect' found on this machine. Start with diagnose.json.
Keys, passwords, tokens, and whatever looks like one, were replaced by (removed).

";

pub(super) async fn run(args: &CollectArgs) -> Result<Exit> {
    let progress = Progress::new();
    let parts = progress.watch(collect(args, &progress)).await;
    let to_stdout = args.output.as_deref() == Some(Path::new("-"));
    let archive = parts.packed()?;
    if to_stdout {
        std::io::stdout().write_all(&archive).context("write to stdout")?;
        return Ok(Exit::Ok);
    }
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(parts.default_name()));
    write_for_owner(&path, &archive)
        .with_context(|| format!("{}: name a file that is not there with --output", path.display()))?;
    say(&parts.listed())?;
    say(&format!("{}: {} bytes; look at it before you send it", path.display(), archive.len()))?;
    Ok(Exit::Ok)
}

/// Nobody else on this machine needs to read it. What is there stays: it may be a link that somebody else laid.
fn write_for_owner(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

/// What goes into the archive, in order.
#[derive(Debug, Default)]
struct Parts {
    node: String,
    time_s: u64,
    list: Vec<(String, Vec<u8>)>,
    left_out: Vec<String>,
    len: usize,
}

impl Parts {
    fn text(&mut self, name: &str, text: &str) {
        let text = redact::text(text);
        let cut = text.len().saturating_sub(MAX_PART);
        self.put(name, &text.as_bytes()[text.ceil_char_boundary(cut)..]);
    }

    fn document(&mut self, name: &str, mut value: Value) {
        redact::document(&mut value);
        let text = serde_json::to_string_pretty(&value).unwrap_or_default();
        self.put(name, &text.as_bytes()[..text.floor_char_boundary(MAX_PART)]);
    }

    fn put(&mut self, name: &str, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.len + bytes.len() > MAX_ARCHIVE {
            return self.left_out.push(name.to_owned());
        }
        self.len += bytes.len();
        self.list.push((name.to_owned(), bytes.to_vec()));
    }

    fn packed(&self) -> Result<Vec<u8>> {
        let dir = format!("kubebus-{}", self.node);
        let mut archive = Vec::with_capacity(self.len + self.list.len() * 1024);
        let foreword = format!("{FOREWORD}{}\n", self.listed());
        tar::append(&mut archive, &format!("{dir}/README.txt"), foreword.as_bytes(), self.time_s);
        for (name, bytes) in &self.list {
            tar::append(&mut archive, &format!("{dir}/{name}"), bytes, self.time_s);
        }
        tar::finish(&mut archive);
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(&archive).and_then(|()| packed.finish()).context("compress the archive")
    }

    fn default_name(&self) -> String {
        format!("kubebus-{}-{}.tar.gz", self.node, self.time_s)
    }

    fn listed(&self) -> String {
        let row = |(name, bytes): &(String, Vec<u8>)| vec![name.clone(), bytes.len().to_string()];
        let left_out = self.left_out.iter().map(|name| vec![name.clone(), "left out: too large".to_owned()]);
        table(&["PART", "BYTES"], &self.list.iter().map(row).chain(left_out).collect::<Vec<_>>())
    }
}

async fn collect(args: &CollectArgs, progress: &Progress) -> Parts {
    let (config, config_problem) = match read_config(&args.place) {
        Ok(config) => (config, None),
        Err(why) => (Config::default(), Some(format!("{why:#}"))),
    };
    let dir = args.place.data_dir(&config);
    let mut parts =
        Parts { time_s: machine::now_ms() / 1000, node: "unknown".to_owned(), ..Parts::default() };
    parts.document("version.json", version::describe());
    findings(args, &config, progress, &mut parts).await;
    progress.at("what the node knows");
    answers(&Console(dir), &mut parts).await;
    configured(args, config_problem, &mut parts);
    parts.text("data-dir.txt", &listing(dir, dir));
    parts.text("kernel.txt", &files(&KERNEL));
    parts.text("network.txt", &files(&NETWORK));
    progress.at("the log");
    let log = match &args.log_file {
        Some(path) => end_of(path).unwrap_or_else(|why| format!("{}: {why}", path.display())),
        None => log_of(dir).await.unwrap_or_default(),
    };
    parts.text("log.txt", &log);
    parts
}

/// What the two other commands say.
async fn findings(args: &CollectArgs, config: &Config, progress: &Progress, parts: &mut Parts) {
    let ask = AskArgs { place: args.place.clone(), output: Format::Json };
    let all = DiagnoseArgs::of(ask.clone());
    if let Ok(facts) = gather(&all, config, progress).await {
        let name = facts.identity.name.as_deref().and_then(|name| name.rsplit('/').next());
        parts.node = name.unwrap_or("unknown").to_owned();
        parts.document("diagnose.json", json!({ "findings": diagnose(&facts), "facts": facts }));
    }
    if let Ok(machine) =
        check::measure(&CheckArgs { role: None, cloud: None, node: None, ask }, progress).await
    {
        parts.document("check.json", json!({ "checks": judge(&machine), "measured": machine }));
    }
}

async fn answers(console: &Console<'_>, parts: &mut Parts) {
    for (name, path) in ANSWERS {
        let answer = console.get(path).await;
        if !answer.is_null() {
            parts.document(name, answer);
        }
    }
    if let Ok(metrics) = console.text("/metrics").await {
        parts.text("metrics.txt", &metrics);
    }
}

/// As it is read, so that comments stay at home; as text where it cannot be read.
fn configured(args: &CollectArgs, problem: Option<String>, parts: &mut Parts) {
    let Some(path) = &args.place.config else { return };
    let Ok(text) = fs::read_to_string(path) else { return };
    match serde_saphyr::from_str::<Value>(&text) {
        Ok(mut config) => {
            redact::document(&mut config);
            parts.text("config.yaml", &yaml(&config));
        }
        Err(_) => parts.text("config.yaml", &text),
    }
    parts.text("config-problem.txt", &problem.unwrap_or_default());
}

fn yaml(value: &impl Serialize) -> String {
    serde_saphyr::to_string(value).unwrap_or_default()
}

/// Names, sizes and modes below a directory: contents stay where they are.
fn listing(root: &Path, dir: &Path) -> String {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    let line = |path: &PathBuf| {
        let Ok(about) = fs::symlink_metadata(path) else { return String::new() };
        let name = path.strip_prefix(root).unwrap_or(path).display();
        let below = if about.is_dir() { listing(root, path) } else { String::new() };
        format!("{:04o} {:>12} {name}\n{below}", about.mode() & 0o7777, about.len())
    };
    entries.iter().map(line).collect()
}

fn files(paths: &[&str]) -> String {
    let read = |path: &&str| Some(format!("--- {path}\n{}\n", fs::read_to_string(path).ok()?.trim_end()));
    paths.iter().filter_map(read).collect()
}

fn end_of(path: &Path) -> std::io::Result<String> {
    let mut file = fs::File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(MAX_PART as u64)))?;
    let mut bytes = Vec::new();
    file.take(MAX_PART as u64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// journald answers at once, or is stuck.
const JOURNAL: Duration = Duration::from_secs(3);

/// Where the running node's errors go: a file, or the journal.
async fn log_of(dir: &Path) -> Option<String> {
    let pid = process_of(dir).await?;
    let stderr = fs::read_link(format!("/proc/{pid}/fd/2")).ok()?;
    if stderr.is_file() {
        return end_of(&stderr).ok();
    }
    let read = move || {
        let mut journal = Command::new("journalctl");
        journal.args(["--no-pager", "--lines=2000", &format!("_PID={pid}")]).output().ok()
    };
    let output = timeout(JOURNAL, tokio::task::spawn_blocking(read)).await.ok()?.ok()??;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_its_owners_alone_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("a.tar.gz"), dir.path().join("link"));
        write_for_owner(&path, b"first").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &link).unwrap();
        for there in [&path, &link] {
            let error = write_for_owner(there, b"second").unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
        }
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert!(!dir.path().join("elsewhere").exists());
    }
}

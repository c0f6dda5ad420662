//! Those that are compared: each started as its manual says, with its defaults unless its module says otherwise.

mod kubebus;
mod nebula;
mod openvpn;
mod quincy;
mod wireguard;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

pub(super) use self::kubebus::apply;
use super::space::{Process, Space};
use super::topology::{CLOUD, RawPath, Sites, Topology};

/// From the start of a peer's programs to its first packet: nebula tries ways around its relay first.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    /// No tunnel: the cables, and one hop the NAT.
    Raw,
    KubeBus,
    Quincy,
    WireguardGo,
    Boringtun,
    Nebula,
    OpenVpn,
}

impl Peer {
    pub(super) const ALL: [Self; 7] = [
        Self::Raw,
        Self::KubeBus,
        Self::Quincy,
        Self::WireguardGo,
        Self::Boringtun,
        Self::Nebula,
        Self::OpenVpn,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::KubeBus => "kubebus",
            Self::Quincy => "quincy",
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun",
            Self::Nebula => "nebula",
            Self::OpenVpn => "openvpn",
        }
    }

    pub(super) fn named(name: &str) -> Result<Self> {
        let known = Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|peer| peer.name() == name);
        found.with_context(|| format!("'{name}' is none of {known}"))
    }

    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Raw => &[],
            Self::KubeBus => &["kubebus"],
            Self::Quincy => &["quincy-server", "quincy-client", "openssl"],
            Self::WireguardGo => &["wireguard-go", "wg"],
            Self::Boringtun => &["boringtun-cli", "wg"],
            Self::Nebula => &["nebula", "nebula-cert"],
            Self::OpenVpn => &["openvpn", "openssl"],
        }
    }

    /// Which of its programs are not on this machine.
    pub(super) fn missing(self, programs: &Programs) -> Vec<&'static str> {
        self.programs().iter().copied().filter(|program| programs.find(program).is_err()).collect()
    }

    /// As its program tells it.
    pub(super) fn version(self, programs: &Programs) -> String {
        let flag = match self {
            Self::Raw => return kernel(),
            Self::Quincy => return quincy::VERSION.to_owned(),
            Self::Nebula => "-version",
            Self::KubeBus | Self::WireguardGo | Self::Boringtun | Self::OpenVpn => "--version",
        };
        let said = programs.find(self.programs()[0]).and_then(|program| {
            let ran = Command::new(program).arg(flag).output().context("ask for the version")?;
            Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
        });
        let said = said.unwrap_or_default();
        let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let version = line.split_whitespace().find(|word| word.contains(|c: char| c.is_ascii_digit()));
        version.unwrap_or("of unknown version").trim_start_matches('v').to_owned()
    }

    /// Starts it at all sites; returns when packets pass.
    pub(super) fn start<'a>(self, place: Place<'a>) -> Result<Tunnel<'a>> {
        let mut tunnel = match self {
            Self::Raw => raw(place),
            Self::KubeBus => kubebus::start(place),
            Self::Quincy => quincy::start(place),
            Self::WireguardGo => wireguard::start(place, wireguard::Program::WireguardGo),
            Self::Boringtun => wireguard::start(place, wireguard::Program::Boringtun),
            Self::Nebula => nebula::start(place),
            Self::OpenVpn => openvpn::start(place),
        }?;
        tunnel.wait_until_open(place.sites).with_context(|| format!("start {}", self.name()))?;
        Ok(tunnel)
    }
}

fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}

/// Where to start a peer, and with what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) sites: Sites<'a>,
    /// Where the raw path between the edges can be opened.
    pub(super) topology: Option<&'a Topology>,
    pub(super) programs: &'a Programs,
    /// For its files; empty at first.
    pub(super) room: &'a Path,
}

impl Place<'_> {
    /// Its sites with their names, the cloud first.
    fn all(&self) -> impl Iterator<Item = (String, &Space)> {
        let edges = (1..).zip(self.sites.edges).map(|(number, edge)| (format!("edge{number}"), edge));
        [("cloud".to_owned(), self.sites.cloud)].into_iter().chain(edges)
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.room.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.room.join(format!("{name}.log"))
    }
}

/// A peer that runs. Ends when dropped.
#[derive(Debug)]
pub(super) struct Tunnel<'a> {
    /// None for what needs no program.
    pub(super) cloud: End,
    pub(super) edges: Vec<End>,
    // Held, not read.
    _raw_path: Option<RawPath<'a>>,
}

/// One site's end.
#[derive(Debug)]
pub(super) struct End {
    pub(super) address: Ipv4Addr,
    pub(super) process: Option<Process>,
}

impl End {
    fn new(address: Ipv4Addr, process: Process) -> Self {
        Self { address, process: Some(process) }
    }
}

impl Tunnel<'_> {
    /// Of ends in the order of [`Place::all`].
    fn new(mut ends: Vec<End>) -> Result<Self> {
        ensure!(!ends.is_empty(), "no cloud");
        let cloud = ends.remove(0);
        Ok(Self { cloud, edges: ends, _raw_path: None })
    }

    fn wait_until_open(&mut self, sites: Sites<'_>) -> Result<()> {
        let Some((first, others)) = self.edges.split_first_mut() else { return Ok(()) };
        let far = std::iter::once(self.cloud.address).chain(others.iter().map(|end| end.address));
        for address in far {
            let opened = || sites.edges[0].reaches(address);
            match &mut first.process {
                Some(process) => process.wait_until("an answer through it", PATIENCE, opened)?,
                None => ensure!(opened(), "{address} does not answer"),
            }
        }
        Ok(())
    }
}

fn raw(place: Place<'_>) -> Result<Tunnel<'_>> {
    let end = |address| End { address, process: None };
    let raw_path = place.topology.map(Topology::open_raw_path).transpose()?;
    let edges = (1..=place.sites.edges.len()).map(|number| end(RawPath::address(number))).collect();
    Ok(Tunnel { cloud: end(CLOUD), edges, _raw_path: raw_path })
}

/// Where programs are: those that were built for this benchmark come first.
#[derive(Debug)]
pub(super) struct Programs {
    kubebus: PathBuf,
    dirs: Vec<PathBuf>,
}

impl Programs {
    pub(super) fn new(kubebus: &Path, room: &Path) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut dirs = vec![room.join("../peers/bin")];
        dirs.extend(std::env::split_paths(&path));
        // Debian keeps servers there, which is not on everybody's path.
        dirs.push(PathBuf::from("/usr/sbin"));
        Self { kubebus: kubebus.to_owned(), dirs }
    }

    pub(super) fn find(&self, name: &str) -> Result<PathBuf> {
        if name == "kubebus" {
            return Ok(self.kubebus.clone());
        }
        let places = self.dirs.iter().map(|dir| dir.join(name));
        places.into_iter().find(|place| place.is_file()).with_context(|| format!("there is no {name}"))
    }
}

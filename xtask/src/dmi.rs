//! gRPC's Python library, with which `node/tests/dmi` speaks to an edge: from PyPI, into `<target>/dmi`, nowhere else.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{python, repository, run, target_dir};

/// Anew also when the proto is another one: the messages are made of it.
pub(crate) fn install() -> Result<()> {
    let place = target_dir()?.join("dmi");
    let wanted = repository().join("node/tests/dmi/requirements.txt");
    let proto = repository().join("device-twin/src/dmi/api.proto");
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("read {}", path.display()));
    let list = [read(&wanted)?, read(&proto)?].concat();
    python::renew("gRPC for Python", &place, &list, || fill(&place, &wanted))
}

fn fill(place: &Path, wanted: &Path) -> Result<()> {
    let interpreter = place.join("venv/bin/python");
    let pip = ["-m", "pip", "--quiet", "--disable-pip-version-check", "install", "-r"];
    run(Command::new(&interpreter).args(pip).arg(wanted))?;
    let messages = place.join("messages");
    std::fs::create_dir_all(&messages).context("make a directory for the messages")?;
    let mut protoc = Command::new(&interpreter);
    protoc.args(["-m", "grpc_tools.protoc", "-I"]).arg(repository().join("device-twin/src/dmi"));
    protoc.arg("--python_out").arg(&messages).arg("--grpc_python_out").arg(&messages).arg("api.proto");
    run(&mut protoc)
}

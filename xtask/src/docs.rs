//! The documentation: what is made from the code, and tests that the rest is true to it.
//!
//! - `links`: every link, anchor and file that a page names is there;
//! - `texts`: every text that the troubleshooting page explains is said somewhere, and the errors that people meet are
//!   explained.

#[cfg(test)]
mod links;
#[cfg(test)]
mod texts;

use anyhow::Result;

use crate::{FEATURES, cargo_command, run, step};

/// Writes `docs/reference`. The tests of `node/src/io/reference` do it, which else compare.
pub(crate) fn write() -> Result<()> {
    step("docs/reference, from the code");
    let mut tests = cargo_command();
    tests.args(["test", "--locked", "-p", "node", "--lib", "--features", FEATURES, "io::reference"]);
    run(tests.env("KUBEBUS_WRITE_REFERENCE", "1"))
}

/// All files of the repository by their paths in it; nothing that is built, and nothing hidden.
#[cfg(test)]
fn files() -> std::collections::BTreeMap<String, std::path::PathBuf> {
    fn add(
        dir: &std::path::Path,
        within: &str,
        files: &mut std::collections::BTreeMap<String, std::path::PathBuf>,
    ) {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with('.') || ["target", "__pycache__", "node_modules"].contains(&name.as_str()) {
                continue;
            }
            let path = format!("{within}{name}");
            if entry.file_type().unwrap().is_dir() {
                add(&entry.path(), &format!("{path}/"), files);
            } else {
                files.insert(path, entry.path());
            }
        }
    }
    let mut all = std::collections::BTreeMap::new();
    add(&crate::repository(), "", &mut all);
    all
}

//! Files of manifests: read, put in order, and what the cloud says of them told by file and line.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Context;
use serde_json::Value;

use super::admin::AskError;
use super::lines::Lines;
use crate::admin::Fault;

/// One document of a file.
#[derive(Debug)]
pub(super) struct Manifest {
    file: Rc<File>,
    /// Which of the file's documents it is.
    number: usize,
    pub(super) document: Value,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    source: String,
}

/// The cloud refused a manifest for what is written in it: a line for each fault, `plant.yaml:12: ...`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(String);

/// The documents of all files, `-` for standard input, in the order in which each finds there what it speaks of:
/// models, policies, devices, rules. A rule is checked against its devices, so it must not come before them. What an
/// access policy speaks of may come later.
pub(super) fn read_all(paths: &[PathBuf]) -> anyhow::Result<Vec<Manifest>> {
    let mut all = Vec::new();
    for path in paths {
        let read = || -> anyhow::Result<Vec<Manifest>> {
            let source = source(path)?;
            let documents = serde_saphyr::from_multiple(&source)?;
            let file = Rc::new(File { path: path.clone(), source });
            let manifest = |(number, document)| Manifest { file: Rc::clone(&file), number, document };
            Ok(documents.into_iter().enumerate().map(manifest).collect())
        };
        all.extend(read().with_context(|| path.display().to_string())?);
    }
    all.sort_by_key(|manifest| rank(&manifest.document));
    Ok(all)
}

/// YAML, of which JSON is a part; several documents to a file.
fn source(path: &Path) -> std::io::Result<String> {
    if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    }
}

/// What nobody knows goes first, so that nothing is applied before it is refused.
fn rank(document: &Value) -> u8 {
    match document["kind"].as_str().unwrap_or_default() {
        "DeviceModel" | "AccessPolicy" => 1,
        "TwinPolicy" => 2,
        "Device" => 3,
        "Rule" => 4,
        _ => 0,
    }
}

impl Manifest {
    /// The error with file and, where it is about a field, line.
    pub(super) fn explained(&self, error: anyhow::Error) -> anyhow::Error {
        match error.downcast_ref::<AskError>() {
            Some(AskError::Refused { faults, .. }) if !faults.is_empty() => Refused(self.told(faults)).into(),
            _ => error.context(self.file.path.display().to_string()),
        }
    }

    fn told(&self, faults: &[Fault]) -> String {
        let lines = Lines::read(&self.file.source);
        let mut text = String::new();
        for Fault { message, field } in faults {
            let line = lines.as_ref().and_then(|lines| lines.find(self.number, field));
            let line = line.map(|line| format!(":{line}")).unwrap_or_default();
            let separator = if text.is_empty() { "" } else { "\n" };
            // Writing to a string cannot fail.
            let _ = write!(text, "{separator}{}{line}: {message}", self.file.path.display());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLANT: &str = "\
apiVersion: kubebus.io/v1alpha1
kind: Rule
metadata: {name: fill, namespace: water}
spec:
  output: {device: valve, property: position, ttl: 20s}
  cases:
    - when: {input: level, op: above, value: 900}
      then: hold
---
kind: Device
metadata: {name: tank}
---
kind: Podd
---
kind: DeviceModel
";

    fn plant() -> (tempfile::TempDir, Vec<Manifest>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plant.yaml");
        std::fs::write(&path, PLANT).unwrap();
        let all = read_all(&[path]).unwrap();
        (dir, all)
    }

    fn refused(manifest: &Manifest, faults: &[(&str, &str)]) -> String {
        let fault =
            |(field, message): &(&str, &str)| Fault { message: (*message).into(), field: (*field).into() };
        let faults = faults.iter().map(fault).collect();
        let error = AskError::Refused { status: 400, message: "first".to_owned(), faults };
        let told = format!("{:#}", manifest.explained(error.into()));
        told.replace(&format!("{}/", manifest.file.path.parent().unwrap().display()), "")
    }

    #[test]
    fn rules_come_after_what_they_speak_of() {
        let (_dir, all) = plant();
        let kinds: Vec<_> = all.iter().map(|m| (m.number, m.document["kind"].as_str().unwrap())).collect();
        assert_eq!(kinds, [(2, "Podd"), (3, "DeviceModel"), (1, "Device"), (0, "Rule")]);
    }

    #[test]
    fn a_refusal_names_file_and_line_of_each_fault() {
        let (_dir, all) = plant();
        let [podd, _, device, rule] = &all[..] else { panic!() };
        assert_eq!(
            refused(
                rule,
                &[
                    (
                        "spec.cases[0].when",
                        "Rule: spec.cases[0].when: 900 can never be reached: water/tank level goes from 0 to 6"
                    ),
                    ("spec.output.slot", "Rule: spec.output.slot: rule water/drain fills slot 10 already"),
                ]
            ),
            "plant.yaml:7: Rule: spec.cases[0].when: 900 can never be reached: water/tank level goes from 0 to 6\n\
             plant.yaml:5: Rule: spec.output.slot: rule water/drain fills slot 10 already"
        );
        assert_eq!(refused(device, &[("spec.nodeName", "Device: x")]), "plant.yaml:10: Device: x");
        assert_eq!(refused(podd, &[("kind", "Podd is not known")]), "plant.yaml:13: Podd is not known");
        assert_eq!(refused(podd, &[]), "plant.yaml: first", "an answer about no field");
    }
}

//! What the cases have said of one mapper: `target/conformance/<mapper>.json`, and the same for people in `.txt`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::suite::CASES;
use crate::verdict::{Level, Verdict};

/// The verdicts of one build of a mapper's tests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub mapper: String,
    /// Every case of this level and those before it passed, or does not apply. `None`: not even bronze.
    pub level: Option<Level>,
    /// What stands between the mapper and the next level.
    pub missing: Vec<String>,
    pub cases: BTreeMap<String, Verdict>,
    /// Which build it is about; verdicts of another one are forgotten.
    build: u64,
}

impl Report {
    pub fn new(mapper: &str, cases: BTreeMap<String, Verdict>) -> Self {
        Self { mapper: mapper.to_owned(), level: None, missing: Vec::new(), cases, build: 0 }.judged()
    }

    /// With the level that its cases give.
    fn judged(mut self) -> Self {
        self.level = None;
        self.missing.clear();
        for level in [Level::Bronze, Level::Silver, Level::Gold] {
            self.missing = self.missing_for(level);
            if !self.missing.is_empty() {
                break;
            }
            self.level = Some(level);
        }
        self
    }

    fn missing_for(&self, level: Level) -> Vec<String> {
        let complaint = |name: &str| match self.cases.get(name) {
            None => Some(format!("{name}: not run")),
            Some(Verdict::Failed(why)) => Some(format!("{name}: {why}")),
            Some(Verdict::Passed | Verdict::NotApplicable(_)) => None,
        };
        CASES.iter().filter(|case| case.level == level).filter_map(|case| complaint(case.name)).collect()
    }
}

/// A line per case, and the level reached.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for case in CASES {
            let verdict = match self.cases.get(case.name) {
                None => "not run".to_owned(),
                Some(Verdict::Passed) => "passed".to_owned(),
                Some(Verdict::NotApplicable(why)) => format!("not applicable: {why}"),
                Some(Verdict::Failed(why)) => format!("FAILED: {why}"),
            };
            writeln!(f, "{:6} {:40} {verdict}", format!("{:?}", case.level).to_lowercase(), case.name)?;
        }
        match self.level {
            Some(level) => writeln!(f, "{}: {}", self.mapper, format!("{level:?}").to_lowercase())?,
            None => writeln!(f, "{}: no level yet", self.mapper)?,
        }
        self.missing.iter().try_for_each(|missing| writeln!(f, "  not higher because of {missing}"))
    }
}

/// Adds a verdict to the report on disk. Test threads and processes take turns by a lock on a file beside it.
pub(crate) fn record(mapper: &str, case: &str, verdict: &Verdict) -> io::Result<String> {
    let (dir, build) = place()?;
    fs::create_dir_all(&dir)?;
    let lock = File::create(dir.join(format!("{mapper}.lock")))?;
    lock.lock()?;
    let path = dir.join(format!("{mapper}.json"));
    let old = fs::read(&path).ok().and_then(|json| serde_json::from_slice::<Report>(&json).ok());
    let mut cases = old.filter(|old| old.build == build).map(|old| old.cases).unwrap_or_default();
    cases.insert(case.to_owned(), verdict.clone());
    let report = Report { build, ..Report::new(mapper, cases) };
    fs::write(&path, serde_json::to_vec_pretty(&report)?)?;
    fs::write(dir.join(format!("{mapper}.txt")), report.to_string())?;
    Ok(match verdict {
        Verdict::Passed => "passed".to_owned(),
        Verdict::NotApplicable(why) => format!("not applicable: {why}"),
        Verdict::Failed(_) => format!("failed, see {}", path.display()),
    })
}

/// `target/conformance`, and what tells this build of the tests from another one.
fn place() -> io::Result<(PathBuf, u64)> {
    let tests = std::env::current_exe()?;
    // target/debug/deps/conformance-0123456789abcdef
    let target = tests.ancestors().nth(3).ok_or_else(|| io::Error::other("no target directory"))?;
    let built = fs::metadata(&tests)?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((target.join("conformance"), u64::try_from(built.as_millis()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(except: &[(&str, Verdict)]) -> Report {
        let mut cases: BTreeMap<String, Verdict> =
            CASES.iter().map(|case| (case.name.to_owned(), Verdict::Passed)).collect();
        cases.extend(except.iter().map(|(name, verdict)| ((*name).to_owned(), verdict.clone())));
        Report::new("pump", cases)
    }

    #[test]
    fn a_level_asks_for_all_cases_up_to_it() {
        let failed = || Verdict::Failed("no".to_owned());
        assert_eq!(report(&[]).level, Some(Level::Gold));
        let excused = report(&[("pushes_what_changes", Verdict::NotApplicable("it does not push".into()))]);
        assert_eq!(excused.level, Some(Level::Gold));
        let silver = report(&[("late_answer_is_nobodys", failed())]);
        assert_eq!(
            (silver.level, &silver.missing[..]),
            (Some(Level::Silver), &["late_answer_is_nobodys: no".to_owned()][..])
        );
        let none = report(&[("manifest_is_sound", failed())]);
        assert_eq!(none.level, None);
        assert!(
            none.to_string().ends_with("pump: no level yet\n  not higher because of manifest_is_sound: no\n")
        );
        assert_eq!(Report::new("pump", BTreeMap::new()).level, None);
    }
}

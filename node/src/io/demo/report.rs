//! What the demo says: a narration with times, and a list of what held.

use std::fmt;
use std::io::Write;
use std::time::Instant;

/// Tells the story on stdout.
#[derive(Debug)]
pub(super) struct Narrator {
    began: Instant,
}

impl Narrator {
    pub(super) fn start() -> Self {
        Self { began: Instant::now() }
    }

    /// One line with the time since the start.
    pub(super) fn say(&self, text: impl fmt::Display) {
        let seconds = self.began.elapsed().as_secs_f64();
        self.print(format_args!("{seconds:6.1}s  {text}"));
    }

    /// A command as it was typed, for those who want to do the same.
    pub(super) fn typed(&self, command: impl fmt::Display) {
        self.say(format_args!("$ kubebus {command}"));
    }

    /// Lines without a time: a table.
    pub(super) fn print(&self, text: impl fmt::Display) {
        // Whoever closed stdout does not want to hear more; the checks go on.
        let _ = writeln!(std::io::stdout(), "{text}");
    }
}

/// One claim and whether it held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) held: bool,
    pub(super) claim: String,
    /// Figures, or what was seen instead.
    pub(super) seen: String,
}

/// All claims of one run.
#[derive(Debug, Default)]
pub(super) struct Report {
    checks: Vec<Check>,
}

impl Report {
    pub(super) fn check(&mut self, held: bool, claim: &str, seen: impl fmt::Display) -> bool {
        self.checks.push(Check { held, claim: claim.to_owned(), seen: seen.to_string() });
        held
    }

    pub(super) fn all_held(&self) -> bool {
        self.checks.iter().all(|check| check.held)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check { held, claim, seen } in &self.checks {
            let mark = if *held { "held   " } else { "NOT HELD" };
            writeln!(f, "  {mark:<8} {claim}: {seen}")?;
        }
        let failed = self.checks.iter().filter(|check| !check.held).count();
        match failed {
            0 => write!(f, "all {} claims held", self.checks.len()),
            failed => write!(f, "{failed} of {} claims did not hold", self.checks.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_what_did_not_hold() {
        let mut report = Report::default();
        report.check(true, "twins agree", "12 of 12");
        assert!(report.all_held());
        report.check(false, "nothing is lost", "7 of 8");
        assert!(!report.all_held());
        let expected = "  held     twins agree: 12 of 12\n  NOT HELD nothing is lost: 7 of 8\n1 of 2 claims did not hold";
        assert_eq!(report.to_string(), expected);
    }
}

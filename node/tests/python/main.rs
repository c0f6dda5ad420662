//! The package `python/`: its own tests, and the scripts beside this file against a cloud and an edge.
//!
//! `cargo xtask python` installs what they need.
#![cfg(feature = "io")]

#[cfg(test)]
#[path = "../harness/mod.rs"]
#[expect(dead_code, reason = "shared with other tests, which need more of it")]
mod harness;
#[cfg(test)]
mod script;

#[cfg(test)]
use harness::process;

#[cfg(test)]
mod tests {
    use crate::process::run;
    use crate::script::{Site, package, python};

    #[test]
    fn its_units_hold() {
        let mut command = python();
        command.args(["-m", "pytest"]).current_dir(package());
        let ran = run(command);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }

    #[test]
    fn its_types_hold_in_strict_terms() {
        let mut command = python();
        let cache = concat!(env!("CARGO_TARGET_TMPDIR"), "/mypy");
        command.args(["-m", "mypy", "--cache-dir", cache, "src/kubebus"]).current_dir(package());
        let ran = run(command);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }

    #[test]
    fn an_app_reads_sets_and_watches() {
        Site::start().holds("test_app.py");
    }

    #[test]
    fn a_mapper_serves_its_device() {
        Site::start().holds("test_mapper.py");
    }

    #[test]
    fn nodes_may_die_in_the_middle_of_it() {
        Site::start().holds("test_restarts.py");
    }
}

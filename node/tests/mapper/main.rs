//! `kubebus mapper`: a vendor's way from nothing to a value in the cloud, and what is said to who errs on it.
//!
//! The new mapper is built by cargo from what this workspace has downloaded, in the workspace's target directory and with
//! its profile: what it shares with the SDK is built already.
#![cfg(feature = "io")]

#[cfg(test)]
#[path = "../harness/mod.rs"]
#[expect(dead_code, reason = "shared with other tests, which need more of it")]
mod harness;

#[cfg(test)]
use harness::process;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    use serde_json::{Value, json};

    use crate::harness::{Cluster, kubebus};
    use crate::process::run;

    const USAGE: i32 = 2;
    const NOT_FOUND: i32 = 4;

    /// As in the workspace's Cargo.toml.
    const PROFILE: [&str; 3] = [
        "profile.dev.debug='line-tables-only'",
        "profile.dev.package.'*'.debug=false",
        "profile.dev.package.'*'.opt-level=1",
    ];

    /// Ended with the test.
    struct Running(Child);

    impl Running {
        fn start(mut command: Command) -> Self {
            Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
    }

    /// Where the new crate is built.
    fn built() -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("..")
    }

    /// A command that finds the new mapper on its PATH.
    fn kubebus_with_it(args: &[&str]) -> Command {
        let mut command = kubebus(args);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = [built().join("debug")].into_iter().chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(dirs).unwrap());
        command
    }

    /// Builds the crate and runs its tests, without a network and with the versions of this workspace.
    #[track_caller]
    fn test_with_cargo(dir: &Path) {
        std::fs::copy(repository().join("Cargo.lock"), dir.join("Cargo.lock")).unwrap();
        // It is formatted as a vendor's machine does: this repository's settings, which may lie above, end here.
        std::fs::write(dir.with_file_name("rustfmt.toml"), "").unwrap();
        let formatted =
            Command::new(env!("CARGO")).current_dir(dir).args(["fmt", "--check"]).output().unwrap();
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stdout));
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(dir).args(["test", "--offline", "--quiet"]).env("CARGO_TARGET_DIR", built());
        cargo.args(PROFILE.iter().flat_map(|setting| ["--config", setting]));
        let done = cargo.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(done.status.success(), "{}\n{}", text(&done.stdout), text(&done.stderr));
        assert!(!text(&done.stderr).contains("warning"), "{}", text(&done.stderr));
    }

    #[test]
    fn a_new_mapper_builds_passes_its_tests_and_brings_a_value_to_the_cloud() {
        let cluster = Cluster::start();
        let edge = cluster.edge("a");
        // Always the same place, so that cargo has one crate of this name to keep.
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("acme-pump");
        if dir.exists() {
            std::fs::remove_dir_all(&dir).unwrap();
        }
        let start = Instant::now();
        let new = ["mapper", "new", "acme-pump", "--dir", dir.to_str().unwrap()];
        let said =
            run(kubebus(&[&new[..], &["--sdk", repository().to_str().unwrap()]].concat())).expect(0).stdout;
        assert!(said.contains("cargo run -- read device.yaml"), "{said}");
        let written = start.elapsed();
        test_with_cargo(&dir);

        let start = Instant::now();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut simulator = Command::new(built().join("debug/examples/simulator"));
        simulator.arg(format!("127.0.0.1:{port}"));
        let _device = Running::start(simulator);
        let broker = edge.mqtt().to_string();
        let _mapper = Running::start(kubebus_with_it(&["mapper", "run", "acme-pump", "--broker", &broker]));
        let manifests =
            std::fs::read_to_string(dir.join("device.yaml")).unwrap().replace("7070", &port.to_string());
        cluster.apply(&manifests);
        let speed = ("default/acme-pump-1", "speed");
        cluster.cloud.twin_becomes(speed, "/reported/value", json!(1450.0));
        println!(
            "{:?} and, once it is built, {:?} from nothing to a value in the cloud",
            written,
            start.elapsed()
        );
        cluster.cloud.twin_becomes(("default/acme-pump-1", "running"), "/reported/value", json!(true));
        cluster.cloud.say(&["twin", "set", "default/acme-pump-1", "speed", "1200"]);
        cluster.cloud.twin_becomes(speed, "/reported/value", json!(1200.0));
        cluster.cloud.twin_becomes(speed, "/ack/outcome", json!("succeeded"));

        let file = cluster.file("checked.yaml", &manifests);
        let read =
            run(kubebus_with_it(&["mapper", "run", "acme-pump", "read", file.to_str().unwrap()])).expect(0);
        assert!(read.stdout.contains("speed") && read.stdout.contains("1200"), "{read:?}");
        let list: Value =
            serde_json::from_str(&run(kubebus_with_it(&["mapper", "list", "-o", "json"])).expect(0).stdout)
                .unwrap();
        let names: Vec<&Value> = list.as_array().unwrap().iter().map(|mapper| &mapper["name"]).collect();
        assert!(names.contains(&&json!("virtual")) && names.contains(&&json!("acme-pump")), "{list}");
    }

    #[test]
    fn a_mapper_that_is_not_there_is_said_to_be_missing() {
        let words = [
            "no mapper 'acme-valve'",
            "virtual",
            "kubebus-mapper-acme-valve",
            "kubebus mapper new acme-valve",
        ];
        run(kubebus(&["mapper", "run", "acme-valve"])).refused(NOT_FOUND, &words);
        run(kubebus(&["mapper", "run", "../acme-valve"])).refused(USAGE, &["../acme-valve"]);
        run(kubebus(&["mapper", "run"])).refused(USAGE, &["kubebus mapper run NAME"]);
    }

    #[test]
    fn a_bundled_mapper_gets_the_arguments_that_follow_its_name() {
        let help = run(kubebus(&["mapper", "run", "virtual", "--help"])).expect(0).stdout;
        assert!(help.contains("Usage: kubebus mapper run virtual") && help.contains("--broker"), "{help}");
        let schema = run(kubebus(&["mapper", "run", "virtual", "schema"])).expect(0).stdout;
        assert_eq!(serde_json::from_str::<Value>(&schema).unwrap()["protocol"], "virtual");
        run(kubebus(&["mapper", "run", "virtual", "check", "/nowhere/device.yaml"]))
            .refused(USAGE, &["/nowhere/device.yaml"]);
    }

    #[test]
    fn a_name_that_cannot_be_is_refused_with_one_that_can() {
        let room = tempfile::tempdir().unwrap();
        let new =
            |name: &str, dir: &Path| run(kubebus(&["mapper", "new", name, "--dir", dir.to_str().unwrap()]));
        new("Acme_Pump", &room.path().join("a")).refused(USAGE, &["'Acme_Pump'", "acme-pump"]);
        new("virtual", &room.path().join("a")).refused(USAGE, &["acme-virtual"]);
        std::fs::write(room.path().join("notes"), "mine").unwrap();
        new("acme-pump", room.path()).refused(USAGE, &["is there already", "--dir"]);
    }
}

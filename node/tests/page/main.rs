//! The page, looked at in a headless browser through a real demo: `test_page.py`.
//!
//! It needs `chromium-headless-shell`, which `cargo xtask test` installs, and Python's own library. What was seen is in
//! the target directory, under `tmp/page`: pictures, and what demo and browser said.
#![cfg(feature = "io")]

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    #[test]
    fn people_see_and_steer_a_plant_in_a_browser() {
        let artefacts = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
        // Of an earlier run.
        let _ = std::fs::remove_dir_all(&artefacts);
        std::fs::create_dir_all(&artefacts).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page/test_page.py");
        let ended = Command::new("python3")
            .args(["-B", script])
            .env("KUBEBUS", env!("CARGO_BIN_EXE_kubebus"))
            .env("ARTEFACTS", &artefacts)
            .env_remove("KUBEBUS_DATA_DIR")
            .status()
            .unwrap();
        assert!(ended.success(), "see {}", artefacts.display());
    }
}

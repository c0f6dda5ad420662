//! Completions in a real shell, and manual pages through a real formatter.

use std::process::Command;

use serde_json::Value;

use crate::harness::kubebus;
use crate::harness::process::run;

pub(crate) fn shells_complete_and_pages_render() {
    bash_completes();
    let zsh = run(kubebus(&["completions", "zsh"])).expect(0).stdout;
    assert!(zsh.starts_with("#compdef kubebus") && zsh.contains("diagnose:"), "{zsh}");
    let fish = run(kubebus(&["completions", "fish"])).expect(0).stdout;
    assert!(fish.contains("complete -c kubebus") && fish.contains("diagnose"), "{fish}");
    pages_render();
    let version: Value =
        serde_json::from_str(&run(kubebus(&["version", "-o", "json"])).expect(0).stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(version["features"].as_array().unwrap().contains(&"virtual-clock".into()), "{version}");
}

/// What bash offers after these words.
fn offered(words: &[&str]) -> String {
    let (last, count) = (words.last().unwrap(), words.len() - 1);
    let script = format!(
        "source <(\"$0\" completions bash); COMP_WORDS=({}); COMP_CWORD={count}; \
         _kubebus kubebus '{last}' '{}'; echo \"${{COMPREPLY[@]}}\"",
        words.join(" "),
        words[count - 1]
    );
    let mut bash = Command::new("bash");
    bash.args(["-c", &script, env!("CARGO_BIN_EXE_kubebus")]);
    run(bash).expect(0).stdout.trim().to_owned()
}

fn bash_completes() {
    assert_eq!(offered(&["kubebus", "tok"]), "token");
    assert_eq!(offered(&["kubebus", "debug", "di"]), "diagnose");
    let formats = offered(&["kubebus", "debug", "diagnose", "--output", "''"]);
    assert!(formats.contains("json") && formats.contains("yaml"), "{formats}");
}

fn pages_render() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    run(kubebus(&["man", "--out", out])).expect(0);
    let mut pages: Vec<String> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    let has = |name: &str| pages.iter().any(|page| page == name);
    assert!(has("kubebus.1") && has("kubebus-debug-collect.1") && has("kubebus-token-create.1"), "{pages:?}");
    assert!(!has("kubebus-demo-probe.1"), "hidden commands have none");
    for page in &pages {
        let text = std::fs::read_to_string(dir.path().join(page)).unwrap();
        let has_all = [".TH ", ".SH NAME", ".SH SYNOPSIS"].iter().all(|macro_| text.contains(macro_));
        assert!(has_all, "{page}: {text}");
    }
    // A formatter must understand all of it.
    let groff = Command::new("groff")
        .args(["-man", "-Tascii", "-ww", "-P-cbou"])
        .args(["kubebus.1", "kubebus-debug-diagnose.1"].map(|page| dir.path().join(page)))
        .output()
        .expect("groff(1), of Debian's groff-base");
    let (told, warned) = (String::from_utf8_lossy(&groff.stdout), String::from_utf8_lossy(&groff.stderr));
    assert_eq!(warned, "");
    // Lines are filled with spaces.
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("EXIT STATUS") && told.contains("kubebus debug diagnose"), "{told}");
}

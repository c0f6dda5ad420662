//! `kubebus top` on a terminal, that of script(1): it draws, hears keys, and leaves the terminal as it was.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::harness::{Cluster, Node};
use crate::process::eventually;

/// A shell on a terminal, and what is seen there.
struct Terminal {
    shell: Child,
    keys: ChildStdin,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Runs `kubebus top` for a node below `before`, between two looks at the terminal's settings.
    fn run(node: &Node, before: &str) -> Self {
        let top = node.command(&["top"]);
        let words = std::iter::once(top.get_program()).chain(top.get_args());
        let words: Vec<String> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        let line = format!("echo S$(stty -g)S; {before} {}; echo E$?E; echo S$(stty -g)S", words.join(" "));
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).env("SHELL", "/bin/sh").env_remove("KUBEBUS_DATA_DIR");
        let mut shell = script
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script(1), of Debian's bsdutils");
        let (keys, mut out) = (shell.stdin.take().unwrap(), shell.stdout.take().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = out.read(&mut bytes) {
                kept.lock().unwrap().extend_from_slice(&bytes[..len]);
            }
        });
        Self { shell, keys, seen }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    fn shows(&self, words: &str) {
        eventually(&format!("'{words}' is shown"), || {
            let text = self.text();
            if text.contains(words) { Ok(()) } else { Err(text) }
        });
    }

    fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
        self.keys.flush().unwrap();
    }

    /// The exit code, when the terminal's settings are again what they were.
    fn ended(&self) -> String {
        let between = |text: &str, mark: char| -> Vec<String> {
            let lines = text.lines().map(str::trim);
            let found = lines.filter_map(|line| line.rsplit('\u{1b}').next()?.rsplit('l').next());
            found.filter_map(|line| Some(line.strip_prefix(mark)?.strip_suffix(mark)?.to_owned())).collect()
        };
        eventually("top ends", || match &between(&self.text(), 'S')[..] {
            [before, after] if before == after => Ok(between(&self.text(), 'E').concat()),
            other => Err(format!("{other:?}\n{}", self.text())),
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

#[test]
fn top_draws_hears_keys_and_puts_the_terminal_back() {
    let cluster = Cluster::start();
    let mut terminal = Terminal::run(&cluster.cloud, "");
    terminal.shows("cloud/cloud of water");
    terminal.shows("s sort: what is wrong");
    terminal.press(b"s");
    terminal.shows("s sort: throughput");
    terminal.press(b"q");
    assert_eq!(terminal.ended(), "0");
    assert!(terminal.text().contains("\x1b[?1049l"));
}

#[test]
fn a_signal_puts_the_terminal_back_too() {
    let cluster = Cluster::start();
    let terminal = Terminal::run(&cluster.cloud, "sh -c 'echo P$$P; exec \"$@\"' sh");
    terminal.shows("cloud/cloud of water");
    let text = terminal.text();
    let process = text.split('P').nth(1).unwrap();
    assert!(Command::new("kill").args(["-TERM", process]).status().unwrap().success(), "{text}");
    assert_eq!(terminal.ended(), "0");
    assert!(terminal.text().contains("\x1b[?1049l"));
}

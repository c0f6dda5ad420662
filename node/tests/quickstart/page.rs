//! A page of `docs/quickstart` as what there is to do.

use std::fmt::Write;
use std::path::Path;

/// Where commands are typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Machine {
    /// Blocks `sh`: all on this one.
    Own,
    /// Blocks `sh cloud` and `sh edge`.
    Cloud,
    Edge,
}

/// Commands, and what the page shows that they print: nothing if it shows nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) machine: Machine,
    pub(crate) commands: String,
    pub(crate) shown: String,
}

pub(crate) fn read(name: &str) -> Vec<Step> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/quickstart").join(name);
    steps(&std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// Every block of commands is a step; a block `text` is what the step before it prints.
fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let mut block = String::new();
        for line in lines.by_ref().take_while(|line| *line != "```") {
            let _ = writeln!(block, "{line}");
        }
        let machine = match language {
            "sh" => Machine::Own,
            "sh cloud" => Machine::Cloud,
            "sh edge" => Machine::Edge,
            "text" => {
                steps.last_mut().expect("commands before what they print").shown = block;
                continue;
            }
            "console" => continue,
            other => panic!("a block of '{other}': use sh, sh cloud, sh edge or text, so that it is tested"),
        };
        steps.push(Step { machine, commands: block, shown: String::new() });
    }
    steps
}

/// The first line of `shown` that `printed` has not, after the one before it. Spaces count for nothing, `..` stands for
/// anything.
pub(crate) fn missing<'a>(shown: &'a str, printed: &str) -> Option<&'a str> {
    let mut lines = printed.lines();
    shown.lines().find(|line| !lines.any(|printed| is_like(line, printed)))
}

fn is_like(shown: &str, printed: &str) -> bool {
    let one_space = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (shown, printed) = (one_space(shown), one_space(printed));
    let mut rest = printed.as_str();
    shown.split("..").map(str::trim).all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

#[test]
fn what_is_shown_is_compared_loosely() {
    assert_eq!(missing("NAME  SITE\na .. true", "log\nNAME   SITE   X\na   plant   true\n"), None);
    assert_eq!(missing("a\nb\n", "b\na\n"), Some("b"));
    assert_eq!(missing("time=.. ms", "seq=1 time=0.2 s"), Some("time=.. ms"));
}

#[test]
fn a_page_is_read_in_its_order() {
    let step = |machine, commands: &str, shown: &str| Step {
        machine,
        commands: commands.to_owned(),
        shown: shown.to_owned(),
    };
    let page = "# A\n```sh\na\nb\n```\nso:\n```text\nc\n```\n```sh edge\nd\n```\n";
    assert_eq!(steps(page), [step(Machine::Own, "a\nb\n", "c\n"), step(Machine::Edge, "d\n", "")]);
}

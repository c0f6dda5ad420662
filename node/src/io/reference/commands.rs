//! The commands that pages tell people to type, against the command line that there is.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::repository;
use crate::io::cli::Cli;

/// A command of a page: between fences as people type it, in running text with what it needs left out.
#[derive(Debug, PartialEq)]
struct Typed {
    words: Vec<String>,
    whole: bool,
}

/// What begins another command, or is no part of this one.
const ENDS: [&str; 7] = ["|", "&&", "||", "&", ">", "2>", "#"];

/// What stands before a command that is not at the start of its line.
const BEFORE: [&str; 5] = ["$ ", "$(", "& ", "| ", "; "];

impl Typed {
    /// `text` begins at the command's first word.
    fn read(text: &str, whole: bool) -> Option<Self> {
        let mut words: Vec<String> = Vec::new();
        let mut quote = None;
        let mut word = String::new();
        for c in without_inner(text).chars().chain([' ']) {
            match quote {
                Some(open) if c == open => quote = None,
                None if c == '\'' || c == '"' => quote = Some(c),
                None if c == ' ' => {
                    words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()))
                }
                None if [';', ')', '<'].contains(&c) => {
                    words.extend([std::mem::take(&mut word), "#".to_owned()]);
                }
                Some(_) | None => word.push(c),
            }
        }
        let end = words.iter().position(|word| ENDS.contains(&word.as_str())).unwrap_or(words.len());
        words.truncate(end);
        (words.first()? == "kubebus" && words.len() > 1).then_some(Self { words, whole })
    }

    /// Why the command line does not know it.
    fn refused(&self) -> Option<String> {
        let error = Cli::command().try_get_matches_from(&self.words).err()?;
        let unknown = matches!(error.kind(), ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument);
        let incomplete = matches!(
            error.kind(),
            ErrorKind::MissingRequiredArgument
                | ErrorKind::WrongNumberOfValues
                | ErrorKind::TooFewValues
                | ErrorKind::ArgumentConflict
                | ErrorKind::NoEquals
        );
        // What a value may be is not looked at: pages leave parts of them out.
        let wrong = unknown || (incomplete && self.whole);
        wrong.then(|| {
            format!("{}: {}", self.words.join(" "), error.to_string().lines().next().unwrap_or_default())
        })
    }
}

/// The text with one word in the place of each `$(..)`: what is in there is a command of its own.
fn without_inner(text: &str) -> String {
    let mut parts = text.split("$(");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "X" + part.split_once(')').map_or("", |(_, rest)| rest))
}

/// All commands of a page.
fn commands(page: &str) -> Vec<Typed> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            // After a prompt, `$(` or `&&`; what nodes print also has it between quotes, and is left out.
            let starts = line.match_indices("kubebus ").map(|(at, _)| at);
            let before = |at: usize| BEFORE.iter().any(|before| line[..at].ends_with(before));
            let typed = starts.filter(|at| *at == 0 || before(*at));
            found.extend(typed.filter_map(|at| Typed::read(&line[at..], true)));
        } else {
            let spans = line.split('`').skip(1).step_by(2).filter(|span| !span.contains(".."));
            found.extend(spans.filter_map(|span| Typed::read(span, false)));
        }
    }
    found
}

/// The pages of the repository that are for people who use it now.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    let mut waiting = vec![repository().join("docs"), repository().join("mappers")];
    pages.extend(["README.md", "python/README.md", "sdk/README.md"].map(|page| repository().join(page)));
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") && !is_history(&path) {
                pages.push(path);
            }
        }
    }
    pages
}

/// Decisions tell of what was, and the reference is made by the program itself.
fn is_history(page: &Path) -> bool {
    page.components().any(|part| part.as_os_str() == "decisions" || part.as_os_str() == "reference")
}

#[test]
fn pages_tell_people_to_type_what_there_is() {
    let (mut seen, mut wrong) = (0, Vec::new());
    for page in pages() {
        let typed = commands(&std::fs::read_to_string(&page).unwrap());
        seen += typed.len();
        wrong.extend(typed.iter().filter_map(Typed::refused).map(|why| format!("{}: {why}", page.display())));
    }
    assert!(seen > 100, "{seen} commands: they are looked for in the wrong way");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_command_is_found_as_it_is_typed() {
    let page = "`kubebus twin get` and `no kubebus`\n```console\ncloud$ kubebus policy test a b --port 5 | less # yes\n\
                T=$(kubebus token create --site 'a b'); kubebus status\n\
                kubebus get $(which kind) nodes\nit says: start 'kubebus cloud'\n```\n";
    let typed =
        |words: &[&str], whole| Typed { words: words.iter().map(|w| (*w).to_owned()).collect(), whole };
    let expected = [
        typed(&["kubebus", "twin", "get"], false),
        typed(&["kubebus", "policy", "test", "a", "b", "--port", "5"], true),
        typed(&["kubebus", "token", "create", "--site", "a b"], true),
        typed(&["kubebus", "status"], true),
        typed(&["kubebus", "get", "X", "nodes"], true),
    ];
    assert_eq!(commands(page), expected);
    assert!(typed(&["kubebus", "twin", "got"], false).refused().is_some());
    assert!(typed(&["kubebus", "ping", "--fast"], false).refused().is_some());
    assert!(typed(&["kubebus", "twin", "set"], true).refused().is_some());
    assert!(typed(&["kubebus", "twin", "set"], false).refused().is_none());
}

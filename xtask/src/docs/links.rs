//! Links between pages, and files that pages name.

use std::collections::{BTreeMap, BTreeSet};

use super::files;

/// Endings by which a text between backticks is taken for a file.
const ENDINGS: [&str; 9] = [".rs", ".md", ".py", ".yaml", ".toml", ".json", ".sh", ".proto", "/"];

/// A page, without what is between fences: that is for programs.
struct Page {
    text: String,
    anchors: BTreeSet<String>,
}

impl Page {
    fn read(source: &str) -> Self {
        let mut fence: Option<String> = None;
        let (mut text, mut anchors) = (String::new(), BTreeSet::new());
        for line in source.lines() {
            let ticks: String = line.trim_start().chars().take_while(|c| *c == '`').collect();
            match &fence {
                None if ticks.len() >= 3 => fence = Some(ticks),
                Some(open) if ticks.len() >= open.len() => fence = None,
                Some(_) => {}
                None => {
                    if let Some((marks, title)) = line.split_once(' ')
                        && !marks.is_empty()
                        && marks.chars().all(|c| c == '#')
                    {
                        add_anchor(&mut anchors, &anchor(title));
                    }
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        Self { text, anchors }
    }

    /// Where its links lead: what stands in `](..)`, outside of backticks.
    fn links(&self) -> Vec<&str> {
        let parts = self.text.split('`').step_by(2);
        let rests = parts.flat_map(|part| part.match_indices("](").map(|(at, _)| &part[at + 2..]));
        rests.filter_map(|rest| rest.split(')').next()).collect()
    }

    /// Files and directories that it names between backticks.
    fn named(&self) -> Vec<&str> {
        let spans = self.text.split('`').skip(1).step_by(2);
        spans.filter(|span| is_path(span)).collect()
    }
}

fn is_path(span: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    span.trim_end_matches('/').contains('/')
        && span.chars().all(plain)
        && ENDINGS.iter().any(|ending| span.ends_with(ending))
        && !span.starts_with(['/', '.'])
        && !span.contains("..")
        // Topics of MQTT, and what begins like an API's path.
        && !["twin/", "mapper/", "mesh/", "answers/", "notes/"].iter().any(|topic| span.starts_with(topic))
}

/// As GitHub makes one of a heading.
fn anchor(title: &str) -> String {
    let title = match title.split_once("](") {
        Some((words, _)) => words,
        None => title,
    };
    let kept = title.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The second of a name gets a number.
fn add_anchor(anchors: &mut BTreeSet<String>, name: &str) {
    let numbered = (1..).map(|number| format!("{name}-{number}"));
    let free = std::iter::once(name.to_owned()).chain(numbered).find(|name| !anchors.contains(name));
    anchors.extend(free);
}

/// `docs/a/b.md` and `../c.md` make `docs/c.md`.
fn joined(page: &str, link: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in link.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

fn is_there(path: &str, files: &BTreeMap<String, std::path::PathBuf>) -> bool {
    let dir = format!("{path}/");
    path.is_empty() || files.contains_key(path) || files.keys().any(|file| file.starts_with(&dir))
}

/// Pages name a file by as much of its path as they need: `gate/row.rs`.
fn ends_a_path(span: &str, files: &BTreeMap<String, std::path::PathBuf>) -> bool {
    let (name, inner) = (span.trim_end_matches('/'), span.ends_with('/'));
    let middle = |file: &str| format!("/{file}").contains(&format!("/{name}/"));
    let end = |file: &str| format!("/{file}").ends_with(&format!("/{name}"));
    files.keys().any(|file| if inner { middle(file) } else { end(file) })
}

fn pages(files: &BTreeMap<String, std::path::PathBuf>) -> BTreeMap<&str, Page> {
    let pages = files.iter().filter(|(path, _)| path.ends_with(".md"));
    pages.map(|(path, file)| (path.as_str(), Page::read(&std::fs::read_to_string(file).unwrap()))).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let files = files();
    let pages = pages(&files);
    let mut dead = Vec::new();
    for (path, page) in &pages {
        for link in
            page.links().into_iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
        {
            let (to, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if to.is_empty() { (*path).to_owned() } else { joined(path, to) };
            let anchors = pages.get(target.as_str()).map(|page| &page.anchors);
            if !is_there(&target, &files) {
                dead.push(format!("{path}: there is no {target} ({link})"));
            } else if !anchor.is_empty() && anchors.is_some_and(|anchors| !anchors.contains(anchor)) {
                dead.push(format!("{path}: {target} has no heading for #{anchor}"));
            }
        }
    }
    assert!(pages.len() > 20, "the pages are looked for in the wrong place");
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

/// What it names was there when it was written, or will be in a vendor's new crate.
fn is_of_its_time(page: &str) -> bool {
    page == "CHANGELOG.md" || page.starts_with("docs/decisions/") || page.starts_with("sdk/template/")
}

#[test]
fn every_file_that_a_page_names_is_there() {
    let files = files();
    let mut missing = Vec::new();
    for (path, page) in pages(&files).iter().filter(|(path, _)| !is_of_its_time(path)) {
        let named = page.named().into_iter().filter(|span| !ends_a_path(span, &files));
        missing.extend(named.map(|span| format!("{path}: {span}")));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// A page that no other leads to is found by nobody.
#[test]
fn every_page_is_led_to_from_the_index() {
    let files = files();
    let pages = pages(&files);
    let mut found = BTreeSet::from(["docs/README.md".to_owned()]);
    let mut waiting = vec!["docs/README.md".to_owned()];
    while let Some(path) = waiting.pop() {
        let Some(page) = pages.get(path.as_str()) else { continue };
        for link in page.links() {
            let to = joined(&path, link.split('#').next().unwrap_or_default());
            // A folder shows its README.
            let to = if pages.contains_key(to.as_str()) { to } else { format!("{to}/README.md") };
            if pages.contains_key(to.as_str()) && found.insert(to.clone()) {
                waiting.push(to);
            }
        }
    }
    let lost: Vec<_> =
        pages.keys().filter(|path| path.starts_with("docs/") && !found.contains(**path)).collect();
    assert!(lost.is_empty(), "docs/README.md leads to none of these: {lost:?}");
}

#[test]
fn a_page_has_anchors_and_links_as_github_sees_them() {
    let page = Page::read(
        "# The links in `kubebus status`\n[a](b.md#c) and [`d`](../e/)\n## Ping\n```sh\n# Ping\n[x](y)\n```\n## Ping\n\
         `io/admin/mod.rs`, `twin/+/x`, `a b/c.rs`",
    );
    let anchors: Vec<_> = page.anchors.iter().map(String::as_str).collect();
    assert_eq!(anchors, ["ping", "ping-1", "the-links-in-kubebus-status"]);
    assert_eq!(page.links(), ["b.md#c", "../e/"]);
    assert_eq!(page.named(), ["io/admin/mod.rs"]);
    assert_eq!(joined("docs/a/b.md", "../c.md"), "docs/c.md");
}

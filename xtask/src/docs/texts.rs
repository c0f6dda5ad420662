//! The page `docs/troubleshooting.md` against the sources that say what it explains.

use std::collections::BTreeSet;

use super::files;

const PAGE: &str = "docs/troubleshooting.md";

/// Files whose `#[error(..)]` people meet: each of them is explained.
const EXPLAINED: [&str; 21] = [
    "bus/src/token.rs",
    "controller/src/join.rs",
    "controller/src/label.rs",
    "controller/src/lan.rs",
    "controller/src/token.rs",
    "controller/src/wireguard.rs",
    "device-twin/src/cloud/desired.rs",
    "device-twin/src/edge/authority.rs",
    "device-twin/src/gate/access/guard.rs",
    "device-twin/src/gate/policy.rs",
    "device-twin/src/model/property.rs",
    "metadata/src/store.rs",
    "node/src/admin.rs",
    "node/src/io/admin/client.rs",
    "node/src/io/damage.rs",
    "node/src/io/identity.rs",
    "node/src/io/join.rs",
    "node/src/io/restore.rs",
    "router/src/io/tun.rs",
    "router/src/verdict.rs",
    "sdk/src/error.rs",
];

/// What of them needs no explanation: it has a cause with a text of its own behind it, or nobody but a programmer sees it.
const LEFT_OUT: [&str; 21] = [
    "properties....address....",
    "not a PKCS#10 request",
    "the key is neither ECDSA P-256 nor Ed25519",
    "the request is not signed with its own key",
    "the cluster's authority failed",
    "this token exists",
    "not a token's secret",
    "unknown",
    "expired",
    "cannot stop the node",
    "cannot keep the answer",
    "cannot keep the damaged store as ..",
    ".. names no cloud: '..'",
    ".. is damaged: restore it, or remove the directory and join again",
    "cannot make a key",
    "cannot open a UDP socket",
    "the cloud closed the connection: ..",
    "the authority in the backup",
    "cannot open ..",
    "cannot create the interface '..'",
    "cannot set the MTU of the TUN",
];

/// Texts between quotes in Rust, what is put into them as `..`.
fn literals(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let here = &rest[at..];
        rest = if here.starts_with("//") {
            here.split_once('\n').map_or("", |(_, next)| next)
        } else if let Some(next) = here.strip_prefix("'\"'") {
            next
        } else if let Some(text) = here.strip_prefix('"') {
            let end = end_of(text);
            found.push(filled(&text[..end]));
            text.get(end + 1..).unwrap_or_default()
        } else {
            &here[1..]
        };
    }
    found
}

/// Where a text ends: at the first quote without a backslash before it.
fn end_of(text: &str) -> usize {
    let mut escaped = false;
    let end = text.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.unwrap_or(text.len())
}

/// A text as people see it: continued lines joined, quotes plain, `{..}` as `..`.
fn filled(text: &str) -> String {
    let mut lines = text.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let joined = lines.fold(first, |text, line| text + line.trim_start());
    let plain = joined.replace("\\\"", "\"").replace("{{", "\u{1}").replace("}}", "\u{2}");
    let mut parts = plain.split('{');
    let first = parts.next().unwrap_or_default().to_owned();
    let filled =
        parts.fold(first, |text, part| text + ".." + part.split_once('}').map_or("", |(_, rest)| rest));
    filled.replace('\u{1}', "{").replace('\u{2}', "}")
}

/// What the first cells of the page's tables quote, but those of the table that only compares with KubeEdge.
fn quoted() -> Vec<String> {
    let page = std::fs::read_to_string(&files()[PAGE]).unwrap();
    let (page, _) = page.split_once("\n## Known from KubeEdge").expect("a table of its own");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.split(" | ").next().unwrap_or_default());
    let spans = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    spans.filter(|span| !span.starts_with("kubebus ")).map(ToOwned::to_owned).collect()
}

#[test]
fn what_is_explained_is_said_somewhere() {
    let files = files();
    let sources = files.iter().filter(|(path, _)| path.ends_with(".rs") && !path.contains("tests"));
    let said: BTreeSet<String> =
        sources.flat_map(|(_, file)| literals(&std::fs::read_to_string(file).unwrap())).collect();
    let lost: Vec<_> =
        quoted().into_iter().filter(|text| !said.iter().any(|said| said.contains(text))).collect();
    assert!(lost.is_empty(), "{PAGE} explains what nothing says any more:\n{}", lost.join("\n"));
}

#[test]
fn what_people_meet_is_explained() {
    let (files, quoted) = (files(), quoted());
    let mut missing = Vec::new();
    for path in EXPLAINED {
        let source = std::fs::read_to_string(&files[path]).unwrap();
        let errors = source.split("#[error(").skip(1).filter_map(|rest| {
            let text = rest.trim_start().strip_prefix('"')?;
            Some(filled(&text[..end_of(text)]))
        });
        let words = |text: &str| text.chars().filter(char::is_ascii_alphabetic).count();
        let unexplained = errors.filter(|text| {
            words(text) > 3
                && !LEFT_OUT.contains(&text.as_str())
                && !quoted.iter().any(|quoted| text.contains(quoted.as_str()))
        });
        missing.extend(unexplained.map(|text| format!("{path}: {text}")));
    }
    assert!(missing.is_empty(), "explain these in {PAGE}:\n{}", missing.join("\n"));
}

#[test]
fn literals_are_found_as_people_see_them() {
    let source = "// \"no\"\nlet c = '\"'; #[error(\"a \\\"b\\\" {0} \\\n     c\")] f(\"{{x}} {y:?}\")";
    assert_eq!(literals(source), ["a \"b\" .. c", "{x} .."]);
}

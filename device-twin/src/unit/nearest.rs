//! Which known code somebody may have meant.

use super::{atom, spelling};

/// The known code that is nearest to `symbol`; `None` if none is near.
pub(super) fn code(symbol: &str) -> Option<String> {
    let bare = symbol.trim_matches(['[', ']']);
    spelled(symbol).or_else(|| spelled(bare)).or_else(|| alike(symbol))
}

/// The code that a common spelling means.
pub(super) fn spelled(text: &str) -> Option<String> {
    match spelling::code_of(text) {
        spelling::Meaning::Code(code) => Some(code.to_owned()),
        spelling::Meaning::Unclear | spelling::Meaning::PerhapsCode => None,
    }
}

fn alike(symbol: &str) -> Option<String> {
    let plain = atom::ATOMS.iter().map(|atom| atom.code.to_owned());
    let metric = atom::ATOMS.iter().filter(|atom| atom.is_metric);
    let prefixed =
        metric.flat_map(|atom| atom::PREFIXES.iter().map(|(prefix, _)| format!("{prefix}{}", atom.code)));
    let near = plain.chain(prefixed).map(|code| (distance(symbol, &code), code));
    // The first of the nearest: an atom before what prefixes make of it.
    let (distance, code) = near.min_by_key(|(distance, _)| *distance)?;
    (distance <= symbol.chars().count().div_ceil(2)).then_some(code)
}

/// Edits from one to the other, in halves: another case and brackets around it cost one, all else two.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = vec![0];
    for c in &b {
        row.push(row[row.len() - 1] + weight(*c));
    }
    for c in a.chars() {
        let mut next = vec![row[0] + weight(c)];
        for (at, d) in b.iter().enumerate() {
            let swapped = row[at] + exchange(c, *d);
            let less = row[at + 1] + weight(c);
            let more = next[at] + weight(*d);
            next.push(swapped.min(less).min(more));
        }
        row = next;
    }
    row[b.len()]
}

/// Cost of a character that is too many or too few.
fn weight(c: char) -> usize {
    if matches!(c, '[' | ']' | '_') { 1 } else { 2 }
}

fn exchange(a: char, b: char) -> usize {
    if a == b {
        0
    } else if a.eq_ignore_ascii_case(&b) {
        1
    } else {
        2
    }
}

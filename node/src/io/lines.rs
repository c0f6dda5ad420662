//! Where a field of a manifest stands in the file that somebody wrote.
//!
//! The cloud names a field by its path in the document, `spec.cases[0].when`; it never sees the file. So the file is
//! read once more, for the places of its keys.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// The places of all keys and list items of a file, document by document.
#[derive(Debug)]
pub(super) struct Lines(Vec<Spanned<Node>>);

/// A document without its values.
#[derive(Debug)]
enum Node {
    Leaf,
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
}

impl Lines {
    /// `None` for what is no YAML. Documents are counted as `serde_saphyr::from_multiple` counts those with content.
    pub(super) fn read(source: &str) -> Option<Self> {
        serde_saphyr::from_multiple(source).ok().map(Self)
    }

    /// The line, from 1, on which a field of a document begins: that of its key. Of a field that is not there, the line
    /// of the nearest thing around it.
    pub(super) fn find(&self, document: usize, field: &str) -> Option<u64> {
        let root = self.0.get(document)?;
        Some(root.value.find(field, root.referenced.line()))
    }
}

impl Node {
    /// `line`: where this begins.
    fn find(&self, path: &str, line: u64) -> u64 {
        let found = match self {
            Self::Leaf => None,
            Self::List(items) => index(path).and_then(|(at, rest)| {
                let item = items.get(at)?;
                Some(item.value.find(rest, item.referenced.line()))
            }),
            Self::Map(entries) => {
                let path = path.strip_prefix('.').unwrap_or(path);
                // A key may have dots of its own: the longest that fits is meant.
                let fits =
                    entries.iter().filter_map(|(key, value)| Some((key, value, below(path, &key.value)?)));
                let found = fits.max_by_key(|(key, ..)| key.value.len());
                found.map(|(key, value, rest)| value.value.find(rest, key.referenced.line()))
            }
        };
        found.unwrap_or(line)
    }
}

/// `[3].name` is item 3 and the rest.
fn index(path: &str) -> Option<(usize, &str)> {
    let (at, rest) = path.strip_prefix('[')?.split_once(']')?;
    Some((at.parse().ok()?, rest))
}

/// What follows `key` in `path`; `None` if that does not begin with it.
fn below<'p>(path: &'p str, key: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(key)?;
    (rest.is_empty() || rest.starts_with(['.', '['])).then_some(rest)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML document")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With what people write: comments, blank documents, flow and block style, anchors.
    const FILE: &str = "\
# The plant.
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: tank, labels: {example.org/hall: '2', example.org: x}}
spec:
  properties:
    - {name: level, type: DOUBLE,
       maximum: '6'}
    - name: mode

      type: STRING
---
# nothing here
---
kind: Rule
base: &high {input: level, op: above}
spec:
  inputs:
    level: {device: tank, property: level}
  cases:
    - name: full
      when:
        all:
          - *high
          - not:
              input: mode
      then: {value: 0}
    -
      then: hold
";

    #[test]
    fn a_field_is_found_on_the_line_of_its_key() {
        let lines = Lines::read(FILE).unwrap();
        for (document, field, line) in [
            (0, "kind", 3),
            (0, "metadata.name", 4),
            (0, "metadata.labels.example.org/hall", 4),
            (0, "spec", 5),
            (0, "spec.properties", 6),
            (0, "spec.properties[0]", 7),
            (0, "spec.properties[0].type", 7),
            (0, "spec.properties[0].maximum", 8),
            (0, "spec.properties[1].name", 9),
            (0, "spec.properties[1].type", 11),
            (1, "kind", 15),
            (1, "spec.inputs.level.property", 19),
            (1, "spec.cases[0].when", 22),
            (1, "spec.cases[0].when.all[0]", 24),
            (1, "spec.cases[0].when.all[1].not", 25),
            (1, "spec.cases[0].when.all[1].not.input", 26),
            (1, "spec.cases[0].then.value", 27),
            (1, "spec.cases[1].then", 29),
        ] {
            assert_eq!(lines.find(document, field), Some(line), "{document} {field}");
        }
    }

    #[test]
    fn what_is_not_there_is_found_where_it_belongs() {
        let lines = Lines::read(FILE).unwrap();
        for (document, field, line) in [
            (0, "", 2),
            (0, "document", 2),
            (0, "metadata.namespace", 4),
            (0, "spec.properties[0].unit", 7),
            (0, "spec.properties[7].name", 6),
            (1, "metadata", 15),
            (1, "spec.output.device", 17),
            (1, "spec.inputs.level.maxAge", 19),
            (1, "spec.cases[0].when.all[1].not.inputs", 25),
            (1, "spec.cases[0].name[3]", 21),
        ] {
            assert_eq!(lines.find(document, field), Some(line), "{document} {field}");
        }
        assert_eq!(lines.find(2, "kind"), None);
        assert!(Lines::read("kind: {{").is_none());
    }

    #[test]
    fn documents_are_counted_as_they_are_read() {
        for file in
            [FILE, "", "---\n---\nkind: a", "null\n---\nkind: a\n---\n- 1\n---\n'x'", "{\"kind\": \"json\"}"]
        {
            let read: Vec<serde_json::Value> = serde_saphyr::from_multiple(file).unwrap();
            assert_eq!(Lines::read(file).unwrap().0.len(), read.len(), "{file}");
        }
    }
}

//! Which objects a client wants: by labels and by fields.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Id, Item, Refusal, object};

/// All of these must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selectors {
    labels: Vec<Term>,
    fields: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    key: String,
    operator: Operator,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    Exists,
    Absent,
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Above(i64),
    Below(i64),
}

/// Terms of one selector: far more than anybody writes.
const MAX_TERMS: usize = 64;

/// The fields that objects can be selected by.
const FIELDS: [(&str, &[&str]); 8] = [
    ("metadata.name", &["metadata", "name"]),
    ("metadata.namespace", &["metadata", "namespace"]),
    ("spec.nodeName", &["spec", "nodeName"]),
    ("type", &["type"]),
    ("reason", &["reason"]),
    ("involvedObject.kind", &["involvedObject", "kind"]),
    ("involvedObject.name", &["involvedObject", "name"]),
    ("involvedObject.namespace", &["involvedObject", "namespace"]),
];

/// Asked for by `kubectl describe`; what we have of it is always as asked for, or unknown.
const FIELDS_OF_EVENTS: [(&str, &[&str]); 2] = [
    ("involvedObject.uid", &["involvedObject", "uid"]),
    ("involvedObject.apiVersion", &["involvedObject", "apiVersion"]),
];

impl Selectors {
    pub fn parse(labels: &str, fields: &str) -> Result<Self, Refusal> {
        let labels = terms(labels).map_err(|why| {
            Refusal::bad_request(format!("unable to parse labelSelector '{labels}': {why}"))
        })?;
        let parsed = terms(fields).map_err(|why| {
            Refusal::bad_request(format!("unable to parse fieldSelector '{fields}': {why}"))
        })?;
        if let Some(term) = parsed.iter().find(|term| path(&term.key).is_none()) {
            return Err(Refusal::bad_request(format!(
                "field label not supported: {}; use metadata.name, metadata.namespace or spec.nodeName",
                term.key
            )));
        }
        Ok(Self { labels, fields: parsed })
    }

    pub fn name_is(&mut self, name: &str) {
        let operator = Operator::In([name.to_owned()].into());
        self.fields.push(Term { key: "metadata.name".to_owned(), operator });
    }

    /// Whether nothing but an object's name decides: then what is selected never changes.
    pub fn is_by_name(&self) -> bool {
        let of_name = |term: &Term| matches!(term.key.as_str(), "metadata.name" | "metadata.namespace");
        self.labels.is_empty() && self.fields.iter().all(of_name)
    }

    /// Whether nothing is left out.
    pub fn is_all(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name that is selected, if it is one.
    pub fn name(&self) -> Option<&str> {
        self.one("metadata.name")
    }

    /// The one namespace that is selected, if it is one.
    pub fn namespace(&self) -> Option<&str> {
        self.one("metadata.namespace")
    }

    fn one(&self, field: &str) -> Option<&str> {
        self.fields.iter().filter(|term| term.key == field).find_map(|term| {
            let Operator::In(values) = &term.operator else { return None };
            values.first().filter(|_| values.len() == 1).map(String::as_str)
        })
    }

    /// Whether an item is selected. It is decoded only as far as that takes.
    pub fn takes(&self, item: &Item) -> bool {
        self.may_select(&item.id) && (self.is_by_name() || self.select(&object::facts(item)))
    }

    /// Whether an object may be selected, as far as its id tells.
    pub fn may_select(&self, id: &Id) -> bool {
        self.fields.iter().all(|term| match term.key.as_str() {
            "metadata.name" => term.operator.holds(Some(id.name())),
            "metadata.namespace" => term.operator.holds(id.namespace()),
            _ => true,
        })
    }

    pub fn select(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let by_label = |term: &Term| term.operator.holds(labels.get(&term.key).and_then(Value::as_str));
        let by_field = |term: &Term| {
            if FIELDS_OF_EVENTS.iter().any(|(name, _)| *name == term.key) {
                return true;
            }
            let found = path(&term.key).into_iter().flatten().try_fold(object, |at, name| at.get(name));
            // As Kubernetes: a field that is not there is empty.
            term.operator.holds(Some(found.and_then(Value::as_str).unwrap_or_default()))
        };
        self.labels.iter().all(by_label) && self.fields.iter().all(by_field)
    }
}

fn path(field: &str) -> Option<&'static [&'static str]> {
    FIELDS.iter().chain(&FIELDS_OF_EVENTS).find(|(name, _)| *name == field).map(|(_, path)| *path)
}

impl Operator {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
            Self::In(values) => value.is_some_and(|value| values.contains(value)),
            Self::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Self::Above(than) => number().is_some_and(|number| number > *than),
            Self::Below(than) => number().is_some_and(|number| number < *than),
        }
    }
}

/// `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`.
fn terms(text: &str) -> Result<Vec<Term>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        if found.len() == MAX_TERMS {
            return Err(format!("more than {MAX_TERMS} terms"));
        }
        let end = end_of_term(rest);
        found.push(term(rest[..end].trim())?);
        rest = rest[end..].strip_prefix(',').unwrap_or_default().trim();
    }
    Ok(found)
}

/// A comma between parentheses ends no term.
fn end_of_term(text: &str) -> usize {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

fn term(text: &str) -> Result<Term, String> {
    let one = |value: &str| BTreeSet::from([value.trim().to_owned()]);
    let (key, operator) = if let Some(key) = text.strip_prefix('!') {
        (key, Operator::Absent)
    } else if let Some((key, value)) = text.split_once("!=") {
        (key, Operator::NotIn(one(value)))
    } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (key, Operator::In(one(value)))
    } else if let Some((key, values)) = text.split_once(" notin ").or_else(|| text.split_once(" notin(")) {
        (key, Operator::NotIn(set(values)?))
    } else if let Some((key, values)) = text.split_once(" in ").or_else(|| text.split_once(" in(")) {
        (key, Operator::In(set(values)?))
    } else if let Some((key, value)) = text.split_once('>') {
        (key, Operator::Above(value.trim().parse().map_err(|_| format!("'{value}' is no number"))?))
    } else if let Some((key, value)) = text.split_once('<') {
        (key, Operator::Below(value.trim().parse().map_err(|_| format!("'{value}' is no number"))?))
    } else {
        (text, Operator::Exists)
    };
    let key = key.trim();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
    if key.is_empty() || !key.chars().all(is_plain) {
        return Err(format!("'{key}' is no key"));
    }
    Ok(Term { key: key.to_owned(), operator })
}

fn set(text: &str) -> Result<BTreeSet<String>, String> {
    let text = text.trim().trim_start_matches('(');
    let inner = text.strip_suffix(')').ok_or("a set of values ends with ')'")?;
    Ok(inner.split(',').map(|value| value.trim().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selects(labels: &str, object: &Value) -> bool {
        Selectors::parse(labels, "").unwrap().select(object)
    }

    #[test]
    fn labels_are_selected_as_kubernetes_does() {
        let object = json!({"metadata": {"labels": {"tier": "field", "zone": "3"}}});
        for (text, expected) in [
            ("", true),
            ("tier=field", true),
            ("tier==field,zone", true),
            ("tier!=field", false),
            ("other!=field", true),
            ("tier in (field, core),zone>2", true),
            ("tier notin (field)", false),
            ("!tier", false),
            ("!other,zone<4", true),
            ("zone>3", false),
        ] {
            assert_eq!(selects(text, &object), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused_by_name() {
        for (text, why) in [
            ("a in (b", "unable to parse labelSelector 'a in (b': a set of values ends with ')'"),
            ("a b", "unable to parse labelSelector 'a b': 'a b' is no key"),
            ("a>x", "unable to parse labelSelector 'a>x': 'x' is no number"),
        ] {
            assert_eq!(Selectors::parse(text, "").unwrap_err().message, why);
        }
        let unknown = Selectors::parse("", "spec.color=red").unwrap_err();
        assert_eq!(
            unknown.message,
            "field label not supported: spec.color; use metadata.name, metadata.namespace or spec.nodeName"
        );
    }

    #[test]
    fn fields_select_by_name_and_node() {
        let object = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"nodeName": "a"}});
        let select = |text: &str| Selectors::parse("", text).unwrap();
        assert!(select("metadata.name=p,spec.nodeName=a").select(&object));
        assert!(!select("metadata.name!=p").select(&object));
        assert!(select("metadata.name=p").is_by_name());
        assert_eq!(select("metadata.name=p").name(), Some("p"));
        assert!(!select("spec.nodeName=a").is_by_name());
        assert!(!select("metadata.namespace=other").may_select(&Id::from("default/p")));
    }
}

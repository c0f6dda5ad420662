//! `kubebus describe` and `kubebus watch`: objects of the resource API, of any kind, at the cloud or at an edge.

mod describe;
mod get;
mod watch;

use anyhow::Result;
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use controller::api::Kind;

pub(super) use self::get::{GetKind, get};
use super::admin::AskError;
use super::cli::{AskArgs, Format, Place};

#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// What kind of object; plural, singular or short as kubectl has it
    #[arg(value_parser = kinds(), ignore_case = true)]
    pub kind: Kind,
    /// Its name; namespace/name for what has a namespace, 'default' if none is given
    pub name: String,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Args)]
pub struct WatchArgs {
    /// What kind of objects; plural, singular or short as kubectl has it
    #[arg(value_parser = kinds(), ignore_case = true)]
    pub kind: Kind,
    /// Only this one; namespace/name for what has a namespace
    pub name: Option<String>,
    #[command(flatten)]
    pub place: Place,
    /// How to print: a line a change; json and yaml print the whole object each time
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

pub(super) async fn describe(args: &DescribeArgs) -> Result<()> {
    describe::run(args).await
}

pub(super) async fn watch(args: &WatchArgs) -> Result<()> {
    watch::run(args).await
}

/// In this program's words, nodes are edge nodes.
const NODES: [&str; 2] = ["nodes", "node"];

/// All kinds by all their names, of which the plural one is offered.
fn kinds() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.map(names_of)).try_map(|text| known(&text))
}

fn names_of(kind: Kind) -> PossibleValue {
    let info = kind.info();
    let more = if kind == Kind::EdgeNode { &NODES[..] } else { &[] };
    PossibleValue::new(info.plural).alias(info.singular).aliases(info.short).aliases(more)
}

/// Of one of the names that [`kinds`] takes.
fn known(text: &str) -> Result<Kind, AskError> {
    let found = Kind::ALL.into_iter().find(|kind| names_of(*kind).matches(text, true));
    found.ok_or_else(|| AskError::Refused {
        status: 400,
        message: format!("no kind is called '{text}'"),
        faults: Vec::new(),
    })
}

/// Adds the command that shows what there is.
fn helped(error: anyhow::Error, kind: Kind) -> anyhow::Error {
    match error.downcast::<AskError>() {
        Ok(AskError::Refused { status: 404, message, faults }) => {
            let message = format!("{message}: see 'kubebus get {}'", kind.info().plural);
            AskError::Refused { status: 404, message, faults }.into()
        }
        Ok(other) => other.into(),
        Err(other) => other,
    }
}

/// Where all objects of a kind are.
fn path_of(kind: Kind) -> String {
    let info = kind.info();
    let root = if info.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", info.group) };
    format!("{root}/{}/{}", info.version, info.plural)
}

/// Where one of them is.
fn path_to(kind: Kind, name: &str) -> String {
    let info = kind.info();
    let all = path_of(kind);
    match (info.namespaced, all.strip_suffix(info.plural)) {
        (true, Some(root)) => {
            let (namespace, name) = split(name);
            format!("{root}namespaces/{namespace}/{}/{name}", info.plural)
        }
        _ => format!("{all}/{name}"),
    }
}

/// As the API has tables.
const AS_TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// With its namespace, if it has one: as other commands take it.
fn full_name(object: &serde_json::Value) -> String {
    let name = super::table::cell(&object["metadata"]["name"]);
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name,
    }
}

fn split(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or(("default", name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_by_all_their_names() {
        for (text, kind) in [
            ("devices", Kind::Device),
            ("Device", Kind::Device),
            ("node", Kind::EdgeNode),
            ("edgenodes", Kind::EdgeNode),
            ("sites", Kind::Site),
            ("jointoken", Kind::JoinToken),
        ] {
            assert_eq!(known(text).unwrap(), kind, "{text}");
        }
        assert!(known("pods").is_err());
    }

    #[test]
    fn objects_are_where_kubernetes_has_them() {
        assert_eq!(path_to(Kind::Site, "plant"), "/apis/kubebus.io/v1alpha1/sites/plant");
        let device = "/apis/devices.kubeedge.io/v1beta1/namespaces/water/devices/valve";
        assert_eq!(path_to(Kind::Device, "water/valve"), device);
        assert_eq!(path_of(Kind::Event), "/api/v1/events");
    }
}

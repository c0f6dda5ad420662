//! `kubebus describe` and `kubebus watch`: objects of the resource API, of any kind, at the cloud or at an edge.

mod describe;
mod watch;

use anyhow::Result;
use clap::Args;
use controller::api::Kind;

use super::cli::{AskArgs, Format, Place};

#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// What kind of object: device, edgenode, site, rule, ..; plural, singular or short as kubectl has it
    #[arg(value_parser = parse_kind)]
    pub kind: Kind,
    /// Its name; namespace/name for what has a namespace, 'default' if none is given
    pub name: String,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Args)]
pub struct WatchArgs {
    /// What kind of objects: devices, edgenodes, sites, rules, ..; plural, singular or short as kubectl has it
    #[arg(value_parser = parse_kind)]
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
fn parse_kind(text: &str) -> Result<Kind, String> {
    let wanted = text.to_ascii_lowercase();
    let is_it = |kind: &Kind| {
        let info = kind.info();
        [info.plural, info.singular].contains(&wanted.as_str()) || info.short.contains(&wanted.as_str())
    };
    match wanted.as_str() {
        "node" | "nodes" => Ok(Kind::EdgeNode),
        _ => Kind::ALL.into_iter().find(is_it).ok_or_else(|| {
            let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.info().plural).collect();
            format!("no kind is called '{text}'; there are {}", known.join(", "))
        }),
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
            assert_eq!(parse_kind(text), Ok(kind), "{text}");
        }
        assert!(parse_kind("pods").unwrap_err().contains("devices, "));
    }

    #[test]
    fn objects_are_where_kubernetes_has_them() {
        assert_eq!(path_to(Kind::Site, "plant"), "/apis/kubebus.io/v1alpha1/sites/plant");
        let device = "/apis/devices.kubeedge.io/v1beta1/namespaces/water/devices/valve";
        assert_eq!(path_to(Kind::Device, "water/valve"), device);
        assert_eq!(path_of(Kind::Event), "/api/v1/events");
    }
}

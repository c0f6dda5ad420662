//! OpenAPI v3: as much as `kubectl explain` and the check before a write need.

use serde_json::{Map, Value, json};

use super::{Kind, Layout, schema};

/// `/openapi/v3`: where the documents are.
pub fn index(layout: Layout) -> Value {
    let mut paths = Map::new();
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_served(layout)) {
        let info = kind.info();
        let path = match info.group {
            "" => format!("api/{}", info.version),
            group => format!("apis/{group}/{}", info.version),
        };
        let url = format!("/openapi/v3/{path}?hash={}", env!("CARGO_PKG_VERSION"));
        paths.insert(path, json!({ "serverRelativeURL": url }));
    }
    json!({ "paths": paths })
}

/// The document of one group and version.
pub fn document(layout: Layout, group: &str, version: &str) -> Option<Value> {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    let is_in =
        |kind: &Kind| kind.is_served(layout) && (kind.info().group, kind.info().version) == (group, version);
    for kind in Kind::ALL.into_iter().filter(is_in) {
        schemas.insert(schema_name(kind), schema::of(kind).clone());
        let (collection, one) = place(kind);
        paths.insert(collection, json!({ "get": operation(kind, "list"), "post": operation(kind, "post") }));
        let operations: Map<String, Value> = ["get", "put", "patch", "delete"]
            .iter()
            .map(|verb| ((*verb).to_owned(), operation(kind, verb)))
            .collect();
        paths.insert(one, Value::Object(operations));
    }
    if paths.is_empty() {
        return None;
    }
    Some(json!({
        "openapi": "3.0.0", "info": { "title": "KubeBus", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths, "components": { "schemas": schemas },
    }))
}

fn schema_name(kind: Kind) -> String {
    let info = kind.info();
    let group: Vec<&str> = info.group.split('.').rev().filter(|part| !part.is_empty()).collect();
    let group = if group.is_empty() { "io.k8s.api.core".to_owned() } else { group.join(".") };
    format!("{group}.{}.{}", info.version, info.kind)
}

/// The paths of a collection, and of one object of it.
fn place(kind: Kind) -> (String, String) {
    let info = kind.info();
    let root = match info.group {
        "" => format!("/api/{}", info.version),
        group => format!("/apis/{group}/{}", info.version),
    };
    let root = if info.namespaced { format!("{root}/namespaces/{{namespace}}") } else { root };
    (format!("{root}/{}", info.plural), format!("{root}/{}/{{name}}", info.plural))
}

fn operation(kind: Kind, verb: &str) -> Value {
    let info = kind.info();
    let parameter = |name: &str| json!({ "name": name, "in": "query", "schema": { "type": "string", "uniqueItems": true } });
    let parameters: Vec<Value> = match verb {
        "post" | "put" | "patch" => ["dryRun", "fieldManager", "fieldValidation"].map(parameter).into(),
        _ => Vec::new(),
    };
    json!({
        "x-kubernetes-action": verb,
        "x-kubernetes-group-version-kind": { "group": info.group, "version": info.version, "kind": info.kind },
        "parameters": parameters,
        "responses": { "200": {
            "description": "OK",
            "content": { "application/json": { "schema": { "$ref": format!("#/components/schemas/{}", schema_name(kind)) } } },
        } },
    })
}

//! What a request wants, as the two tables know it.

use super::{Role, paths, resources};

/// A request's head, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a str,
}

/// A part of the resource API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// What there is: nothing of the cluster's state.
    Discovery,
    Resource {
        verb: &'static str,
        group: &'a str,
        /// Empty: in no namespace, or in all.
        namespace: &'a str,
        resource: &'a str,
        /// Empty: all, or a new one.
        name: &'a str,
        /// Empty: the whole.
        subresource: &'a str,
    },
}

/// Whether `role` may have that.
pub fn may(role: Role, request: Request<'_>) -> bool {
    if !is_resource_api(request.path) {
        return paths::roles(request.method, request.path).contains(&role);
    }
    match wanted(request) {
        Some(Wanted::Discovery) => true,
        Some(Wanted::Resource { verb, group, resource, subresource, .. }) => {
            resources::allowed(role, verb, group, resource, subresource)
        }
        None => role == Role::Admin,
    }
}

/// Whether the resource API answers that.
pub fn is_resource_api(path: &str) -> bool {
    matches!(path.split('/').nth(1), Some("api" | "apis" | "openapi" | "version"))
}

/// Whether it changes nothing.
pub fn only_reads(request: Request<'_>) -> bool {
    match (request.method, request.path) {
        ("GET" | "HEAD", _) => true,
        // Questions that have a body.
        ("POST", "/kubebus/v1/policy/test" | "/kubebus/v1/route") => true,
        (_, path) if is_resource_api(path) => matches!(
            wanted(request),
            Some(Wanted::Resource { group: "authorization.k8s.io" | "authentication.k8s.io", .. })
        ),
        _ => false,
    }
}

/// What of the resource API that is; `None`: nothing that there could be. Names there are never escaped, so what is
/// escaped, or has an empty level, fits nothing: no reader after this one may see another name in it.
pub fn wanted(request: Request<'_>) -> Option<Wanted<'_>> {
    let Request { method, path, query } = request;
    let levels: Vec<&str> = path.split('/').skip(1).collect();
    if path.contains(['%', ';', '\\']) || levels.iter().any(|level| matches!(*level, "" | "." | "..")) {
        return None;
    }
    let reads = matches!(method, "GET" | "HEAD");
    let (group, rest) = match levels.as_slice() {
        ["version"] | ["api"] | ["apis"] | ["openapi", ..] | ["api", "v1"] | ["apis", _] | ["apis", _, _] => {
            return reads.then_some(Wanted::Discovery);
        }
        ["api", "v1", rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => return None,
    };
    let (watches, rest) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        rest => (is_watch(query), rest),
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() && !is_part(rest) => (*namespace, rest),
        rest => ("", rest),
    };
    let (resource, name, subresource) = match rest {
        [resource] => (*resource, "", ""),
        [resource, name] => (*resource, *name, ""),
        [resource, name, subresource] => (*resource, *name, *subresource),
        _ => return None,
    };
    let verb = verb(method, !name.is_empty(), watches)?;
    Some(Wanted::Resource { verb, group, namespace, resource, name, subresource })
}

/// Of a namespace itself.
fn is_part(rest: &[&str]) -> bool {
    matches!(rest, ["status" | "finalize"])
}

fn is_watch(query: &str) -> bool {
    let words = query.split('&');
    words.filter_map(|word| word.strip_prefix("watch")).any(|value| !matches!(value, "=false" | "=0"))
}

fn verb(method: &str, has_name: bool, watches: bool) -> Option<&'static str> {
    Some(match (method, has_name, watches) {
        ("GET" | "HEAD", _, true) => "watch",
        ("GET" | "HEAD", true, false) => "get",
        ("GET" | "HEAD", false, false) => "list",
        ("POST", ..) => "create",
        ("PUT", ..) => "update",
        ("PATCH", ..) => "patch",
        ("DELETE", true, _) => "delete",
        ("DELETE", false, _) => "deletecollection",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &'static str, path: &'static str) -> Option<Wanted<'static>> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        wanted(Request { method, path, query })
    }

    #[test]
    fn paths_are_read_as_kubernetes_has_them() {
        let resource = |verb, group, namespace, resource, name, subresource| {
            Some(Wanted::Resource { verb, group, namespace, resource, name, subresource })
        };
        let kubeedge = "devices.kubeedge.io";
        for (method, path, expected) in [
            ("GET", "/apis", Some(Wanted::Discovery)),
            ("POST", "/apis", None),
            ("GET", "/openapi/v3/apis/kubebus.io/v1alpha1", Some(Wanted::Discovery)),
            ("GET", "/api/v1/namespaces", resource("list", "", "", "namespaces", "", "")),
            ("GET", "/api/v1/namespaces/x", resource("get", "", "", "namespaces", "x", "")),
            ("GET", "/api/v1/namespaces/x/status", resource("get", "", "", "namespaces", "x", "status")),
            ("GET", "/api/v1/namespaces/x/events", resource("list", "", "x", "events", "", "")),
            (
                "GET",
                "/apis/devices.kubeedge.io/v1beta1/namespaces/water/devices?watch=true",
                resource("watch", kubeedge, "water", "devices", "", ""),
            ),
            (
                "GET",
                "/apis/devices.kubeedge.io/v1beta1/watch/devices",
                resource("watch", kubeedge, "", "devices", "", ""),
            ),
            (
                "PATCH",
                "/apis/devices.kubeedge.io/v1beta1/namespaces/water/devices/v1/desired",
                resource("patch", kubeedge, "water", "devices", "v1", "desired"),
            ),
            (
                "DELETE",
                "/apis/kubebus.io/v1alpha1/users",
                resource("deletecollection", "kubebus.io", "", "users", "", ""),
            ),
            ("GET", "/apis/kubebus.io/v1alpha1//users", None),
            ("GET", "/apis/kubebus.io/v1alpha1/%75sers", None),
            ("GET", "/apis/kubebus.io/v1alpha1/../v1alpha1/users", None),
            ("CONNECT", "/apis/kubebus.io/v1alpha1/users", None),
        ] {
            assert_eq!(read(method, path), expected, "{method} {path}");
        }
    }
}

//! Who may what of all that is no resource: orders, records, the page.

use super::Role;

use Role::{Admin, App, Operator, Viewer};

const EACH: &[Role] = &Role::ALL;
const ADMIN: &[Role] = &[Admin];
const OPERATOR: &[Role] = &[Admin, Operator];
const READERS: &[Role] = &[Admin, Operator, Viewer];
/// Those who may know how devices are.
const WATCHERS: &[Role] = &[Admin, Operator, Viewer, App];
const WISHERS: &[Role] = &[Admin, Operator, App];

/// Who may ask this. In a path `*` is one level, and `**` at its end any number of them.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub method: &'static str,
    pub path: &'static str,
    pub roles: &'static [Role],
}

const fn row(method: &'static str, path: &'static str, roles: &'static [Role]) -> Row {
    Row { method, path, roles }
}

/// The first row that fits decides; what fits none is for administrators. `HEAD` is asked as `GET`.
pub const ROWS: &[Row] = &[
    row("GET", "/healthz", EACH),
    row("GET", "/metrics", READERS),
    row("GET", "/", READERS),
    row("GET", "/page/**", READERS),
    row("GET", "/kubebus/v1/whoami", EACH),
    row("GET", "/kubebus/v1/status", READERS),
    row("GET", "/kubebus/v1/fleet", READERS),
    row("GET", "/kubebus/v1/nodes", READERS),
    row("GET", "/kubebus/v1/resources/device", EACH),
    row("GET", "/kubebus/v1/resources/devicemodel", EACH),
    row("GET", "/kubebus/v1/resources/twinpolicy", &[Admin, Operator, Viewer, Role::Mapper]),
    row("GET", "/kubebus/v1/resources/*", READERS),
    row("GET", "/kubebus/v1/twins/**", WATCHERS),
    row("GET", "/kubebus/v1/commands/**", WATCHERS),
    row("GET", "/kubebus/v1/history/**", WATCHERS),
    row("GET", "/kubebus/v1/rules", READERS),
    row("GET", "/kubebus/v1/rule-log", READERS),
    row("GET", "/kubebus/v1/audit/**", READERS),
    row("GET", "/kubebus/v1/audit-log", READERS),
    row("GET", "/kubebus/v1/routes", READERS),
    row("GET", "/kubebus/v1/labels/*/*", READERS),
    row("GET", "/kubebus/v1/wireguard", READERS),
    row("GET", "/kubebus/v1/clients", READERS),
    row("GET", "/kubebus/v1/upstream", READERS),
    row("POST", "/kubebus/v1/nodes/*/checks", OPERATOR),
    row("POST", "/kubebus/v1/policy/test", READERS),
    row("POST", "/kubebus/v1/route", READERS),
    row("PUT", "/kubebus/v1/twins/*/*/desired/*", WISHERS),
    row("PATCH", "/kubebus/v1/twins/*/*/desired", WISHERS),
    row("POST", "/kubebus/v1/changes", WISHERS),
    row("POST", "/kubebus/v1/twins/*/*/commands/reset-rule", OPERATOR),
    row("POST", "/kubebus/v1/twins/*/*/commands/*", WISHERS),
    row("PUT", "/kubebus/v1/twins/*/*/authority", OPERATOR),
    row("DELETE", "/kubebus/v1/twins/*/*/authority", OPERATOR),
];

/// What strangers may have: whether the node lives, what the page is made of, which says nothing of the cluster, and the
/// log-in.
pub const OPEN: &[(&str, &str)] = &[
    ("GET", "/healthz"),
    ("GET", "/"),
    ("GET", "/page/login"),
    ("GET", "/page/*.js"),
    ("GET", "/page/*.css"),
    ("GET", "/page/*.svg"),
    ("POST", "/page/session"),
];

/// Who may ask this.
pub fn roles(method: &str, path: &str) -> &'static [Role] {
    let method = if method == "HEAD" { "GET" } else { method };
    let found = ROWS.iter().find(|row| row.method == method && fits(row.path, path));
    found.map_or(ADMIN, |row| row.roles)
}

/// Whether nobody needs to be known for this.
pub fn is_open(method: &str, path: &str) -> bool {
    let method = if method == "HEAD" { "GET" } else { method };
    OPEN.iter().any(|(known, pattern)| *known == method && fits(pattern, path))
}

fn fits(pattern: &str, path: &str) -> bool {
    let (mut patterns, mut levels) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), levels.next()) {
            (Some("**"), _) | (None, None) => return true,
            (Some(pattern), Some(level)) if level_fits(pattern, level) => {}
            _ => return false,
        }
    }
}

fn level_fits(pattern: &str, level: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(ending) => level.len() > ending.len() && level.ends_with(ending),
        None => pattern == level,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_its_levels_and_no_more() {
        for (pattern, path, expected) in [
            ("/a/*", "/a/b", true),
            ("/a/*", "/a/", false),
            ("/a/*", "/a/b/c", false),
            ("/a/**", "/a", true),
            ("/a/**", "/a/b/c", true),
            ("/a/**", "/ab", false),
            ("/page/*.js", "/page/app.js", true),
            ("/page/*.js", "/page/.js", false),
            ("/page/*.js", "/page/stream", false),
            ("/page/*.js", "/page/x/app.js", false),
        ] {
            assert_eq!(fits(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn what_no_row_names_is_for_administrators() {
        for (method, path) in
            [("GET", "/kubebus/v1/backup"), ("POST", "/kubebus/v1/status"), ("GET", "/x"), ("TRACE", "/")]
        {
            assert_eq!(roles(method, path), ADMIN, "{method} {path}");
        }
    }
}

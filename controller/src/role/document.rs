//! The tables as `docs/roles.md` shows them.

use std::fmt::Write;

use super::{Role, paths, resources};

const HEAD: &str = "\
# Roles

Who somebody is says his certificate (or the page's log-in), what he may do says his role: `docs/access.md`. This page is
generated from the code (`controller/src/role/`) and tested to equal it. What no line names is for `admin` alone. Whoever
opens a node's admin socket is `admin`.

| role | is for |
|---|---|
| admin | those who run the cluster: everything |
| operator | those who run a site: wishes, commands, authority, rules; reads all but secrets |
| viewer | those who look: reads all but secrets |
| mapper | a mapper's process: devices, models and policies. `mapper/NAME` certificates have this role |
| app | an app: twins, wishes and commands |

Secrets are join tokens, WireGuard keys, users and the backup; and in `configData`, fields whose names say that they hold one
(`password`, `authPass`, `privateKey`, ..): of these, all but admin and mapper read `(removed)`.

## Resource API

`read` is get, list and watch. Discovery and OpenAPI are for everybody who is known. Who may `patch` a device and not `update`
it changes desired values alone: a patch of anything else is refused, and names it. `devices/commands` takes `reset-rule` of
those alone who may POST it below.

| group | resource | verbs | roles |
|---|---|---|---|
";

const PATHS: &str = "
## Everything else

A `*` is one part of the path, `**` any number. The first line that fits decides.

| method | path | roles |
|---|---|---|
";

const OPEN: &str = "
## Strangers

Over HTTPS, somebody without certificate and log-in has these, and nothing else: whether the node lives, the files that the
page is made of, which say nothing of the cluster, and the log-in.

| method | path |
|---|---|
";

/// All of it.
pub fn render() -> String {
    let mut text = HEAD.to_owned();
    for grant in resources::GRANTS {
        for resource in grant.resources {
            let group = if grant.group.is_empty() { "(core)" } else { grant.group };
            let (verbs, roles) = (verbs(grant.verbs), listed(grant.roles));
            line(&mut text, &[&code(group), &code(resource), &verbs, &roles]);
        }
    }
    text.push_str(PATHS);
    for row in paths::ROWS {
        line(&mut text, &[row.method, &code(row.path), &listed(row.roles)]);
    }
    text.push_str(OPEN);
    for (method, path) in paths::OPEN {
        line(&mut text, &[method, &code(path)]);
    }
    text
}

fn line(text: &mut String, cells: &[&str]) {
    // A String takes everything.
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn verbs(verbs: &[&str]) -> String {
    match verbs {
        [resources::ANY] => "all".to_owned(),
        ["get", "list", "watch"] => "read".to_owned(),
        others => others.join(", "),
    }
}

fn listed(roles: &[Role]) -> String {
    match roles == Role::ALL {
        true => "all".to_owned(),
        false => roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_about_roles_says_what_the_code_does() {
        let written = include_str!("../../../docs/roles.md");
        let rendered = super::render();
        assert!(written == rendered, "docs/roles.md must be:\n{rendered}<end>");
    }
}

//! Who may what of the resource API.

use super::Role;

const ADMIN: &[Role] = &[Role::Admin];
const READERS: &[Role] = &[Role::Operator, Role::Viewer];
const ALL: &[Role] = &Role::ALL;
const OPERATOR: &[Role] = &[Role::Operator];
const APP: &[Role] = &[Role::App];
const WATCHERS: &[Role] = &[Role::Operator, Role::Viewer, Role::App];
const WISHERS: &[Role] = &[Role::Operator, Role::App];
const MAPPER: &[Role] = &[Role::Mapper];

const READ: &[&str] = &["get", "list", "watch"];
const GET: &[&str] = &["get"];
const CREATE: &[&str] = &["create"];
const PATCH: &[&str] = &["patch"];
const CHANGE: &[&str] = &["update", "patch"];

/// Stands for every verb, group or resource.
pub const ANY: &str = "*";

/// `roles` may do `verbs` to `resources` of `group`. A subresource is one of its own, `devices/status`.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    pub roles: &'static [Role],
    pub verbs: &'static [&'static str],
    pub group: &'static str,
    pub resources: &'static [&'static str],
}

const fn grant(
    roles: &'static [Role],
    verbs: &'static [&'static str],
    group: &'static str,
    resources: &'static [&'static str],
) -> Grant {
    Grant { roles, verbs, group, resources }
}

const DEVICES: &str = "devices.kubeedge.io";
const OURS: &str = "kubebus.io";

/// Nobody but administrators changes an object. Wishes, commands and authority are parts of a device, for those who may
/// give them by [`super::paths`] too. Who may patch a device and not update it may change nothing of it but what is desired:
/// see [`crate::api::writes_whole`]. What lets somebody in, `jointokens`, `wireguardpeers` and `users`, is for administrators
/// alone.
pub const GRANTS: &[Grant] = &[
    grant(ADMIN, &[ANY], ANY, &[ANY]),
    grant(READERS, READ, DEVICES, &["devices", "devices/status", "devicemodels"]),
    grant(
        READERS,
        READ,
        OURS,
        &[
            "sites",
            "sites/status",
            "edgenodes",
            "edgenodes/status",
            "routes",
            "accesspolicies",
            "accesspolicies/status",
            "twinpolicies",
            "rules",
            "rules/status",
            "hosts",
            "hosts/status",
        ],
    ),
    grant(READERS, READ, "", &["events", "namespaces"]),
    grant(APP, READ, DEVICES, &["devices", "devices/status", "devicemodels"]),
    grant(MAPPER, READ, DEVICES, &["devices", "devices/status", "devicemodels"]),
    grant(MAPPER, READ, OURS, &["twinpolicies"]),
    grant(WATCHERS, GET, DEVICES, &["devices/desired", "devices/commands", "devices/authority"]),
    grant(WISHERS, PATCH, DEVICES, &["devices"]),
    grant(WISHERS, CHANGE, DEVICES, &["devices/desired"]),
    grant(WISHERS, CREATE, DEVICES, &["devices/commands"]),
    grant(OPERATOR, CHANGE, DEVICES, &["devices/authority"]),
    grant(ALL, READ, "", &["namespaces"]),
    grant(ALL, CREATE, "authorization.k8s.io", &["selfsubjectaccessreviews"]),
    grant(ALL, CREATE, "authentication.k8s.io", &["selfsubjectreviews"]),
];

/// Whether `role` may do `verb` (`get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`) to
/// a resource, or to a part of it; `subresource` is empty for the whole.
pub fn allowed(role: Role, verb: &str, group: &str, resource: &str, subresource: &str) -> bool {
    let is = |known: &str, asked: &str| known == ANY || known == asked;
    let is_resource = |known: &str| match known.split_once('/') {
        Some((whole, part)) => whole == resource && part == subresource,
        None => known == ANY || (known == resource && subresource.is_empty()),
    };
    GRANTS.iter().any(|grant| {
        grant.roles.contains(&role)
            && grant.verbs.iter().any(|known| is(known, verb))
            && is(grant.group, group)
            && grant.resources.iter().any(|known| is_resource(known))
    })
}

#[cfg(test)]
mod tests {
    use super::super::paths;
    use super::*;

    #[test]
    fn who_steers_by_one_table_steers_by_the_other() {
        for (verb, part, method, path) in [
            ("get", "desired", "GET", "/kubebus/v1/twins/x/y"),
            ("patch", "desired", "PATCH", "/kubebus/v1/twins/x/y/desired"),
            ("update", "desired", "PUT", "/kubebus/v1/twins/x/y/desired/p"),
            ("get", "commands", "GET", "/kubebus/v1/commands/x/y"),
            ("create", "commands", "POST", "/kubebus/v1/twins/x/y/commands/set"),
            ("update", "authority", "PUT", "/kubebus/v1/twins/x/y/authority"),
            ("patch", "authority", "DELETE", "/kubebus/v1/twins/x/y/authority"),
            ("patch", "", "PATCH", "/kubebus/v1/twins/x/y/desired"),
        ] {
            for role in Role::ALL {
                let here = allowed(role, verb, DEVICES, "devices", part);
                assert_eq!(here, paths::roles(method, path).contains(&role), "{role} {verb} {part}");
            }
        }
    }
}

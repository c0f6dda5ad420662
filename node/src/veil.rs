//! What of a device's settings is shown to whom: passwords of its protocol are for those who set them, administrators, and
//! for mappers, who log in with them.

use controller::role::Role;
use serde_json::Value;

use crate::diagnose::redact;

/// Settings of protocols, of which nothing is known here but the names.
const SETTINGS: &str = "configData";

/// Where `kubectl apply` keeps a whole manifest.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Takes secrets out of objects that somebody with this role is shown, or changes.
pub(crate) fn over(role: Role, shown: &mut Value) {
    if let Some(veil) = of(role) {
        veil(shown);
    }
}

/// What takes them out, for who may not see them.
pub(crate) fn of(role: Role) -> Option<fn(&mut Value)> {
    (!matches!(role, Role::Admin | Role::Mapper)).then_some(veil)
}

fn veil(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                match name.as_str() {
                    SETTINGS => redact::document(field),
                    LAST_APPLIED => *field = redact::REMOVED.into(),
                    _ => veil(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(veil),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_device_password_is_for_administrators_and_mappers() {
        let device = |password: &str, applied: &str| {
            json!({
                "metadata": { "annotations": { LAST_APPLIED: applied, "note": "password: x" } },
                "spec": {
                    "protocol": { "configData": { "url": "opc.tcp://10.0.0.7:4840", "password": password } },
                    "properties": [{ "visitors": { "configData": { "authPass": password, "register": 3 } } }],
                },
            })
        };
        for role in Role::ALL {
            let mut shown = json!([device("hunter2", "{}")]);
            over(role, &mut shown);
            let expected = match role {
                Role::Admin | Role::Mapper => device("hunter2", "{}"),
                Role::Operator | Role::Viewer | Role::App => device(redact::REMOVED, redact::REMOVED),
            };
            assert_eq!(shown, json!([expected]), "{role}");
        }
    }
}

//! What is asked about users, and the answers.

use bus::{KeyHash, Name, UnixMillis};
use controller::role::Role;
use controller::user::{self, User, UserError};
use metadata::Keyspace;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::admin::{AdminError, AdminResponse, describe};

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserRequest {
    List,
    Put { name: Name, order: UserOrder },
    SetRole { name: Name, role: Role },
    Revoke { name: Name },
    Remove { name: Name },
}

impl UserRequest {
    pub(crate) fn writes(&self) -> bool {
        !matches!(self, Self::List)
    }
}

/// A user whose certificate was just issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserOrder {
    /// `admin`, `operator`, `viewer`, `mapper` or `app`.
    pub role: String,
    /// SHA-256 of its key's SubjectPublicKeyInfo, in hexadecimal.
    pub key: String,
    /// When the certificate ends, in milliseconds since 1970.
    pub not_after_ms: u64,
    /// Whether it may take the place of another certificate.
    #[serde(default)]
    pub replace: bool,
}

impl UserOrder {
    fn user(self, name: Name) -> Result<(User, bool), AdminError> {
        let Self { role, key, not_after_ms, replace } = self;
        let role = read_role(&role)?;
        let key =
            read_key(&key).ok_or_else(|| AdminError::Invalid("key: 64 hexadecimal digits".to_owned()))?;
        Ok((User { name, role, key, not_after: UnixMillis(not_after_ms), revoked: None }, replace))
    }
}

pub(crate) fn read_role(text: &str) -> Result<Role, AdminError> {
    text.parse().map_err(|error| AdminError::Invalid(format!("role: {error}")))
}

pub(crate) fn read_key(text: &str) -> Option<KeyHash> {
    let mut key = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(KeyHash(key))
}

/// In hexadecimal, as [`UserOrder::key`] has it.
pub(crate) fn shown_key(key: &KeyHash) -> String {
    key.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// At the cloud, where users are kept.
pub(crate) fn at_cloud(request: UserRequest, ks: &mut Keyspace, now: UnixMillis) -> AdminResponse {
    let done = match request {
        UserRequest::List => return listed(user::PREFIX, ks),
        UserRequest::Put { name, order } => {
            let (user, replace) = order.user(name)?;
            user::put(&user, replace, ks).map(|()| user)
        }
        UserRequest::SetRole { name, role } => user::set_role(&name, role, ks),
        UserRequest::Revoke { name } => user::revoke(&name, ks, now),
        UserRequest::Remove { name } => user::get(&name, ks).and_then(|user| {
            user::remove(&name, ks)?;
            Ok(user)
        }),
    };
    done.map(|user| shown(&user)).map_err(|error| refused(&error))
}

/// At an edge, which was told.
pub(crate) fn at_edge(request: &UserRequest, ks: &Keyspace) -> AdminResponse {
    match request {
        UserRequest::List => listed(user::TOLD, ks),
        UserRequest::Put { .. }
        | UserRequest::SetRole { .. }
        | UserRequest::Revoke { .. }
        | UserRequest::Remove { .. } => Err(AdminError::CloudOnly),
    }
}

fn listed(prefix: &str, ks: &Keyspace) -> AdminResponse {
    let users = user::list(prefix, ks).map_err(|error| AdminError::Invalid(describe(&error)))?;
    Ok(users.iter().map(shown).collect())
}

fn shown(user: &User) -> Value {
    let User { name, role, key, not_after, revoked } = user;
    json!({
        "name": name, "role": role.as_str(), "key": shown_key(key), "not_after": not_after, "revoked": revoked,
    })
}

pub(crate) fn refused(error: &UserError) -> AdminError {
    let text = describe(error);
    match error {
        UserError::Unknown(_) => AdminError::NotFound(text),
        UserError::Exists(_) | UserError::Full => AdminError::Conflict(text),
        UserError::Reserved(_) | UserError::Damaged(_) => AdminError::Invalid(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_what_is_none_is_refused() {
        let key = KeyHash(std::array::from_fn(|index| index as u8 * 7));
        assert_eq!(read_key(&shown_key(&key)), Some(key));
        for text in ["", "00", &"0".repeat(63), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(read_key(text), None, "{text}");
        }
    }
}

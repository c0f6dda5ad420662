//! A client's identity.

use std::fmt;
use std::sync::Arc;

use bus::{Identity, Name, NodeKind};

/// Before the name of a mapper that logs in with a password: `mapper/virtual`.
const MAPPER: &str = "mapper/";

/// Who a client of the broker is, however it was known: by a certificate of the cluster's authority, or by name and
/// password.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// Let in without saying who it is.
    #[default]
    Anonymous,
    /// A person or an app. Any text, since names in password files are any text.
    User(Arc<str>),
    /// A process that speaks for the devices that name it.
    Mapper(Name),
}

impl Who {
    /// Who logs in under `name`: `mapper/<name>` is that mapper, everything else a user. `None`: `mapper/` and no name.
    ///
    /// ```
    /// use device_twin::gate::access::Who;
    /// assert_eq!(Who::of_login("alice").unwrap().to_string(), "user/alice");
    /// assert_eq!(Who::of_login("mapper/modbus").unwrap().to_string(), "mapper/modbus");
    /// assert_eq!(Who::of_login("mapper/No Name"), None);
    /// ```
    pub fn of_login(name: &str) -> Option<Self> {
        match name.strip_prefix(MAPPER) {
            Some(mapper) => Name::new(mapper).ok().map(Self::Mapper),
            None => Some(Self::User(name.into())),
        }
    }

    /// Who holds a certificate of this cluster; `None`: a node, which is no client, or another cluster's.
    pub fn of_certificate(identity: &Identity, cluster: &Name) -> Option<Self> {
        let Identity { cluster: its, node } = identity;
        match node.kind {
            _ if its != cluster => None,
            NodeKind::User => Some(Self::User(node.name.as_str().into())),
            NodeKind::Mapper => Some(Self::Mapper(node.name.clone())),
            NodeKind::Cloud | NodeKind::Edge | NodeKind::Wireguard => None,
        }
    }

    /// What rules call `{name}`.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Anonymous => None,
            Self::User(name) => Some(name),
            Self::Mapper(name) => Some(name.as_str()),
        }
    }

    /// The name under which the broker keeps a client: two who are not the same never meet under one client id, so
    /// that nobody takes over another's session. Nobody's id looks like a named one's: that has a NUL, which no
    /// client id has (MQTT 5.0 §1.5.4).
    pub fn session_name(&self, client: &str) -> String {
        match self {
            Self::Anonymous => client.to_owned(),
            Self::User(_) | Self::Mapper(_) => format!("{self}\0{client}"),
        }
    }

    /// Who wished something, as histories and results tell it; `nobody` where it is not known.
    pub fn told(&self, nobody: &str) -> String {
        match self {
            Self::Anonymous => nobody.to_owned(),
            Self::User(_) | Self::Mapper(_) => self.to_string(),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::User(name) => write!(f, "user/{name}"),
            Self::Mapper(name) => write!(f, "mapper/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_a_mapper_or_user_of_its_own_cluster() {
        let water = Name::new("water").unwrap();
        let table = [
            ("spiffe://water/user/alice", Some("user/alice")),
            ("spiffe://water/mapper/modbus", Some("mapper/modbus")),
            ("spiffe://water/edge/a", None),
            ("spiffe://water/cloud/cloud", None),
            ("spiffe://fire/user/alice", None),
        ];
        for (uri, expected) in table {
            let who = Who::of_certificate(&uri.parse().unwrap(), &water);
            assert_eq!(who.map(|who| who.to_string()).as_deref(), expected, "{uri}");
        }
    }

    #[test]
    fn nobody_meets_anothers_session_under_the_same_client_id() {
        let alice = Who::of_login("alice").unwrap();
        let bob = Who::of_login("bob").unwrap();
        let modbus = Who::of_login("mapper/modbus").unwrap();
        let names = [Who::Anonymous, alice, bob, modbus].map(|who| who.session_name("panel"));
        assert_eq!(names, ["panel", "user/alice\0panel", "user/bob\0panel", "mapper/modbus\0panel"]);
    }
}

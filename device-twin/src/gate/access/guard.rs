//! The guard of one connection: what is known of it before it speaks, and how its CONNECT is judged.

use std::fmt;
use std::sync::Arc;

use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, ConnectReturnCode};
use thiserror::Error;

use super::{Permit, Rights, Who};

/// What a client claims to be. Its password is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Claim {
    pub user: String,
    pub password: Vec<u8>,
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum NotAdmitted {
    #[error("unknown user, or wrong password")]
    Credentials,
    #[error("a name and password, or a certificate, is needed here")]
    Anonymous,
    #[error("too many log in at a time")]
    Busy,
}

impl NotAdmitted {
    /// MQTT 5.0 §3.2.2.2.
    pub fn code_5(self) -> ConnectReasonCode {
        match self {
            Self::Credentials => ConnectReasonCode::BadUserNameOrPassword,
            Self::Anonymous => ConnectReasonCode::NotAuthorized,
            Self::Busy => ConnectReasonCode::ServerBusy,
        }
    }

    /// MQTT 3.1.1 §3.2.2.3.
    pub fn code_3(self) -> ConnectReturnCode {
        match self {
            Self::Credentials => ConnectReturnCode::BadUserNameOrPassword,
            Self::Anonymous => ConnectReturnCode::NotAuthorized,
            Self::Busy => ConnectReturnCode::ServerUnavailable,
        }
    }
}

/// What becomes of a CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    As(Who),
    /// Whether the password is right is still to be computed.
    Check(Claim),
    Refused(NotAdmitted),
}

/// What a session knows of its client before the CONNECT.
#[derive(Debug, Clone)]
pub struct Guard {
    /// By its certificate.
    pub known: Option<Who>,
    /// Clients that do not say who they are may come in by this door.
    pub anonymous: bool,
    /// There are names and passwords to hold a login against.
    pub passwords: bool,
    pub rights: Arc<Rights>,
}

impl Guard {
    /// Lets everybody in, with all that the broker's own policy allows.
    pub fn open() -> Self {
        Self { known: None, anonymous: true, passwords: false, rights: Arc::default() }
    }

    /// The rules, first match wins:
    /// 1. a certificate says who it is, whatever the CONNECT says;
    /// 2. a user name is held against the passwords, if there are any;
    /// 3. everybody else is anonymous, where that is allowed: also one with a name, as there is nothing that could
    ///    tell whether it is true.
    pub fn admit(&self, user: Option<&str>, password: Option<&[u8]>) -> Admission {
        match (&self.known, user) {
            (Some(who), _) => Admission::As(who.clone()),
            (None, Some(user)) if self.passwords => Admission::Check(Claim {
                user: user.to_owned(),
                password: password.unwrap_or_default().to_vec(),
            }),
            (None, _) if self.anonymous => Admission::As(Who::Anonymous),
            (None, _) => Admission::Refused(NotAdmitted::Anonymous),
        }
    }

    pub fn permit(&self, who: &Who, client: &str) -> Permit {
        self.rights.permit(who, client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_then_password_then_nobody() {
        let alice = Who::of_login("alice").unwrap();
        let claim =
            |password: &[u8]| Admission::Check(Claim { user: "bob".to_owned(), password: password.to_vec() });
        let nobody = Admission::As(Who::Anonymous);
        let refused = Admission::Refused(NotAdmitted::Anonymous);
        // Known, anonymous allowed, passwords there; user and password of the CONNECT.
        let table = [
            (Some(&alice), false, true, Some("bob"), Some("x"), Admission::As(alice.clone())),
            (Some(&alice), false, false, None, None, Admission::As(alice.clone())),
            (None, true, true, Some("bob"), Some("x"), claim(b"x")),
            (None, false, true, Some("bob"), None, claim(b"")),
            (None, true, true, None, None, nobody.clone()),
            (None, true, false, Some("bob"), Some("x"), nobody),
            (None, false, true, None, None, refused.clone()),
            (None, false, false, Some("bob"), Some("x"), refused),
        ];
        for (known, anonymous, passwords, user, password, expected) in table {
            let guard = Guard { known: known.cloned(), anonymous, passwords, rights: Arc::default() };
            assert_eq!(guard.admit(user, password.map(str::as_bytes)), expected, "{guard:?} {user:?}");
        }
    }

    #[test]
    fn a_claim_does_not_print_its_password() {
        let claim = Claim { user: "bob".to_owned(), password: b"secret".to_vec() };
        assert_eq!(format!("{claim:?}"), "Claim { user: \"bob\", .. }");
    }
}

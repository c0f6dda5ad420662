//! What the library's errors mean to the SDK.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library may learn more errors: they fall to the general kind"
)]

use async_snmp::v3::ReportStatus;
use async_snmp::{Error as Snmp, ErrorKind, ErrorStatus, Version};
use kubebus_sdk::Error;

/// An error of the whole exchange.
pub(crate) fn of_exchange(error: &Snmp, version: Version) -> Error {
    match error.exchange_source() {
        Snmp::Report { status, .. } => of_report(status),
        Snmp::Auth { .. } => Error::Auth(format!("{error}: is auth_password right?")),
        Snmp::Snmp { status, .. } => Error::Device(status.to_string()),
        other => match other.kind() {
            ErrorKind::Timeout if version == Version::V3 => Error::Timeout(format!(
                "{error}; an agent says nothing if it is another address, or if privacy_password is wrong"
            )),
            ErrorKind::Timeout => Error::Timeout(format!(
                "{error}; an agent says nothing if it is another address, version or community"
            )),
            ErrorKind::Config => Error::Config(error.to_string()),
            _ => Error::transient(error),
        },
    }
}

/// What a version 3 agent says of a message that it does not take (RFC 3414 §3.2).
fn of_report(status: &ReportStatus) -> Error {
    match status {
        ReportStatus::UnknownUserName { .. } => Error::Auth(format!("{status}: is user right?")),
        ReportStatus::WrongDigest { .. } => {
            Error::Auth(format!("{status}: are auth and auth_password right?"))
        }
        ReportStatus::DecryptionError { .. } => {
            Error::Auth(format!("{status}: are privacy and privacy_password right?"))
        }
        ReportStatus::UnsupportedSecurityLevel { .. } => {
            Error::Auth(format!("{status}: the agent wants other settings of auth and privacy for this user"))
        }
        _ => Error::transient(status),
    }
}

/// Why an agent has not carried out a write. Only what surely left everything as it was is the device's own refusal
/// (RFC 3416 §4.2.5).
pub(crate) fn of_write(status: ErrorStatus) -> Error {
    match status {
        ErrorStatus::UndoFailed | ErrorStatus::GenErr | ErrorStatus::Unknown(_) => {
            Error::transient(format!("{status}: look at the device"))
        }
        ErrorStatus::NoAccess | ErrorStatus::AuthorizationError | ErrorStatus::NoSuchName => {
            Error::Device(format!("{status}: does the agent let this community or user write there?"))
        }
        _ => Error::Device(status.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_that_left_everything_as_it_was_is_one() {
        for status in (1..=18).map(ErrorStatus::from_i32) {
            let refused = matches!(of_write(status), Error::Device(_));
            let unsure = [ErrorStatus::UndoFailed, ErrorStatus::GenErr];
            assert_eq!(refused, !unsure.contains(&status), "{status}");
        }
        assert!(matches!(of_write(ErrorStatus::from_i32(99)), Error::Transient { .. }));
    }

    #[test]
    fn wrong_credentials_are_told_from_faults_of_the_line() {
        let counter = 1;
        for status in [
            ReportStatus::UnknownUserName { counter },
            ReportStatus::WrongDigest { counter },
            ReportStatus::DecryptionError { counter },
            ReportStatus::UnsupportedSecurityLevel { counter },
        ] {
            assert!(matches!(of_report(&status), Error::Auth(_)), "{status}");
        }
        assert!(matches!(of_report(&ReportStatus::UnknownEngineId { counter }), Error::Transient { .. }));
        assert!(matches!(of_report(&ReportStatus::NotInTimeWindow { counter }), Error::Transient { .. }));
    }
}

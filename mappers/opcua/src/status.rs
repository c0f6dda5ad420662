//! What a server's status code means for the SDK.

use kubebus_sdk::{Error, Quality};
use opcua::types::StatusCode;

/// A call that failed as a whole.
pub(crate) fn call(error: &opcua::types::Error) -> Error {
    kind(error.status(), error.to_string())
}

/// A call that failed as a whole with nothing but its status.
pub(crate) fn of(status: StatusCode) -> Error {
    kind(status, status.to_string())
}

fn kind(status: StatusCode, why: String) -> Error {
    match plain(status) {
        StatusCode::BadTimeout | StatusCode::BadRequestTimeout => Error::Timeout(why),
        StatusCode::BadUserAccessDenied
        | StatusCode::BadIdentityTokenInvalid
        | StatusCode::BadIdentityTokenRejected
        | StatusCode::BadUserSignatureInvalid
        | StatusCode::BadApplicationSignatureInvalid
        | StatusCode::BadSecurityChecksFailed
        | StatusCode::BadSecurityPolicyRejected
        | StatusCode::BadSecurityModeRejected
        | StatusCode::BadSecurityModeInsufficient
        | StatusCode::BadCertificateInvalid
        | StatusCode::BadCertificateTimeInvalid
        | StatusCode::BadCertificateUriInvalid
        | StatusCode::BadCertificateUseNotAllowed
        | StatusCode::BadCertificateUntrusted
        | StatusCode::BadCertificateRevoked => Error::Auth(why),
        StatusCode::BadServiceUnsupported | StatusCode::BadNotSupported | StatusCode::BadNotImplemented => {
            Error::Unsupported(why)
        }
        _ => Error::transient(why),
    }
}

/// One point that could not be read or watched. `known` says that this session has had a value of it: such a node may come
/// back, and is asked for again.
pub(crate) fn point(name: &str, node: &str, status: StatusCode, known: bool) -> Error {
    let why = format!("{node}: {status}");
    match plain(status) {
        StatusCode::BadNodeIdUnknown | StatusCode::BadNodeIdInvalid | StatusCode::BadAttributeIdInvalid
            if !known =>
        {
            Error::BadAddress { point: name.to_owned(), why }
        }
        StatusCode::BadTimeout | StatusCode::BadRequestTimeout => Error::Timeout(why),
        StatusCode::BadUserAccessDenied => Error::Auth(why),
        _ => Error::Device(why),
    }
}

/// One write that the server answered. Only what a server refuses before it begins has surely moved nothing; after all else
/// nobody knows.
pub(crate) fn write(node: &str, status: StatusCode) -> Error {
    let why = format!("{node}: {status}");
    match plain(status) {
        StatusCode::BadNotWritable
        | StatusCode::BadUserAccessDenied
        | StatusCode::BadTypeMismatch
        | StatusCode::BadOutOfRange
        | StatusCode::BadNodeIdUnknown
        | StatusCode::BadNodeIdInvalid
        | StatusCode::BadAttributeIdInvalid
        | StatusCode::BadWriteNotSupported
        | StatusCode::BadIndexRangeInvalid
        | StatusCode::BadIndexRangeNoData
        | StatusCode::BadNotSupported => Error::Device(why),
        StatusCode::BadTimeout | StatusCode::BadRequestTimeout => Error::Timeout(why),
        _ => Error::transient(why),
    }
}

pub(crate) fn quality(status: StatusCode) -> Quality {
    if status.is_good() {
        Quality::Good
    } else if status.is_uncertain() {
        Quality::Uncertain
    } else {
        Quality::Bad
    }
}

/// Without the bits that say more about a value (OPC 10000-4 §7.38.1).
fn plain(status: StatusCode) -> StatusCode {
    StatusCode::from_category(status.sub_code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_decides_what_the_sdk_does_next() {
        assert!(matches!(of(StatusCode::BadUserAccessDenied), Error::Auth(_)));
        assert!(matches!(of(StatusCode::BadTimeout), Error::Timeout(_)));
        assert!(matches!(of(StatusCode::BadServiceUnsupported), Error::Unsupported(_)));
        assert!(matches!(of(StatusCode::BadConnectionClosed), Error::Transient { .. }));
    }

    #[test]
    fn a_node_that_was_there_is_asked_for_again_and_one_that_never_was_is_not() {
        let gone = StatusCode::BadNodeIdUnknown.set_overflow(true);
        assert!(matches!(point("p", "i=1", gone, false), Error::BadAddress { .. }));
        assert!(matches!(point("p", "i=1", gone, true), Error::Device(_)));
    }

    #[test]
    fn only_a_servers_own_refusal_proves_that_nothing_moved() {
        for refused in [
            StatusCode::BadNotWritable,
            StatusCode::BadUserAccessDenied,
            StatusCode::BadTypeMismatch,
            StatusCode::BadOutOfRange,
            StatusCode::BadNodeIdUnknown,
        ] {
            assert!(matches!(write("i=1", refused), Error::Device(_)), "{refused}");
        }
        for unsure in [
            StatusCode::BadTimeout,
            StatusCode::BadDeviceFailure,
            StatusCode::BadNoCommunication,
            StatusCode::BadOutOfService,
            StatusCode::BadResourceUnavailable,
            StatusCode::Bad,
        ] {
            assert!(!matches!(write("i=1", unsure), Error::Device(_)), "{unsure}");
        }
    }
}

//! What a device's answer means for the points that it was asked for, and for a write.
//!
//! Pure.

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{HeaderMap, LOCATION, RETRY_AFTER};
use kubebus_sdk::Error;

/// Longest pause that a device may ask for; beyond it we ask again anyway.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Whom a reading's failure concerns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ReadFault {
    /// The points of this path: there is no such path. For ever, if there never was.
    Address(String),
    /// The points of this path, this time.
    Path(Error),
    /// The device.
    Device(Error),
}

impl ReadFault {
    /// A path that was there once may come back (a device that restarts, a part of it that starts later).
    pub(crate) fn of_path(self, was_there: bool) -> Self {
        match self {
            Self::Address(why) if was_there => Self::Path(Error::Device(why)),
            fault @ (Self::Address(_) | Self::Path(_) | Self::Device(_)) => fault,
        }
    }
}

impl Answer {
    /// Whether the answer to a reading holds values.
    pub(crate) fn read(&self) -> Result<&Bytes, ReadFault> {
        let said = || format!("the device answers {}", self.status);
        match self.status.as_u16() {
            200..=299 => Ok(&self.body),
            300..=399 => Err(ReadFault::Address(format!(
                "path: {}, which is not followed: name that place",
                self.redirect()
            ))),
            401 | 403 => Err(ReadFault::Device(Error::Auth(said()))),
            404 | 410 => Err(ReadFault::Address(format!("path: {}", said()))),
            429 | 503 => Err(ReadFault::Device(self.later(said()))),
            408 | 500..=599 => Err(ReadFault::Path(self.later(said()))),
            _ => Err(ReadFault::Path(Error::Device(said()))),
        }
    }

    /// Whether a write was carried out. Only a refusal proves that it was not: after a redirect, a server's error or a
    /// proxy's nobody knows.
    pub(crate) fn written(&self, expect: &[u16]) -> Result<(), Error> {
        let status = self.status.as_u16();
        let success = if expect.is_empty() { self.status.is_success() } else { expect.contains(&status) };
        let said = || format!("the device answers {}", self.status);
        match status {
            _ if success => Ok(()),
            300..=399 => Err(Error::transient(format!("{}, which is not followed", self.redirect()))),
            408 => Err(Error::transient(said())),
            400..=499 => Err(Error::Device(said())),
            _ => Err(self.later(said())),
        }
    }

    fn redirect(&self) -> String {
        let place =
            self.headers.get(LOCATION).and_then(|place| place.to_str().ok()).unwrap_or("another place");
        format!("the device answers {} and points to {place}", self.status)
    }

    /// With the pause that the device asks for, if it counts it in seconds (RFC 9110 §10.2.3).
    fn later(&self, why: String) -> Error {
        let seconds =
            self.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let retry_after = seconds.map(|seconds| Duration::from_secs(seconds).min(LONGEST_PAUSE));
        Error::Transient { why, retry_after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&str>) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(pause) = retry_after {
            headers.insert(RETRY_AFTER, pause.parse().unwrap());
        }
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: Bytes::new() }
    }

    fn pause(fault: ReadFault) -> Option<Duration> {
        let (ReadFault::Device(Error::Transient { retry_after, .. })
        | ReadFault::Path(Error::Transient { retry_after, .. })) = fault
        else {
            panic!("{fault:?}")
        };
        retry_after
    }

    #[test]
    fn a_readings_status_says_whom_it_concerns() {
        let fault = |status| answer(status, None).read().unwrap_err();
        assert!(answer(200, None).read().is_ok() && answer(204, None).read().is_ok());
        for status in [301, 302, 307, 404, 410] {
            assert!(matches!(fault(status), ReadFault::Address(_)), "{status}");
        }
        for status in [401, 403] {
            assert!(matches!(fault(status), ReadFault::Device(Error::Auth(_))), "{status}");
        }
        for status in [429, 503] {
            assert!(matches!(fault(status), ReadFault::Device(Error::Transient { .. })), "{status}");
        }
        for status in [408, 500, 502, 504] {
            assert!(matches!(fault(status), ReadFault::Path(Error::Transient { .. })), "{status}");
        }
        assert!(matches!(fault(400), ReadFault::Path(Error::Device(_))));
    }

    #[test]
    fn a_path_that_was_there_may_come_back() {
        let gone = || answer(404, None).read().unwrap_err();
        assert!(matches!(gone().of_path(true), ReadFault::Path(Error::Device(_))));
        assert!(matches!(gone().of_path(false), ReadFault::Address(_)));
    }

    #[test]
    fn a_device_may_ask_for_a_pause() {
        let asked = |pause_text| pause(answer(503, pause_text).read().unwrap_err());
        assert_eq!(asked(Some("120")), Some(Duration::from_secs(120)));
        assert_eq!(asked(Some("999999")), Some(LONGEST_PAUSE));
        assert_eq!(asked(Some("Wed, 21 Oct 2026 07:28:00 GMT")), None);
        assert_eq!(asked(None), None);
    }

    #[test]
    fn only_a_refusal_proves_that_a_write_moved_nothing() {
        let written = |status| answer(status, None).written(&[]);
        assert_eq!((written(200), written(204)), (Ok(()), Ok(())));
        for refused in [400, 401, 403, 404, 405, 409, 422, 429] {
            assert!(matches!(written(refused), Err(Error::Device(_))), "{refused}");
        }
        for unknown in [301, 302, 303, 307, 408, 500, 502, 503, 504] {
            assert!(matches!(written(unknown), Err(Error::Transient { .. })), "{unknown}");
        }
        assert_eq!(answer(302, None).written(&[302]), Ok(()));
        assert!(answer(200, None).written(&[204]).is_err());
    }
}

//! What can go wrong with a device, in the kinds that decide what the SDK does next.

use std::io;
use std::time::Duration;

use thiserror::Error;

/// Why a driver could not do what it was asked. The kind decides, the text is for people.
///
/// | kind | the SDK then |
/// |---|---|
/// | `Transient`, `Timeout` | closes the session and opens a new one after a while (1 s to 60 s, full jitter) |
/// | `Auth`, `Bug` | the same, but always after 60 s: trying again quickly locks accounts and fills logs |
/// | `Config` | waits for the device's configuration to change |
/// | `BadAddress` | leaves this one property out until the configuration changes |
/// | `Unsupported` | leaves the whole batch, or all that is pushed, out until the configuration changes |
/// | `Device` | keeps the session: the device is there, it only said no; a subscription is tried again after a minute |
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// Worth trying again, not before `retry_after` if the device named a time.
    #[error("{why}")]
    Transient { why: String, retry_after: Option<Duration> },
    #[error("no answer in time: {0}")]
    Timeout(String),
    #[error("not let in: {0}")]
    Auth(String),
    /// The connection settings cannot work.
    #[error("configuration: {0}")]
    Config(String),
    /// The address of one property cannot work. A `why` that begins with a field of the address, as in
    /// `.offset: at most 65535`, names it.
    #[error("properties.{point}.address{}{why}", separator(why))]
    BadAddress { point: String, why: String },
    /// The device answered with an error.
    #[error("device: {0}")]
    Device(String),
    #[error("not supported: {0}")]
    Unsupported(String),
    /// The driver, not the device, is wrong.
    #[error("driver: {0}")]
    Bug(String),
    /// The write's time is over: what [`WritePermit::consume`](crate::WritePermit::consume) says when it comes too
    /// late.
    #[error("expired before it was carried out")]
    Expired,
}

impl Error {
    /// A fault of the line or device that may pass by itself.
    pub fn transient(why: impl ToString) -> Self {
        Self::Transient { why: why.to_string(), retry_after: None }
    }

    /// Whether the session may still be used after it.
    pub(crate) fn keeps_session(&self) -> bool {
        match self {
            Self::Device(_) | Self::BadAddress { .. } | Self::Unsupported(_) | Self::Expired => true,
            Self::Transient { .. } | Self::Timeout(_) | Self::Auth(_) | Self::Config(_) | Self::Bug(_) => {
                false
            }
        }
    }
}

fn separator(why: &str) -> &'static str {
    if why.starts_with(['.', '[']) { "" } else { ": " }
}

/// All of them may pass (a socket that is not there yet, a peer that went away), a timeout is named as one.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::TimedOut {
            return Self::Timeout(error.to_string());
        }
        Self::transient(error)
    }
}

//! The history of devices, asked for at the cloud: it is kept where it was made, at the edge.
//!
//! ```text
//!   who asks -- Question --> Inquiries ====Ask====> Telling -- Question --> recorder     (at the cloud | at the edge)
//!            <--- Told ------        <===Told===         <--- Told -----
//! ```
//! `inquiries` puts one question at a time to each edge and gives up on it in time; `telling` answers nobody but its
//! cloud, one question at a time; `message` is what goes over the link, on a channel of its own in the class that
//! travels last. `shown` is what people and programs get, at the edge itself too.
//!
//! What it costs: an overview of 500 points is at most 40 kB, of the 290 that a page asks for some 8 kB; a page of samples is
//! at most `MAX_ANSWER`. Nothing is sent that nobody asked for.

pub(crate) mod inquiries;
pub(crate) mod message;
pub(crate) mod shown;
pub(crate) mod telling;

use bus::twin::DeviceId;
use device_twin::history::{Answer, Overview, Query, Which, overview};

pub(crate) use self::inquiries::Inquiries;
pub(crate) use self::telling::Telling;

/// What somebody wants to know.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// A property at a glance.
    Overview(overview::Span),
    /// A page of samples.
    Rows(Query),
}

/// The recorder's answer, of the question's kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    Overview(Overview),
    Rows(Answer),
}

impl Question {
    /// Whose history it is; `None`: that of all devices.
    pub(crate) fn device(&self) -> Option<&DeviceId> {
        match self {
            Self::Overview(span) => Some(&span.id.device),
            Self::Rows(query) => match &query.which {
                Which::Property(id) => Some(&id.device),
                Which::Device(device) => Some(device),
                Which::All => None,
            },
        }
    }
}

#[cfg(test)]
mod tests;

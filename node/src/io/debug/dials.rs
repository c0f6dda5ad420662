//! What the driver keeps of links to the cloud that failed, in the words of [`crate::diagnose`].

use bus::UnixMillis;
use router::io::shard::{DialError, ServerRefused};
use serde_json::{Value, json};

use crate::diagnose::{Failures, LinkFault};
use crate::io::upstream::Upstream;

/// Which kind of failure a dial ended with.
pub(in crate::io) fn fault_of(why: &DialError) -> LinkFault {
    match why {
        DialError::NoAnswer => LinkFault::NoAnswer,
        DialError::Busy => LinkFault::Busy,
        DialError::Server(ServerRefused::UnknownCa | ServerRefused::CaNotShown) => LinkFault::UnknownCa,
        DialError::Server(ServerRefused::WrongCluster { .. }) => LinkFault::UnknownCa,
        DialError::Server(ServerRefused::Certificate(_)) => LinkFault::ServerCertificate,
        DialError::Server(
            ServerRefused::WrongNode { .. } | ServerRefused::NotACloud(_) | ServerRefused::NoIdentity(_),
        ) => LinkFault::WrongNode,
        DialError::Expired => LinkFault::OwnCertificateExpired,
        DialError::Refused(words) | DialError::Failed(words) => LinkFault::of_words(words),
        DialError::NoCredentials | DialError::Address { .. } => LinkFault::Other,
    }
}

/// A dial of the cloud that failed.
pub(in crate::io) fn record(failures: &mut Failures, at: String, why: &DialError, now: UnixMillis) {
    failures.record(fault_of(why), at, why.to_string(), now.0);
}

/// A link to the cloud that ended, with the words it ended with.
pub(in crate::io) fn record_end(failures: &mut Failures, at: String, why: &str, now: UnixMillis) {
    failures.record(LinkFault::of_words(why), at, why.to_owned(), now.0);
}

/// Whether these are the words of a cloud that does not know our key; a line that breaks says nothing of it.
pub(in crate::io) fn is_turned_away(why: &str) -> bool {
    LinkFault::of_words(why) == LinkFault::NotMember
}

/// For the status document.
pub(in crate::io) fn describe(upstream: &Upstream, failures: &Failures) -> Value {
    let endpoints: Vec<String> = upstream.endpoints().iter().map(crate::io::upstream::format).collect();
    json!({ "endpoints": endpoints, "failures": failures.iter().collect::<Vec<_>>() })
}

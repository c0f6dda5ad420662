//! How a link to the cloud failed, as far as the failure itself says.

use serde::{Deserialize, Serialize};

/// Kinds of failures that differ in what people have to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkFault {
    /// No name server tells where the cloud is.
    Lookup,
    NoAnswer,
    /// The cloud is at its limit.
    Busy,
    /// The server's certificate is of another authority.
    UnknownCa,
    /// It is of ours, and not valid now.
    ServerCertificate,
    /// It is of ours, and somebody else's.
    WrongNode,
    /// The server does not take our certificate, for its dates.
    OwnCertificateExpired,
    /// The server does not take our certificate, since another authority signed it.
    OwnCertificateForeign,
    NotMember,
    /// The cloud has a newer link of the same name.
    Replaced,
    /// Another cloud, restored from this one's backup, was followed before.
    OutdatedCloud,
    Other,
}

impl LinkFault {
    /// What the words mean that a peer, or our own side, closed a link with.
    pub fn of_words(words: &str) -> Self {
        /// Words that each of them is known by, the more telling ones first.
        const KNOWN: [(&str, LinkFault); 8] = [
            ("not a member", LinkFault::NotMember),
            ("replaced by a newer link", LinkFault::Replaced),
            ("an outdated cloud", LinkFault::OutdatedCloud),
            ("another cloud has taken over", LinkFault::OutdatedCloud),
            ("certificate expired", LinkFault::OwnCertificateExpired),
            ("Expired", LinkFault::OwnCertificateExpired),
            ("UnknownIssuer", LinkFault::OwnCertificateForeign),
            ("BadSignature", LinkFault::OwnCertificateForeign),
        ];
        KNOWN.iter().find(|(part, _)| words.contains(part)).map_or(Self::Other, |(_, fault)| *fault)
    }
}

/// One failure, as the node keeps it for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub fault: LinkFault,
    /// Where the cloud was looked for: a name, or an address.
    pub at: String,
    pub why: String,
    /// Milliseconds since 1970, of the last time.
    pub time: u64,
    /// How often in a row.
    pub times: u32,
}

/// Failures that are kept for people; the oldest goes when another comes. An edge has two lines to a few endpoints.
const KEPT: usize = 8;

/// Two failures of a kind that are further apart are two stories, in milliseconds: twice the slowest redial.
const IN_A_ROW_MS: u64 = 120_000;

/// The last failures of a node's links to its cloud, each kind at each place once.
#[derive(Debug, Default)]
pub struct Failures {
    kept: std::collections::VecDeque<Failure>,
}

impl Failures {
    /// `time` is in milliseconds since 1970.
    pub fn record(&mut self, fault: LinkFault, at: String, why: String, time: u64) {
        let is_same = |kept: &Failure| (kept.fault, &kept.at) == (fault, &at);
        let before = self.kept.iter().position(is_same).and_then(|index| self.kept.remove(index));
        let times = match before {
            Some(before) if time.saturating_sub(before.time) < IN_A_ROW_MS => before.times.saturating_add(1),
            Some(_) | None => 1,
        };
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Failure { fault, at, why, time, times });
    }

    /// The newest last.
    pub fn iter(&self) -> impl Iterator<Item = &Failure> {
        self.kept.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_are_counted_and_the_oldest_kind_goes() {
        let mut failures = Failures::default();
        let mut record = |at: &str, time| failures.record(LinkFault::NoAnswer, at.into(), "why".into(), time);
        record("a", 1000);
        record("b", 2000);
        record("a", 3000);
        record("b", 2000 + IN_A_ROW_MS);
        let told: Vec<(&str, u32)> = failures.iter().map(|f| (f.at.as_str(), f.times)).collect();
        assert_eq!(told, [("a", 2), ("b", 1)]);
        (0..KEPT)
            .for_each(|number| failures.record(LinkFault::Other, format!("c{number}"), String::new(), 0));
        assert_eq!(failures.iter().count(), KEPT);
        assert_eq!(failures.iter().next().unwrap().at, "c0");
    }
}

//! What the two ends say to each other, and how much of it.

use bus::{NodeId, UnixMillis};
use bytes::Bytes;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::echo::Way;
use crate::diagnose::redact;
use crate::health::Condition;
use crate::health::links::{LinkState, Path};
use crate::health::series::LinkSeries;

/// The longest message, in bytes: two seconds of a line of 64 kbit/s. A report is cut to it, by whole findings, the last
/// first; what is longer is dropped unread.
pub const MAX_MESSAGE: usize = 16 << 10;

/// Of one text, in bytes: advice is the longest.
const MAX_TEXT: usize = 320;

/// Lines of evidence of one finding, findings, checks, and links of one report: a node of a thousand devices names ten of
/// a kind.
const MAX_EVIDENCE: usize = 12;
const MAX_FINDINGS: usize = 64;
const MAX_CHECKS: usize = 32;
const MAX_LINKS: usize = 8;

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(crate) enum Message {
    /// A cloud to an edge: run your checks.
    #[n(0)]
    Ask {
        #[n(0)]
        id: u64,
    },
    /// An edge to its cloud: not now.
    #[n(1)]
    Refused {
        #[n(0)]
        id: u64,
        #[n(1)]
        why: Refusal,
    },
    #[n(2)]
    Answer {
        #[n(0)]
        id: u64,
        #[n(1)]
        report: Report,
    },
    /// An edge to its cloud: what do you see of me?
    #[n(3)]
    Look {
        #[n(0)]
        id: u64,
    },
    #[n(4)]
    Seen {
        #[n(0)]
        id: u64,
        #[n(1)]
        seen: Seen,
    },
    /// Whoever asked, to whoever was asked.
    #[n(5)]
    Echo {
        #[n(0)]
        id: u64,
        #[n(1)]
        number: u8,
        #[n(2)]
        padding: ByteVec,
    },
    #[n(6)]
    Echoed {
        #[n(0)]
        id: u64,
        #[n(1)]
        number: u8,
    },
}

/// Why an edge did not check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    #[error("its last checks still run: something there hangs, a disk perhaps")]
    #[n(0)]
    Busy,
    #[error("it was asked a moment ago: ask again in a few seconds")]
    #[n(1)]
    TooSoon,
    #[error("its checks did not end in time: something there hangs, a disk perhaps")]
    #[n(2)]
    Late,
}

/// What an edge found at itself.
#[derive(Debug, Clone, Default, PartialEq, Encode, Decode, Serialize, Deserialize)]
pub struct Report {
    /// The culprit first.
    #[n(0)]
    pub findings: Vec<Told>,
    #[n(1)]
    pub checks: Vec<Check>,
    /// Its links to the cloud, as it measures them.
    #[n(2)]
    pub links: Vec<LinkView>,
    /// Measured from there to the cloud.
    #[n(3)]
    pub up: Option<Way>,
    /// Findings for which there was no room.
    #[n(4)]
    pub left_out: u32,
    #[n(5)]
    pub version: String,
}

/// One finding. Causes and certainties are names: a later version may have more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Told {
    #[n(0)]
    pub cause: String,
    #[n(1)]
    pub certainty: String,
    #[n(2)]
    pub about: String,
    #[n(3)]
    pub evidence: Vec<String>,
    #[n(4)]
    pub advice: String,
}

/// One line of `kubebus debug check`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Check {
    #[n(0)]
    pub check: String,
    /// ok, warn or fail.
    #[n(1)]
    pub grade: String,
    #[n(2)]
    pub found: String,
    #[n(3)]
    pub why: String,
    #[n(4)]
    pub advice: String,
}

/// One lane, as one end measures it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct LinkView {
    #[n(0)]
    pub lane: String,
    /// Where the other end is.
    #[n(1)]
    pub remote: String,
    #[n(2)]
    pub rtt_us: u64,
    /// Millionths of the packets that this end sent.
    #[n(3)]
    pub lost_ppm: u64,
    /// The largest UDP payload, in bytes.
    #[n(4)]
    pub mtu: u64,
}

/// What a cloud sees of an edge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Seen {
    /// On the cloud's clock.
    #[n(0)]
    pub time: UnixMillis,
    /// As the cloud measured them last.
    #[n(1)]
    pub links: Vec<LinkView>,
    /// How long ago that was.
    #[n(2)]
    pub measured_ms_ago: Option<u64>,
    /// When the edge's newest certificate ends, as the cloud issued it.
    #[n(3)]
    pub certificate_ends: Option<UnixMillis>,
    /// How far the edge's clock is ahead.
    #[n(4)]
    pub clock_offset_ms: Option<i64>,
    /// Keys of metadata that the edge has not acknowledged.
    #[n(5)]
    pub behind: Option<u64>,
    /// What the edge told last that went wrong.
    #[n(6)]
    pub last_error: Option<String>,
    #[n(7)]
    pub version: String,
}

impl Message {
    pub(crate) fn to_bytes(&self) -> Bytes {
        minicbor::to_vec(self).unwrap_or_default().into()
    }

    /// `None`: too long, or nothing that is known here.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_MESSAGE {
            return None;
        }
        let mut message: Self = minicbor::decode(bytes).ok()?;
        match &mut message {
            Self::Answer { report, .. } => report.clean(),
            Self::Seen { seen, .. } => seen.clean(),
            Self::Ask { .. }
            | Self::Refused { .. }
            | Self::Look { .. }
            | Self::Echo { .. }
            | Self::Echoed { .. } => {}
        }
        Some(message)
    }

    /// A report, cut to what a message carries.
    pub(crate) fn answer(id: u64, mut report: Report) -> Self {
        report.clean();
        loop {
            let message = Self::Answer { id, report };
            if message.to_bytes().len() <= MAX_MESSAGE {
                return message;
            }
            let Self::Answer { report: long, .. } = message else { return message };
            report = long.shorter();
        }
    }
}

impl Report {
    /// The last finding is the least telling one; of checks, those that are well say nothing.
    fn shorter(mut self) -> Self {
        if self.findings.pop().is_some() {
            self.left_out = self.left_out.saturating_add(1);
        } else if let Some(index) = self.checks.iter().rposition(|check| check.grade == "ok") {
            self.checks.remove(index);
        } else {
            self.checks.pop();
        }
        self
    }

    /// As it may be shown: whoever sent it is a member of the cluster, and may be broken into.
    fn clean(&mut self) {
        let more = self.findings.len().saturating_sub(MAX_FINDINGS);
        self.left_out = self.left_out.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
        self.findings.truncate(MAX_FINDINGS);
        self.checks.truncate(MAX_CHECKS);
        self.links.truncate(MAX_LINKS);
        for Told { cause, certainty, about, evidence, advice } in &mut self.findings {
            evidence.truncate(MAX_EVIDENCE);
            [cause, certainty, about, advice].into_iter().chain(evidence).for_each(clean);
        }
        for Check { check, grade, found, why, advice } in &mut self.checks {
            [check, grade, found, why, advice].into_iter().for_each(clean);
        }
        self.links.iter_mut().for_each(LinkView::clean);
        clean(&mut self.version);
    }
}

impl LinkView {
    fn clean(&mut self) {
        clean(&mut self.lane);
        clean(&mut self.remote);
    }
}

impl Seen {
    fn clean(&mut self) {
        self.links.truncate(MAX_LINKS);
        self.links.iter_mut().for_each(LinkView::clean);
        self.last_error.iter_mut().for_each(clean);
        clean(&mut self.version);
    }
}

/// The links of a node to a peer, as it measured them last.
pub(crate) fn links_to(condition: &Condition, peer: &NodeId) -> Vec<LinkView> {
    let ours = condition.links.iter().filter(|link| link.head.peer == *peer && link.head.path == Path::Quic);
    let view = |link: &LinkState| LinkView {
        lane: if link.head.is_packets { "packets" } else { "bus" }.to_owned(),
        remote: link.head.remote.map(|remote| remote.to_string()).unwrap_or_default(),
        rtt_us: link.get(LinkSeries::Rtt).unwrap_or_default(),
        lost_ppm: link.get(LinkSeries::Loss).unwrap_or_default(),
        mtu: link.get(LinkSeries::Mtu).unwrap_or_default(),
    };
    ours.map(view).take(MAX_LINKS).collect()
}

/// Short, on one line, nothing that moves a terminal's cursor, and no secret.
fn clean(text: &mut String) {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    *text = redact::text(&plain);
    text.truncate(text.floor_char_boundary(MAX_TEXT));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Message::from_bytes(&bytes);
        }
    }

    fn long(findings: usize) -> Report {
        let told = Told { about: "x".repeat(900), evidence: vec!["y".repeat(900); 40], ..Told::default() };
        let check = Check { grade: "ok".into(), found: "z".repeat(900), ..Check::default() };
        Report { findings: vec![told; findings], checks: vec![check; 90], ..Report::default() }
    }

    #[test]
    fn a_report_is_cut_to_what_a_message_carries_and_says_so() {
        for findings in [0, 1, 10, 200] {
            let message = Message::answer(u64::MAX, long(findings));
            let bytes = message.to_bytes();
            assert!(bytes.len() <= MAX_MESSAGE, "{}", bytes.len());
            let Message::Answer { report, .. } = Message::from_bytes(&bytes).unwrap() else { panic!() };
            assert_eq!(report.findings.len() + report.left_out as usize, findings);
        }
    }

    #[test]
    fn what_is_too_long_is_not_read_and_what_moves_a_cursor_is_taken_out() {
        let padding = ByteVec::from(vec![0; MAX_MESSAGE]);
        assert_eq!(Message::from_bytes(&Message::Echo { id: 1, number: 0, padding }.to_bytes()), None);
        let told =
            Told { about: "a\x1b[2Jb".into(), evidence: vec!["password=hunter2".into()], ..Told::default() };
        let sent = Message::Answer { id: 1, report: Report { findings: vec![told], ..Report::default() } };
        let Some(Message::Answer { report, .. }) = Message::from_bytes(&sent.to_bytes()) else { panic!() };
        assert_eq!(report.findings[0].about, "a [2Jb");
        assert!(!report.findings[0].evidence[0].contains("hunter2"), "{report:?}");
    }
}

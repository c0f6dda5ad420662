//! How far a conversation is, and how long it may be silent.
//!
//! ```text
//!           first packet          an answer            RST, or FIN of both
//!  (nothing) ---------> Asked ---------------> Answered ------------------> Ended
//!                         ^ |------------------- RST ---------------------->  |
//!                         '----------- SYN of who began -----------------------'
//! ```
//! A conversation that is silent for longer than its [`lifetime`] is forgotten: its answers are denied until who began
//! it says something again.

use crate::packet::{ICMP, ICMPV6, Packet, TCP, UDP, Upper};

/// Later ones are worth more when a table is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Ended,
    Asked,
    Answered,
}

/// RFC 5382 REQ-5: an established connection may be silent for 2 hours and 4 minutes, which TCP's own keepalive does
/// not exceed by default (RFC 9293 §3.8.4).
const TCP_ANSWERED_SECS: u32 = 2 * 3600 + 4 * 60;
/// RFC 5382 REQ-5: one that is being opened or closed, for 4 minutes.
const TCP_TRANSITORY_SECS: u32 = 4 * 60;
/// RFC 4787 REQ-5: at least 2 minutes, better 5.
const UDP_SECS: u32 = 5 * 60;
/// RFC 5508 REQ-2: at least 60 s for an echo's answer.
const ICMP_SECS: u32 = 60;
/// Protocols that say nothing of their state (GRE, ESP, ..): like UDP.
const OTHER_SECS: u32 = UDP_SECS;

/// How long a conversation at this stage may be silent, in seconds.
pub(super) fn lifetime(protocol: u8, stage: Stage) -> u32 {
    match (protocol, stage) {
        (TCP, Stage::Answered) => TCP_ANSWERED_SECS,
        (TCP, Stage::Asked | Stage::Ended) => TCP_TRANSITORY_SECS,
        (UDP, _) => UDP_SECS,
        (ICMP | ICMPV6, _) => ICMP_SECS,
        _ => OTHER_SECS,
    }
}

/// What a packet says about its conversation's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Opens a connection: SYN without ACK.
    Open,
    Finish,
    Reset,
    /// Asks, and so answers nobody: an ICMP echo request.
    Question,
    /// A TCP header without its flags, or an ICMP message without its type: no answer of a friend.
    Unreadable,
    Nothing,
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const FLAGS_AT: usize = 13;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;

impl Signal {
    pub(crate) fn of(packet: &Packet<'_>, upper: &Upper) -> Self {
        let byte = |at: usize| packet.bytes().get(upper.offset + at).copied();
        match upper.protocol {
            TCP => byte(FLAGS_AT).map_or(Self::Unreadable, Self::of_tcp),
            ICMP => byte(0).map_or(Self::Unreadable, |kind| Self::of_icmp(kind == ECHO_REQUEST)),
            ICMPV6 => byte(0).map_or(Self::Unreadable, |kind| Self::of_icmp(kind == ECHO_REQUEST_V6)),
            _ => Self::Nothing,
        }
    }

    fn of_tcp(flags: u8) -> Self {
        if flags & RST != 0 {
            Self::Reset
        } else if flags & (SYN | ACK) == SYN {
            Self::Open
        } else if flags & FIN != 0 {
            Self::Finish
        } else {
            Self::Nothing
        }
    }

    fn of_icmp(asks: bool) -> Self {
        if asks { Self::Question } else { Self::Nothing }
    }

    /// Who only answers opens nothing and asks nothing.
    pub(super) fn may_answer(self) -> bool {
        match self {
            Self::Open | Self::Question | Self::Unreadable => false,
            Self::Finish | Self::Reset | Self::Nothing => true,
        }
    }
}

/// A conversation's stage, and who of its two ends has finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) stage: Stage,
    finished: [bool; 2],
}

impl Progress {
    pub(super) const BEGUN: Self = Self { stage: Stage::Asked, finished: [false; 2] };

    /// After a packet of the end that began, or of the one that answers.
    pub(super) fn after(self, signal: Signal, answers: bool) -> Self {
        match signal {
            Signal::Open if !answers => Self::BEGUN,
            Signal::Reset => Self { stage: Stage::Ended, ..self },
            Signal::Finish => self.finish(usize::from(answers)).heard(answers),
            Signal::Open | Signal::Question | Signal::Unreadable | Signal::Nothing => self.heard(answers),
        }
    }

    fn finish(mut self, end: usize) -> Self {
        self.finished.iter_mut().skip(end).take(1).for_each(|finished| *finished = true);
        Self { stage: if self.finished == [true; 2] { Stage::Ended } else { self.stage }, ..self }
    }

    fn heard(self, answers: bool) -> Self {
        Self { stage: if answers { self.stage.answered() } else { self.stage }, ..self }
    }
}

impl Stage {
    fn answered(self) -> Self {
        match self {
            Self::Asked | Self::Answered => Self::Answered,
            Self::Ended => Self::Ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: bool = false;
    const ANSWER: bool = true;

    fn stage_after(packets: &[(Signal, bool)]) -> Stage {
        packets.iter().fold(Progress::BEGUN, |progress, (signal, end)| progress.after(*signal, *end)).stage
    }

    #[test]
    fn a_connection_goes_from_asked_to_ended_and_may_begin_anew() {
        use Signal::{Finish, Nothing, Open, Reset};
        for (packets, want) in [
            (&[(Nothing, FIRST)][..], Stage::Asked),
            (&[(Nothing, ANSWER)], Stage::Answered),
            (&[(Nothing, ANSWER), (Finish, FIRST)], Stage::Answered),
            (&[(Nothing, ANSWER), (Finish, FIRST), (Finish, FIRST)], Stage::Answered),
            (&[(Nothing, ANSWER), (Finish, FIRST), (Finish, ANSWER)], Stage::Ended),
            (&[(Finish, ANSWER), (Finish, FIRST), (Nothing, ANSWER)], Stage::Ended),
            (&[(Reset, ANSWER)], Stage::Ended),
            (&[(Reset, FIRST), (Nothing, ANSWER)], Stage::Ended),
            (&[(Reset, FIRST), (Open, FIRST)], Stage::Asked),
            (&[(Reset, FIRST), (Open, FIRST), (Nothing, ANSWER)], Stage::Answered),
            (&[(Reset, FIRST), (Open, ANSWER)], Stage::Ended),
        ] {
            assert_eq!(stage_after(packets), want, "{packets:?}");
        }
    }

    #[test]
    fn an_opening_segment_answers_nobody() {
        for (flags, signal, answers) in [
            (SYN, Signal::Open, false),
            (SYN | FIN, Signal::Open, false),
            (SYN | ACK, Signal::Nothing, true),
            (ACK, Signal::Nothing, true),
            (FIN | ACK, Signal::Finish, true),
            (RST, Signal::Reset, true),
            (SYN | RST, Signal::Reset, true),
        ] {
            assert_eq!((Signal::of_tcp(flags), signal.may_answer()), (signal, answers), "{flags:#x}");
        }
    }

    #[test]
    fn lifetimes_are_no_shorter_than_the_standards_ask() {
        assert!(lifetime(TCP, Stage::Answered) >= 7440);
        assert!(lifetime(TCP, Stage::Asked) >= 240 && lifetime(TCP, Stage::Ended) >= 240);
        assert!(lifetime(UDP, Stage::Asked) >= 120);
        assert!(lifetime(ICMP, Stage::Asked) >= 60 && lifetime(ICMPV6, Stage::Answered) >= 60);
    }
}

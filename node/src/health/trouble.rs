//! What is wrong with a node, and what to do about it.

use bus::UnixMillis;
use minicbor::{Decode, Encode};
use serde::Serialize;

use super::links::{LinkState, Path};
use super::report::{About, Condition, brief};
use super::series::{LinkSeries, Series};

/// Of what kind a trouble is: what to do follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode)]
#[cbor(index_only)]
pub enum TroubleKind {
    /// A dial of the cloud had no answer.
    #[n(0)]
    Unreachable,
    /// The cloud, or what answers in its place, refused.
    #[n(1)]
    Refused,
    /// What answered did not prove to be the cloud.
    #[n(2)]
    Stranger,
    /// No name server told where the cloud is.
    #[n(3)]
    Name,
    /// The cloud is at its limit.
    #[n(4)]
    Busy,
    /// The link to the cloud ended.
    #[n(5)]
    LinkLost,
    /// The disk refuses writes.
    #[n(6)]
    Disk,
    /// Of a kind that this version does not tell apart.
    #[n(7)]
    Other,
}

impl<'b, C> Decode<'b, C> for TroubleKind {
    /// A kind that a later version tells apart is [`Other`](Self::Other).
    fn decode(from: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Ok(match from.u32()? {
            0 => Self::Unreachable,
            1 => Self::Refused,
            2 => Self::Stranger,
            3 => Self::Name,
            4 => Self::Busy,
            5 => Self::LinkLost,
            6 => Self::Disk,
            _ => Self::Other,
        })
    }
}

impl TroubleKind {
    /// What people may do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Unreachable => {
                "see that 'kubebus cloud' runs there and that UDP to its port is let out here and in there; 'kubebus \
                 debug diagnose' tries both"
            }
            Self::Refused => "do what the cloud says; a node that was removed joins again with a new token",
            Self::Stranger => {
                "another server answers at the cloud's address: check the endpoint, and this machine's clock against \
                 the certificate's dates"
            }
            Self::Name => {
                "see that the name server of this site answers for the cloud's name, or join by its address"
            }
            Self::Busy => "wait: it is tried again by itself",
            Self::LinkLost => {
                "it is dialled again by itself; if that repeats, look at the loss and the MTU of the path"
            }
            Self::Disk => {
                "make room on the disk of the data directory, or replace it; what waits is written by itself"
            }
            Self::Other => "'kubebus debug diagnose' looks for the cause",
        }
    }
}

/// What went wrong last, and when on the node's own clock.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Trouble {
    #[n(0)]
    pub kind: TroubleKind,
    #[n(1)]
    pub detail: String,
    #[n(2)]
    pub at: UnixMillis,
}

impl Trouble {
    /// Whether both say the same, whenever.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.kind, &self.detail) == (other.kind, &other.detail)
    }

    /// Its text cut to what is told.
    pub fn brief(self) -> Self {
        Self { detail: brief(&self.detail), ..self }
    }
}

/// Something that is wrong now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub text: String,
    pub advice: String,
}

impl Problem {
    fn new(text: impl Into<String>, advice: &str) -> Self {
        Self { text: text.into(), advice: advice.to_owned() }
    }
}

/// A share of lost packets from which on a path is worth a look, in millionths.
const MUCH_LOSS: u64 = 20_000;

/// A path that carries less than IPv6 demands (RFC 8200 §5): packets are cut in two.
const SMALL_MTU: u64 = 1280;

/// An outbox older than this does not just wait for its turn, in milliseconds.
const OLD_OUTBOX: u64 = 60_000;

/// Clocks that differ by more than this make people misread times, in milliseconds.
const FAR_CLOCK: i64 = 2_000;

/// Whether the node is connected, and what else a [`Condition`] does not know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around {
    pub(super) is_me: bool,
    pub(super) is_connected: bool,
    pub(super) is_heard: bool,
    pub(super) clock_offset_ms: Option<i64>,
}

/// All that is wrong, worst first.
pub(super) fn problems(condition: &Condition, around: Around) -> Vec<Problem> {
    let Around { is_me, is_connected, is_heard, clock_offset_ms } = around;
    let mut found = Vec::new();
    if !is_connected && !is_me {
        // What it said last need not be so any more.
        return vec![not_connected(is_heard)];
    }
    if !is_connected {
        found.push(cut_off(condition));
    }
    let About { disk, offload, .. } = &condition.about;
    if let Some(why) = disk {
        found.push(Problem::new(format!("the disk refuses writes: {why}"), TroubleKind::Disk.advice()));
    }
    let value = |series| condition.values.get(series).unwrap_or_default();
    let (tripped, offline) = (value(Series::RulesTripped), value(Series::DevicesOffline));
    if tripped > 0 {
        let advice = "'kubebus rule list' says which and why; 'kubebus rule reset' opens a latch once its cause is gone";
        found.push(Problem::new(format!("{tripped} of the rules have tripped"), advice));
    }
    if offline > 0 {
        let advice =
            "'kubebus twin get' says why in the column DEVICE IS; see that the mapper runs and reaches them";
        found.push(Problem::new(
            format!("{offline} of {} devices are offline", value(Series::Devices)),
            advice,
        ));
    }
    if value(Series::OutboxOldest) > OLD_OUTBOX && is_connected {
        let (entries, seconds) = (value(Series::OutboxEntries), value(Series::OutboxOldest) / 1000);
        let advice = "the cloud acknowledges too slowly: look at its disk, and at the link's loss and queue";
        found.push(Problem::new(format!("{entries} entries wait for the cloud, for {seconds} s"), advice));
    }
    if let Some(offset) = clock_offset_ms.filter(|offset| offset.abs() > FAR_CLOCK) {
        let advice = "set the clock by NTP; nothing is decided by it, but times are shown wrong";
        found.push(Problem::new(format!("its clock is {offset} ms from the cloud's"), advice));
    }
    found.extend(condition.links.iter().flat_map(of_link));
    if *offload == Some((false, false)) {
        let advice = "packets cost more of the CPU here: a kernel from 6.2 on joins and cuts them itself";
        found.push(Problem::new("the overlay interface has no offload", advice));
    }
    found
}

fn cut_off(condition: &Condition) -> Problem {
    let kind = condition.about.trouble.as_ref().map_or(TroubleKind::Unreachable, |trouble| trouble.kind);
    Problem::new("the cloud is not connected; the site goes on", kind.advice())
}

fn not_connected(is_heard: bool) -> Problem {
    if is_heard {
        let advice = "see that the machine has power and a way out, and ask it: 'kubebus status' there";
        Problem::new("it is not connected", advice)
    } else {
        Problem::new("it has never been connected", "start it: 'kubebus edge' on its machine")
    }
}

fn of_link(link: &LinkState) -> Vec<Problem> {
    let (peer, mut found) = (&link.head.peer, Vec::new());
    if let Some(loss) = link.get(LinkSeries::Loss).filter(|loss| *loss >= MUCH_LOSS) {
        let percent = loss as f64 / 10_000.0;
        let advice =
            "the path loses packets: look at the radio or line, or hold the link to its rate (link.rate)";
        found.push(Problem::new(
            format!("{percent:.1} % of the packets between it and {peer} are lost"),
            advice,
        ));
    }
    let is_small = |mtu: &u64| *mtu < SMALL_MTU && link.head.is_packets && link.head.path != Path::Relayed;
    if let Some(mtu) = link.get(LinkSeries::Mtu).filter(is_small) {
        let advice = "large packets are cut in two: raise the MTU of the path, or let ICMP 'too big' through";
        found.push(Problem::new(format!("the path to {peer} carries {mtu} bytes at most"), advice));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::links::LinkHead;

    const WELL: Around =
        Around { is_me: false, is_connected: true, is_heard: true, clock_offset_ms: Some(3) };

    fn texts(condition: &Condition, around: Around) -> Vec<String> {
        problems(condition, around).into_iter().map(|problem| problem.text).collect()
    }

    #[test]
    fn nothing_is_wrong_with_a_node_that_says_nothing_bad() {
        assert!(texts(&Condition::default(), WELL).is_empty());
    }

    #[test]
    fn each_ill_has_its_words_and_the_worst_comes_first() {
        let mut condition = Condition::default();
        for (series, value) in [
            (Series::RulesTripped, 1),
            (Series::Devices, 4),
            (Series::DevicesOffline, 2),
            (Series::OutboxEntries, 40),
            (Series::OutboxOldest, 90_000),
        ] {
            condition.values.set(series, value);
        }
        condition.about.disk = Some("no space".to_owned());
        condition.about.offload = Some((false, false));
        let mut numbers = [0; LinkSeries::ALL.len()];
        numbers[LinkSeries::Loss as usize] = 31_000;
        numbers[LinkSeries::Mtu as usize] = 1200;
        let peer: bus::NodeId = "cloud/hq".parse().unwrap();
        let head = LinkHead { path: Path::Quic, peer, is_packets: true, in_reserve: false, remote: None };
        condition.links = vec![LinkState { head, numbers }];
        let expected = [
            "the disk refuses writes: no space",
            "1 of the rules have tripped",
            "2 of 4 devices are offline",
            "40 entries wait for the cloud, for 90 s",
            "its clock is -5000 ms from the cloud's",
            "3.1 % of the packets between it and cloud/hq are lost",
            "the path to cloud/hq carries 1200 bytes at most",
            "the overlay interface has no offload",
        ];
        assert_eq!(texts(&condition, Around { clock_offset_ms: Some(-5000), ..WELL }), expected);
    }

    #[test]
    fn a_node_that_is_cut_off_says_what_its_last_dial_said_to_do() {
        let mut condition = Condition::default();
        let kind = TroubleKind::Name;
        condition.about.trouble = Some(Trouble { kind, detail: String::new(), at: UnixMillis(0) });
        let around = Around { is_me: true, is_connected: false, ..WELL };
        assert_eq!(problems(&condition, around)[0].advice, kind.advice());
        let around = Around { is_connected: false, is_heard: false, ..WELL };
        assert_eq!(texts(&condition, around), ["it has never been connected"]);
    }

    #[test]
    fn of_a_node_that_is_away_nothing_is_said_to_be_wrong_now_but_that() {
        let mut condition = Condition::default();
        condition.values.set(Series::RulesTripped, 1);
        condition.about.disk = Some("no space".to_owned());
        assert_eq!(texts(&condition, Around { is_connected: false, ..WELL }), ["it is not connected"]);
        let own = Around { is_me: true, is_connected: false, ..WELL };
        assert_eq!(texts(&condition, own).len(), 3, "its own word is of now");
    }

    #[test]
    fn a_kind_of_a_later_version_is_another_one() {
        for (index, kind) in [(0, TroubleKind::Unreachable), (6, TroubleKind::Disk), (99, TroubleKind::Other)]
        {
            assert_eq!(minicbor::decode::<TroubleKind>(&minicbor::to_vec(index).unwrap()).unwrap(), kind);
            assert!(index == 99 || minicbor::to_vec(kind).unwrap() == minicbor::to_vec(index).unwrap());
        }
    }
}

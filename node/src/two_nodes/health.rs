//! What an edge tells its cloud of itself, with real nodes at both ends.

use std::time::Duration;

use bus::{Channel, Class, Frame};

use super::*;
use crate::health::teller::QUIET;
use crate::health::{Fleet, Measured, Presence, Series, Values};

/// Frames of an hour, and the bytes of them on the wire, frame heads included.
struct Talk {
    pair: Pair,
    now: Now,
    up: usize,
    down: usize,
    frames: usize,
    largest: usize,
    /// Whether what the cloud answers gets lost.
    loses_acks: bool,
}

const FRAME_HEAD: usize = 5;

/// What IP, UDP, QUIC and its stream add to a small frame at most, and the same for the packet that acknowledges it.
const AROUND: usize = 2 * 80;

impl Talk {
    fn new() -> Self {
        let pair = Pair::new();
        Self { pair, now: NOW, up: 0, down: 0, frames: 0, largest: 0, loses_acks: false }
    }

    /// The shell measures; both sides talk until they are silent.
    fn measure(&mut self, measured: Measured) {
        self.now.mono = self.now.mono + Duration::from_secs(10);
        self.pair.edge.node.handle(Input::Measured(Box::new(measured)), self.now);
        while self.step(true) | self.step(false) {}
    }

    fn step(&mut self, up: bool) -> bool {
        let (from, to) = if up {
            (&mut self.pair.edge, &mut self.pair.cloud)
        } else {
            (&mut self.pair.cloud, &mut self.pair.edge)
        };
        let mut moved = false;
        while let Some(output) = from.node.poll_output() {
            moved = true;
            if let Output::Persist(commit) = output {
                from.persist(commit);
            } else if let Output::Send { link: LINK, class, frame } = output {
                let is_health = frame.channel == Channel::Health;
                if is_health {
                    assert_eq!(class, Class::Telemetry);
                    let len = frame.payload.len() + FRAME_HEAD;
                    self.largest = self.largest.max(len);
                    *(if up { &mut self.up } else { &mut self.down }) += len;
                    self.frames += 1;
                }
                if up || !is_health || !self.loses_acks {
                    to.node.handle(Input::Frame { link: LINK, frame }, self.now);
                }
            } else {
                from.said.push(output);
            }
        }
        moved
    }

    fn fleet(&mut self) -> Fleet {
        self.pair.cloud.said.clear();
        self.pair.cloud.node.handle(Input::Fleet { id: 7 }, self.now);
        while self.step(true) | self.step(false) {}
        let said = std::mem::take(&mut self.pair.cloud.said);
        let fleet = said
            .into_iter()
            .find_map(|o| if let Output::Fleet { id: 7, fleet } = o { Some(fleet) } else { None });
        *fleet.unwrap()
    }

    /// What the cloud knows of a row.
    fn known(&mut self, series: Series) -> Option<u64> {
        let fleet = self.fleet();
        let edge = fleet.nodes.iter().find(|facts| facts.known.node == edge_id()).unwrap();
        edge.condition.as_ref()?.values.get(series)
    }
}

/// Figures of an edge on which nothing happens but keepalives.
fn idle(round: u64) -> Measured {
    let mut values = Values::default();
    for series in Series::ALL {
        values.set(*series, 40_000);
    }
    for (series, step) in
        [(Series::UdpSent, 2), (Series::UdpReceived, 2), (Series::FramesSent, 1), (Series::FramesReceived, 1)]
    {
        values.set(series, 1_000 + step * round);
    }
    values.set(Series::ResidentMemory, 9_000_000 + round % 3 * 4096);
    Measured { values, links: links(round, 40), ..Measured::default() }
}

fn links(round: u64, step: u64) -> Vec<crate::health::MeasuredLink> {
    let link = |number, lane| crate::health::MeasuredLink {
        link: LinkId(number),
        peer: cloud_id(),
        lane,
        in_reserve: false,
        remote: "203.0.113.10:10001".parse().unwrap(),
        rtt: Duration::from_micros(42_000 + round % 7 * 311),
        mtu: 1452,
        segments: 44,
        queued: 0,
        sent: 500 + round,
        lost: round / 100,
        sent_bytes: 100_000 + round * step,
        received_bytes: 100_000 + round * step,
    };
    vec![link(1, crate::seam::DialLane::Bus), link(2, crate::seam::DialLane::Packets)]
}

#[test]
fn an_idle_edge_sends_less_than_a_kilobyte_a_minute() {
    let mut talk = Talk::new();
    talk.measure(idle(0));
    (talk.up, talk.down, talk.frames) = (0, 0, 0);
    for round in 1..=360 {
        talk.measure(idle(round));
    }
    let minutes = 60;
    let on_the_wire = talk.up + talk.down + talk.frames * AROUND;
    assert!(talk.frames >= 2 * 110, "{} frames in an hour", talk.frames);
    assert!(on_the_wire / minutes <= 1000, "{} bytes a minute", on_the_wire / minutes);
    // Every third look is told.
    let told = talk.known(Series::UdpSent).unwrap();
    assert!((1_000 + 2 * 358..=1_000 + 2 * 360).contains(&told), "{told}");
}

#[test]
fn a_busy_edge_tells_at_most_every_look_and_at_most_a_bound() {
    let mut talk = Talk::new();
    for round in 0..60 {
        let mut measured = idle(round);
        let hash = round.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for (at, series) in Series::ALL.iter().enumerate() {
            measured.values.set(*series, hash.rotate_left(at as u32) >> 8);
        }
        measured.links = links(round, 1 << (10 + round % 20));
        talk.measure(measured);
    }
    assert!(talk.frames <= 2 * 60, "{}", talk.frames);
    assert!(talk.largest <= crate::health::report::MAX_REPORT, "{}", talk.largest);
}

#[test]
fn all_is_right_again_after_a_reconnect_and_after_lost_acknowledgements() {
    let mut talk = Talk::new();
    talk.measure(idle(0));
    talk.loses_acks = true;
    for round in 1..12 {
        talk.measure(idle(round));
    }
    talk.loses_acks = false;
    for round in 12..18 {
        talk.measure(idle(round));
    }
    let told = talk.known(Series::UdpSent).unwrap();
    assert!(told >= 1_000 + 2 * 15, "{told}: within half a minute");

    talk.pair.link();
    talk.measure(idle(100));
    assert_eq!(talk.known(Series::UdpSent), Some(1_200));
    talk.pair.cloud.restart();
    talk.pair.link();
    talk.measure(idle(200));
    assert_eq!(talk.known(Series::UdpSent), Some(1_400));
}

#[test]
fn a_lost_edge_keeps_its_last_word_and_is_not_connected() {
    let mut talk = Talk::new();
    talk.measure(idle(3));
    talk.pair.cloud.node.handle(Input::LinkDown { link: LINK }, talk.now);
    talk.now.mono = talk.now.mono + QUIET;
    let fleet = talk.fleet();
    let edge = &fleet.nodes[1];
    assert_eq!((edge.known.state, edge.known.heard_ms_ago), (Presence::Lost, Some(QUIET.as_millis() as u64)));
    assert_eq!(edge.condition.as_ref().unwrap().values.get(Series::UdpSent), Some(1_006));
    assert_eq!(edge.problems()[0].text, "it is not connected");

    talk.pair.cloud.restart();
    let fleet = talk.fleet();
    assert_eq!((fleet.nodes[1].known.state, &fleet.nodes[1].condition), (Presence::Lost, &None));
    talk.pair.join("late");
    let fleet = talk.fleet();
    let late = fleet.nodes.iter().find(|facts| facts.known.node.name.as_str() == "late").unwrap();
    assert_eq!(late.known.state, Presence::Never);
}

#[test]
fn what_cannot_be_read_is_left_alone_at_both_ends() {
    let mut talk = Talk::new();
    talk.measure(idle(0));
    for payload in [vec![0xff], vec![0; 1 << 16]] {
        for node in [&mut talk.pair.cloud, &mut talk.pair.edge] {
            let frame = Frame::new(Channel::Health, payload.clone());
            node.node.handle(Input::Frame { link: LINK, frame }, talk.now);
            let said: Vec<Output> = std::iter::from_fn(|| node.node.poll_output()).collect();
            assert!(!said.iter().any(|output| matches!(output, Output::Close { .. })), "{said:?}");
        }
    }
    (1..8).for_each(|round| talk.measure(idle(round)));
    assert!(talk.known(Series::UdpSent) > Some(1_006), "the next reports are heard");
}

/// What an edge says of itself and of its cloud.
fn at_the_edge(talk: &mut Talk) -> Fleet {
    talk.pair.edge.node.handle(Input::Fleet { id: 8 }, talk.now);
    let said = std::iter::from_fn(|| talk.pair.edge.node.poll_output());
    *said
        .filter_map(|o| if let Output::Fleet { id: 8, fleet } = o { Some(fleet) } else { None })
        .last()
        .unwrap()
}

#[test]
fn an_edge_without_its_cloud_is_there_itself() {
    let mut talk = Talk::new();
    talk.measure(idle(0));
    let states = |fleet: &Fleet| fleet.nodes.iter().map(|facts| facts.known.state).collect::<Vec<_>>();
    let fleet = at_the_edge(&mut talk);
    assert_eq!(states(&fleet), [Presence::Connected, Presence::Connected]);
    let cut_off = "the cloud is not connected; the site goes on";
    assert!(fleet.nodes[0].problems().iter().all(|problem| problem.text != cut_off));
    talk.pair.edge.node.handle(Input::LinkDown { link: LINK }, talk.now);
    let fleet = at_the_edge(&mut talk);
    assert_eq!(states(&fleet), [Presence::Connected, Presence::Lost]);
    assert_eq!(fleet.nodes[0].problems()[0].text, cut_off);
}

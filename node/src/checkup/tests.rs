//! Both halves, with a line between that takes its time.

use std::collections::VecDeque;
use std::time::Duration;

use bus::bus::LinkId;
use bus::{Mono, Name};

use super::asked::{self, Answer, GAP, LIMIT, LOOK_GAP};
use super::asking::{self, DEADLINE};
use super::wire::Message;
use super::*;

const LINK: LinkId = LinkId(3);

/// One way.
const DELAY: Duration = Duration::from_millis(20);

#[derive(Debug, PartialEq)]
enum To {
    Cloud,
    Edge,
}

struct World {
    now: Mono,
    asking: Asking,
    asked: Asked,
    /// In the order in which they arrive.
    wire: VecDeque<(Mono, To, Message)>,
    /// What the edge's checks find, once they ran; `None`: they hang.
    report: Option<Report>,
    examined: Vec<(u64, Outcome)>,
    down: Option<Way>,
    looked: Vec<(u64, Looked)>,
    runs: Vec<u64>,
    sent: usize,
}

fn edge() -> Name {
    Name::new("pump-house").unwrap()
}

impl World {
    fn new() -> Self {
        let told = Told { cause: "disk-full".into(), ..Told::default() };
        Self {
            now: Mono::ZERO + Duration::from_secs(100),
            asking: Asking::default(),
            asked: Asked::default(),
            wire: VecDeque::new(),
            report: Some(Report { findings: vec![told], ..Report::default() }),
            examined: Vec::new(),
            down: None,
            looked: Vec::new(),
            runs: Vec::new(),
            sent: 0,
        }
    }

    fn ask(&mut self, id: u64) {
        self.asking.ask(id, &edge(), Ok(LINK), self.now);
        self.drain();
    }

    fn look(&mut self, id: u64) {
        self.asked.look(id, Ok(LINK), self.now);
        self.drain();
    }

    fn drain(&mut self) {
        let arrives = self.now + DELAY;
        while let Some(output) = self.asking.poll_output() {
            match output {
                asking::Output::Send { link: LINK, message } => {
                    self.wire.push_back((arrives, To::Edge, message));
                }
                asking::Output::Send { .. } => panic!("by another link"),
                asking::Output::Tell { id, examined } => {
                    self.down = examined.down;
                    self.examined.push((id, examined.outcome));
                }
            }
        }
        while let Some(output) = self.asked.poll_output() {
            match output {
                asked::Output::Send { link: LINK, message } => {
                    self.wire.push_back((arrives, To::Cloud, message));
                }
                asked::Output::Send { .. } => panic!("by another link"),
                asked::Output::Examine { id } => self.runs.push(id),
                asked::Output::Tell { id, looked } => self.looked.push((id, looked)),
            }
        }
    }

    /// Until nothing is on its way, or by this much.
    fn pass(&mut self, lasting: Duration) {
        let end = self.now + lasting;
        loop {
            let timeouts = [self.asking.poll_timeout(), self.asked.poll_timeout()];
            let timeout = timeouts.into_iter().flatten().map(|(at, _)| at).min();
            let next = self.wire.front().map(|(at, ..)| *at).into_iter().chain(timeout).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if self.wire.front().is_some_and(|(at, ..)| *at <= self.now) {
                let (_, to, message) = self.wire.pop_front().unwrap();
                self.arrive(&to, &message.to_bytes());
            }
            self.asking.handle_timeout(self.now);
            self.asked.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn arrive(&mut self, to: &To, bytes: &[u8]) {
        self.sent += bytes.len();
        match to {
            To::Cloud => {
                let seen = || Seen { behind: Some(3), ..Seen::default() };
                self.asking.handle_frame((&edge(), LINK), bytes, seen, self.now);
            }
            To::Edge => self.asked.handle_frame(LINK, bytes, self.now),
        }
        self.drain();
    }

    /// The checks that run are done.
    fn run(&mut self) {
        let (id, report) = (self.runs.remove(0), self.report.clone());
        self.asked.handle_report(id, report);
        self.drain();
    }

    fn dropped(&self) -> (u64, u64) {
        (self.asking.dropped(), self.asked.dropped())
    }
}

#[test]
fn an_edge_is_asked_and_the_way_down_is_measured() {
    let mut world = World::new();
    world.ask(1);
    world.ask(2);
    world.pass(Duration::from_secs(1));
    world.run();
    world.pass(Duration::from_secs(1));
    let answered = Outcome::Answered(Box::new(world.report.clone().unwrap()));
    assert_eq!(world.examined, [(1, answered.clone()), (2, answered.clone())], "one run for both");
    assert_eq!(world.down, Some(Way { rtt_us: 40_000, bytes_per_s: None }));
    // At once again: what was found just now, without asking.
    world.ask(3);
    assert_eq!(world.examined.last(), Some(&(3, answered)));
    assert_eq!((world.runs.len(), world.dropped()), (0, (0, 0)));
    assert!(world.sent < 9 << 10, "{} bytes", world.sent);
}

#[test]
fn checks_that_hang_are_reported_in_time_and_no_second_run_begins() {
    let mut world = World::new();
    world.ask(1);
    world.pass(LIMIT + Duration::from_secs(1));
    assert_eq!(world.examined, [(1, Outcome::Refused(Refusal::Late))]);
    world.pass(GAP);
    world.ask(2);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.examined[1], (2, Outcome::Refused(Refusal::Busy)));
    assert_eq!(world.runs.len(), 1);
    // They end after all: nobody hears of it, and the next may run.
    world.run();
    world.pass(GAP);
    world.ask(3);
    world.pass(Duration::from_secs(1));
    world.run();
    world.pass(Duration::from_secs(1));
    assert!(matches!(world.examined[2], (3, Outcome::Answered(_))), "{:?}", world.examined);
}

#[test]
fn an_edge_that_says_nothing_is_reported_in_time() {
    let mut world = World::new();
    world.ask(1);
    world.wire.clear();
    world.pass(DEADLINE);
    assert_eq!(world.examined, [(1, Outcome::Silent)]);
    world.pass(GAP);
    world.ask(2);
    world.asking.handle_down(&edge(), world.now);
    world.drain();
    assert_eq!(world.examined[1], (2, Outcome::LinkEnded));
    assert_eq!(world.asking.poll_timeout(), None);
}

#[test]
fn a_cloud_that_asks_all_the_time_is_held_to_one_run_in_ten_seconds() {
    let mut world = World::new();
    for id in 0..10 {
        world.arrive(&To::Edge, &Message::Ask { id }.to_bytes());
        if id == 0 {
            world.run();
        }
    }
    assert_eq!((world.runs.len(), world.asked.dropped()), (0, 9));
    world.wire.clear();
    world.pass(GAP);
    world.arrive(&To::Edge, &Message::Ask { id: 11 }.to_bytes());
    assert_eq!(world.runs, [11]);
}

#[test]
fn what_makes_no_sense_is_dropped_and_counted_at_both_ends() {
    let mut world = World::new();
    let (ask, seen) = (Message::Ask { id: 1 }, Message::Seen { id: 1, seen: Seen::default() });
    let (late, echo) = (
        Message::answer(9, Report::default()),
        Message::Echo { id: 1, number: 0, padding: Vec::new().into() },
    );
    for message in [&ask, &seen, &late, &echo] {
        world.arrive(&To::Cloud, &message.to_bytes());
    }
    let look = Message::Look { id: 1 };
    for message in [&look, &seen, &late, &echo] {
        world.arrive(&To::Edge, &message.to_bytes());
    }
    for bytes in [&[0xff_u8; 40][..], &[0; 20 << 10]] {
        world.arrive(&To::Cloud, bytes);
        world.arrive(&To::Edge, bytes);
    }
    assert_eq!(world.dropped(), (6, 6));
    assert!(world.wire.is_empty() && world.runs.is_empty(), "{:?}", world.wire);
}

#[test]
fn an_edge_hears_what_its_cloud_sees_and_remembers_it() {
    let mut world = World::new();
    world.look(1);
    world.look(2);
    world.pass(Duration::from_secs(1));
    let (id, first) = world.looked.remove(0);
    assert_eq!((id, first.answer, world.looked.len()), (1, Answer::Heard, 1));
    assert_eq!(first.up, Some(Way { rtt_us: 40_000, bytes_per_s: None }));
    assert_eq!(first.seen.as_ref().unwrap().behind, Some(3));
    // Its link is gone: what was heard last, and when.
    world.asked.handle_down(world.now);
    world.asked.look(3, Err(Answer::NotConnected), world.now);
    world.drain();
    let (_, last) = world.looked.pop().unwrap();
    assert!(last.heard_ms_ago.unwrap() >= 900, "{last:?}");
    assert_eq!((last.answer, last.seen, last.up), (Answer::NotConnected, first.seen, None));
    // And a cloud that says nothing.
    world.pass(LOOK_GAP);
    world.look(4);
    world.wire.clear();
    world.pass(Duration::from_secs(3));
    assert_eq!(world.looked.last().unwrap().1.answer, Answer::Silent);
}

#[test]
fn who_looks_all_the_time_takes_next_to_nothing_of_the_line() {
    let mut world = World::new();
    for id in 0..60 {
        world.look(id);
        world.pass(Duration::from_secs(1));
    }
    assert_eq!((world.looked.len(), world.dropped()), (60, (0, 0)));
    assert!(world.looked.iter().all(|(_, looked)| looked.answer == Answer::Heard && looked.up.is_some()));
    assert!(world.sent < 12 << 10, "{} bytes in a minute, both ways", world.sent);
}

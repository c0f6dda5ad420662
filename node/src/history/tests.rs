use std::time::Duration;

use bus::bus::LinkId;
use bus::{Mono, Name, Quality, Sample, UnixMillis, Value};
use device_twin::PropertyId;
use device_twin::history::gaps::MAX_GAPS;
use device_twin::history::overview::{MAX_POINTS, Span, Survey};
use device_twin::history::{Answer, Cursor, Gap, Order, Query, Row, Which};
use proptest::prelude::*;

use super::inquiries::{DEADLINE, Failure, MAX_WAITING, Output as FromInquiries, PATIENCE};
use super::message::{Asked, MAX_MESSAGE, Message, Refusal};
use super::telling::{MAX_ANSWER, MAX_ROWS, Output as FromTelling};
use super::{Inquiries, Question, Telling, Told};

const LINK: LinkId = LinkId(7);
const NOW: Mono = Mono(1_000_000_000);

fn id() -> PropertyId {
    PropertyId::parse("water/tank/level").unwrap()
}

fn edge() -> Name {
    Name::new("a").unwrap()
}

fn span(points: usize) -> Span {
    Span { id: id(), since: UnixMillis(1_000), until: UnixMillis(301_000), points }
}

fn rows_wanted(limit: usize) -> Query {
    let after = Some(Cursor { time: UnixMillis(5), id: id(), ordinal: 9 });
    let (since, until) = (UnixMillis(0), UnixMillis(u64::MAX));
    Query { which: Which::Device(id().device), since, until, order: Order::OldestFirst, limit, after }
}

fn sample(time: u64, value: Value) -> Sample {
    Sample { value, time: UnixMillis(time), quality: Quality::Good }
}

fn rows(values: impl Iterator<Item = Value>) -> Told {
    let row = |(value, n): (Value, u64)| Row {
        id: PropertyId::new(&id().device, if n % 3 == 2 { "flow" } else { "level" }),
        sample: sample(n, value),
        stored: UnixMillis(n + 1),
    };
    let gap = Gap { since: UnixMillis(3), until: UnixMillis(9), samples: 2 };
    Told::Rows(Answer {
        rows: values.zip(0..).map(row).collect(),
        next: rows_wanted(1).after,
        gaps: vec![gap],
    })
}

/// What a recorder would tell of a reading a second.
fn overview(points: usize, value: impl Fn(u64) -> (f64, Quality)) -> Told {
    let mut survey = Survey::new(&span(points));
    for n in 0..3_000 {
        let (value, quality) = value(n);
        let time = UnixMillis(1_000 + n * 100);
        survey.offer(&Sample { value: Value::Float(value), time, quality }, n);
    }
    (0..MAX_GAPS as u64).for_each(|n| {
        survey.offer_gap(Gap {
            since: UnixMillis(2_000 + n),
            until: UnixMillis(2_500 + n),
            samples: 1 << 40,
        });
    });
    Told::Overview(survey.finish())
}

/// Both halves, and the link between.
#[derive(Default)]
struct World {
    cloud: Inquiries,
    edge: Telling,
    recalled: Vec<Question>,
    answers: Vec<(u64, Result<Told, Failure>)>,
    cut: bool,
}

impl World {
    fn ask(&mut self, id: u64, question: Question, now: Mono) {
        self.cloud.handle_question(&edge(), id, question, now);
        self.run();
    }

    fn run(&mut self) {
        loop {
            if let Some(output) = self.cloud.poll_output() {
                match output {
                    FromInquiries::Send { payload, .. } if !self.cut => {
                        self.edge.handle_frame(LINK, &payload)
                    }
                    FromInquiries::Send { .. } => {}
                    FromInquiries::Answer { id, told, .. } => self.answers.push((id, told)),
                }
            } else if let Some(output) = self.edge.poll_output() {
                match output {
                    FromTelling::Recall(question) => self.recalled.push(question),
                    FromTelling::Send { link, payload } => {
                        assert_eq!(link, LINK);
                        self.cloud.handle_frame(&edge(), &payload);
                    }
                }
            } else {
                return;
            }
        }
    }

    fn at(&mut self, now: Mono) {
        self.cloud.handle_timeout(now);
        self.run();
    }

    fn recall(&mut self, told: Result<Told, String>) {
        self.edge.handle_recalled(told);
        self.run();
    }
}

#[test]
fn what_the_recorder_tells_at_the_edge_is_what_is_answered_at_the_cloud() {
    let mixed =
        |n: u64| (1.0 / (n + 1) as f64, if n.is_multiple_of(7) { Quality::Bad } else { Quality::Uncertain });
    let values = [Value::Bool(true), Value::Int(-3), Value::Float(0.1), Value::Text("auf".to_owned())];
    for (question, told) in [
        (Question::Overview(span(300)), overview(300, mixed)),
        (Question::Rows(rows_wanted(4)), rows(values.into_iter())),
    ] {
        let mut world = World::default();
        world.ask(1, question.clone(), NOW);
        assert_eq!(world.recalled, [question]);
        world.recall(Ok(told.clone()));
        assert_eq!(world.answers, [(1, Ok(told))]);
        assert_eq!(world.cloud.poll_timeout(), None);
    }
}

#[test]
fn an_edge_has_one_question_and_a_few_wait() {
    let mut world = World::default();
    let all = 1 + MAX_WAITING as u64;
    (1..=all + 1).for_each(|id| world.ask(id, Question::Overview(span(2)), NOW));
    assert_eq!((world.recalled.len(), &world.answers[..]), (1, &[(all + 1, Err(Failure::Full))][..]));
    world.answers.clear();
    for id in 1..=all {
        world.recall(Err("the disk is gone".to_owned()));
        assert_eq!(world.answers.pop(), Some((id, Err(Failure::Recorder("the disk is gone".to_owned())))));
    }
    assert_eq!((world.recalled.len() as u64, world.cloud.poll_timeout()), (all, None));
}

#[test]
fn who_asks_an_edge_that_does_not_answer_hears_so_in_time_and_its_late_answer_frees_it() {
    let mut world = World::default();
    let later = NOW + Duration::from_secs(1);
    world.ask(1, Question::Overview(span(2)), NOW);
    world.ask(2, Question::Overview(span(2)), later);
    assert_eq!(world.cloud.poll_timeout(), Some((NOW + DEADLINE, "history")));
    world.at(NOW + DEADLINE);
    assert_eq!((&world.answers[..], world.recalled.len()), (&[(1, Err(Failure::Late))][..], 1));
    // The answer comes when nobody waits for it any more: the edge has its hands free.
    let told = overview(2, |_| (1.0, Quality::Good));
    world.recall(Ok(told.clone()));
    assert_eq!((world.answers.len(), world.recalled.len()), (1, 2));
    world.recall(Ok(told));
    assert_eq!((world.answers[1].0, world.answers[1].1.is_ok(), world.cloud.poll_timeout()), (2, true, None));
    world.ask(3, Question::Overview(span(2)), later + DEADLINE);
    world.cloud.handle_gone(&edge());
    world.run();
    assert_eq!(world.answers[2..], [(3, Err(Failure::Gone))]);
    // The edge looks for the third still, on a link that is gone.
    world.ask(4, Question::Overview(span(2)), later + DEADLINE);
    assert_eq!(world.answers[3..], [(4, Err(Failure::Busy))]);
}

#[test]
fn an_edge_that_answers_nothing_is_asked_less_and_less_and_at_once_on_a_new_link() {
    let mut world = World { cut: true, ..World::default() };
    let mut now = NOW;
    let mut pauses = Vec::new();
    for id in 0..6 {
        world.ask(2 * id, Question::Overview(span(2)), now);
        world.at(now + DEADLINE);
        world.ask(2 * id + 1, Question::Overview(span(2)), now + DEADLINE);
        let began = now + DEADLINE;
        // Whoever asks meanwhile is not kept waiting longer than anybody.
        while let Some((next, _)) = world.cloud.poll_timeout() {
            now = next;
            world.at(now);
        }
        pauses.push(now.since(began).as_secs() / PATIENCE.as_secs());
        assert_eq!(world.answers.len() as u64, 2 * (id + 1));
    }
    assert!(world.answers.iter().all(|(_, told)| *told == Err(Failure::Late)), "{:?}", world.answers);
    assert_eq!(pauses, [1, 2, 4, 8, 8, 8]);
    world.ask(20, Question::Overview(span(2)), now);
    world.cloud.handle_gone(&edge());
    world.cut = false;
    world.ask(21, Question::Overview(span(2)), now);
    assert_eq!(world.recalled.len(), 1);
}

#[test]
fn who_waits_when_an_edge_is_given_up_on_is_asked_for_next() {
    let mut world = World { cut: true, ..World::default() };
    world.ask(1, Question::Overview(span(2)), NOW);
    world.at(NOW + DEADLINE);
    world.cut = false;
    world.ask(2, Question::Overview(span(2)), NOW + DEADLINE + Duration::from_secs(1));
    assert_eq!(world.recalled, [], "it may work on the first still");
    assert_eq!(world.cloud.poll_timeout(), Some((NOW + DEADLINE + PATIENCE, "history")));
    world.at(NOW + DEADLINE + PATIENCE);
    assert_eq!(world.recalled.len(), 1);
    world.recall(Ok(overview(2, |_| (1.0, Quality::Good))));
    assert_eq!((world.answers.len(), world.cloud.poll_timeout()), (2, None));
}

#[test]
fn nobody_answers_for_another_edge_nor_another_question() {
    let mut world = World { cut: true, ..World::default() };
    world.ask(1, Question::Overview(span(2)), NOW);
    let told = overview(2, |_| (1.0, Quality::Good));
    let right = Message::told(1, &told).to_bytes();
    world.cloud.handle_frame(&Name::new("b").unwrap(), &right);
    world.cloud.handle_frame(&edge(), &Message::told(2, &told).to_bytes());
    world.cloud.handle_frame(&edge(), &Message::told(1, &rows(std::iter::empty())).to_bytes());
    world.cloud.handle_frame(&edge(), &vec![0; MAX_MESSAGE + 1]);
    world.run();
    assert_eq!(world.answers, []);
    world.cloud.handle_frame(&edge(), &right);
    world.run();
    assert_eq!(world.answers, [(1, Ok(told))]);
}

#[test]
fn a_page_too_long_for_a_thin_line_is_asked_for_again_shorter() {
    let long = |n: usize| rows((0..n).map(|_| Value::Text("x".repeat(1_000))));
    let mut world = World::default();
    world.ask(1, Question::Rows(rows_wanted(9_999)), NOW);
    let limit = |question: &Question| if let Question::Rows(query) = question { query.limit } else { 0 };
    assert_eq!(world.recalled.iter().map(limit).collect::<Vec<_>>(), [MAX_ROWS]);
    for n in [100, 50, 25] {
        world.recall(Ok(long(n)));
    }
    assert_eq!(world.recalled.iter().map(limit).collect::<Vec<_>>(), [MAX_ROWS, 50, 25]);
    assert_eq!(world.answers, [(1, Ok(long(25)))]);
    world.ask(2, Question::Rows(rows_wanted(1)), NOW);
    world.recall(Ok(rows(std::iter::once(Value::Text("x".repeat(MAX_ANSWER))))));
    assert_eq!(world.answers[1..], [(2, Err(Failure::TooLarge))]);
    // More than the cloud would read is not sent at all.
    let Told::Overview(mut wide) = overview(300, |n| (1.0 / (n + 1) as f64, Quality::Good)) else { panic!() };
    wide.points = wide.points.repeat(10);
    world.ask(3, Question::Overview(span(300)), NOW);
    world.recall(Ok(Told::Overview(wide)));
    assert_eq!(world.answers[2..], [(3, Err(Failure::TooLarge))]);
}

#[test]
fn a_day_of_gaps_is_told_as_few() {
    let gap = |n: u64| Gap { since: UnixMillis(n * 1_000), until: UnixMillis(n * 1_000 + 999), samples: 1 };
    let gaps: Vec<Gap> = (0..86_400).map(gap).collect();
    for values in [0, 3] {
        let Told::Rows(answer) = rows((0..values).map(Value::Int)) else { panic!("rows are rows") };
        let mut world = World::default();
        world.ask(1, Question::Rows(rows_wanted(10)), NOW);
        world.recall(Ok(Told::Rows(Answer { gaps: gaps.clone(), ..answer.clone() })));
        assert_eq!(world.recalled.len(), 1, "it is not asked for again shorter");
        let Some((1, Ok(Told::Rows(told)))) = world.answers.pop() else { panic!("{:?}", world.answers) };
        let last = told.gaps[MAX_GAPS - 1];
        assert_eq!((told.rows, told.gaps.len(), told.gaps[0]), (answer.rows, MAX_GAPS, gap(0)));
        assert_eq!((last.since, last.until, last.samples), (gap(49).since, gap(86_399).until, 86_400 - 49));
    }
}

#[test]
fn an_overview_fits_a_thin_line() {
    let bytes = |told: &Told| Message::told(u64::MAX, told).to_bytes().len();
    let waves = |n: u64| ((n as f64).sin(), if n.is_multiple_of(5) { Quality::Bad } else { Quality::Good });
    let most = bytes(&overview(MAX_POINTS, waves));
    assert!((25_000..40_000).contains(&most), "{most}: half a second of half a Mbit/s");
    let usual = bytes(&overview(300, |n| ((n / 10) as f64 / 8.0, Quality::Good)));
    assert!(usual < 9_000, "{usual}");
}

proptest! {
    #[test]
    fn any_bytes_are_left_alone_or_understood(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut telling = Telling::default();
        telling.handle_frame(LINK, &bytes);
        let mut inquiries = Inquiries::default();
        inquiries.handle_question(&edge(), 1, Question::Overview(span(2)), NOW);
        inquiries.handle_frame(&edge(), &bytes);
    }

    #[test]
    fn questions_survive_the_wire(
        since: u64, until: u64, points in 2usize..600, limit in 1usize..60_000, newest: bool, which in 0u8..2,
        after in prop::option::of((any::<u64>(), any::<u64>())),
    ) {
        let which = if which == 0 { Which::Property(id()) } else { Which::Device(id().device) };
        let after = after.map(|(time, ordinal)| Cursor { time: UnixMillis(time), id: id(), ordinal });
        let order = if newest { Order::NewestFirst } else { Order::OldestFirst };
        let (since, until) = (UnixMillis(since), UnixMillis(until));
        for question in [
            Question::Overview(Span { id: id(), since, until, points }),
            Question::Rows(Query { which, since, until, order, limit, after }),
        ] {
            let asked = Asked::of(&question).unwrap();
            let Some(Message::Ask { id: 3, asked }) = Message::from_bytes(&Message::Ask { id: 3, asked }.to_bytes())
            else {
                panic!("{question:?}")
            };
            prop_assert_eq!(asked.question(), Some(question));
        }
    }
}

#[test]
fn nobody_asks_an_edge_for_all_devices() {
    let query = Query { which: Which::All, ..rows_wanted(1) };
    assert_eq!(Asked::of(&Question::Rows(query)), None);
    let refused = Message::Refused { id: 1, why: Refusal::Recorder("x".to_owned()) };
    assert_eq!(Message::from_bytes(&refused.to_bytes()), Some(refused));
}

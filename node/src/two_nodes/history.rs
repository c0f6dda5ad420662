//! The history of a device, asked for at its cloud.

use bus::{Channel, Frame, Quality, Sample};
use device_twin::PropertyId;
use device_twin::history::overview::{Span, Survey};

use super::*;
use crate::history::{Question, Told};

/// A hello from before history could be asked for: `[0, [1]]`.
const OLD_HELLO: &[u8] = &[0x82, 0, 0x81, 1];

fn question(device: &str) -> Question {
    let id = PropertyId::parse(&format!("{device}/pressure")).unwrap();
    Question::Overview(Span { id, since: UnixMillis(0), until: UnixMillis(100), points: 10 })
}

fn asked(device: &str) -> Input {
    Input::Admin { id: 1, request: AdminRequest::History(question(device)) }
}

impl Pair {
    /// Why the cloud does not answer.
    fn refused(&mut self, device: &str) -> String {
        self.ask(AdminRequest::History(question(device))).unwrap_err().to_string()
    }

    fn recalled(&self) -> usize {
        self.edge.said.iter().filter(|output| matches!(output, Output::Recall(_))).count()
    }
}

#[test]
fn the_cloud_answers_with_what_the_edge_recorded() {
    let mut pair = Pair::new();
    pair.cloud.said.clear();
    pair.cloud.handle(asked("water/junction"));
    pair.run();
    assert_eq!((pair.cloud.answers().len(), pair.recalled()), (0, 1));
    let Question::Overview(span) = question("water/junction") else { panic!("it is one") };
    let mut survey = Survey::new(&span);
    survey.offer(&Sample { value: Value::Float(2.5), time: UnixMillis(7), quality: Quality::Uncertain }, 0);
    pair.edge.handle(Input::Recalled(Ok(Told::Overview(survey.finish()))));
    pair.run();
    let point = json!({ "since": 7, "until": 7, "quality": "uncertain", "first": 2.5, "last": 2.5, "least": 2.5, "greatest": 2.5 });
    assert_eq!(pair.cloud.answers(), [&Ok(json!({ "points": [point], "gaps": [] }))]);
}

#[test]
fn who_asks_hears_why_there_is_no_answer() {
    let mut pair = Pair::new();
    assert_eq!(pair.refused("water/ghost"), "this node knows no device water/ghost");
    pair.cloud.handle(Input::Frame { link: LINK, frame: Frame::new(Channel::Bus, OLD_HELLO) });
    let why = pair.refused("water/junction");
    assert!(why.starts_with("edge/pump-house is of a version that cannot be asked"), "{why}");
    pair.link();
    pair.cloud.said.clear();
    pair.cloud.handle(asked("water/junction"));
    pair.run();
    pair.cloud.handle(Input::LinkDown { link: LINK });
    pair.run();
    let [Err(why)] = &pair.cloud.answers()[..] else { panic!("{:?}", pair.cloud.said) };
    assert!(why.to_string().contains("its link went down before it answered"), "{why}");
    let away = "edge/pump-house of site plant is away since 1970-01-01T00:00:00.001Z; its history is there: ask again when it is back";
    assert_eq!(pair.refused("water/junction"), away);
}

#[test]
fn an_edge_answers_only_its_cloud() {
    let mut pair = Pair::new();
    pair.cloud.handle(asked("water/junction"));
    let is_asked =
        |output: &Output| matches!(output, Output::Send { frame, .. } if frame.channel == Channel::History);
    let sent = std::iter::from_fn(|| pair.cloud.node.poll_output()).find(is_asked);
    let Some(Output::Send { frame, .. }) = sent else { panic!("nothing is asked") };
    let key = KeyHash::of_spki(b"neighbour");
    pair.edge.handle(Input::LinkUp { link: STRANGER, peer: NodeId::edge(name("n")), key, attempt: None });
    pair.edge.handle(Input::Frame { link: STRANGER, frame: frame.clone() });
    pair.run();
    assert_eq!(pair.recalled(), 0);
    pair.edge.handle(Input::Frame { link: LINK, frame });
    pair.run();
    assert_eq!(pair.recalled(), 1);
}

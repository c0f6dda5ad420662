//! Who makes whom look at itself, with real nodes at both ends.

use bus::{Channel, Class, Frame};

use super::*;
use crate::checkup::asked::Answer;
use crate::checkup::wire::Message;
use crate::checkup::{Examined, Looked, Outcome};

const NEIGHBOUR: LinkId = LinkId(7);

/// Both sides talk until they are silent. The edge's checks find nothing.
fn talk(pair: &mut Pair) {
    loop {
        let mut moved = false;
        for up in [true, false] {
            let (from, to) =
                if up { (&mut pair.edge, &mut pair.cloud) } else { (&mut pair.cloud, &mut pair.edge) };
            while let Some(output) = from.node.poll_output() {
                moved = true;
                if let Output::Persist(commit) = output {
                    from.persist(commit);
                } else if let Output::Send { link: LINK, frame, .. } = output {
                    to.handle(Input::Frame { link: LINK, frame });
                } else if let Output::Examine { id } = output {
                    assert!(up, "a cloud checks for nobody");
                    from.handle(Input::Examined { id, report: Some(Box::default()) });
                } else {
                    from.said.push(output);
                }
            }
        }
        if !moved {
            return;
        }
    }
}

fn asks(pair: &mut Pair, node: &str) -> AdminResponse {
    pair.cloud.said.clear();
    pair.cloud.handle(Input::Admin { id: 5, request: AdminRequest::Examine { node: name(node) } });
    talk(pair);
    answer(&pair.cloud.said)
}

fn answer(said: &[Output]) -> AdminResponse {
    let found = said.iter().find_map(|output| {
        if let Output::Admin { id: 5, response } = output { Some(response.clone()) } else { None }
    });
    found.expect("an answer")
}

fn outcome(response: AdminResponse) -> Outcome {
    serde_json::from_value::<Examined>(response.unwrap()).unwrap().outcome
}

#[test]
fn a_cloud_asks_its_edge_and_an_edge_its_cloud() {
    let mut pair = Pair::new();
    let answered = Outcome::Answered(Box::default());
    assert_eq!(outcome(asks(&mut pair, "pump-house")), answered);
    assert!(matches!(asks(&mut pair, "nobody"), Err(AdminError::NotFound(_))));
    pair.edge.said.clear();
    pair.edge.handle(Input::Admin { id: 5, request: AdminRequest::Upstream });
    talk(&mut pair);
    let looked: Looked = serde_json::from_value(answer(&pair.edge.said).unwrap()).unwrap();
    assert_eq!(looked.seen.unwrap().certificate_ends, Some(UnixMillis(u64::MAX)));
    // Neither does the other's part.
    pair.edge.said.clear();
    pair.edge.handle(Input::Admin { id: 5, request: AdminRequest::Examine { node: name("pump-house") } });
    talk(&mut pair);
    assert_eq!(answer(&pair.edge.said), Err(AdminError::CloudOnly));
    // Without a link.
    for side in [&mut pair.cloud, &mut pair.edge] {
        side.handle(Input::LinkDown { link: LINK });
    }
    assert_eq!(outcome(asks(&mut pair, "pump-house")), Outcome::NotConnected);
}

#[test]
fn nobody_but_the_cloud_makes_an_edge_check_and_nobody_a_cloud() {
    let mut pair = Pair::new();
    let ask = Frame::new(Channel::Checkup, Message::Ask { id: 1 }.to_bytes());
    pair.edge.said.clear();
    // A link that is not the cloud's, and the cloud's other end.
    pair.edge.handle(Input::Frame { link: NEIGHBOUR, frame: ask.clone() });
    pair.cloud.handle(Input::Frame { link: LINK, frame: ask.clone() });
    pair.cloud.handle(Input::Frame { link: STRANGER, frame: ask });
    let said = |side: &mut Side| {
        let mut said = Vec::new();
        while let Some(output) = side.node.poll_output() {
            said.push(output);
        }
        said
    };
    for side in [&mut pair.edge, &mut pair.cloud] {
        for output in said(side) {
            let is_harm = matches!(&output, Output::Examine { .. } | Output::Close { .. })
                || matches!(&output, Output::Send { frame, class, .. }
                    if frame.channel == Channel::Checkup || *class == Class::Event);
            assert!(!is_harm, "{output:?}");
        }
    }
}

/// A hello of version 1, as it was before peers said what else they take.
const OLD_HELLO: [u8; 4] = [0x82, 0, 0x81, 1];

#[test]
fn a_version_from_before_is_sent_nothing_that_it_would_end_the_link_over() {
    let mut pair = Pair::new();
    for side in [&mut pair.cloud, &mut pair.edge] {
        let frame = Frame::new(Channel::Bus, OLD_HELLO.to_vec());
        side.handle(Input::Frame { link: LINK, frame });
    }
    assert_eq!(outcome(asks(&mut pair, "pump-house")), Outcome::Cannot);
    pair.edge.said.clear();
    pair.edge.handle(Input::Admin { id: 5, request: AdminRequest::Upstream });
    talk(&mut pair);
    let looked: Looked = serde_json::from_value(answer(&pair.edge.said).unwrap()).unwrap();
    assert_eq!((looked.answer, looked.seen), (Answer::Cannot, None));
}

//! An edge gets its next certificate, with real nodes at both ends; the test is the shell between them.

use controller::renew::{RenewRefusal, RenewReply, RenewRequest};

use super::*;
use crate::renewal::{Certificate, News};
use crate::seam::Line;

/// The link that is made with the next certificate.
const NEXT: LinkId = LinkId(2);

fn until(not_after: u64) -> Certificate {
    Certificate { not_before: UnixMillis(0), not_after: UnixMillis(not_after) }
}

fn key(text: &str) -> KeyHash {
    KeyHash::of_spki(text.as_bytes())
}

fn ask(pair: &mut Pair, shown: &str, csr: &str) -> RenewReply {
    pair.cloud.said.clear();
    let request = RenewRequest { csr_der: csr.into() }.to_bytes().into();
    pair.cloud.handle(Input::Renew { link: STRANGER, peer: edge_id(), key: key(shown), request });
    pair.run();
    let reply = |output: &Output| {
        let Output::Send { link: STRANGER, frame, .. } = output else { return None };
        RenewReply::from_bytes(&frame.payload).ok()
    };
    let replies: Vec<RenewReply> = pair.cloud.said.iter().filter_map(reply).collect();
    let [reply] = &replies[..] else { panic!("{replies:?}") };
    reply.clone()
}

fn refusal(reply: &RenewReply) -> RenewRefusal {
    let RenewReply::Refused { code, .. } = reply else { panic!("{reply:?}") };
    *code
}

/// Links that a side has closed since it was asked last.
fn closed(side: &mut Side) -> Vec<LinkId> {
    let said = std::mem::take(&mut side.said);
    said.into_iter()
        .filter_map(|o| if let Output::Close { link, .. } = o { Some(link) } else { None })
        .collect()
}

#[test]
fn a_linked_edge_asks_when_it_is_due_and_changes_over_before_it_lets_go() {
    let mut pair = Pair::new();
    pair.edge.said.clear();
    pair.edge.handle(Input::Certificate(News::Shown(until(1))));
    pair.run();
    assert!(pair.edge.said.contains(&Output::Renew { line: Line::First }), "{:?}", pair.edge.said);
    assert!(matches!(ask(&mut pair, "pump-house", "k2"), RenewReply::Renewed { .. }));

    pair.edge.said.clear();
    pair.edge.handle(Input::Certificate(News::Renewed(until(1_000_000))));
    pair.run();
    let dials = pair.edge.said.iter().filter(|output| matches!(output, Output::Dial { .. })).count();
    assert!(dials >= 1, "{:?}", pair.edge.said);
    assert_eq!(closed(&mut pair.edge), []);
    assert_eq!(pair.report(5), [Output::Accept(Ticket(1))]);
    assert_eq!(pair.known(), json!(5.0), "the old link goes on");

    closed(&mut pair.cloud);
    pair.cloud.handle(Input::LinkUp { link: NEXT, peer: edge_id(), key: key("k2"), attempt: None });
    pair.run();
    assert_eq!(closed(&mut pair.cloud), [LINK]);
    // Nobody comes by the old one any more.
    pair.cloud.handle(Input::LinkUp { link: LINK, peer: edge_id(), key: key("pump-house"), attempt: None });
    pair.run();
    assert_eq!(closed(&mut pair.cloud), [LINK]);
    assert_eq!(refusal(&ask(&mut pair, "pump-house", "k3")), RenewRefusal::Superseded);
}

#[test]
fn a_certificate_is_given_only_when_the_register_has_it_for_good() {
    let mut pair = Pair::new();
    pair.cloud.refuses = true;
    assert_eq!(refusal(&ask(&mut pair, "pump-house", "k2")), RenewRefusal::Internal);
    assert_eq!(refusal(&ask(&mut pair, "pump-house", "k2")), RenewRefusal::Internal);
    pair.cloud.restart();
    assert!(matches!(ask(&mut pair, "pump-house", "k3"), RenewReply::Renewed { .. }));
    // A crash before the next one was shown.
    pair.cloud.restart();
    for (known, link) in [("pump-house", LINK), ("k3", NEXT)] {
        closed(&mut pair.cloud);
        pair.cloud.handle(Input::LinkUp { link, peer: edge_id(), key: key(known), attempt: None });
        pair.run();
        assert!(!closed(&mut pair.cloud).contains(&link), "{known}");
    }
}

#[test]
fn a_node_that_was_deleted_gets_none() {
    let mut pair = Pair::new();
    pair.ask(AdminRequest::DeleteNode { name: name("pump-house") }).unwrap();
    assert_eq!(refusal(&ask(&mut pair, "pump-house", "k2")), RenewRefusal::NotMember);
}

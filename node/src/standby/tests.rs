use bus::Name;

use super::*;

const EDGE: LinkId = LinkId(1);
const PACKETS: LinkId = LinkId(2);
const OTHER: LinkId = LinkId(3);
const KEY: KeyHash = KeyHash([7; 32]);
const START: Mono = Mono(0);

fn cloud() -> NodeId {
    NodeId::cloud(Name::new("cloud").unwrap())
}

fn edge() -> NodeId {
    NodeId::edge(Name::new("pump-house").unwrap())
}

fn remote() -> SocketAddr {
    "192.0.2.1:1024".parse().unwrap()
}

fn waiting() -> Standby {
    Standby::new(cloud(), 2, START)
}

fn all(standby: &mut Standby) -> Vec<Output> {
    std::iter::from_fn(|| standby.poll_output()).collect()
}

fn bus_up(standby: &mut Standby, link: LinkId, peer: NodeId) {
    standby.handle(Input::LinkUp { link, peer, key: KEY, attempt: None }, START);
}

fn says(link: LinkId, message: &PathMessage) -> Input {
    Input::Frame { link, frame: Frame::new(Channel::Path, message.to_bytes()) }
}

fn is_told_to_wait(said: &[Output], link: LinkId) -> bool {
    let expected = PathMessage::Standby.to_bytes();
    matches!(said, [Output::Send { link: to, frame }] if *to == link && frame.payload[..] == expected[..])
}

/// Dials both endpoints; the first attempt of the round comes up as `link`.
fn meets(standby: &mut Standby, link: LinkId, now: Mono) {
    standby.handle(Input::Timeout, now);
    let said = all(standby);
    let attempts: Vec<u64> = said
        .iter()
        .filter_map(|output| if let Output::Dial { attempt, .. } = output { Some(*attempt) } else { None })
        .collect();
    let [first, second] = attempts[..] else { panic!("{said:?}") };
    standby.handle(Input::LinkUp { link, peer: cloud(), key: KEY, attempt: Some(first) }, now);
    standby.handle(Input::DialFailed { attempt: second, retry_after: None }, now);
}

#[test]
fn an_edges_links_are_kept_and_handed_over_when_the_turn_has_come() {
    let mut standby = waiting();
    bus_up(&mut standby, EDGE, edge());
    assert!(is_told_to_wait(&all(&mut standby), EDGE));
    standby.handle(Input::PeerPackets { link: PACKETS, peer: edge(), key: KEY, remote: remote() }, START);
    assert_eq!((all(&mut standby), standby.edges()), (vec![], 1), "nobody is let in");
    let moved = "192.0.2.1:2048".parse().unwrap();
    standby.handle(Input::Moved { link: PACKETS, remote: moved }, START);
    let (inputs, left) = standby.into_inputs();
    assert!(
        matches!(&inputs[..], [Input::LinkUp { link: EDGE, attempt: None, .. },
                               Input::PeerPackets { link: PACKETS, remote, .. }] if *remote == moved),
        "{inputs:?}"
    );
    assert_eq!(left, []);
}

#[test]
fn of_two_links_of_an_edge_the_newer_is_kept_and_what_is_gone_is_not_handed_over() {
    let mut standby = waiting();
    bus_up(&mut standby, EDGE, edge());
    all(&mut standby);
    bus_up(&mut standby, OTHER, edge());
    assert!(matches!(all(&mut standby)[0], Output::Close { link: EDGE, .. }));
    assert_eq!(standby.edges(), 1);
    standby.handle(Input::LinkDown { link: OTHER }, START);
    assert_eq!(standby.into_inputs().0.len(), 0);
}

#[test]
fn an_edge_that_shows_one_certificate_after_the_other_has_two_links_of_a_lane() {
    let mut standby = waiting();
    for number in 1..=9 {
        let key = KeyHash([number; 32]);
        standby
            .handle(Input::LinkUp { link: LinkId(number.into()), peer: edge(), key, attempt: None }, START);
        let (link, remote) = (LinkId(100 + u64::from(number)), remote());
        standby.handle(Input::PeerPackets { link, peer: edge(), key, remote }, START);
    }
    let closed = |output: &Output| matches!(output, Output::Close { .. });
    assert_eq!(all(&mut standby).iter().filter(|output| closed(output)).count(), 14);
    let other = NodeId::edge(Name::new("mill").unwrap());
    bus_up(&mut standby, LinkId(20), other);
    assert!(is_told_to_wait(&all(&mut standby), LinkId(20)), "and takes nothing from another");
    let up = |input: &Input| {
        let (Input::LinkUp { link, .. } | Input::PeerPackets { link, .. }) = input else {
            panic!("{input:?}")
        };
        link.0
    };
    assert_eq!(standby.into_inputs().0.iter().map(up).collect::<Vec<_>>(), [8, 9, 20, 108, 109]);
}

#[test]
fn who_is_neither_edge_nor_replica_is_sent_away() {
    let mut standby = waiting();
    bus_up(&mut standby, EDGE, NodeId::cloud(Name::new("stranger").unwrap()));
    assert!(matches!(all(&mut standby)[..], [Output::Close { link: EDGE, .. }]));
    bus_up(&mut standby, OTHER, cloud());
    assert!(is_told_to_wait(&all(&mut standby), OTHER));
}

#[test]
fn the_replica_that_leads_is_looked_for_watched_and_missed() {
    let mut standby = waiting();
    meets(&mut standby, OTHER, START);
    standby.handle(says(OTHER, &PathMessage::Standby), START);
    assert!(matches!(all(&mut standby)[..], [Output::Close { link: OTHER, .. }]), "that one waits too");
    standby.handle(Input::LinkDown { link: OTHER }, START);
    assert_eq!(all(&mut standby), []);

    let (at, _) = standby.poll_timeout().unwrap();
    let leader = LinkId(9);
    meets(&mut standby, leader, at);
    standby.handle(says(leader, &PathMessage::Leads { term: 5 }), at);
    assert_eq!((all(&mut standby), standby.watches(), standby.poll_timeout()), (vec![], true, None));
    standby.handle(Input::LinkDown { link: leader }, at);
    assert_eq!(all(&mut standby), [Output::Lost { term: 5 }]);
    assert!(standby.poll_timeout().is_some(), "and looked for again");
}

#[test]
fn without_endpoints_nobody_is_looked_for() {
    assert_eq!(Standby::new(cloud(), 0, START).poll_timeout(), None);
}

#[test]
fn who_wants_to_join_is_told_where() {
    let mut standby = waiting();
    standby.handle(Input::Join { link: OTHER, request: "".into() }, START);
    let said = all(&mut standby);
    let [Output::Send { link: OTHER, frame }] = &said[..] else { panic!("{said:?}") };
    let reply = JoinReply::from_bytes(&frame.payload).unwrap();
    assert!(matches!(reply, JoinReply::Refused { message, .. } if message.contains("another endpoint")));
}

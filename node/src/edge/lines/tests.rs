use super::*;

const A: LinkId = LinkId(1);
const A_PACKETS: LinkId = LinkId(2);
const B: LinkId = LinkId(3);
const B_PACKETS: LinkId = LinkId(4);

const START: Mono = Mono(0);

fn all(lines: &mut Lines) -> Vec<Output> {
    std::iter::from_fn(|| lines.poll_output()).collect()
}

/// The number of the dial of a lane that is said now.
#[track_caller]
fn dialled(said: &[Output], line: Line, lane: DialLane) -> u64 {
    let found = said.iter().find_map(|output| {
        let Output::Dial { line: on, lane: to, attempt } = output else { return None };
        ((*on, *to) == (line, lane)).then_some(*attempt)
    });
    found.unwrap_or_else(|| panic!("{line:?} {lane:?} is not dialled in {said:?}"))
}

/// The first line is followed in term 5, the second leads to a replica that stands by.
fn settled() -> Lines {
    let mut lines = Lines::new(7, true);
    let said = all(&mut lines);
    assert_eq!(said.len(), 2, "one line alone, as long as nothing is known of replicas: {said:?}");
    lines.handle_bus_up(A, dialled(&said, Line::First, DialLane::Bus), START);
    lines.handle_packets_up(A_PACKETS, dialled(&said, Line::First, DialLane::Packets), START);
    assert_eq!(all(&mut lines), [], "nobody is followed who has not said what it is");
    lines.handle_leads(A, Some(5));
    let said = all(&mut lines);
    assert_eq!(said[..2], [Output::Follow(A), Output::Admit(A_PACKETS)]);
    assert_eq!(said.len(), 3, "to a replica that may lead no packets lane is made: {said:?}");
    lines.handle_bus_up(B, dialled(&said, Line::Second, DialLane::Bus), START);
    assert_eq!(all(&mut lines), []);
    lines.handle_standby(B);
    let said = all(&mut lines);
    lines.handle_packets_up(B_PACKETS, dialled(&said, Line::Second, DialLane::Packets), START);
    assert_eq!((all(&mut lines), lines.standby()), (vec![], Some("ready")));
    lines
}

#[test]
fn a_replica_that_leads_in_a_higher_term_is_followed_at_once() {
    let mut lines = settled();
    lines.handle_leads(B, Some(6));
    let close = Output::Close(A_PACKETS, "packets go to another replica");
    assert_eq!(all(&mut lines), [Output::Follow(B), Output::Admit(B_PACKETS), close]);
    assert_eq!(lines.packets(), Some(B_PACKETS));
}

#[test]
fn a_former_leader_is_not_followed_while_its_successor_stands() {
    let mut lines = settled();
    lines.handle_leads(B, Some(6));
    all(&mut lines);
    lines.handle_down(A, START);
    lines.handle_timeout(Mono(2_000_000));
    let attempt = dialled(&all(&mut lines), Line::First, DialLane::Bus);
    lines.handle_bus_up(A, attempt, START);
    lines.handle_leads(A, Some(5));
    assert_eq!(all(&mut lines), [Output::Close(A, "another cloud leads")]);
    // Without the successor it is better than nobody.
    lines.handle_down(B, START);
    lines.handle_leads(A, Some(5));
    assert_eq!(all(&mut lines)[..1], [Output::Follow(A)]);
}

#[test]
fn the_same_replica_at_another_address_is_no_standby() {
    let mut lines = settled();
    lines.handle_down(B, START);
    lines.handle_timeout(Mono(2_000_000));
    let attempt = dialled(&all(&mut lines), Line::Second, DialLane::Bus);
    lines.handle_bus_up(B, attempt, START);
    lines.handle_leads(B, Some(5));
    assert_eq!(all(&mut lines), [Output::Close(B, "the same cloud at another address")]);
}

#[test]
fn while_nobody_leads_one_line_goes_on_to_further_endpoints_if_there_are_any() {
    for (told, goes_on) in [(2, false), (3, true)] {
        let mut lines = settled();
        lines.handle_endpoints(told);
        lines.handle_down(A, START);
        lines.handle_timeout(Mono(2_000_000));
        let attempt = dialled(&all(&mut lines), Line::First, DialLane::Bus);
        lines.handle_bus_up(A, attempt, START);
        lines.handle_standby(A);
        let closes = all(&mut lines).iter().any(|output| matches!(output, Output::Close(A, _)));
        assert_eq!(closes, goes_on, "{told} endpoints");
    }
}

#[test]
fn a_cloud_that_is_alone_has_no_term_and_needs_no_second_line() {
    let mut lines = Lines::new(7, true);
    let said = all(&mut lines);
    lines.handle_bus_up(A, dialled(&said, Line::First, DialLane::Bus), START);
    assert!(lines.is_silent(A));
    lines.handle_leads(A, None);
    assert!(!lines.is_silent(A));
    assert_eq!((all(&mut lines), lines.standby()), (vec![Output::Follow(A)], None));
}

#[test]
fn an_edge_that_is_to_keep_no_standby_leaves_a_replica_that_waits() {
    let mut lines = Lines::new(7, false);
    let said = all(&mut lines);
    lines.handle_bus_up(A, dialled(&said, Line::First, DialLane::Bus), START);
    lines.handle_standby(A);
    assert!(matches!(all(&mut lines)[..], [Output::Close(A, _)]));
}

#[test]
fn a_word_that_was_overtaken_does_not_undo_what_followed() {
    let mut lines = settled();
    lines.handle_leads(B, Some(6));
    all(&mut lines);
    lines.handle_standby(B);
    assert_eq!((all(&mut lines), lines.packets()), (vec![], Some(B_PACKETS)));
}

#[test]
fn a_node_with_another_certificate_makes_its_lanes_anew_and_keeps_the_old_ones_until_then() {
    const C: LinkId = LinkId(5);
    const C_PACKETS: LinkId = LinkId(6);
    const D: LinkId = LinkId(7);
    let mut lines = settled();
    lines.handle_renewed();
    let said = all(&mut lines);
    assert_eq!(said.len(), 4, "{said:?}");
    lines.handle_bus_up(C, dialled(&said, Line::First, DialLane::Bus), START);
    assert_eq!(all(&mut lines), [], "until the new one leads the old one is followed");
    lines.handle_packets_up(C_PACKETS, dialled(&said, Line::First, DialLane::Packets), START);
    assert_eq!(all(&mut lines), [Output::Admit(C_PACKETS), Output::Close(A_PACKETS, RENEWED)]);
    lines.handle_leads(C, Some(5));
    assert_eq!(all(&mut lines), [Output::Follow(C), Output::Admit(C_PACKETS)]);
    lines.handle_down(A, START);
    assert_eq!(all(&mut lines), [], "its end is no news");
    lines.handle_bus_up(D, dialled(&said, Line::Second, DialLane::Bus), START);
    assert_eq!(all(&mut lines), [Output::Close(B, RENEWED)]);
    assert_eq!(lines.packets(), Some(C_PACKETS));
}

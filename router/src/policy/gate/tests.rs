use super::*;
use crate::packet::{ICMPV6, TCP, UDP};
use crate::policy::tests::{MODBUS, PING, policy, routes, rule, site, sites};
use bus::AccessRule;
use proptest::prelude::*;
use std::net::IpAddr;
use std::time::Duration;

const DEPOT: &str = "10.86.0.4";
const PUMP: &str = "192.168.10.7";
const START: Mono = Mono(5_000_000);

const SYN: u8 = 2;
const ACK: u8 = 16;
const SYN_ACK: u8 = SYN | ACK;
const RST: u8 = 4;

/// `place` is IPv4's flags and fragment offset.
fn v4(source: &str, destination: &str, protocol: u8, (id, place): (u16, u16), upper: &[u8]) -> Vec<u8> {
    let octets = |text: &str| match text.parse().unwrap() {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(_) => panic!("{text}"),
    };
    let total = u16::try_from(20 + upper.len()).unwrap().to_be_bytes();
    let (id, place) = (id.to_be_bytes(), place.to_be_bytes());
    let head = [0x45, 0, total[0], total[1], id[0], id[1], place[0], place[1], 64, protocol, 0, 0];
    [&head, &octets(source)[..], &octets(destination), upper].concat()
}

fn whole(source: &str, destination: &str, protocol: u8, upper: &[u8]) -> Vec<u8> {
    v4(source, destination, protocol, (0, 0), upper)
}

fn ports((from, to): (u16, u16)) -> [u8; 4] {
    let ([a, b], [c, d]) = (from.to_be_bytes(), to.to_be_bytes());
    [a, b, c, d]
}

fn tcp_header(pair: (u16, u16), flags: u8) -> Vec<u8> {
    [&ports(pair)[..], &[0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 1, 0, 0, 0, 0, 0]].concat()
}

fn tcp(source: &str, destination: &str, pair: (u16, u16), flags: u8) -> Vec<u8> {
    whole(source, destination, TCP, &tcp_header(pair, flags))
}

fn udp(source: &str, destination: &str, pair: (u16, u16)) -> Vec<u8> {
    whole(source, destination, UDP, &[&ports(pair)[..], &[0, 8, 0, 0]].concat())
}

fn echo(source: &str, destination: &str, kind: u8, id: u8) -> Vec<u8> {
    whole(source, destination, ICMP, &[kind, 0, 0, 0, 0, id, 0, 1])
}

fn error(source: &str, destination: &str, kind: u8, about: &[u8]) -> Vec<u8> {
    whole(source, destination, ICMP, &[&[kind, 3, 0, 0, 0, 0, 0, 0], &about[..about.len().min(28)]].concat())
}

fn hub(rules: &[AccessRule]) -> Gate {
    let mut gate = Gate::new(1024, [1, 2]);
    gate.set_policy(Arc::new(policy(rules)));
    gate
}

fn edge(rules: &[AccessRule]) -> Gate {
    let mut gate = Gate::new(1024, [1, 2]);
    gate.set_policy(Arc::new(Policy::for_edge(&routes(), &sites(), rules)));
    gate
}

/// From the depot to the plant, Modbus and pings.
fn modbus() -> Vec<AccessRule> {
    vec![rule("modbus", site("depot"), site("plant"), &[MODBUS, PING])]
}

fn ask(gate: &mut Gate, packet: &[u8], now: Mono) -> Result<Allowed, DropReason> {
    gate.check(&Packet::parse(packet).unwrap(), now)
}

fn passes(gate: &mut Gate, packet: &[u8]) -> bool {
    ask(gate, packet, START).is_ok()
}

fn leave(gate: &mut Gate, packet: &[u8]) {
    assert_eq!(gate.leaving(&Packet::parse(packet).unwrap(), START), Ok(Allowed::Leaving));
}

fn after(seconds: u64) -> Mono {
    START + Duration::from_secs(seconds)
}

const UP: (u16, u16) = (40_000, 502);
const DOWN: (u16, u16) = (502, 40_000);

#[test]
fn before_it_is_told_a_policy_a_gate_denies_all() {
    let mut gate = Gate::new(64, [0, 0]);
    assert_eq!(ask(&mut gate, &udp("10.86.0.2", "10.86.0.3", (1, 2)), START), Err(DropReason::Denied));
}

#[test]
fn answers_pass_and_nothing_else_from_that_side_does() {
    let mut gate = hub(&modbus());
    let answer = tcp(PUMP, DEPOT, DOWN, SYN_ACK);
    assert!(!passes(&mut gate, &answer), "nobody asked yet");
    assert_eq!(ask(&mut gate, &tcp(DEPOT, PUMP, UP, SYN), START), Ok(Allowed::Rule(0)));
    assert_eq!(ask(&mut gate, &answer, START), Ok(Allowed::Known));
    assert_eq!(ask(&mut gate, &tcp(DEPOT, PUMP, UP, ACK), START), Ok(Allowed::Known));
    assert!(!passes(&mut gate, &tcp(PUMP, DEPOT, (502, 40_001), ACK)), "another port");
    assert!(!passes(&mut gate, &tcp(PUMP, "10.86.0.1", DOWN, ACK)), "another host");
    assert!(!passes(&mut gate, &tcp(PUMP, DEPOT, DOWN, SYN)), "opens one itself");
    assert!(!passes(&mut gate, &udp(PUMP, DEPOT, DOWN)), "another protocol");
    assert!(passes(&mut gate, &tcp(PUMP, DEPOT, DOWN, RST)));
}

#[test]
fn one_site_needs_no_rule_and_takes_no_room() {
    let mut gate = hub(&[]);
    let packet = udp("10.86.0.2", PUMP, (1, 2));
    assert_eq!(ask(&mut gate, &packet, START), Ok(Allowed::SameSite));
    assert_eq!(gate.flows().count(START), 0);
}

#[test]
fn a_ping_is_answered_but_not_returned() {
    let mut gate = hub(&modbus());
    assert!(passes(&mut gate, &echo(DEPOT, PUMP, 8, 7)));
    assert!(passes(&mut gate, &echo(PUMP, DEPOT, 0, 7)));
    assert!(!passes(&mut gate, &echo(PUMP, DEPOT, 0, 8)), "the answer to another");
    assert!(!passes(&mut gate, &echo(PUMP, DEPOT, 8, 7)), "a question of its own");
}

#[test]
fn an_error_passes_if_it_is_about_what_was_said_there() {
    let mut gate = hub(&[rule("modbus", site("depot"), site("plant"), &[MODBUS])]);
    let asked = tcp(DEPOT, PUMP, UP, SYN);
    let unreachable = error("10.86.0.3", DEPOT, 3, &asked);
    assert!(!passes(&mut gate, &unreachable), "nobody asked yet");
    assert!(passes(&mut gate, &asked));
    assert_eq!(ask(&mut gate, &unreachable, START), Ok(Allowed::Related), "from a router on the way");
    assert!(passes(&mut gate, &error(PUMP, DEPOT, 11, &asked)));
    assert!(passes(&mut gate, &error("10.86.0.1", DEPOT, 3, &asked)), "from the cloud in between");
    let answer = tcp(PUMP, DEPOT, DOWN, SYN_ACK);
    assert!(passes(&mut gate, &error(DEPOT, PUMP, 3, &answer)), "about an answer");
    for (why, denied) in [
        ("another site's word", error("10.9.0.5", DEPOT, 3, &asked)),
        ("to somebody who did not ask", error(PUMP, "10.86.0.1", 3, &asked)),
        ("about another conversation", error(PUMP, DEPOT, 3, &tcp(DEPOT, PUMP, (40_001, 502), SYN))),
        ("a redirect", error(PUMP, DEPOT, 5, &asked)),
        ("source quench", error(PUMP, DEPOT, 4, &asked)),
        ("cut before the ports", error(PUMP, DEPOT, 3, &asked[..20])),
        ("an error about an error", error(PUMP, DEPOT, 3, &unreachable)),
    ] {
        assert_eq!(ask(&mut gate, &denied, START), Err(DropReason::Denied), "{why}");
    }
}

#[test]
fn errors_of_ipv6_are_as_those_of_ipv4() {
    let v6 = |from: u8, to: u8, next: u8, upper: &[u8]| {
        let address = |last: u8| [&[0xfd][..], &[0; 14], &[last]].concat();
        let len = u8::try_from(upper.len()).unwrap();
        [&[0x60, 0, 0, 0, 0, len, next, 64], &address(from)[..], &address(to), upper].concat()
    };
    let mut gate = hub(&modbus());
    let asked = v6(4, 3, TCP, &tcp_header(UP, SYN));
    let too_big = v6(3, 4, ICMPV6, &[&[2, 0, 0, 0, 0, 0, 5, 0][..], &asked].concat());
    assert!(!passes(&mut gate, &too_big));
    assert!(passes(&mut gate, &asked));
    assert_eq!(ask(&mut gate, &too_big, START), Ok(Allowed::Related));
}

#[test]
fn later_fragments_pass_behind_their_first_one_and_not_before() {
    let mut gate = hub(&modbus());
    let first = v4(DEPOT, PUMP, TCP, (77, 0x2000), &tcp_header(UP, SYN));
    let later = |id| v4(DEPOT, PUMP, TCP, (id, 0x2003), &[0; 24]);
    assert!(!passes(&mut gate, &later(77)), "it overtook the first");
    assert!(passes(&mut gate, &first));
    assert_eq!(ask(&mut gate, &later(77), START), Ok(Allowed::Fragment));
    assert!(!passes(&mut gate, &later(78)), "of another packet");
    assert!(ask(&mut gate, &later(77), after(31)).is_err(), "long after");
    let denied = v4(DEPOT, PUMP, TCP, (79, 0x2000), &tcp_header((40_000, 80), SYN));
    assert!(!passes(&mut gate, &denied));
    assert!(!passes(&mut gate, &later(79)), "the first one was denied");
}

#[test]
fn a_first_fragment_that_hides_its_flags_answers_nobody() {
    let mut gate = hub(&modbus());
    assert!(passes(&mut gate, &tcp(DEPOT, PUMP, UP, SYN)));
    let tiny = v4(PUMP, DEPOT, TCP, (5, 0x2000), &tcp_header(DOWN, ACK)[..8]);
    assert!(!passes(&mut gate, &tiny));
}

#[test]
fn silent_conversations_are_forgotten_by_their_protocols_time() {
    let mut gate = hub(&[rule("all", site("depot"), site("plant"), &[])]);
    let (asked, answer) = (udp(DEPOT, PUMP, (1, 2)), udp(PUMP, DEPOT, (2, 1)));
    assert!(ask(&mut gate, &asked, after(0)).is_ok());
    assert!(ask(&mut gate, &answer, after(299)).is_ok());
    assert!(ask(&mut gate, &answer, after(299 + 299)).is_ok(), "answers keep it alive too");
    assert!(ask(&mut gate, &answer, after(299 + 299 + 300)).is_err());
    assert!(ask(&mut gate, &tcp(DEPOT, PUMP, UP, SYN), after(0)).is_ok());
    assert!(ask(&mut gate, &tcp(PUMP, DEPOT, DOWN, SYN_ACK), after(239)).is_ok());
    assert!(ask(&mut gate, &tcp(PUMP, DEPOT, DOWN, ACK), after(7000)).is_ok(), "it stands");
    assert!(ask(&mut gate, &tcp(PUMP, DEPOT, DOWN, RST), after(7001)).is_ok());
    assert!(ask(&mut gate, &tcp(PUMP, DEPOT, DOWN, ACK), after(7001 + 240)).is_err(), "it was reset");
}

#[test]
fn a_policy_that_no_longer_allows_a_conversation_ends_it() {
    let mut gate = hub(&modbus());
    let (asked, answer) = (tcp(DEPOT, PUMP, UP, ACK), tcp(PUMP, DEPOT, DOWN, ACK));
    assert!(passes(&mut gate, &asked) && passes(&mut gate, &answer));
    gate.set_policy(Arc::new(policy(&[])));
    assert!(!passes(&mut gate, &answer) && !passes(&mut gate, &asked) && !passes(&mut gate, &answer));
    gate.set_policy(Arc::new(policy(&modbus())));
    assert!(passes(&mut gate, &answer), "the rule is back");
}

#[test]
fn another_policy_that_allows_a_conversation_leaves_it_alone() {
    let mut gate = hub(&modbus());
    let epoch = gate.epoch();
    assert!(passes(&mut gate, &tcp(DEPOT, PUMP, UP, SYN)));
    gate.set_policy(Arc::new(policy(&[rule("all", site("depot"), site("plant"), &[])])));
    assert_ne!(gate.epoch(), epoch);
    assert_eq!(ask(&mut gate, &tcp(PUMP, DEPOT, DOWN, SYN_ACK), START), Ok(Allowed::Known));
}

#[test]
fn an_edge_lets_answers_in_to_what_left_it() {
    let mut gate = edge(&[]);
    let answer = udp(DEPOT, PUMP, (53, 9));
    assert!(!passes(&mut gate, &answer));
    leave(&mut gate, &udp(PUMP, DEPOT, (9, 53)));
    assert!(passes(&mut gate, &answer));
    assert!(!passes(&mut gate, &tcp(DEPOT, PUMP, UP, SYN)));
    gate.set_policy(Arc::new(Policy::for_edge(&routes(), &sites(), &[])));
    assert!(passes(&mut gate, &answer), "no rule of an edge's is about that");
}

#[test]
fn what_a_server_still_says_when_its_rule_is_gone_opens_nothing_at_its_edge() {
    let mut gate = edge(&modbus());
    let (asked, answer) = (tcp(DEPOT, PUMP, UP, ACK), tcp(PUMP, DEPOT, DOWN, ACK));
    assert!(passes(&mut gate, &asked));
    gate.set_policy(Arc::new(Policy::for_edge(&routes(), &sites(), &[])));
    leave(&mut gate, &answer);
    assert!(!passes(&mut gate, &asked));
}

#[test]
fn a_hub_checks_what_leaves_it_too() {
    let mut gate = hub(&[]);
    let packet = udp("10.86.0.1", PUMP, (1, 2));
    assert_eq!(gate.leaving(&Packet::parse(&packet).unwrap(), START), Err(DropReason::Denied));
}

proptest! {
    /// Whatever is sent in whichever order: from the plant, which may begin nothing, passes only what answers.
    #[test]
    fn a_side_that_may_begin_nothing_only_answers(
        sent in proptest::collection::vec((any::<bool>(), 0u16..3, 500u16..504, 0u8..32), 1..60),
    ) {
        let mut gate = hub(&modbus());
        let mut asked = std::collections::BTreeSet::new();
        for (up, from, to, flags) in sent {
            if up {
                let passed = passes(&mut gate, &tcp(DEPOT, PUMP, (from, to), flags));
                prop_assert_eq!(passed, to == 502);
                if passed {
                    asked.insert((from, to));
                }
            } else {
                let passed = passes(&mut gate, &tcp(PUMP, DEPOT, (to, from), flags));
                let opens = flags & (SYN | ACK | RST) == SYN;
                prop_assert_eq!(passed, asked.contains(&(from, to)) && !opens);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        protocol in prop_oneof![Just(TCP), Just(ICMP), Just(UDP), any::<u8>()], place: u16,
        upper in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut gate = hub(&[rule("all", site("depot"), site("plant"), &[])]);
        let there = v4(DEPOT, PUMP, protocol, (1, place), &upper);
        prop_assert!(passes(&mut gate, &there));
        let _ = passes(&mut gate, &v4(PUMP, DEPOT, protocol, (1, place), &upper));
    }
}

//! Each cause by the facts that show it, alone and first.

use super::*;
use crate::checkup::asked::Answer;
use crate::checkup::{Examined, LinkView, Looked, Outcome, Refusal, Report, Seen, Told, Way};

const NOW: u64 = 1_764_000_000_000;
const AT: &str = "cloud.example:10001";

fn edge() -> Facts {
    let endpoint = Endpoint {
        name: AT.into(),
        lookup: Lookup::Found(vec!["192.0.2.1".parse().unwrap()]),
        udp: Udp::Answers,
        large_passes: Some(true),
        handshake: Some(Ok(())),
        ..Endpoint::default()
    };
    Facts {
        now_ms: NOW,
        clock_synchronised: Some(true),
        identity: Identity {
            role: Some(Role::Edge),
            name: Some("spiffe://water/edge/a".into()),
            data_dir: "/var/lib/kubebus".into(),
            problem: None,
        },
        node: Node::Answers,
        disk: Disk { free_bytes: Some(1 << 30), refuses: None },
        certificate: Some(Certificate {
            not_before_ms: NOW - 1000,
            not_after_ms: NOW + 1000,
            ..Certificate::default()
        }),
        upstream: Some(Upstream {
            cloud: "cloud/hq".into(),
            connected: Some(true),
            clock_offset_ms: Some(12),
            failures: Vec::new(),
            endpoints: vec![endpoint],
        }),
        broker: Some(Broker { address: "127.0.0.1:1883".into(), ..Broker::default() }),
        devices: vec![Device { id: "water/valve".into(), state: "online".into(), ..Device::default() }],
        links: vec![Link { peer: "cloud/hq".into(), lane: "bus".into(), mtu: 1452, ..Link::default() }],
        ..Facts::default()
    }
}

/// Cut off, and this is what knocking says.
fn cut(knock: impl FnOnce(&mut Endpoint)) -> Facts {
    let mut facts = edge();
    let upstream = facts.upstream.as_mut().unwrap();
    (upstream.connected, upstream.clock_offset_ms) = (Some(false), None);
    upstream.endpoints[0].handshake = None;
    knock(&mut upstream.endpoints[0]);
    facts
}

fn refused(fault: LinkFault) -> Facts {
    cut(|endpoint| endpoint.handshake = Some(Err((fault, "why".into()))))
}

/// Cut off, nobody could knock, and this is what the node met itself.
fn met(fault: LinkFault, times: u32) -> Facts {
    let mut facts = cut(|endpoint| *endpoint = Endpoint::default());
    let failure = Failure { fault, at: AT.into(), why: "why".into(), time: NOW - 1000, times };
    facts.upstream.as_mut().unwrap().failures.push(failure);
    facts
}

fn with(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = edge();
    change(&mut facts);
    facts
}

fn alive(echo: Option<bool>, large_echo: Option<bool>, tcp: Option<bool>) -> Facts {
    cut(|endpoint| {
        endpoint.udp = Udp::Silent;
        endpoint.host = Host { tcp, echo, large_echo };
    })
}

fn device(state: &str, reason: &str) -> Facts {
    with(|facts| {
        facts.devices[0].state = state.into();
        facts.devices[0].reason = reason.into();
    })
}

/// A cloud that asked an edge.
fn asked(outcome: Outcome) -> Facts {
    let mut facts = edge();
    facts.identity.role = Some(Role::Cloud);
    facts.identity.name = Some("spiffe://water/cloud/hq".into());
    facts.upstream = None;
    facts.links = vec![Link { peer: "edge/b".into(), lane: "bus".into(), mtu: 1452, ..Link::default() }];
    facts.peers.push(Peer { node: "edge/b".into(), connected: true, ..Peer::default() });
    let down = Some(Way { rtt_us: 20_000, bytes_per_s: Some(1000) });
    facts.far = Some(Box::new(Examined { node: "edge/b".into(), outcome, down }));
    facts
}

fn told(cause: &str, about: &str) -> Told {
    let evidence = vec!["seen there".into()];
    Told {
        cause: cause.into(),
        certainty: "certain".into(),
        about: about.into(),
        evidence,
        advice: "do".into(),
    }
}

fn answered(findings: Vec<Told>) -> Facts {
    let links = vec![LinkView { lane: "bus".into(), rtt_us: 19_000, mtu: 1400, ..LinkView::default() }];
    asked(Outcome::Answered(Box::new(Report { findings, links, ..Report::default() })))
}

fn cases() -> Vec<(Cause, Certainty, Facts)> {
    use Certainty::{Certain, Likely, Possible};
    vec![
        (Cause::NotJoined, Certain, with(|f| (f.identity.role, f.upstream) = (None, None))),
        (Cause::DataDir, Certain, with(|f| f.identity.problem = Some("damaged".into()))),
        (Cause::DiskFull, Certain, with(|f| f.disk.refuses = Some("no space left".into()))),
        (Cause::DiskFull, Certain, with(|f| f.disk.free_bytes = Some(0))),
        (
            Cause::PortTaken,
            Certain,
            with(|f| {
                f.node = Node::NotRunning;
                f.taken.push(Taken { key: "mqtt.listen".into(), address: "127.0.0.1:1883".into(), by: None });
            }),
        ),
        (
            Cause::CertificateUnusable,
            Certain,
            with(|f| f.certificate.as_mut().unwrap().problem = Some("x".into())),
        ),
        (Cause::CertificateNotYetValid, Certain, with(|f| f.now_ms = NOW - 60_000)),
        (Cause::CertificateExpired, Certain, with(|f| f.now_ms = NOW + 60_000)),
        (Cause::CertificateExpired, Certain, with(|f| f.now_ms = NOW + 100 * 24 * 3_600_000)),
        (
            Cause::CertificateNotRenewed,
            Certain,
            with(|f| f.certificate.as_mut().unwrap().not_renewed = Some("no answer".into())),
        ),
        (Cause::Dns, Certain, cut(|e| e.lookup = Lookup::Failed("no such name".into()))),
        (Cause::Dns, Certain, cut(|e| e.lookup = Lookup::Silent)),
        (Cause::Dns, Certain, met(LinkFault::Lookup, 1)),
        (Cause::NothingListens, Likely, cut(|e| e.udp = Udp::Refused)),
        (Cause::UdpBlocked, Certain, cut(|e| e.udp = Udp::Forbidden)),
        (
            Cause::LinkFails,
            Possible,
            Facts { is_cut_short: true, ..cut(|e| *e = Endpoint { name: AT.into(), ..Endpoint::default() }) },
        ),
        (Cause::NodeHangs, Likely, with(|f| f.unanswered.push("/kubebus/v1/twins: no answer".into()))),
        (Cause::MtuBlackHole, Certain, cut(|e| e.udp = Udp::TooLarge)),
        (Cause::MtuBlackHole, Likely, alive(Some(true), Some(false), Some(true))),
        (Cause::MtuBlackHole, Likely, refused(LinkFault::NoAnswer)),
        (Cause::UdpBlocked, Likely, alive(Some(true), Some(true), Some(false))),
        (Cause::UdpBlocked, Likely, alive(None, None, Some(true))),
        (Cause::HostUnreachable, Likely, alive(Some(false), Some(false), Some(false))),
        (Cause::HostUnreachable, Certain, cut(|e| e.udp = Udp::NoWay)),
        (Cause::WrongAuthority, Certain, refused(LinkFault::UnknownCa)),
        (Cause::WrongAuthority, Certain, met(LinkFault::OwnCertificateForeign, 1)),
        (Cause::WrongCloud, Certain, refused(LinkFault::WrongNode)),
        (Cause::CertificateExpired, Certain, met(LinkFault::OwnCertificateExpired, 1)),
        (Cause::NotMember, Certain, met(LinkFault::NotMember, 1)),
        (Cause::NotMember, Certain, refused(LinkFault::NotMember)),
        (Cause::SameIdentity, Certain, met(LinkFault::Replaced, 2)),
        (Cause::OutdatedCloud, Certain, met(LinkFault::OutdatedCloud, 1)),
        (Cause::OutdatedCloud, Certain, with(|f| f.superseded_by = Some(2))),
        (Cause::CloudBusy, Certain, refused(LinkFault::Busy)),
        (Cause::LinkFails, Possible, met(LinkFault::Other, 1)),
        (Cause::NodeHangs, Certain, with(|f| f.node = Node::Hangs("no answer within 10 s".into()))),
        (Cause::NodeForbidden, Certain, with(|f| f.node = Node::Forbidden("mode 0600".into()))),
        (Cause::NodeDown, Certain, with(|f| f.node = Node::NotRunning)),
        (
            Cause::ClockSkew,
            Certain,
            with(|f| f.upstream.as_mut().unwrap().clock_offset_ms = Some(-3_600_000)),
        ),
        (Cause::ClockSkew, Likely, refused(LinkFault::ServerCertificate)),
        (Cause::OverlayClash, Likely, with(|f| f.clash = Some(Clash::default()))),
        (Cause::Broker, Certain, with(|f| f.broker.as_mut().unwrap().problem = Some("no answer".into()))),
        (Cause::EdgeAway, Certain, with(|f| f.peers.push(Peer { node: "edge/b".into(), ..Peer::default() }))),
        (
            Cause::EdgeTrouble,
            Certain,
            with(|f| f.peers.push(Peer { connected: true, disk: Some(": full".into()), ..Peer::default() })),
        ),
        (Cause::MapperAway, Certain, device("offline", "mapper modbus is not connected")),
        (Cause::DeviceTrouble, Certain, device("offline", "spec.protocol.protocolName names no mapper")),
        (Cause::DeviceTrouble, Certain, device("degraded", "not heard of: level")),
        (
            Cause::DeviceName,
            Likely,
            with(|f| {
                f.devices[0].state = "unknown".into();
                f.devices[0].unresolved = Some("plc.example: no such name".into());
            }),
        ),
        (Cause::EdgeSilent, Likely, asked(Outcome::Silent)),
        (Cause::EdgeSilent, Likely, asked(Outcome::LinkEnded)),
        (Cause::EdgeNotAsked, Certain, asked(Outcome::Cannot)),
        (Cause::EdgeNotAsked, Certain, asked(Outcome::Refused(Refusal::Busy))),
        (Cause::EdgeNotAsked, Certain, asked(Outcome::Full)),
        (Cause::WishRefused, Certain, with(|f| f.devices[0].refused.push("position: expired".into()))),
        (
            Cause::PolicyDenies,
            Certain,
            with(|f| f.reach = Some(Reach { denied: Some("no policy".into()), ..Reach::default() })),
        ),
        (
            Cause::NoRoute,
            Certain,
            with(|f| f.reach = Some(Reach { problem: Some("down".into()), ..Reach::default() })),
        ),
        (Cause::NarrowPath, Likely, with(|f| (f.links[0].mtu, f.links[0].black_holes) = (1200, 1))),
        (
            Cause::NarrowPath,
            Likely,
            with(|f| f.upstream.as_mut().unwrap().endpoints[0].large_passes = Some(false)),
        ),
        (Cause::LossyLink, Possible, with(|f| f.links[0].loss_percent = 9.0)),
    ]
}

#[test]
fn a_healthy_node_has_no_finding() {
    assert_eq!(diagnose(&edge()), []);
}

#[test]
fn each_fault_is_the_first_finding_with_evidence_and_advice() {
    for (cause, certainty, facts) in cases() {
        let findings = diagnose(&facts);
        let first = findings.first().unwrap_or_else(|| panic!("{cause:?}: no finding"));
        assert_eq!((first.cause, first.certainty), (cause, certainty), "{findings:#?}");
        assert!(!first.evidence.is_empty() && !first.advice.is_empty(), "{first:?}");
    }
}

#[test]
fn each_cause_has_a_case_a_name_and_a_row_in_the_documentation() {
    let page = include_str!("../../../docs/debug.md");
    for cause in Cause::ALL {
        assert!(cases().iter().any(|(shown, ..)| *shown == cause), "{cause:?} is never found");
        assert_eq!(serde_json::to_value(cause).unwrap(), cause.as_str());
        assert!(
            page.contains(&format!("| `{}` |", cause.as_str())),
            "docs/debug.md lacks {}",
            cause.as_str()
        );
        assert!(!cause.says().is_empty());
    }
}

#[test]
fn what_the_edge_found_comes_first_and_what_both_saw_is_one_finding() {
    let mut facts = answered(vec![told("disk-full", "/data"), told("clock-skew", "edge/b")]);
    facts.peers[0].disk = Some(": full".into());
    facts.peers[0].clock_offset_ms = Some(3_600_000);
    facts.links[0].loss_percent = 9.0;
    let findings = diagnose(&facts);
    let brief: Vec<_> =
        findings.iter().map(|one| (one.cause, one.node.as_deref().unwrap(), one.evidence.len())).collect();
    let expected =
        [(Cause::DiskFull, "edge/b", 2), (Cause::ClockSkew, "edge/b", 2), (Cause::LossyLink, "cloud/hq", 1)];
    assert_eq!(brief, expected, "{findings:#?}");
    assert!(findings[0].evidence[1].starts_with("cloud/hq: "), "{findings:#?}");
    // What the cloud itself stands on is nearer to the root of things.
    facts.disk.refuses = Some("full".into());
    let first = diagnose(&facts).remove(0);
    assert_eq!((first.cause, first.node.as_deref()), (Cause::DiskFull, Some("cloud/hq")));
}

#[test]
fn a_cause_of_a_later_version_is_trouble_with_its_name() {
    let findings = diagnose(&answered(vec![told("gremlins", "x")]));
    assert_eq!((findings.len(), findings[0].cause), (1, Cause::EdgeTrouble));
    assert!(findings[0].evidence[1].contains("'gremlins'"), "{findings:#?}");
}

#[test]
fn a_link_is_shown_from_both_ends() {
    let ends = ends(&answered(Vec::new()));
    let brief: Vec<_> = ends.iter().map(|end| (end.from.as_str(), end.mtu, end.kbit_per_s)).collect();
    assert_eq!(brief, [("cloud/hq", 1452, Some(8)), ("edge/b", 1400, None)]);
    assert_eq!(super::ends(&asked(Outcome::Silent)), []);
    assert_eq!(super::ends(&edge()), []);
}

#[test]
fn an_edge_hears_from_its_cloud_what_is_lost_on_the_way_down() {
    let mut facts = edge();
    let lossy = LinkView { lane: "packets".into(), lost_ppm: 120_000, mtu: 1452, ..LinkView::default() };
    let seen = Some(Seen { links: vec![lossy], ..Seen::default() });
    let looked = Looked { answer: Answer::Heard, seen, heard_ms_ago: Some(0), up: None };
    facts.looked = Some(Box::new(looked));
    let findings = diagnose(&facts);
    assert_eq!((findings.len(), findings[0].cause), (1, Cause::LossyLink));
    assert_eq!(findings[0].node.as_deref(), Some("cloud/hq"));
    // What was heard before the link went is old.
    facts.upstream.as_mut().unwrap().connected = Some(false);
    assert_eq!(diagnose(&facts), []);
}

#[test]
fn an_endpoint_that_works_excuses_one_that_does_not() {
    let mut facts = cut(|endpoint| endpoint.udp = Udp::Refused);
    let works = edge().upstream.unwrap().endpoints.remove(0);
    facts.upstream.as_mut().unwrap().endpoints.push(works);
    assert_eq!(diagnose(&facts), []);
}

#[test]
fn a_link_whose_other_end_refuses_is_not_believed() {
    let facts = with(|facts| facts.upstream.as_mut().unwrap().endpoints[0].udp = Udp::Refused);
    let findings = diagnose(&facts);
    assert_eq!(
        (findings.len(), findings[0].cause, findings[0].certainty),
        (1, Cause::NothingListens, Certainty::Likely)
    );
}

#[test]
fn what_both_ends_say_is_told_once() {
    let mut facts = refused(LinkFault::OwnCertificateExpired);
    facts.now_ms = NOW + 60_000;
    let causes: Vec<Cause> = diagnose(&facts).iter().map(|finding| finding.cause).collect();
    assert_eq!(causes, [Cause::CertificateExpired]);
}

#[test]
fn what_is_long_over_is_no_finding() {
    let mut facts = met(LinkFault::NotMember, 1);
    facts.upstream.as_mut().unwrap().failures[0].time = NOW - 3_600_000;
    assert_eq!(diagnose(&facts), []);
}

#[test]
fn a_thousand_devices_say_the_same_as_ten() {
    let facts = with(|facts| {
        let away = Device {
            id: "water/valve".into(),
            state: "offline".into(),
            reason: "mapper modbus is not connected".into(),
            ..Device::default()
        };
        facts.devices = vec![away; 1000];
    });
    let findings = diagnose(&facts);
    assert_eq!(findings.len(), 10);
    assert_eq!(findings[9].evidence.last().unwrap(), "and 990 more of the kind");
}

#[test]
fn the_words_of_a_closed_link_tell_its_fault() {
    for (words, fault) in [
        ("closed by the peer: not a member of this cluster any more: join again", LinkFault::NotMember),
        ("closed by the peer: replaced by a newer link of the same node", LinkFault::Replaced),
        ("an outdated cloud", LinkFault::OutdatedCloud),
        ("no sign of life from the peer", LinkFault::Other),
    ] {
        assert_eq!(LinkFault::of_words(words), fault, "{words}");
    }
}

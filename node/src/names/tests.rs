use super::*;
use bus::twin::DeviceId;
use domain::base::iana::{Class, Opcode, Rtype};
use domain::base::{Message, MessageBuilder, Name as DnsName};
use domain::rdata::AllRecordData;
use metadata::Revision;
use proptest::prelude::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn host(id: &str, addresses: &[&str]) -> (HostId, Vec<IpAddr>) {
    let DeviceId { namespace: site, name } = id.parse().unwrap();
    (HostId { site, name }, addresses.iter().map(|text| address(text)).collect())
}

/// Plants A and B are both 192.168.10.0/24, the depot is 192.168.20.0/24; a cloud with a subnet.
fn names_at(me: NodeId) -> Names {
    let (a, b, depot) = (edge("a"), edge("b"), edge("depot-gw"));
    let cloud = NodeId::cloud(name("hq"));
    let route = |prefix: &str, owner: &NodeId, kind, real: Option<&str>| Route {
        prefix: prefix.parse().unwrap(),
        owner: owner.clone(),
        kind,
        real: real.map(|real| real.parse().unwrap()),
        peer: None,
    };
    let routes = [
        route("10.86.0.1/32", &cloud, SubnetKind::CloudVm, None),
        route("fd12:3456:789a::1/128", &cloud, SubnetKind::CloudVm, None),
        route("172.20.0.0/16", &cloud, SubnetKind::CloudVm, None),
        route("10.86.0.2/32", &a, SubnetKind::EdgeNode, None),
        route("10.86.64.0/24", &a, SubnetKind::Lan, Some("192.168.10.0/24")),
        route("10.86.0.3/32", &b, SubnetKind::EdgeNode, None),
        route("fd12:3456:789a::3/128", &b, SubnetKind::EdgeNode, None),
        route("10.86.130.0/24", &b, SubnetKind::EdgeContainer, None),
        route("10.86.65.0/24", &b, SubnetKind::Lan, Some("192.168.10.0/24")),
        route("10.86.0.4/32", &depot, SubnetKind::EdgeNode, None),
        route("192.168.20.0/24", &depot, SubnetKind::Lan, None),
        route("172.16.5.4/32", &depot, SubnetKind::Lan, None),
    ];
    let sites = [(a, "plant-a"), (b, "plant-b"), (depot, "depot"), (cloud, "hq")];
    let sites = sites.map(|(node, site)| (node, name(site))).into();
    let hosts = [
        host("plant-a/plc", &["192.168.10.20"]),
        host("plant-b/plc", &["192.168.10.20"]),
        host("plant-b/panel", &["192.168.10.20"]),
        host("plant-b/b", &["192.168.10.99"]),
        host("plant-b/lost", &["192.168.77.1"]),
        host("depot/crane", &["192.168.20.5", "172.16.5.4"]),
        host("to-be/built", &["192.168.1.1"]),
    ];
    let lease = Lease {
        v4: "10.86.0.3".parse().unwrap(),
        v6: "fd12:3456:789a::3".parse().unwrap(),
        container_v4: "10.86.130.0/24".parse().unwrap(),
        container_v6: "fd12:3456:789a:3::/64".parse().unwrap(),
        pool_v4: "10.86.0.0/16".parse().unwrap(),
        pool_v6: "fd12:3456:789a::/48".parse().unwrap(),
    };
    let me = Identity { cluster: name("water"), node: me };
    let (hosts, revision) = (hosts.into(), Revision(7));
    Names::new(Facts { me: &me, lease: &lease, routes: &routes, sites: &sites, hosts: &hosts, revision })
}

fn edge(text: &str) -> NodeId {
    NodeId::edge(name(text))
}

fn names() -> Names {
    names_at(edge("b"))
}

const AT_PLANT_B: &str = "192.168.10.7";
const AT_DEPOT: &str = "192.168.20.9";

fn query(qname: &str, wanted: Rtype) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(4711);
    builder.header_mut().set_rd(true);
    let mut question = builder.question();
    question.push((DnsName::<Vec<u8>>::from_chars(qname.chars()).unwrap(), wanted)).unwrap();
    question.finish()
}

fn with_edns(query: &[u8], version: u8, size: u16) -> Vec<u8> {
    let message = Message::from_octets(query).unwrap();
    let question = message.sole_question().unwrap();
    let mut builder = MessageBuilder::new_vec().question();
    builder.push(question).unwrap();
    let mut additional = builder.additional();
    *additional.header_mut() = message.header();
    additional
        .opt(|opt| {
            opt.set_version(version);
            opt.set_udp_payload_size(size);
            Ok(())
        })
        .unwrap();
    additional.finish()
}

fn asked<'a>(query: &'a [u8], from: &str) -> Asked<'a> {
    Asked { query, from: address(from), over: Over::Udp, forwards: true }
}

/// A reply as people read it: its code and flags, then its records.
fn shown(reply: &[u8]) -> Vec<String> {
    let message = Message::from_octets(reply).unwrap();
    let header = message.header();
    assert_eq!((header.id(), header.qr()), (4711, true));
    let flags = [(header.aa(), " aa"), (header.tc(), " tc"), (header.ra(), " ra")];
    let flags: String = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| *flag).collect();
    let records = message.answer().unwrap().chain(message.authority().unwrap()).map(|record| {
        let record = record.unwrap().into_record::<AllRecordData<_, _>>().unwrap().unwrap();
        format!("{} {} {} {}", record.owner(), record.ttl().as_secs(), record.rtype(), record.data())
    });
    std::iter::once(format!("{}{flags}", message.opt_rcode())).chain(records).collect()
}

fn ask(names: &Names, qname: &str, wanted: Rtype, from: &str) -> Vec<String> {
    match names.answer(asked(&query(qname, wanted), from)) {
        Reply::Answer(answer) | Reply::Refused(answer) => shown(&answer),
        other @ (Reply::Forward | Reply::Silence) => vec![format!("{other:?}")],
    }
}

/// The data of what is found, without what stands around it.
fn data(names: &Names, qname: &str, wanted: Rtype, from: &str) -> Vec<String> {
    let answer = ask(names, qname, wanted, from);
    let data = |record: &String| record.splitn(4, ' ').nth(3).unwrap_or(record).to_owned();
    answer.iter().skip(1).map(data).collect()
}

const NOTHING: &str = "b.plant-b.water.kb.internal. hostmaster.water.kb.internal. 7 3600 600 86400 10";

#[test]
fn a_host_is_known_at_home_by_its_own_address_and_elsewhere_by_the_virtual_one() {
    let names = names();
    let plc = "plc.plant-b.water.kb.internal";
    let own = ["NOERROR aa ra", "plc.plant-b.water.kb.internal 30 A 192.168.10.20"];
    assert_eq!(ask(&names, plc, Rtype::A, AT_PLANT_B), own);
    for at_home in ["127.0.0.1", "::1", "10.86.0.3", "10.86.130.2", "::ffff:192.168.10.7"] {
        assert_eq!(data(&names, plc, Rtype::A, at_home), ["192.168.10.20"], "{at_home}");
    }
    for elsewhere in [AT_DEPOT, "10.86.0.2", "10.86.64.7", "10.86.0.1", "172.20.1.1"] {
        assert_eq!(data(&names, plc, Rtype::A, elsewhere), ["10.86.65.20"], "{elsewhere}");
    }
    assert_eq!(data(&names, "plc.plant-a.water.kb.internal", Rtype::A, AT_PLANT_B), ["10.86.64.20"]);
    let at_a = names_at(edge("a"));
    assert_eq!(data(&at_a, "plc.plant-a.water.kb.internal", Rtype::A, AT_PLANT_B), ["192.168.10.20"]);
}

#[test]
fn an_address_that_the_overlay_does_not_carry_is_told_at_home_only() {
    let names = names();
    let lost = "lost.plant-b.water.kb.internal";
    assert_eq!(data(&names, lost, Rtype::A, AT_PLANT_B), ["192.168.77.1"]);
    assert_eq!(data(&names, lost, Rtype::A, AT_DEPOT), [NOTHING]);
    assert_eq!(data(&names, "built.to-be.water.kb.internal", Rtype::A, AT_DEPOT), [NOTHING]);
}

#[test]
fn nodes_are_known_by_site_and_clouds_without_one() {
    let names = names();
    assert_eq!(data(&names, "b.plant-b.water.kb.internal", Rtype::A, AT_DEPOT), ["10.86.0.3"]);
    assert_eq!(data(&names, "b.plant-b.water.kb.internal", Rtype::AAAA, AT_DEPOT), ["fd12:3456:789a::3"]);
    assert_eq!(data(&names, "hq.water.kb.internal", Rtype::A, AT_DEPOT), ["10.86.0.1"]);
    assert_eq!(
        data(&names, "hq.water.kb.internal", Rtype::ANY, AT_DEPOT),
        ["10.86.0.1", "fd12:3456:789a::1"]
    );
    let crane = "crane.depot.water.kb.internal";
    assert_eq!(data(&names, crane, Rtype::A, AT_PLANT_B), ["192.168.20.5", "172.16.5.4"]);
}

#[test]
fn the_case_of_a_question_does_not_matter_and_comes_back() {
    let answer = ask(&names(), "PLC.Plant-B.WATER.kb.InterNAL", Rtype::A, AT_DEPOT);
    assert_eq!(answer, ["NOERROR aa ra", "PLC.Plant-B.WATER.kb.InterNAL 30 A 10.86.65.20"]);
}

#[test]
fn a_name_without_such_records_is_told_from_one_that_is_not_there() {
    let names = names();
    let soa = |zone: &str| format!("{zone} 10 SOA {NOTHING}");
    for (qname, wanted, code) in [
        ("a.plant-a.water.kb.internal", Rtype::AAAA, "NOERROR"),
        ("a.plant-a.water.kb.internal", Rtype::MX, "NOERROR"),
        ("a.plant-a.water.kb.internal", Rtype::from_int(65_280), "NOERROR"),
        ("plant-a.water.kb.internal", Rtype::A, "NOERROR"),
        ("to-be.water.kb.internal", Rtype::A, "NOERROR"),
        ("water.kb.internal", Rtype::A, "NOERROR"),
        ("b.water.kb.internal", Rtype::A, "NXDOMAIN"),
        ("nobody.plant-a.water.kb.internal", Rtype::A, "NXDOMAIN"),
        ("x.plc.plant-a.water.kb.internal", Rtype::A, "NXDOMAIN"),
        ("_sip.plant-a.water.kb.internal", Rtype::SRV, "NXDOMAIN"),
    ] {
        let expected = [format!("{code} aa ra"), soa("water.kb.internal")];
        assert_eq!(ask(&names, qname, wanted, AT_DEPOT), expected, "{qname} {wanted}");
    }
    assert_eq!(data(&names, "water.kb.internal", Rtype::SOA, AT_DEPOT), [NOTHING]);
    assert_eq!(data(&names, "water.kb.internal", Rtype::NS, AT_DEPOT), ["b.plant-b.water.kb.internal."]);
}

#[test]
fn addresses_have_names_for_those_who_have_them() {
    let names = names();
    let find = |qname: &str, from| ask(&names, qname, Rtype::PTR, from);
    let found = |qname: &str, from| data(&names, qname, Rtype::PTR, from);
    assert_eq!(found("3.0.86.10.in-addr.arpa", AT_DEPOT), ["b.plant-b.water.kb.internal."]);
    assert_eq!(found("1.0.86.10.in-addr.arpa", AT_DEPOT), ["hq.water.kb.internal."]);
    let v6 = "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.a.9.8.7.6.5.4.3.2.1.D.F.ip6.arpa";
    assert_eq!(found(v6, AT_DEPOT), ["b.plant-b.water.kb.internal."]);
    let of_b = ["panel.plant-b.water.kb.internal.", "plc.plant-b.water.kb.internal."];
    assert_eq!(found("20.65.86.10.in-addr.arpa", AT_DEPOT), of_b);
    assert_eq!(found("20.10.168.192.in-addr.arpa", AT_PLANT_B), of_b);
    assert_eq!(found("5.20.168.192.in-addr.arpa", AT_PLANT_B), ["crane.depot.water.kb.internal."]);

    let pool = format!("86.10.in-addr.arpa 10 SOA {NOTHING}");
    assert_eq!(find("99.0.86.10.in-addr.arpa", AT_DEPOT), ["NXDOMAIN aa ra", &pool]);
    assert_eq!(find("0.86.10.in-addr.arpa", AT_DEPOT), ["NOERROR aa ra", &pool]);
    assert_eq!(ask(&names, "3.0.86.10.in-addr.arpa", Rtype::A, AT_DEPOT), ["NOERROR aa ra", &pool]);
    assert_eq!(found("86.10.in-addr.arpa", AT_DEPOT), [NOTHING]);
    for others in ["20.10.168.192.in-addr.arpa", "10.in-addr.arpa", "1.0.0.127.in-addr.arpa"] {
        assert_eq!(find(others, AT_DEPOT), ["Forward"], "{others}");
    }
    assert_eq!(find("21.10.168.192.in-addr.arpa", AT_PLANT_B), ["Forward"], "the site may know it");
}

#[test]
fn strangers_are_refused_and_other_names_are_for_somebody_else() {
    let names = names();
    let plc = "plc.plant-b.water.kb.internal";
    for stranger in ["203.0.113.7", "192.168.99.1", "10.86.0.77", "2001:db8::1"] {
        assert_eq!(ask(&names, plc, Rtype::A, stranger), ["REFUSED ra"], "{stranger}");
        assert_eq!(ask(&names, "example.org", Rtype::A, stranger), ["REFUSED ra"], "{stranger}");
    }
    assert_eq!(ask(&names, "example.org", Rtype::A, AT_PLANT_B), ["Forward"]);
    assert_eq!(ask(&names, "plc.plant-b.gas.kb.internal", Rtype::A, AT_PLANT_B), ["Forward"]);
    let query = query("example.org", Rtype::A);
    let alone = Asked { forwards: false, ..asked(&query, AT_PLANT_B) };
    let Reply::Refused(answer) = names.answer(alone) else { panic!("answered") };
    assert_eq!(shown(&answer), ["REFUSED"]);
    let mut not_recursive = query.clone();
    not_recursive[2] &= !1;
    assert!(matches!(names.answer(asked(&not_recursive, AT_PLANT_B)), Reply::Refused(_)));
}

#[test]
fn a_node_without_a_site_answers_itself_nothing() {
    let names = names_at(edge("new"));
    assert_eq!(ask(&names, "hq.water.kb.internal", Rtype::A, "127.0.0.1"), ["REFUSED ra"]);
}

#[test]
fn what_breaks_the_rules_is_told_so_or_not_answered() {
    let names = names();
    let good = query("b.plant-b.water.kb.internal", Rtype::A);
    let reply = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        match names.answer(asked(&bytes, AT_PLANT_B)) {
            Reply::Answer(answer) | Reply::Refused(answer) => shown(&answer).remove(0),
            other @ (Reply::Forward | Reply::Silence) => format!("{other:?}"),
        }
    };
    assert_eq!(reply(&|_| {}), "NOERROR aa ra");
    assert_eq!(reply(&|bytes| bytes.truncate(11)), "Silence");
    assert_eq!(reply(&|bytes| bytes[2] |= 0x80), "Silence", "an answer");
    assert_eq!(reply(&|bytes| bytes[2] |= Opcode::UPDATE.to_int() << 3), "NOTIMP ra");
    assert_eq!(reply(&|bytes| bytes.truncate(20)), "FORMERR ra");
    assert_eq!(reply(&|bytes| bytes[5] = 0), "FORMERR ra", "no question");
    assert_eq!(reply(&|bytes| bytes[5] = 2), "FORMERR ra", "two questions");
    assert_eq!(reply(&|bytes| bytes[11] = 1), "FORMERR ra", "a record that is not there");
    assert_eq!(reply(&|bytes| *bytes.last_mut().unwrap() = Class::CH.to_int() as u8), "REFUSED ra");
    let at_type = good.len() - 3;
    assert_eq!(reply(&|bytes| bytes[at_type] = 252), "REFUSED ra", "a transfer");
    let edns = with_edns(&good, 0, 1232);
    assert_eq!(reply(&|bytes| *bytes = edns.clone()), "NOERROR aa ra");
    assert_eq!(reply(&|bytes| *bytes = with_edns(&good, 1, 1232)), "BADVERS ra");
    let twice = |bytes: &mut Vec<u8>| {
        *bytes = [&edns, &edns[good.len()..]].concat();
        bytes[11] = 2;
    };
    assert_eq!(reply(&twice), "FORMERR ra", "EDNS twice");
    assert_eq!(reply(&|bytes| bytes[12] = 0xc0), "FORMERR ra", "a name that points at what follows");
}

#[test]
fn what_is_too_long_for_a_datagram_is_had_over_tcp() {
    let mut names = names();
    let site = name("plant-b");
    let long = |index: usize| host(&format!("plant-b/{}-{index}", "h".repeat(50)), &["192.168.10.50"]);
    let network = Route {
        prefix: "192.168.10.0/24".parse().unwrap(),
        owner: edge("b"),
        kind: SubnetKind::Lan,
        real: None,
        peer: None,
    };
    for (id, addresses) in (0..30).map(long) {
        assert_eq!(id.site, site);
        names.add_host(&id, &addresses, &[&network]);
    }
    let plain = query("50.10.168.192.in-addr.arpa", Rtype::PTR);
    let edns = with_edns(&plain, 0, 4096);
    let len_of = |asked| {
        let Reply::Answer(answer) = names.answer(asked) else { panic!("no answer") };
        (shown(&answer).len() - 1, Message::from_octets(&answer).unwrap().header().tc(), answer.len())
    };
    let (records, is_cut, len) = len_of(asked(&plain, AT_PLANT_B));
    assert_eq!((records, is_cut), (0, true));
    assert!(len <= 512, "{len}");
    assert_eq!(len_of(asked(&edns, AT_PLANT_B)).0, 0, "1232 bytes are all that we send");
    let (records, is_cut, _) = len_of(Asked { over: Over::Tcp, ..asked(&plain, AT_PLANT_B) });
    assert_eq!((records, is_cut), (30, false));
}

#[test]
fn somebody_elses_answer_comes_back_under_the_askers_number() {
    let query = query("example.org", Rtype::A);
    let sent = numbered(&query, [0xab, 0xcd]);
    let mut answer = sent.clone();
    answer[2] |= 0x80;
    assert!(is_answer(&sent, &answer));
    assert!(!is_answer(&sent, &sent), "a query");
    assert!(!is_answer(&query, &answer), "another number");
    assert!(!is_answer(&sent, &numbered(&with_edns(&answer, 0, 512)[..12], [0xab, 0xcd])), "no question");
    let passed = passed_on(asked(&query, AT_PLANT_B), &answer).unwrap();
    assert_eq!(shown(&passed), ["NOERROR"]);
    let long = [answer, vec![0; 600]].concat();
    assert_eq!(shown(&passed_on(asked(&query, AT_PLANT_B), &long).unwrap()), ["NOERROR tc ra"]);
    assert_eq!(shown(&failed(asked(&query, AT_PLANT_B)).unwrap()), ["SERVFAIL ra"]);
}

proptest! {
    #[test]
    fn bytes_of_any_kind_get_an_answer_or_none(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        tail in proptest::collection::vec(any::<u8>(), 0..40),
        (at, byte) in (0usize..80, any::<u8>()),
    ) {
        let names = names();
        let mut spoiled = with_edns(&query("plc.plant-b.water.kb.internal", Rtype::A), 0, 1232);
        spoiled.extend(tail);
        let len = spoiled.len();
        spoiled[at % len] = byte;
        for bytes in [&bytes, &spoiled] {
            for over in [Over::Udp, Over::Tcp] {
                let asked = Asked { over, ..asked(bytes, AT_PLANT_B) };
                if let Reply::Answer(answer) | Reply::Refused(answer) = names.answer(asked) {
                    prop_assert_eq!(&answer[..2], &bytes[..2]);
                    prop_assert!(answer[2] & 0x80 != 0 && answer.len() <= 1232);
                }
                let failure = failed(asked);
                prop_assert_eq!(failure.is_some(), bytes.len() >= 12);
                let _ = (is_answer(bytes, &spoiled), passed_on(asked, &spoiled));
            }
        }
    }
}

#[test]
fn a_wireguard_client_is_no_address_of_its_gateway() {
    let client = Route {
        prefix: "10.86.32.1/32".parse().unwrap(),
        owner: NodeId::cloud(name("hq")),
        kind: SubnetKind::Wireguard,
        real: None,
        peer: Some(name("phone")),
    };
    assert!(!names().is_of_a_node(&client));
    assert!(names().is_of_a_node(&Route { kind: SubnetKind::CloudVm, peer: None, ..client }));
}

//! Names, asked for with `dig` at real nodes in networks of their own: two plants that have the same LAN, a cloud, and a
//! stranger.
//!
//! Only a process with one thread can enter a user namespace, so this is no test of the standard harness.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking; the lint knows only the standard harness"
)]

#[path = "../lab_node/mod.rs"]
#[expect(dead_code, reason = "shared with the target `network`")]
mod lab_node;
mod stage;

use std::io::Write;
use std::net::UdpSocket;
use std::process::ExitCode;

use lab_node::{Node, eventually};
use stage::{Stage, YARD, dig, dig_all};

const NAME: &str = "each_site_is_told_the_address_that_is_right_for_it";

const PLC: &str = "plc.plant-b.water.kb.internal";

/// What somebody else says of all names.
const ELSEWHERE: [u8; 4] = [198, 51, 100, 7];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut filters = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
    let is_wanted = filters.peek().is_none() || filters.any(|filter| NAME.contains(filter.as_str()));
    if is_wanted && arguments.iter().any(|argument| argument == "--list") {
        say(&format!("{NAME}: test"));
    } else if is_wanted {
        each_site_is_told_its_own();
        say(&format!("test {NAME} ... ok"));
    }
    ExitCode::SUCCESS
}

fn say(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").unwrap();
}

fn each_site_is_told_its_own() {
    let mut stage = Stage::build();
    let told = stage.cloud.command(&["dns", "set", "plc", "plant-b", "192.168.10.20"]).expect(0);
    assert_eq!(told, "host plant-b/plc created\n");
    let [a, b] = [&stage.a, &stage.b].map(|node| node.address().to_string());
    let virtual_plc = stage.virtual_address_at_b(20);
    assert!(virtual_plc.starts_with("10.86."), "{virtual_plc}");

    let (host, stranger) = (&stage.host, &stage.stranger);
    eventually("b knows its host", || (dig(host, &b, &[PLC]) == "192.168.10.20\n").then_some(()));
    eventually("a knows it too", || {
        (dig(&stage.a.network, &a, &[PLC]) == format!("{virtual_plc}\n")).then_some(())
    });
    assert_eq!(dig(host, &b, &[PLC, "+tcp"]), "192.168.10.20\n");
    assert_eq!(dig(host, &b, &["-x", &virtual_plc]), format!("{PLC}.\n"));
    assert_eq!(dig(host, &b, &["-x", "192.168.10.20"]), format!("{PLC}.\n"));
    assert_eq!(dig(&stage.a.network, &a, &["a.plant-a.water.kb.internal"]), format!("{a}\n"));
    let cloud = stage.cloud.address().to_string();
    assert_eq!(dig(host, &b, &["hq.water.kb.internal"]), format!("{cloud}\n"));
    assert!(dig(host, &b, &["hq.water.kb.internal", "AAAA"]).starts_with("fd"));
    assert_eq!(dig(&stage.cloud.network, &cloud, &[PLC]), format!("{virtual_plc}\n"));

    let nobody = dig_all(host, &b, &["nobody.plant-b.water.kb.internal"]);
    assert!(
        nobody.contains("status: NXDOMAIN") && nobody.contains("SOA\tb.plant-b.water.kb.internal."),
        "{nobody}"
    );
    for name in [PLC, "example.org"] {
        let refused = dig_all(stranger, &b, &[name]);
        assert!(refused.contains("status: REFUSED"), "{refused}");
    }
    others_are_asked(&stage, [&a, &b]);
    a_stranger_is_known_once_his_lan_is_approved(&stage, &b);

    stage.cloud.kill();
    stage.a.kill();
    stage.a.start();
    let is_kept = || (dig(&stage.a.network, &a, &[PLC]) == format!("{virtual_plc}\n")).then_some(());
    eventually("a knows it without the cloud, after a restart", is_kept);
}

/// Without a restart, and until it is revoked.
fn a_stranger_is_known_once_his_lan_is_approved(stage: &Stage, b: &str) {
    let state = |node: &Node| {
        let routes = node.json(&["route", "list"]);
        let route = routes.as_array().unwrap().iter().find(|route| route["prefix"] == YARD);
        route.map(|route| route["state"].as_str().unwrap().to_owned())
    };
    for node in [&stage.cloud, &stage.b] {
        eventually("it is pending", || (state(node).as_deref() == Some("pending")).then_some(()));
    }
    assert_eq!(state(&stage.a), None, "of no concern to others");
    assert_eq!(stage.b.status()["lans"][YARD]["state"], "pending");
    let told = stage.cloud.command(&["route", "approve", "b", YARD]).expect(0);
    assert_eq!(told, format!("{YARD} lies behind edge/b now\n"));
    let is_answered = || (dig(&stage.stranger, b, &[PLC]) == "192.168.10.20\n").then_some(());
    eventually("the stranger is of the site", is_answered);
    assert_eq!(stage.b.status()["lans"][YARD]["state"], "active");
    eventually("a has the route", || (state(&stage.a).as_deref() == Some("active")).then_some(()));
    stage.cloud.command(&["route", "revoke", "b", YARD]).expect(0);
    eventually("he is a stranger again", || (dig(&stage.stranger, b, &[PLC]).is_empty()).then_some(()));
    assert_eq!(state(&stage.cloud).as_deref(), Some("pending"));
}

/// B has somebody to ask for other names, and A has not.
fn others_are_asked(stage: &Stage, [a, b]: [&str; 2]) {
    let refused = dig_all(&stage.a.network, a, &["example.org"]);
    assert!(refused.contains("status: REFUSED"), "{refused}");
    let failed = dig_all(&stage.host, b, &["example.org"]);
    assert!(failed.contains("status: SERVFAIL"), "nobody is there yet: {failed}");
    let socket = stage.b.network.run(|| UdpSocket::bind("127.0.0.1:5353")).unwrap().unwrap();
    std::thread::spawn(move || answer_everything(&socket));
    assert_eq!(dig(&stage.host, b, &["example.org"]), "198.51.100.7\n");
    let queries = stage.b.status()["counters"]["dns_queries"].clone();
    assert_eq!((&queries["forwarded"], &queries["failed"]), (&2.into(), &1.into()), "{queries}");
}

/// The name server of somebody else: ends with the process.
fn answer_everything(socket: &UdpSocket) {
    let mut buffer = [0; 512];
    while let Ok((len, from)) = socket.recv_from(&mut buffer) {
        let mut answer = buffer[..len].to_vec();
        // An answer, and a record in it: behind the question, before what EDNS says.
        answer[2] |= 0x80;
        answer[7] = 1;
        let question = 12 + answer[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
        let record = [&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4][..], &ELSEWHERE].concat();
        answer.splice(question..question, record);
        socket.send_to(&answer, from).unwrap();
    }
}

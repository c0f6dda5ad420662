//! Certificates that let nobody in, and those that do so no more.

use std::io::{Read, Write};
use std::time::Duration;

use bus::{Identity, UnixMillis};
use controller::io::{CertificateAuthority, new_key_and_csr};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use crate::client::{Answer, Card, Place, Tls};
use crate::harness::process::{eventually, run};
use crate::{DEVICE, House, mqtts};

const WISH: &str = "PUT /kubebus/v1/twins/water/valve/desired/position";

/// What a stranger might want to change.
const MUTATIONS: [(&str, &str); 8] = [
    (WISH, "40"),
    ("PATCH /kubebus/v1/twins/water/valve/desired", "{\"position\":40}"),
    ("POST /kubebus/v1/tokens", "{\"site\":\"x\",\"ttl_seconds\":60,\"uses\":1}"),
    ("DELETE /kubebus/v1/resources/device/water/valve", ""),
    ("DELETE /kubebus/v1/nodes/a", ""),
    ("PUT /kubebus/v1/users/eve/role", "{\"role\":\"admin\"}"),
    ("POST /kubebus/v1/page/links", "{\"role\":\"admin\"}"),
    ("DELETE /apis/devices.kubeedge.io/v1beta1/namespaces/water/devices/valve", ""),
];

/// A card of an authority that calls itself like the cluster's.
fn foreign(house: &House) -> Card {
    let dir = house.cluster.path("foreign");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = UnixMillis(u64::try_from(now.as_millis()).unwrap());
    let identity: Identity = "spiffe://water/user/alice".parse().unwrap();
    let authority = CertificateAuthority::open_or_create(&dir, &identity.cluster, now).unwrap();
    let (key, csr) = new_key_and_csr().unwrap();
    let signed = authority.issue(&csr, &identity, now, Duration::from_secs(3600)).unwrap();
    Card { certificate: CertificateDer::from(signed.certificate_der), key: PrivateKeyDer::Pkcs8(key) }
}

#[test]
fn who_is_not_let_in_changes_nothing() {
    let house = House::open("strangers");
    let cloud = &house.cluster.cloud;
    let edge = house.edge("a");
    house.add("alice", "admin");
    let expired = house.add_for("late", "admin", "1s");
    let revoked = house.add("gone", "admin");
    cloud.say(&["user", "revoke", "gone"]);
    let own = |file: &str| std::fs::read(edge.data_dir().join(file)).unwrap();
    let edges = Card {
        certificate: CertificateDer::from(own("node.crt.der")),
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own("node.key.der"))),
    };
    let dir = house.cluster.path("clients");
    let out = dir.to_str().unwrap();
    cloud.say(&["mqtt", "certificate", "mapper/pump", "--out", out]);
    cloud.say(&["mqtt", "certificate", "user/unknown", "--out", out]);
    let (mapper, unknown) = (Card::read(&dir, "mapper-pump"), Card::read(&dir, "user-unknown"));
    let late = || house.cloud().client(Some(&expired)).try_ask("GET /kubebus/v1/whoami", "", "");
    eventually("the certificate ends", || late().is_err().then_some(()).ok_or("let in".to_owned()));
    let before = (house.state(), cloud.ask(&["user", "list"]));
    let strangers = [
        ("nobody", None, 401, "who are you"),
        ("a revoked user", Some(&revoked), 403, "was revoked"),
        ("an edge", Some(&edges), 403, "is no user"),
        ("a mapper", Some(&mapper), 403, "is mapper, and may not"),
        ("a user without a role", Some(&unknown), 403, "kubebus user add unknown"),
    ];
    for (who, card, status, words) in strangers {
        let mut client = house.cloud().client(card);
        for (what, body) in MUTATIONS {
            let answer = client.ask(what, body);
            let why = answer.body["error"].as_str().or(answer.body["message"].as_str()).unwrap_or_default();
            assert_eq!((answer.status, why.contains(words)), (status, true), "{who}: {what}: {answer:?}");
        }
    }
    let foreign = foreign(&house);
    for (who, card) in [("an expired user", &expired), ("a foreign user", &foreign)] {
        for (what, body) in MUTATIONS {
            let answer = house.cloud().client(Some(card)).try_ask(what, "", body);
            assert!(answer.is_err(), "{who}: {what}: {answer:?}");
        }
    }
    assert_eq!((house.state(), cloud.ask(&["user", "list"])), before);
    // Of those who were turned away, only the mapper is known: he has lines of his own.
    let lines = cloud.ask(&["audit", "--since", "1h"]);
    let who = |line: &Value| line["who"].as_str().map(str::to_owned);
    let who: std::collections::BTreeSet<String> = lines.as_array().unwrap().iter().filter_map(who).collect();
    assert_eq!(who, ["mapper/pump".to_owned(), "user/console".to_owned()].into());
}

#[test]
fn an_edge_without_its_cloud_lets_in_whom_it_was_told_of_and_who_is_revoked_is_out_at_once() {
    let mut house = House::open("offline");
    let edge = house.edge("a");
    let at_edge = house.place(&edge, "a.edge.water.kb.internal");
    let (alice, bob) = (house.add("alice", "operator"), house.add("bob", "operator"));
    let whoami = "GET /kubebus/v1/whoami";
    let mut bobs = at_edge.client(Some(&bob));
    eventually("the edge knows bob", || match bobs.ask(whoami, "") {
        Answer { status: 200, .. } => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let mut bobs_at_cloud = house.cloud().client(Some(&bob));
    assert_eq!(bobs_at_cloud.ask(whoami, "").body, json!({ "who": "user/bob", "role": "operator" }));
    house.cluster.cloud.say(&["user", "revoke", "bob"]);
    bobs_at_cloud.ends().unwrap();
    bobs.ends().unwrap();
    house.cluster.cloud.kill();
    let mut alices = at_edge.client(Some(&alice));
    assert_eq!(alices.ask(whoami, "").body, json!({ "who": "user/alice", "role": "operator" }));
    let refused = at_edge.client(Some(&bob)).ask(whoami, "");
    assert_eq!(refused.status, 403, "{refused:?}");
    // What she does has her name, at an edge that has nobody to ask.
    let command = "POST /kubebus/v1/twins/water/valve/commands/set";
    let answer = alices.ask(command, r#"{"args":{"position":40},"ttlMs":60000}"#);
    assert_eq!((answer.status, &answer.body["by"]), (200, &json!("user/alice")), "{answer:?}");
    assert_eq!(alices.ask(WISH, "40").status, 200);
    let lines = edge.ask(&["audit", "--who", "alice"]);
    assert_eq!((lines.as_array().unwrap().len(), &lines[0]["status"]), (2, &json!(200)));
    let line = &lines[1];
    assert_eq!((&line["what"], &line["detail"], &line["status"]), (&json!(WISH), &json!("40"), &json!(200)));
    assert!(edge.ask(&["user", "list"]).as_array().unwrap().iter().any(|user| user["name"] == "alice"));
    edge.run(&["user", "revoke", "alice"]).refused(1, &["only the cloud can do this"]);
}

#[test]
fn a_change_whose_client_hangs_up_is_in_the_audit_log() {
    let house = House::open("hang-up");
    let cloud = &house.cluster.cloud;
    let alice = house.add("alice", "admin");
    let before = cloud.ask(&["token", "list"]).as_array().unwrap().len();
    let body = "{\"site\":\"x\",\"ttl_seconds\":60,\"uses\":1}";
    let head =
        format!("POST /kubebus/v1/tokens HTTP/1.1\r\nHost: here\r\nContent-Length: {}\r\n\r\n", body.len());
    // From before the request is read to after it is answered.
    for step in 0..20 {
        let mut connection = house.cloud().connect(Some(&alice));
        connection.write_all(format!("{head}{body}").as_bytes()).unwrap();
        connection.flush().unwrap();
        std::thread::sleep(Duration::from_millis(step * 10));
        connection.sock.shutdown(std::net::Shutdown::Both).unwrap();
    }
    let mut client = house.cloud().client(Some(&alice));
    assert_eq!(client.ask("POST /kubebus/v1/tokens", body).status, 200);
    let counted = || {
        let made = cloud.ask(&["token", "list"]).as_array().unwrap().len() - before;
        let lines = cloud.ask(&["audit", "--who", "alice"]);
        let done = |line: &&Value| line["what"] == "POST /kubebus/v1/tokens" && line["status"] == 200;
        (made, lines.as_array().unwrap().iter().filter(done).count())
    };
    // What was read of the connections is carried out; how many that are is the network's affair.
    let (made, written) = eventually("all of it is written down", || match counted() {
        (made, written) if made == written && made == counted().0 => Ok((made, written)),
        other => Err(format!("{other:?}")),
    });
    assert!(made > 1 && written == made, "{made} tokens, {written} lines");
}

#[test]
fn who_takes_his_own_role_away_hears_that_it_was_done() {
    let house = House::open("demotes-himself");
    let alice = house.add("alice", "admin");
    let mut client = house.cloud().client(Some(&alice));
    let answer = client.ask("PUT /kubebus/v1/users/alice/role", "{\"role\":\"viewer\"}");
    assert_eq!((answer.status, &answer.body["role"]), (200, &json!("viewer")));
    client.ends().unwrap();
    let lines = house.cluster.cloud.ask(&["audit", "--who", "alice"]);
    assert_eq!(lines.as_array().unwrap().len(), 1, "{lines}");
}

#[test]
fn a_mapper_is_out_when_its_certificate_ends_though_its_connection_lasts() {
    let house = House::open("short-lived");
    let dir = house.cluster.path("clients");
    let out = dir.to_str().unwrap();
    house.cluster.cloud.say(&["mqtt", "certificate", "mapper/pump", "--for", "6s", "--out", out]);
    let mut client = house.cloud().client(Some(&Card::read(&dir, "mapper-pump")));
    assert_eq!(client.ask("GET /kubebus/v1/whoami", "").status, 200);
    eventually("the certificate ends", || match client.try_ask("GET /kubebus/v1/whoami", "", "") {
        Ok(Answer { status: 403, body, .. }) if body.to_string().contains("has expired") => Ok(()),
        // The connection was looked at between two requests.
        Err(_) => Ok(()),
        Ok(other) => Err(format!("{other:?}")),
    });
}

#[test]
fn a_device_password_is_not_for_those_who_look() {
    let house = House::open("passwords");
    let (alice, bob) = (house.add("alice", "admin"), house.add("bob", "viewer"));
    let device = "/apis/devices.kubeedge.io/v1beta1/namespaces/water/devices";
    let mut admin = house.cloud().client(Some(&alice));
    let patch = json!({ "spec": { "protocol": { "configData": { "authPass": "hunter2" } } } }).to_string();
    let head = "Content-Type: application/merge-patch+json\r\n";
    let answer = admin.try_ask(&format!("PATCH {device}/valve"), head, &patch).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut viewer = house.cloud().client(Some(&bob));
    for path in [device, &format!("{device}/valve"), "/kubebus/v1/resources/device"] {
        let told =
            |client: &mut crate::client::Client| client.ask(&format!("GET {path}"), "").body.to_string();
        let (all, veiled) = (told(&mut admin), told(&mut viewer));
        assert!(all.contains("hunter2"), "{all}");
        assert!(!veiled.contains("hunter2") && veiled.contains("(removed)"), "{veiled}");
    }
    let watch = format!("GET {device}?watch=true&timeoutSeconds=1");
    let text = viewer.text(&watch);
    assert!(text.contains("\"ADDED\"") && !text.contains("hunter2"), "{text}");
}

#[test]
fn a_token_that_is_revoked_by_itself_is_written_down_nowhere() {
    let house = House::open("tokens");
    let cloud = &house.cluster.cloud;
    let token = cloud.say(&["token", "create", "--site", "x"]);
    let alice = house.add("alice", "admin");
    let mut client = house.cloud().client(Some(&alice));
    let refused = client.ask(&format!("DELETE /kubebus/v1/tokens/{token}"), "");
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(cloud.say(&["token", "revoke", &token]).ends_with(" revoked"));
    let told = format!("{refused:?}{}", cloud.ask(&["audit"]));
    assert!(told.contains("tokens/(removed)") && !told.contains(token.rsplit('.').next().unwrap()), "{told}");
}

/// CONNECT of MQTT 3.1.1: a clean session of client `x` (§3.1).
const CONNECT: [u8; 15] = *b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01x";

/// Whether a broker lets somebody in.
fn greets(connection: &mut Tls) -> bool {
    let mut answer = [0; 4];
    let asked = connection.write_all(&CONNECT).and_then(|()| connection.flush());
    asked.and_then(|()| connection.read_exact(&mut answer)).is_ok() && answer == [0x20, 2, 0, 0]
}

#[test]
fn who_is_revoked_is_out_of_the_brokers_too() {
    let house = House::open("broker");
    let cloud = &house.cluster.cloud;
    let broker = Place { address: mqtts(cloud), ..house.cloud() };
    let (alice, bob) = (house.add("alice", "app"), house.add("bob", "app"));
    let (mut alices, mut bobs) = (broker.connect(Some(&alice)), broker.connect(Some(&bob)));
    assert!(greets(&mut alices) && greets(&mut bobs));
    cloud.say(&["user", "revoke", "bob"]);
    assert!(matches!(bobs.read(&mut [0]), Ok(0)), "bob is still there");
    assert!(!greets(&mut broker.connect(Some(&bob))));
    // PINGREQ and PINGRESP (§3.12): it was not her who went.
    alices.write_all(&[0xc0, 0]).unwrap();
    let mut answer = [0; 2];
    alices.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0xd0, 0]);
}

#[test]
fn a_wish_has_its_users_name_and_a_role_counts_from_the_next_request_on() {
    let house = House::open("wishes");
    let _edge = house.edge("a");
    let cloud = &house.cluster.cloud;
    let alice = house.add("alice", "operator");
    let mut client = house.cloud().client(Some(&alice));
    assert_eq!(client.ask(WISH, "40").status, 200);
    assert_eq!(cloud.twin(DEVICE, "position")["by"], "user/alice");
    cloud.say(&["twin", "set", DEVICE, "position", "41"]);
    assert_eq!(cloud.twin(DEVICE, "position")["by"], "kubebus twin set");
    assert_eq!(cloud.say(&["user", "role", "alice", "viewer"]), "user alice is viewer");
    // Who is somebody else now begins anew.
    client.ends().unwrap();
    let refused = house.cloud().client(Some(&alice)).ask(WISH, "42");
    assert_eq!(refused.status, 403, "{refused:?}");
    let lines = cloud.ask(&["audit", "--who", "user/alice"]);
    let outcomes: Vec<_> = lines.as_array().unwrap().iter().map(|line| line["status"].clone()).collect();
    assert_eq!(outcomes, [200, 403]);
    assert!(lines[1]["why"].as_str().unwrap().contains("that takes the role admin or operator or app"));
    cloud
        .run(&["user", "add", "alice", "--role", "app", "--out", house.cluster.path("x").to_str().unwrap()])
        .refused(5, &["there is a user 'alice'", "--replace"]);
}

#[test]
fn kubectl_gets_in_with_what_kubeconfig_wrote() {
    let house = House::open("kubectl");
    let cloud = &house.cluster.cloud;
    let file = house.cluster.path("kubeconfig.yaml");
    let out = file.to_str().unwrap();
    let told = cloud.say(&["kubeconfig", "--user", "carol", "--role", "viewer", "--out", out]);
    assert!(told.contains("spiffe://water/user/carol as viewer"), "{told}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let kubectl = |path: &str| {
        let mut command = std::process::Command::new("kubectl");
        command.env("HOME", house.cluster.path("home"));
        command.args(["--kubeconfig", out, "get", "--raw", path]);
        run(command)
    };
    let answer: Value = serde_json::from_str(&kubectl("/kubebus/v1/whoami").expect(0).stdout).unwrap();
    assert_eq!(answer, json!({ "who": "user/carol", "role": "viewer" }));
    kubectl("/apis/kubebus.io/v1alpha1/jointokens").refused(1, &["user/carol is viewer, and may not GET"]);
    cloud.run(&["kubeconfig", "--user", "dave", "--out", out]).refused(1, &["is there: move it away"]);
}

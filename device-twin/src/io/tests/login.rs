//! Names and passwords, with the file that mosquitto_passwd makes; and what rights allow.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::process::Command;

use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use super::hostile::Bystanders;
use super::tools::{ended, output, start_at};
use super::{Raw, World, within};
use crate::gate::access::passwords::line;
use crate::gate::access::{Passwords, Rights, Rule};
use crate::io::broker::BrokerConfig;
use crate::io::passwords::hash;

/// As mosquitto's own tool writes it.
fn made_by_mosquitto(users: &[(&str, &str)]) -> Passwords {
    let room = tempfile::tempdir().unwrap();
    let file = room.path().join("passwords");
    std::fs::write(&file, "").unwrap();
    for (user, password) in users {
        let done = Command::new("mosquitto_passwd").arg("-b").arg(&file).args([user, password]).output();
        let done = done.unwrap_or_else(|error| {
            panic!("cannot run mosquitto_passwd ({error}); install it: apt-get install mosquitto")
        });
        assert!(done.status.success(), "{done:?}");
    }
    Passwords::parse(&std::fs::read_to_string(&file).unwrap()).unwrap()
}

fn config(passwords: Passwords, anonymous: bool) -> BrokerConfig {
    BrokerConfig { passwords: Some(passwords), anonymous, ..BrokerConfig::default() }
}

#[tokio::test]
async fn a_file_of_mosquitto_passwd_lets_its_users_in_and_nobody_else() {
    let passwords = made_by_mosquitto(&[("alice", "right"), ("größe", "pässword"), ("mapper/modbus", "m")]);
    let mut world = World::with(config(passwords, false)).await;
    for version in ["mqttv311", "5"] {
        for (user, password, topic, who) in [
            ("alice", "right", "mesh/x", "user/alice"),
            ("größe", "pässword", "mesh/x", "user/größe"),
            ("mapper/modbus", "m", "mapper/modbus/state", "mapper/modbus"),
        ] {
            let args = ["-u", user, "-P", password, "-q", "1", "-t", topic, "-m", "x"];
            let tool = start_at(world.address(), "mosquitto_pub", version, &args);
            assert_eq!(world.speaker().await, who, "{version}");
            output(tool).await;
        }
        let (wrong, nobody) = if version == "5" { (0x86, 0x87) } else { (4, 5) };
        let cases: [(&[&str], i32); 4] = [
            (&["-u", "alice", "-P", "wrong"], wrong),
            (&["-u", "alice"], wrong),
            (&["-u", "bob", "-P", "right"], wrong),
            (&[], nobody),
        ];
        for (login, code) in cases {
            let args = [login, &["-q", "1", "-t", "mesh/x", "-m", "x"]].concat();
            let refused = ended(start_at(world.address(), "mosquitto_pub", version, &args)).await;
            assert_eq!(refused.status.code(), Some(code), "{version} {login:?} {refused:?}");
        }
    }
    assert_eq!(world.broker.stats().not_admitted, 8);
}

#[tokio::test]
async fn what_kubebus_hashes_is_known_again_and_the_open_door_still_asks_for_the_right_password() {
    let made = hash(b"right", NonZeroU32::new(1000).unwrap()).unwrap();
    let passwords = Passwords::parse(&line("alice", &made)).unwrap();
    let mut world = World::with(config(passwords, true)).await;
    for (login, who) in [(&["-u", "alice", "-P", "right"][..], "user/alice"), (&[], "anonymous")] {
        let args = [login, &["-q", "1", "-t", "mesh/x", "-m", "x"]].concat();
        let tool = start_at(world.address(), "mosquitto_pub", "5", &args);
        assert_eq!(world.speaker().await, who);
        output(tool).await;
    }
    let args = ["-u", "alice", "-P", "wrong", "-t", "mesh/x", "-m", "x"];
    assert_eq!(ended(start_at(world.address(), "mosquitto_pub", "5", &args)).await.status.code(), Some(0x86));
}

fn rule(who: &str, publish: &[&str], subscribe: &[&str]) -> Rule {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Rule::new(who, texts(publish), texts(subscribe)).unwrap()
}

#[tokio::test]
async fn rights_are_each_clients_own_and_a_refusal_is_an_answer() {
    let passwords = made_by_mosquitto(&[("alice", "a"), ("bob", "b")]);
    let rights = Rights::new(vec![
        rule("user/*", &["notes/{name}/#"], &["notes/{name}/#", "board"]),
        rule("user/alice", &["board"], &[]),
    ])
    .unwrap();
    let world = World::with(BrokerConfig { rights, ..config(passwords, true) }).await;
    let pub_code = async |user: &str, password: &str, topic: &str| {
        let args = ["-u", user, "-P", password, "-q", "1", "-t", topic, "-m", "x"];
        let done = ended(start_at(world.address(), "mosquitto_pub", "5", &args)).await;
        String::from_utf8_lossy(&done.stderr).contains("Not authorized")
    };
    for (user, password, topic, refused) in [
        ("alice", "a", "board", false),
        ("bob", "b", "board", true),
        ("bob", "b", "notes/bob/1", false),
        ("bob", "b", "notes/alice/1", true),
    ] {
        assert_eq!(pub_code(user, password, topic).await, refused, "{user} {topic}");
    }
    for version in ["mqttv311", "5"] {
        let denied = ["-u", "bob", "-P", "b", "-t", "notes/#", "-W", "15"];
        let refused = ended(start_at(world.address(), "mosquitto_sub", version, &denied)).await;
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(told.contains("All subscription requests were denied"), "{version} {refused:?}");
    }
    world.publish("notes/bob/kept", "mine", true).await;
    let allowed = ["-u", "bob", "-P", "b", "-t", "notes/bob/#", "-C", "1", "-W", "15"];
    assert_eq!(output(start_at(world.address(), "mosquitto_sub", "5", &allowed)).await, "mine\n");
    assert_eq!(world.broker.stats().refused, 2);
}

#[tokio::test]
async fn a_command_is_answered_only_where_its_sender_may_publish() {
    let passwords = made_by_mosquitto(&[("bob", "b")]);
    let rights = Rights::new(vec![rule("user/*", &["notes/{name}/#", "twin/+/+/command/+"], &[])]).unwrap();
    let mut world = World::with(BrokerConfig { rights, ..config(passwords, true) }).await;
    let order = |response: &str| {
        let args = ["-u", "bob", "-P", "b", "-q", "1", "-t", "twin/w/valve/command/set", "-m", "{}"];
        let asking = ["-D", "publish", "response-topic", response];
        start_at(world.broker.local_addr(), "mosquitto_pub", "5", &[&args[..], &asking].concat())
    };
    let refused = ended(order("notes/alice/x")).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Not authorized"), "{refused:?}");
    // Neither does a will ask what its sender may not.
    let will = ["--will-topic", "twin/w/valve/command/set", "--will-payload", "{}", "-D", "will"];
    let args = ["-u", "bob", "-P", "b", "-t", "notes/bob/y", "-m", "x"];
    let args = [&args[..], &will, &["response-topic", "notes/alice/x"]].concat();
    let turned_away = ended(start_at(world.broker.local_addr(), "mosquitto_pub", "5", &args)).await;
    assert_eq!(turned_away.status.code(), Some(0x87), "{turned_away:?}");
    let asked = order("notes/bob/x");
    let (topic, ticket) = world.heard().await;
    world.broker.accept(ticket.unwrap());
    output(asked).await;
    assert!(topic.ends_with("twin/w/valve/command/set = {}"), "{topic}");
    assert_eq!(world.broker.stats().refused, 1);
}

#[tokio::test]
async fn two_users_with_one_client_id_do_not_throw_each_other_out() {
    let passwords = made_by_mosquitto(&[("alice", "a"), ("bob", "b")]);
    let world = World::with(config(passwords, true)).await;
    let mut anonymous = Raw::connected(world.address(), "same").await;
    let mut alice = login(Raw::new(world.address()).await, "same", "alice", "a").await;
    let mut bob = login(Raw::new(world.address()).await, "same", "bob", "b").await;
    for raw in [&mut anonymous, &mut alice, &mut bob] {
        raw.say(&[0xc0, 0]).await;
        assert_eq!(raw.hear(2).await, [0xd0, 0]);
    }
    let mut again = login(Raw::new(world.address()).await, "same", "bob", "b").await;
    assert_eq!(bob.hear_the_end().await, [0; 0]);
    again.say(&[0xc0, 0]).await;
    assert_eq!(again.hear(2).await, [0xd0, 0]);
    assert_eq!(world.broker.stats().taken_over, 1);
}

/// CONNECT of a 3.1.1 client with name and password.
fn login_bytes(client: &str, user: &str, password: &str) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x04\xc2\x00\x00".to_vec();
    for text in [client, user, password] {
        body.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
        body.extend_from_slice(text.as_bytes());
    }
    [&[0x10, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}

async fn login(mut raw: Raw, client: &str, user: &str, password: &str) -> Raw {
    raw.say(&login_bytes(client, user, password)).await;
    assert_eq!(raw.hear(4).await, [0x20, 2, 0, 0]);
    raw
}

/// From an address of its own, as machines on a network have it.
async fn from(host: [u8; 4], to: SocketAddr) -> Raw {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((host, 0))).unwrap();
    Raw(within("a connection", socket.connect(to)).await.unwrap())
}

#[tokio::test]
async fn a_flood_of_wrong_passwords_delays_nobody_else() {
    const FLOOD: u64 = 40;
    let dear = hash(b"right", NonZeroU32::new(200_000).unwrap()).unwrap();
    let passwords = Passwords::parse(&line("alice", &dear)).unwrap();
    let world = World::with(config(passwords, true)).await;
    let mut bystanders = Bystanders::new(world.address()).await;
    let mut flood = JoinSet::new();
    for n in 0..FLOOD {
        let to = world.address();
        flood.spawn(async move {
            let mut raw = from([127, 0, 0, 2], to).await;
            raw.say(&login_bytes(&format!("bad-{n}"), "alice", "wrong")).await;
            let answer = raw.hear(4).await;
            assert!([4, 3].contains(&answer[3]), "{answer:?}");
        });
    }
    within("the flood at the door", async {
        while world.broker.stats().not_admitted == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    })
    .await;
    bystanders.are_well().await;
    login(from([127, 0, 0, 3], world.address()).await, "good", "alice", "right").await;
    let turned_away = world.broker.stats().not_admitted;
    assert!(turned_away < FLOOD, "the honest one had to wait for all of the flood");
    while let Some(done) = flood.join_next().await {
        done.unwrap();
    }
    assert_eq!(world.broker.stats().not_admitted, FLOOD);
}

//! TLS with mosquitto's tools, which use OpenSSL: who is let in, as whom, and who is not.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::authority::{Authority, Papers, text};
use super::hostile::Bystanders;
use super::tools::{ended, output, start_at};
use super::{Raw, World, within};
use crate::io::broker::BrokerConfig;
use crate::io::door::HANDSHAKE_PATIENCE;
use crate::io::{ClientCa, Listener};

fn config(listener: Listener) -> BrokerConfig {
    BrokerConfig { listeners: vec![listener], ..BrokerConfig::default() }
}

fn tls_address(world: &World) -> SocketAddr {
    world.broker.local_addrs()[1]
}

/// Arguments of a tool that publishes where the node hears it.
fn publishing<'a>(file: &'a str, papers: Option<&'a Papers>, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["--cafile", file, "-q", "1", "-t", "mesh/hello", "-m", "x"];
    if let Some(papers) = papers {
        args.extend(["--cert", text(&papers.certificate), "--key", text(&papers.key)]);
    }
    args.extend(more);
    args
}

#[tokio::test]
async fn a_client_is_who_its_certificate_says_in_tls_1_2_and_1_3() {
    let ca = Authority::new();
    let mut world = World::with(config(ca.listener(true))).await;
    let file = ca.file();
    for uri in ["spiffe://water/user/alice", "spiffe://water/user/bob"] {
        let papers = ca.issue(uri);
        for (version, tls) in
            [("mqttv311", "tlsv1.2"), ("5", "tlsv1.2"), ("mqttv311", "tlsv1.3"), ("5", "tlsv1.3")]
        {
            let args = publishing(text(&file), Some(&papers), &["--tls-version", tls]);
            let tool = start_at(tls_address(&world), "mosquitto_pub", version, &args);
            assert_eq!(format!("spiffe://water/{}", world.speaker().await), uri, "{version} {tls}");
            output(tool).await;
        }
    }
    assert_eq!(world.broker.stats().handshakes_failed, 0);
}

#[tokio::test]
async fn a_mapper_with_a_certificate_may_use_its_own_topics_alone() {
    let ca = Authority::new();
    let mut world = World::with(config(ca.listener(true))).await;
    let (file, papers) = (ca.file(), ca.issue("spiffe://water/mapper/modbus"));
    let args = |topic: &'static str| {
        let mut args = publishing(text(&file), Some(&papers), &[]);
        args[5] = topic;
        args
    };
    let tool = start_at(tls_address(&world), "mosquitto_pub", "5", &args("mapper/modbus/state"));
    assert_eq!(world.speaker().await, "mapper/modbus");
    output(tool).await;
    let refused =
        ended(start_at(tls_address(&world), "mosquitto_pub", "5", &args("mapper/other/state"))).await;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("Not authorized"), "{refused:?}");
    assert_eq!(world.broker.stats().refused, 1);
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_opens_nothing() {
    let (ca, other) = (Authority::new(), Authority::new());
    let world = World::with(config(ca.listener(true))).await;
    let mut bystanders = Bystanders::new(world.address()).await;
    let file = ca.file();
    let cases = [
        ("none", None),
        ("of another authority", Some(other.issue("spiffe://water/user/alice"))),
        ("expired", Some(ca.issue_for("spiffe://water/user/late", (2020, 2021)))),
        ("not valid yet", Some(ca.issue_for("spiffe://water/user/early", (2110, 2120)))),
        ("of another cluster", Some(ca.issue("spiffe://fire/user/alice"))),
        ("of a node", Some(ca.issue("spiffe://water/edge/a"))),
        ("of nobody", Some(ca.issue("https://example.org/alice"))),
    ];
    for (failed, (what, papers)) in cases.iter().enumerate() {
        let args = publishing(text(&file), papers.as_ref(), &[]);
        let refused = ended(start_at(tls_address(&world), "mosquitto_pub", "5", &args)).await;
        assert!(!refused.status.success(), "{what}");
        bystanders.are_well().await;
        assert_eq!(world.broker.stats().handshakes_failed, failed as u64 + 1, "{what}");
    }
}

#[tokio::test]
async fn where_certificates_are_optional_the_password_or_the_door_decides() {
    let ca = Authority::new();
    let file = ca.file();
    for (anonymous, let_in) in [(true, true), (false, false)] {
        let listener = Listener { anonymous, ..ca.listener(false) };
        let mut world = World::with(config(listener)).await;
        let args = publishing(text(&file), None, &[]);
        let tool = start_at(tls_address(&world), "mosquitto_pub", "5", &args);
        if let_in {
            assert_eq!(world.speaker().await, "anonymous");
            output(tool).await;
        } else {
            // 0x87, as the tool's exit code.
            assert_eq!(ended(tool).await.status.code(), Some(0x87));
            assert_eq!(world.broker.stats().not_admitted, 1);
        }
    }
}

#[tokio::test]
async fn a_sites_own_authority_names_users_by_their_common_name() {
    let ca = Authority::new();
    let listener = ca.listener_for(ClientCa::Site { roots: vec![ca.certificate.clone()] }, true);
    let mut world = World::with(config(listener)).await;
    let (file, papers) = (ca.file(), ca.issue("https://site.example/panel 7".replace(' ', "-").as_str()));
    let args = publishing(text(&file), Some(&papers), &[]);
    let tool = start_at(tls_address(&world), "mosquitto_pub", "5", &args);
    assert_eq!(world.speaker().await, "user/panel-7");
    output(tool).await;
}

#[tokio::test]
async fn large_messages_come_through_tls_both_ways() {
    let ca = Authority::new();
    let world = World::with(config(Listener { anonymous: true, ..ca.listener(false) })).await;
    let file = ca.file();
    let payload = "x".repeat(200_000);
    let sub_args = ["--cafile", text(&file), "-t", "big", "-q", "1", "-C", "3", "-W", "15"];
    let subscriber = start_at(tls_address(&world), "mosquitto_sub", "5", &sub_args);
    within("a subscription", async {
        while world.broker.stats().hub.filters != 1 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    for _ in 0..3 {
        let args = ["--cafile", text(&file), "-q", "1", "-t", "big", "-m", &payload[..100_000]];
        output(start_at(tls_address(&world), "mosquitto_pub", "5", &args)).await;
    }
    let line = format!("{}\n", &payload[..100_000]);
    assert_eq!(output(subscriber).await, line.repeat(3));
}

/// A TLS 1.2 ClientHello's head, then nonsense; plain MQTT; HTTP; a record that says it is longer than any.
#[tokio::test]
async fn hostile_bytes_at_a_tls_listener_disturb_nobody() {
    let ca = Authority::new();
    let world = World::with(config(ca.listener(true))).await;
    let mut bystanders = Bystanders::new(world.address()).await;
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let nonsense = [&hello[..], &[0xa5; 600]].concat();
    let cases: [&[u8]; 5] = [
        &nonsense,
        &super::connect_bytes("c"),
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x16, 3, 3, 0xff, 0xff, 1],
        &[0; 4096],
    ];
    for (failed, bytes) in cases.iter().enumerate() {
        let mut raw = Raw::new(tls_address(&world)).await;
        let _ = raw.0.write_all(bytes).await;
        let _ = raw.0.shutdown().await;
        raw.hear_the_end().await;
        bystanders.are_well().await;
        assert_eq!(world.broker.stats().handshakes_failed, failed as u64 + 1);
    }
    assert_eq!(world.broker.stats().panics, 0);
}

#[tokio::test]
async fn who_does_not_shake_hands_takes_a_place_and_loses_it() {
    let ca = Authority::new();
    let world = World::with(BrokerConfig { max_clients: 2, ..config(ca.listener(true)) }).await;
    let mut idle = [Raw::new(tls_address(&world)).await, Raw::new(tls_address(&world)).await];
    idle[0].say(&[0x16, 3, 1]).await;
    assert_eq!(Raw::new(world.address()).await.hear_the_end().await, [0; 0]);
    assert_eq!(world.broker.stats().turned_away, 1);
    tokio::time::sleep(HANDSHAKE_PATIENCE).await;
    for mut raw in idle {
        raw.hear_the_end().await;
    }
    assert_eq!(world.broker.stats().handshakes_failed, 2);
    within("room for another", async {
        loop {
            let mut raw = Raw(TcpStream::connect(world.address()).await.unwrap());
            let _ = raw.0.write_all(&super::connect_bytes("c")).await;
            let mut answer = [0; 4];
            if tokio::io::AsyncReadExt::read_exact(&mut raw.0, &mut answer).await.is_ok() {
                break;
            }
        }
    })
    .await;
}

//! MQTT over WebSocket, with tungstenite's client; plain and in TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::io::AsyncWriteExt;
use tungstenite::client::IntoClientRequest;
use tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

use super::authority::Authority;
use super::hostile::Bystanders;
use super::{PATIENCE, Raw, World, connect_bytes, within};
use crate::io::Listener;
use crate::io::broker::BrokerConfig;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

async fn world(listener: Listener) -> World {
    World::with(BrokerConfig { listeners: vec![listener], ..BrokerConfig::default() }).await
}

async fn plain_world() -> World {
    world(Listener { websocket: true, ..Listener::plain(LOOPBACK) }).await
}

fn web_address(world: &World) -> SocketAddr {
    world.broker.local_addrs()[1]
}

fn socket(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Shakes hands and offers these subprotocols.
fn open<S: Read + Write>(stream: S, offered: Option<&str>) -> Result<WebSocket<S>, Error> {
    let mut request = "ws://broker/mqtt".into_client_request().unwrap();
    if let Some(offered) = offered {
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, offered.parse().unwrap());
    }
    match tungstenite::client(request, stream) {
        Ok((socket, response)) => {
            assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "mqtt");
            Ok(socket)
        }
        Err(HandshakeError::Failure(error)) => Err(error),
        Err(HandshakeError::Interrupted(_)) => panic!("no answer within {PATIENCE:?}"),
    }
}

fn say<S: Read + Write>(socket: &mut WebSocket<S>, bytes: &[u8]) {
    socket.send(Message::Binary(bytes.to_vec().into())).unwrap();
}

/// The next `length` bytes, in whatever frames they come.
fn hear<S: Read + Write>(socket: &mut WebSocket<S>, heard: &mut Vec<u8>, length: usize) -> Vec<u8> {
    while heard.len() < length {
        let message = socket.read().unwrap();
        assert!(matches!(message, Message::Binary(_) | Message::Pong(_)), "{message:?}");
        if let Message::Binary(bytes) = message {
            assert!(!bytes.is_empty(), "a frame with nothing in it");
            heard.extend_from_slice(&bytes);
        }
    }
    heard.drain(..length).collect()
}

/// A PUBLISH to `big` at QoS 0 with a payload of this many bytes.
fn publish(length: usize) -> Vec<u8> {
    let mut packet = vec![0x30];
    let mut rest = length + 5;
    while rest > 0 {
        packet.push((rest % 128) as u8 | if rest >= 128 { 0x80 } else { 0 });
        rest /= 128;
    }
    packet.extend_from_slice(b"\x00\x03big");
    packet.extend((0..length).map(|n| n as u8));
    packet
}

/// A whole conversation: packets in single bytes, several in one frame, pings in between, and large ones both ways.
fn converse<S: Read + Write>(mut socket: WebSocket<S>) {
    let mut heard = Vec::new();
    for byte in connect_bytes("web") {
        say(&mut socket, &[byte]);
    }
    assert_eq!(hear(&mut socket, &mut heard, 4), [0x20, 2, 0, 0]);
    socket.send(Message::Ping(b"are you there".to_vec().into())).unwrap();
    say(&mut socket, &[&b"\x82\x08\x00\x01\x00\x03big\x00"[..], &[0xc0, 0, 0xc0]].concat());
    say(&mut socket, &[0]);
    let answers = hear(&mut socket, &mut heard, 9);
    // A subscription stands a little later than a ping is answered, or not.
    let suback = answers.windows(5).position(|bytes| bytes == [0x90, 3, 0, 1, 0]).expect("a SUBACK");
    assert_eq!([&answers[..suback], &answers[suback + 5..]].concat(), [0xd0, 0, 0xd0, 0]);
    for length in [1, 16_000, 200_000] {
        let packet = publish(length);
        say(&mut socket, &packet);
        assert!(
            hear(&mut socket, &mut heard, packet.len()) == packet,
            "a message of {length} bytes came back changed"
        );
    }
    // A message of the socket in several frames is one as well, as are three packets in one.
    say(&mut socket, &[publish(3), publish(4), publish(5)].concat());
    let expected = [publish(3), publish(4), publish(5)].concat();
    assert_eq!(hear(&mut socket, &mut heard, expected.len()), expected);
    say(&mut socket, &[0xe0, 0]);
    loop {
        match socket.read() {
            Ok(Message::Close(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(Error::ConnectionClosed) => break,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn blocking<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    within("a WebSocket client", tokio::task::spawn_blocking(what)).await.unwrap()
}

#[tokio::test]
async fn packets_and_frames_need_not_end_together() {
    let world = plain_world().await;
    let address = web_address(&world);
    blocking(move || converse(open(socket(address), Some("mqtt")).unwrap())).await;
    assert_eq!((world.broker.stats().malformed, world.broker.stats().panics), (0, 0));
}

#[tokio::test]
async fn a_websocket_in_tls_carries_the_same() {
    let ca = Authority::new();
    let world = world(Listener { websocket: true, anonymous: true, ..ca.listener(false) }).await;
    let address = web_address(&world);
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    blocking(move || {
        let tls = ClientConnection::new(Arc::new(config), address.ip().into()).unwrap();
        converse(open(StreamOwned::new(tls, socket(address)), Some("mqttv3.1, mqtt")).unwrap());
    })
    .await;
    assert_eq!(world.broker.stats().handshakes_failed, 0);
}

#[tokio::test]
async fn who_does_not_offer_mqtt_is_told_so() {
    let world = plain_world().await;
    let address = web_address(&world);
    for offered in [None, Some("chat"), Some("mqttv3.1")] {
        let refused = blocking(move || open(socket(address), offered)).await;
        match refused {
            Err(Error::Http(response)) => assert_eq!(response.status(), 400, "{offered:?}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.broker.stats().handshakes_failed, 3);
}

#[tokio::test]
async fn text_and_what_is_too_large_ends_the_connection_and_no_other() {
    let world = plain_world().await;
    let mut bystanders = Bystanders::new(world.address()).await;
    let address = web_address(&world);
    let text = blocking(move || {
        let mut socket = open(socket(address), Some("mqtt")).unwrap();
        socket.send(Message::Text("hello".into())).unwrap();
        socket.read()
    })
    .await;
    match text {
        Ok(Message::Close(Some(frame))) => assert_eq!(frame.code, CloseCode::Unsupported),
        other => panic!("{other:?}"),
    }
    bystanders.are_well().await;
    let too_large = blocking(move || {
        let mut socket = open(socket(address), Some("mqtt")).unwrap();
        // It may be cut before all of it is said.
        let _ = socket.send(Message::Binary(vec![0; 600 * 1024].into()));
        socket.read()
    })
    .await;
    // The answer gets lost if the rest of it was still on its way.
    match too_large {
        Ok(Message::Close(Some(frame))) => assert_eq!(frame.code, CloseCode::Size),
        Ok(other) => panic!("{other:?}"),
        Err(_) => {}
    }
    bystanders.are_well().await;
}

#[tokio::test]
async fn hostile_bytes_at_a_websocket_listener_disturb_nobody() {
    let world = plain_world().await;
    let mut bystanders = Bystanders::new(world.address()).await;
    let upgrade = "GET /mqtt HTTP/1.1\r\nHost: b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(100_000));
    // Before the upgrade.
    let before: [&[u8]; 5] = [
        &connect_bytes("c"),
        b"POST / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        endless.as_bytes(),
        &[0xff; 512],
    ];
    for bytes in before {
        let mut raw = Raw::new(web_address(&world)).await;
        let _ = raw.0.write_all(bytes).await;
        let _ = raw.0.shutdown().await;
        raw.hear_the_end().await;
        bystanders.are_well().await;
    }
    assert_eq!(world.broker.stats().handshakes_failed, 5);
    // After it: unmasked; reserved bits; a control frame that is fragmented; one that is too long; a length of 2^63.
    let after: [&[u8]; 5] = [
        &[0x82, 1, 0x10],
        &[0xf2, 0x81, 0, 0, 0, 0, 0x10],
        &[0x09, 0x80, 0, 0, 0, 0],
        &[0x89, 0xfe, 0, 0xff, 0, 0, 0, 0],
        &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    for bytes in after {
        let mut raw = Raw::new(web_address(&world)).await;
        raw.say(upgrade.as_bytes()).await;
        let status = raw.hear(12).await;
        assert_eq!(status, b"HTTP/1.1 101");
        let _ = raw.0.write_all(bytes).await;
        raw.hear_the_end().await;
        bystanders.are_well().await;
    }
    assert_eq!(world.broker.stats().panics, 0);
}

/// Pings are answered with pongs that nobody reads: what is kept of them must stay bounded, and others must go on.
#[tokio::test]
async fn a_flood_of_pings_that_reads_no_pong_disturbs_nobody() {
    let world = plain_world().await;
    let mut bystanders = Bystanders::new(world.address()).await;
    let address = web_address(&world);
    let flood = tokio::task::spawn_blocking(move || {
        let mut socket = open(socket(address), Some("mqtt")).unwrap();
        socket.get_mut().set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
        for _ in 0..200_000 {
            if socket.send(Message::Ping(vec![7; 120].into())).is_err() {
                break;
            }
        }
    });
    for _ in 0..20 {
        bystanders.are_well().await;
    }
    within("the end of the flood", flood).await.unwrap();
    bystanders.are_well().await;
    assert_eq!(world.broker.stats().panics, 0);
}

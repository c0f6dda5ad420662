//! Devices that answer late, twice, with other numbers, or with what was never asked: none of it becomes a value.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

#[expect(dead_code, reason = "these devices are not pymodbus's")]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use bus::twin::Outcome;
use kubebus_sdk::Value;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use support::{Site, property};

/// What a device does with the answer to a request: the frames that it sends instead, now or later.
type Lie = fn(&mut Mood, Vec<u8>) -> Vec<(Duration, Vec<u8>)>;

#[derive(Default)]
struct Mood {
    heard: u64,
    before: Vec<u8>,
}

/// How a request and its answer look.
#[derive(Clone, Copy)]
struct Wire {
    request: usize,
    function_at: usize,
    truth: fn(&[u8]) -> Vec<u8>,
}

const TCP: Wire = Wire { request: 12, function_at: 7, truth: tcp_truth };
const RTU: Wire = Wire { request: 8, function_at: 1, truth: rtu_truth };

/// Modbus by hand: a holding register holds its own address. It counts the writes.
struct Liar {
    port: u16,
    writes: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Liar {
    async fn start(wire: Wire, lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, writes) = (listener.local_addr().unwrap().port(), Arc::<AtomicU64>::default());
        let mut tasks = JoinSet::new();
        let counted = Arc::clone(&writes);
        tasks.spawn(async move {
            let mut mood = Mood::default();
            while let Ok((stream, _)) = listener.accept().await {
                converse(stream, wire, lie, &mut mood, &counted).await;
            }
        });
        Self { port, writes, _tasks: tasks }
    }
}

/// Until the mapper hangs up; then the next connection is answered.
async fn converse(mut stream: TcpStream, wire: Wire, lie: Lie, mood: &mut Mood, writes: &AtomicU64) {
    loop {
        let mut request = vec![0; wire.request];
        if stream.read_exact(&mut request).await.is_err() {
            return;
        }
        mood.heard += 1;
        if request[wire.function_at] == 6 {
            writes.fetch_add(1, SeqCst);
        }
        for (after, frame) in lie(mood, (wire.truth)(&request)) {
            sleep(after).await;
            if stream.write_all(&frame).await.is_err() {
                return;
            }
        }
    }
}

fn tcp_truth(request: &[u8]) -> Vec<u8> {
    let answer = answer(&request[7..]);
    let len = u8::try_from(answer.len() + 1).unwrap();
    [&request[..4], &[0, len, request[6]], &answer].concat()
}

fn rtu_truth(request: &[u8]) -> Vec<u8> {
    let frame = [&request[..1], &answer(&request[1..6])].concat();
    let sum = frame
        .iter()
        .fold(0xffff, |sum, byte| (0..8).fold(sum ^ u16::from(*byte), |s, _| (s >> 1) ^ ((s & 1) * 0xa001)));
    [&frame[..], &sum.to_le_bytes()].concat()
}

/// A read is answered, a write and an echo come back.
fn answer(pdu: &[u8]) -> Vec<u8> {
    if pdu[0] != 3 {
        return pdu.to_vec();
    }
    let (first, count) = (u16::from_be_bytes([pdu[1], pdu[2]]), u16::from_be_bytes([pdu[3], pdu[4]]));
    let data: Vec<u8> = (first..first + count).flat_map(u16::to_be_bytes).collect();
    [&[3, u8::try_from(data.len()).unwrap()], &data[..]].concat()
}

/// Serves `lie` at two addresses that are asked for by requests of one shape, and listens for wrong values. Between the
/// lies, which are told for every third request, the truth must come through.
async fn believes_only_the_truth(wire: Wire, key: &str, lie: Lie) {
    let liar = Liar::start(wire, lie).await;
    let properties =
        [property("ten", "int", json!({"holding": 10})), property("hundred", "int", json!({"holding": 100}))];
    let connection = json!({key: format!("127.0.0.1:{}", liar.port), "timeout_ms": 200});
    let mut site = Site::serve(&[("liar", connection, &properties)]).await;
    site.until(|site| site.told("liar", "ten").len() > 2 && site.told("liar", "hundred").len() > 2).await;
    for (name, value) in [("ten", 10), ("hundred", 100)] {
        let told = site.told("liar", name);
        assert!(told.iter().all(|told| **told == Value::Int(value)), "{name}: {told:?}");
    }
}

const NOW: Duration = Duration::ZERO;

fn every_third(mood: &Mood) -> bool {
    mood.heard.is_multiple_of(3)
}

#[tokio::test]
async fn an_answer_that_comes_late_is_nobodys() {
    believes_only_the_truth(TCP, "tcp", |mood, truth| {
        if every_third(mood) { vec![(Duration::from_millis(400), truth)] } else { vec![(NOW, truth)] }
    })
    .await;
}

#[tokio::test]
async fn the_answer_to_the_request_before_is_nobodys() {
    believes_only_the_truth(TCP, "tcp", |mood, truth| {
        let before = std::mem::replace(&mut mood.before, truth.clone());
        if every_third(mood) && !before.is_empty() {
            vec![(NOW, before), (NOW, truth)]
        } else {
            vec![(NOW, truth)]
        }
    })
    .await;
}

#[tokio::test]
async fn another_number_another_unit_and_another_length_are_nobodys() {
    let lies: [Lie; 4] = [
        |m, truth| bent(m, truth, 0),
        |m, truth| bent(m, truth, 1),
        |m, truth| bent(m, truth, 6),
        |m, truth| bent(m, truth, 8),
    ];
    for lie in lies {
        believes_only_the_truth(TCP, "tcp", lie).await;
    }
}

/// One byte of every third answer is another.
fn bent(mood: &mut Mood, mut truth: Vec<u8>, at: usize) -> Vec<(Duration, Vec<u8>)> {
    if every_third(mood) {
        truth[at] ^= 1;
    }
    vec![(NOW, truth)]
}

#[tokio::test]
async fn answers_that_come_twice_count_once() {
    believes_only_the_truth(TCP, "tcp", |_, truth| vec![(NOW, truth.clone()), (NOW, truth)]).await;
}

/// Serial frames have no number. The answer that was not given is given right before that to the next request, on
/// whatever connection: it looks like the answer to a read of another place.
#[tokio::test]
async fn a_late_answer_of_a_serial_device_is_nobodys() {
    believes_only_the_truth(RTU, "rtu_over_tcp", |mood, truth| {
        let owed = std::mem::take(&mut mood.before);
        if mood.heard.is_multiple_of(4) && owed.is_empty() {
            mood.before = truth;
            return vec![];
        }
        vec![(NOW, owed), (NOW, truth)]
    })
    .await;
}

#[tokio::test]
async fn a_write_that_is_answered_wrongly_is_unknown_and_not_repeated() {
    let lie: Lie = |_, mut truth| {
        let is_write = truth[7] == 6;
        truth[1] ^= u8::from(is_write);
        vec![(NOW, truth)]
    };
    let liar = Liar::start(TCP, lie).await;
    let properties = [property("ten", "int", json!({"holding": 10}))];
    let connection = json!({"tcp": format!("127.0.0.1:{}", liar.port), "timeout_ms": 200});
    let mut site = Site::serve(&[("liar", connection, &properties)]).await;
    site.until(|site| site.value("liar", "ten").is_some()).await;
    let result = site.write("liar", "ten", Value::Int(10)).await;
    assert_eq!(result.outcome, Outcome::Unknown, "{result:?}");
    site.forget();
    site.until(|site| site.value("liar", "ten").is_some()).await;
    assert_eq!(liar.writes.load(SeqCst), 1);
}

use std::path::PathBuf;
use std::sync::Arc;

use bus::{Name, UnixMillis};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::config::Collector;
use crate::health::fleet::{Facts, Known};
use crate::health::links::{LinkHead, LinkState, Path};
use crate::health::series::{LinkSeries, Series};
use crate::health::{Condition, Presence};

fn fleet(nodes: usize) -> Fleet {
    let facts = |at: usize| {
        let mut condition = Condition::default();
        condition.values.set(Series::FramesSent, 7);
        condition.values.set(Series::DroppedDenied, 1);
        condition.values.set(Series::DroppedNoRoute, 2);
        condition.values.set(Series::OutboxOldest, 1_500);
        condition.about.started = UnixMillis(1_000);
        condition.about.version = "0.1.0".to_owned();
        let head = LinkHead {
            path: Path::Quic,
            peer: "cloud/hq".parse().unwrap(),
            is_packets: true,
            in_reserve: false,
            remote: None,
        };
        condition.links.push(LinkState { head, numbers: [42_100; LinkSeries::ALL.len()] });
        let known = Known {
            is_me: at == 0,
            node: format!("edge/e{at}").parse().unwrap(),
            site: Some(Name::new("plant").unwrap()),
            state: Presence::Connected,
            is_cut_off: false,
            since: None,
            heard_ms_ago: Some(250),
            clock_offset_ms: None,
            behind: None,
        };
        Facts { known, condition: Some(Arc::new(condition)) }
    };
    let nodes: Vec<Facts> = (0..nodes).map(facts).collect();
    Fleet {
        cluster: Name::new("water").unwrap(),
        me: nodes[0].known.node.clone(),
        time: UnixMillis(5_000),
        nodes,
    }
}

/// Takes one request a connection, and answers; gives back head and body of each.
async fn collector(listener: TcpListener, answers: &[&str]) -> Vec<(String, Value)> {
    let mut got = Vec::new();
    for answer in answers {
        let (stream, _) = listener.accept().await.unwrap();
        got.push(take(stream, answer).await);
    }
    got
}

async fn take(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) -> (String, Value) {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    let (head, body) = loop {
        let len = stream.read(&mut piece).await.unwrap();
        assert!(len > 0, "the request is cut off");
        bytes.extend_from_slice(&piece[..len]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if Some(body.len()) == length {
            break (head.to_owned(), serde_json::from_str(body).unwrap());
        }
    };
    stream.write_all(answer.as_bytes()).await.unwrap();
    (head, body)
}

const TAKEN: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
const REFUSED: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 8\r\n\r\nbad data";

fn target(address: &str) -> Target {
    let otlp = Collector::At { tls: false, place: address.to_owned() };
    Target::of(&TelemetryConfig { otlp, ..TelemetryConfig::default() }).unwrap()
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// The shape that opentelemetry-proto's JSON mapping demands: no field that it does not know, numbers of 64 bits as
/// strings, one kind of data a metric.
fn check(request: &Value) {
    let only = |value: &Value, fields: &[&str]| {
        let object = value.as_object().unwrap_or_else(|| panic!("{value}"));
        assert!(object.keys().all(|key| fields.contains(&key.as_str())), "{object:?}");
    };
    let number = |value: &Value| assert!(value.as_str().unwrap().parse::<u64>().is_ok(), "{value}");
    only(request, &["resourceMetrics"]);
    for resource in request["resourceMetrics"].as_array().unwrap() {
        only(resource, &["resource", "scopeMetrics"]);
        let has = |key: &str| {
            resource["resource"]["attributes"]
                .as_array()
                .unwrap()
                .iter()
                .any(|attribute| attribute["key"] == key)
        };
        assert!(has("service.name") && has("service.instance.id"));
        for metric in resource["scopeMetrics"][0]["metrics"].as_array().unwrap() {
            only(metric, &["name", "description", "unit", "gauge", "sum"]);
            let (gauge, sum) = (&metric["gauge"], &metric["sum"]);
            assert!(gauge.is_null() != sum.is_null(), "{metric}");
            if !sum.is_null() {
                assert_eq!((&sum["aggregationTemporality"], &sum["isMonotonic"]), (&2.into(), &true.into()));
            }
            let data = if sum.is_null() { gauge } else { sum };
            for point in data["dataPoints"].as_array().unwrap() {
                only(point, &["startTimeUnixNano", "timeUnixNano", "attributes", "asInt", "asDouble"]);
                number(&point["timeUnixNano"]);
                assert!(point["asDouble"].is_f64() != point["asInt"].is_string(), "{point}");
                assert_eq!(point["startTimeUnixNano"].is_string(), !sum.is_null());
                for attribute in point["attributes"].as_array().unwrap() {
                    only(attribute, &["key", "value"]);
                    only(&attribute["value"], &["stringValue"]);
                }
            }
        }
    }
}

#[test]
fn a_collector_gets_what_the_protocol_says() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("{}/otlp/", listener.local_addr().unwrap());
        let target = target(&address);
        let (sent, got) = tokio::join!(send_all(&target, fleet(1)), collector(listener, &[TAKEN]));
        sent.unwrap();
        let (head, body) = &got[0];
        assert!(head.starts_with("POST /otlp/v1/metrics HTTP/1.1\r\n"), "{head}");
        assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
        check(body);
        let metrics = body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap();
        let named = |name: &str| metrics.iter().find(|metric| metric["name"] == name).unwrap();
        let sum = &named("kubebus_link_frames_sent_total")["sum"]["dataPoints"][0];
        assert_eq!((&sum["asInt"], &sum["timeUnixNano"]), (&"7".into(), &"4750000000".into()));
        assert_eq!(sum["startTimeUnixNano"], "1000000000");
        let dropped = named("kubebus_router_packets_dropped_total")["sum"]["dataPoints"].as_array().unwrap();
        assert_eq!(dropped.len(), 2);
        assert_eq!(named("kubebus_outbox_oldest_seconds")["gauge"]["dataPoints"][0]["asDouble"], 1.5);
        assert_eq!(named("kubebus_link_rtt_seconds")["unit"], "s");
    });
}

#[test]
fn a_large_fleet_goes_in_several_requests_and_a_refusal_is_told() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let target = target(&address);
        let (sent, got) =
            tokio::join!(send_all(&target, fleet(NODES + 1)), collector(listener, &[TAKEN, REFUSED]));
        let count = |at: usize| got[at].1["resourceMetrics"].as_array().unwrap().len();
        assert_eq!((count(0), count(1)), (NODES, 1));
        assert!(got[0].1.to_string().len() < 2_000_000, "{}", got[0].1.to_string().len());
        assert_eq!(sent.unwrap_err().to_string(), "the collector answered 400 Bad Request: bad data");
    });
}

fn answer(status: &str, more: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\n\r\n")
}

fn texts(request: &Value) -> Vec<String> {
    let records = request["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap();
    records.iter().map(|record| record["body"]["stringValue"].as_str().unwrap().to_owned()).collect()
}

/// Sends a batch of one line, `text`, to a collector that answers so.
async fn step(sender: &mut Sender, listener: &TcpListener, answer: &str) -> (Duration, Vec<String>) {
    let collector = async {
        let (stream, _) = listener.accept().await.unwrap();
        take(stream, answer).await
    };
    let (pause, (_, body)) = tokio::join!(sender.step(), collector);
    (pause, texts(&body))
}

/// A sender, its lines, and where its collector listens.
async fn logging() -> (Sender, &'static Lines, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let lines: &Lines = Box::leak(Box::new(Lines::new()));
    let sender = Sender::new(target(&listener.local_addr().unwrap().to_string()), "edge/a".to_owned(), lines);
    (sender, lines, listener)
}

fn with_log(lines: &'static Lines) -> tracing::subscriber::DefaultGuard {
    use tracing_subscriber::prelude::*;
    tracing::subscriber::set_default(tracing_subscriber::registry().with(logs::of(lines)))
}

#[test]
fn a_batch_is_sent_again_where_the_protocol_says_so_and_not_for_ever() {
    run(async {
        let (mut sender, lines, listener) = logging().await;
        let _log = with_log(lines);
        tracing::info!(target: "other", "one");
        for (at, status) in ["429 Slow", "502 Bad", "503 Busy", "504 Late"].into_iter().enumerate() {
            let (pause, sent) = step(&mut sender, &listener, &answer(status, "")).await;
            assert_eq!((pause.as_secs(), &sent[..]), (5 << at, &["one".to_owned()][..]), "{status}");
        }
        let (pause, _) = step(&mut sender, &listener, &answer("503 Busy", "Retry-After: 90\r\n")).await;
        assert_eq!(pause, Duration::from_secs(90));
        for _ in 5..sender::TRIES {
            let (pause, sent) = step(&mut sender, &listener, &answer("503 Busy", "")).await;
            assert_eq!((pause.as_secs(), &sent[..]), (60, &["one".to_owned()][..]));
        }
        // It is given up, as is one that the collector chokes on, and both are told of.
        for (line, status) in [("two", "500 Choked"), ("three", "400 Bad")] {
            tracing::info!(target: "other", "{line}");
            let (_, sent) = step(&mut sender, &listener, &answer(status, "")).await;
            assert_eq!(sent[0], line);
        }
        tracing::info!(target: "other", "four");
        let (pause, sent) = step(&mut sender, &listener, TAKEN).await;
        assert_eq!((pause, &sent[0][..], sent.len()), (Duration::ZERO, "four", 2));
        assert!(sent[1].starts_with("3 lines of the log"), "{sent:?}");
        // What sending said meanwhile is not sent.
        assert_eq!(lines.take(), None);
    });
}

#[test]
fn a_collector_that_is_away_is_waited_for_and_the_last_lines_go_at_the_end() {
    run(async {
        let (mut sender, lines, listener) = logging().await;
        let _log = with_log(lines);
        let address = listener.local_addr().unwrap();
        drop(listener);
        tracing::info!(target: "other", "one");
        for _ in 0..sender::TRIES * 2 {
            assert!(!sender.step().await.is_zero());
        }
        let listener = TcpListener::bind(address).await.unwrap();
        let (_, sent) = step(&mut sender, &listener, TAKEN).await;
        assert_eq!(sent, ["one"]);
        let mut telemetry = Telemetry {
            target: Some(target(&address.to_string())),
            collector: String::new(),
            every: SHORTEST,
            log: JoinSet::new(),
            stop: None,
        };
        telemetry.send_log("edge/a".to_owned(), lines);
        tokio::task::yield_now().await;
        tracing::info!(target: "other", "stopping");
        let ((), got) = tokio::join!(telemetry.finish(), collector(listener, &[TAKEN]));
        assert_eq!(texts(&got[0].1), ["stopping"]);
    });
}

/// A file with the authority of a certificate for `host`, and what shows it.
fn certified(room: &std::path::Path, host: &str) -> (PathBuf, tokio_rustls::TlsAcceptor) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap().self_signed(&key).unwrap();
    let file = room.join(format!("{host}.pem"));
    std::fs::write(&file, certificate.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (file, tokio_rustls::TlsAcceptor::from(Arc::new(config)))
}

#[test]
fn only_the_collector_that_is_meant_is_sent_anything() {
    run(async {
        let room = tempfile::tempdir().unwrap();
        let (here, other) = (certified(room.path(), "127.0.0.1"), certified(room.path(), "other.example"));
        let missing = room.path().join("missing.pem");
        let exchange = async |ca: &PathBuf, acceptor: &tokio_rustls::TlsAcceptor| {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let otlp = Collector::At { tls: true, place: listener.local_addr().unwrap().to_string() };
            let config = TelemetryConfig { otlp, ca: Some(ca.clone()), ..TelemetryConfig::default() };
            let target = Target::of(&config).unwrap();
            let server = async {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(stream) = acceptor.accept(stream).await else { return std::future::pending().await };
                take(stream, TAKEN).await
            };
            tokio::select! {
                sent = target.send("logs", "{}".to_owned()) => sent,
                _ = server => Ok(()),
            }
        };
        exchange(&here.0, &here.1).await.unwrap();
        // Of an authority that nobody named; and one for another host.
        for (ca, shown) in [(&other.0, &here.1), (&other.0, &other.1)] {
            let refused = exchange(ca, shown).await;
            assert!(matches!(refused, Err(ExportError::Handshake(..))), "{refused:?}");
        }
        let unusable = exchange(&missing, &here.1).await;
        assert!(matches!(unusable, Err(ExportError::Unusable(_))), "{unusable:?}");
    });
}

/// A site starts without its collector's authority, and sends when the file is there.
#[test]
fn an_authority_that_comes_later_is_found() {
    let room = tempfile::tempdir().unwrap();
    let later = room.path().join("later.pem");
    let otlp = Collector::At { tls: true, place: "127.0.0.1:4318".to_owned() };
    let config = TelemetryConfig { otlp, ca: Some(later.clone()), ..TelemetryConfig::default() };
    let target = Target::of(&config).unwrap();
    assert!(target.check().is_err() && problem(&config).unwrap().contains("later.pem"));
    std::fs::rename(certified(room.path(), "127.0.0.1").0, later).unwrap();
    target.check().unwrap();
    assert_eq!(problem(&config), None);
}

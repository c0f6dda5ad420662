use std::sync::Arc;

use bus::{Name, UnixMillis};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
        let (head, body) = loop {
            let len = stream.read(&mut piece).await.unwrap();
            assert!(len > 0, "the request is cut off");
            bytes.extend_from_slice(&piece[..len]);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if Some(body.len()) == length {
                break (head.to_owned(), serde_json::from_str(body).unwrap());
            }
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
        got.push((head, body));
    }
    got
}

const TAKEN: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
const REFUSED: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 8\r\n\r\nbad data";

fn target(address: &str) -> Target {
    let otlp = Collector::At { tls: false, place: address.to_owned() };
    Target::of(&TelemetryConfig { otlp, ..TelemetryConfig::default() }).unwrap().unwrap()
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

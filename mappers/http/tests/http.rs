//! The mapper between a node and a device on Python's own HTTP server, and webhooks called by curl.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

mod support;

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use bus::twin::Outcome;
use kubebus_sdk::{Quality, Value};
use serde_json::json;
use support::{Broker, Node, Script, device, polled, property};
use tokio::time::sleep;

kubebus_sdk_testing::conformance!(mapper_http::HttpMapper, support::fixture::Machine);

const GOOD: Quality = Quality::Good;

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

async fn server(port: &str) -> (Script, String) {
    let (script, ready) = Script::start("device.py", &[port]).await;
    let port = ready.rsplit(' ').next().unwrap().to_owned();
    (script, format!("http://127.0.0.1:{port}"))
}

#[tokio::test]
async fn values_are_read_from_json_and_text() {
    let (device_, url) = server("0").await;
    let broker = Broker::open().await;
    let mut node = Node::start(&broker).await;
    let properties = vec![
        polled("temp", "float", json!({"path": "/status", "pointer": "/sensors/0/temp", "time": "/at"})),
        polled("relay", "bool", json!({"path": "/status", "pointer": "/relay"})),
        polled("plain", "float", json!({"path": "plain"})),
        polled("missing", "float", json!({"path": "/missing"})),
        polled("nowhere", "float", json!({"path": "/status", "pointer": "/nowhere"})),
        polled("broken", "float", json!({"path": "/broken"})),
        polled("elsewhere", "float", json!({"path": "/elsewhere"})),
    ];
    node.configure(&[device(json!({"url": format!("{url}/api")}), properties)]).await;
    let time = node.report("temp", |value, _, time| (*value == Value::Float(21.5)).then_some(time)).await;
    assert_eq!(time, Some(kubebus_sdk::UnixMillis(1_709_208_000_000)));
    node.reports("plain", Value::Float(21.5), GOOD).await;
    node.reports("relay", Value::Bool(false), GOOD).await;
    sleep(Duration::from_secs(1)).await;
    let requests = device_.said();
    let count = |path: &str| requests.iter().filter(|line| line.ends_with(path)).count();
    assert!(count("GET /api/missing ") <= 1, "left out until its address changes: {requests:?}");
    assert!(count("GET /api/elsewhere ") <= 1, "redirects are not followed: {requests:?}");
    assert!(count("GET /api/broken ") > 1, "one path's trouble is its own: {requests:?}");
    assert!(requests.iter().all(|line| line.starts_with("request GET")), "reading does not write");
    node.stop().await;
}

#[tokio::test]
async fn a_closed_connection_is_replaced_for_readings() {
    let (mut device_, url) = server("0").await;
    let broker = Broker::open().await;
    let mut node = Node::start(&broker).await;
    let plain = polled("plain", "float", json!({"path": "/api/plain"}));
    node.configure(&[device(json!({"url": url}), vec![plain])]).await;
    node.reports("plain", Value::Float(21.5), GOOD).await;
    device_.tell("close");
    for temp in ["22.5", "23.5", "24.5"] {
        device_.tell(&format!("set sensors [{{\"temp\":{temp}}}]"));
        node.reports("plain", Value::Float(temp.parse().unwrap()), GOOD).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn writes_are_sent_once_and_what_becomes_of_them_is_said() {
    let (mut device_, url) = server("0").await;
    let broker = Broker::open().await;
    let mut node = Node::start(&broker).await;
    let write = |more: serde_json::Value| {
        let mut address = json!({"path": "/api/status", "pointer": "/relay"});
        address["write"] = more;
        address
    };
    let properties = vec![
        polled(
            "relay",
            "bool",
            write(json!({"path": "/api/state", "body": "{\"relay\": ${value}}", "readback": "relay"})),
        ),
        polled(
            "mode",
            "string",
            json!({"path": "/api/status", "pointer": "/mode",
            "write": {"method": "GET", "path": "/api/mode/${text}"}}),
        ),
        polled("later", "bool", write(json!({"path": "/api/later", "method": "POST"}))),
        polled("refused", "bool", write(json!({"path": "/api/refused"}))),
        polled("elsewhere", "bool", write(json!({"path": "/api/elsewhere"}))),
        polled("fixed", "bool", json!({"path": "/api/status", "pointer": "/relay"})),
    ];
    node.configure(&[device(json!({"url": url}), properties)]).await;
    node.reports("relay", Value::Bool(false), GOOD).await;
    let write = node.write("relay", Value::Bool(true)).await;
    assert_eq!((write.outcome, write.detail.as_str()), (Outcome::Succeeded, ""));
    device_.says(r#"request PUT /api/state {"relay": true}"#).await;
    node.reports("relay", Value::Bool(true), GOOD).await;
    assert_eq!(node.write("mode", text("a/b c")).await.outcome, Outcome::Succeeded);
    device_.says("request GET /api/mode/a%2Fb%20c").await;
    let later = node.write("later", Value::Bool(true)).await;
    assert_eq!((later.outcome, later.detail.as_str()), (Outcome::Succeeded, "accepted, under way"));
    let refused = node.write("refused", Value::Bool(true)).await;
    assert!(refused.outcome == Outcome::Failed && refused.detail.contains("409"), "{refused:?}");
    assert_eq!(node.write("fixed", Value::Bool(true)).await.outcome, Outcome::Rejected);

    device_.tell("cut");
    device_.says("done cut").await;
    let cut = node.write("relay", Value::Bool(false)).await;
    assert_eq!(cut.outcome, Outcome::Unknown, "carried out, and not answered: {}", cut.detail);
    device_.tell("work");
    node.reports("relay", Value::Bool(false), GOOD).await;
    let elsewhere = node.write("elsewhere", Value::Bool(true)).await;
    assert_eq!(elsewhere.outcome, Outcome::Unknown, "a redirect is not followed: {}", elsewhere.detail);
    let puts = device_.said().iter().filter(|line| line.starts_with("request PUT /api/state")).count();
    assert_eq!(puts, 1, "the one that was cut, once");
    node.stop().await;
}

#[tokio::test]
async fn a_password_is_shown_and_a_wrong_one_is_said() {
    let (_device, url) = server("0").await;
    let broker = Broker::open().await;
    let mut node = Node::start(&broker).await;
    let plain = || vec![polled("plain", "float", json!({"path": "/api/plain", "write": {}}))];
    let with =
        |password: &str| json!({"url": format!("{url}/guarded"), "user": "user", "password": password});
    node.configure(&[device(with("wrong"), plain())]).await;
    node.write_until("plain", Value::Float(1.0), |result| result.detail.contains("not let in")).await;
    node.configure(&[device(with("right"), plain())]).await;
    node.reports("plain", Value::Float(21.5), GOOD).await;
    node.stop().await;
}

#[tokio::test]
async fn a_device_that_asks_for_a_pause_gets_it_and_a_restart_is_survived() {
    let (mut device_, url) = server("0").await;
    let broker = Broker::open().await;
    let mut node = Node::start(&broker).await;
    let plain = polled("plain", "float", json!({"path": "/api/plain"}));
    node.configure(&[device(json!({"url": url}), vec![plain])]).await;
    node.reports("plain", Value::Float(21.5), GOOD).await;
    device_.tell("fail 503 4");
    device_.says("done fail").await;
    device_.said();
    sleep(Duration::from_secs(3)).await;
    let asked = device_.said().iter().filter(|line| line.starts_with("request")).count();
    assert!(asked <= 2, "it asked for four seconds of peace and was asked {asked} times");
    node.reports("plain", Value::Float(21.5), Quality::Bad).await;
    device_.tell("work");
    device_.tell("set sensors [{\"temp\":22.5}]");
    node.reports("plain", Value::Float(22.5), GOOD).await;

    let port = url.rsplit(':').next().unwrap().to_owned();
    drop(device_);
    node.reports("plain", Value::Float(22.5), Quality::Bad).await;
    let (_device, _) = server(&port).await;
    node.reports("plain", Value::Float(21.5), GOOD).await;
    node.stop().await;
}

/// Calls the webhook with curl; its status.
fn curl(port: u16, path: &str, args: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--max-time", "20"]);
    let output = command.args(args).arg(format!("http://127.0.0.1:{port}{path}")).output();
    String::from_utf8(output.expect("these tests need curl: apt-get install curl").stdout).unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn a_webhook_takes_what_proves_to_be_the_devices() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let broker = Broker::open().await;
    let mut node = Node::start(&broker).await;
    let webhook = json!({"listen": format!("127.0.0.1:{port}"), "path": "/door", "token": "abc"});
    let properties = vec![
        property("open", "bool", json!({"pointer": "/open"})),
        property("count", "int", json!({"pointer": "/count", "time": "/at"})),
    ];
    node.configure(&[device(json!({"webhook": webhook}), properties)]).await;
    let call = |path: &'static str, args: &'static [&'static str]| {
        tokio::task::spawn_blocking(move || curl(port, path, args))
    };
    const TOKEN: &str = "Authorization: Bearer abc";
    let mut first = String::new();
    for _ in 0..100 {
        first = call("/door", &["-H", TOKEN, "-d", r#"{"open": true, "count": 1}"#]).await.unwrap();
        if first == "204" {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(first, "204");
    node.reports("open", Value::Bool(true), GOOD).await;
    let table: [(&'static str, &'static [&'static str], &str); 6] = [
        ("/door", &["-d", r#"{"open": false}"#], "401"),
        ("/door", &["-H", "Authorization: Bearer abd", "-d", r#"{"open": false}"#], "401"),
        ("/window", &["-H", TOKEN, "-d", "{}"], "404"),
        ("/door", &["-H", TOKEN], "405"),
        ("/door", &["-H", TOKEN, "-d", r#"{"open": 7}"#], "422"),
        ("/door", &["-H", TOKEN, "-d", r#"{"other": 7}"#], "204"),
    ];
    for (path, args, status) in table {
        assert_eq!(call(path, args).await.unwrap(), status, "{path} {args:?}");
    }
    let large = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(large.path(), "x".repeat(1_000_000)).unwrap();
    let upload = format!("@{}", large.path().display());
    let status = tokio::task::spawn_blocking(move || {
        curl(port, "/door", &["-H", TOKEN, "-H", "Expect:", "--data-binary", &upload])
    });
    assert_eq!(status.await.unwrap(), "413");
    let last = call("/door", &["-H", TOKEN, "-d", r#"{"count": 2, "at": "2024-02-29T12:00:00Z"}"#]);
    assert_eq!(last.await.unwrap(), "204");
    let time = node.report("count", |value, _, time| (*value == Value::Int(2)).then_some(time)).await;
    assert_eq!(time, Some(kubebus_sdk::UnixMillis(1_709_208_000_000)));
    node.stop().await;
}

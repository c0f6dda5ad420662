//! The line against a real socket.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

use kubebus_sdk::{Error, Value};
use mapper_virtual::line::Line;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::UnixListener;

/// A simulator that expects each question and gives each answer, then hangs up.
async fn simulator(
    script: Vec<(&'static str, String)>,
) -> (Line, tempfile::TempDir, tokio::task::JoinSet<()>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("device.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let mut stream = BufStream::new(listener.accept().await.unwrap().0);
        for (question, answer) in script {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            assert_eq!(line.trim_end(), question);
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        }
    });
    (Line::connect(&path).await.unwrap(), dir, tasks)
}

#[tokio::test]
async fn registers_are_read_and_written() {
    let (mut line, _dir, mut tasks) = simulator(vec![
        (r#"{"read":["level","mode"]}"#, "{\"values\":{\"level\":3.2,\"mode\":\"auto\"}}\n".into()),
        (r#"{"write":{"position":40.0}}"#, "{\"ok\":true}\n".into()),
        (r#"{"write":{"position":140.0}}"#, "{\"error\":\"140 is outside 0 to 100\"}\n".into()),
    ])
    .await;
    let values = line.read(&["level", "mode"]).await.unwrap();
    let expected = [("level", Value::Float(3.2)), ("mode", Value::Text("auto".into()))];
    assert_eq!(values, expected.map(|(k, v)| (k.to_owned(), v)).into());
    assert_eq!(line.write("position", &Value::Float(40.0)).await, Ok(()));
    assert_eq!(
        line.write("position", &Value::Float(140.0)).await,
        Err(Error::Device("140 is outside 0 to 100".into()))
    );
    tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn answers_that_are_none_end_the_session() {
    for answer in ["nonsense\n", "{\"ok\":true}\n", "no newline", "{}\n"] {
        let (mut line, _dir, _tasks) = simulator(vec![(r#"{"read":["a"]}"#, answer.into())]).await;
        let error = line.read(&["a"]).await.unwrap_err();
        assert!(matches!(error, Error::Transient { .. }), "{answer:?}: {error:?}");
    }
    let (mut line, _dir, _tasks) = simulator(vec![(r#"{"read":["a"]}"#, "x".repeat(100_000))]).await;
    assert!(matches!(line.read(&["a"]).await, Err(Error::Transient { .. })));
}

#[tokio::test]
async fn an_answer_too_many_is_not_taken_for_the_next_one() {
    let twice = "{\"values\":{\"a\":1}}\n".repeat(2);
    let (mut line, _dir, mut tasks) = simulator(vec![(r#"{"read":["a"]}"#, twice)]).await;
    assert_eq!(line.read(&["a"]).await.unwrap(), [("a".to_owned(), Value::Int(1))].into());
    tasks.join_next().await.unwrap().unwrap();
    let error = line.read(&["a"]).await.unwrap_err();
    assert!(matches!(error, Error::Transient { .. }), "{error:?}");
}

#[tokio::test]
async fn a_simulator_that_is_not_there_is_tried_again_later() {
    let dir = tempfile::tempdir().unwrap();
    let error = Line::connect(&dir.path().join("nobody")).await.unwrap_err();
    assert!(matches!(error, Error::Transient { retry_after: None, .. }), "{error:?}");
}

#[tokio::test]
async fn the_water_utility_is_such_a_simulator() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("valve.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let mut utility = water::Utility::new(water::UtilityConfig::default(), 1);
        let mut stream = BufStream::new(listener.accept().await.unwrap().0);
        let mut line = String::new();
        while stream.read_line(&mut line).await.unwrap() > 0 {
            let answer = water::handle_line(&mut utility, water::Device::Valve, line.trim_end());
            stream.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            line.clear();
            utility.step(60.0);
        }
    });
    let mut line = Line::connect(&path).await.unwrap();
    let position = |v: f64| [("position".to_owned(), Value::Float(v))].into();
    assert_eq!(line.read(&["position", "nonsense"]).await, Ok(position(75.0)));
    assert_eq!(line.write("position", &Value::Float(40.0)).await, Ok(()));
    assert_eq!(line.read(&["position"]).await, Ok(position(40.0)));
    let refused = line.write("pressure", &Value::Float(1.0)).await;
    assert_eq!(refused, Err(Error::Device("pressure cannot be written".into())));
}

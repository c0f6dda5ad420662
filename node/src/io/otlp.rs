//! Sends the metrics of `/metrics` to a collector, by OTLP over HTTP with JSON (`telemetry.otlp`).
//!
//! One request at a time, every [`TelemetryConfig::interval`](crate::config::TelemetryConfig). Nothing is queued: what a
//! collector that is away does not hear is in the totals of the next request.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::api::{Desk, Question, Reply};
use crate::config::{Collector, TelemetryConfig};
use crate::health::{Fleet, otlp};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Nodes in one request: some 2 MB of JSON, half of what collectors take by default (4 MiB).
const NODES: usize = 100;

/// What is read of a collector's answer.
const MAX_ANSWER: usize = 1 << 16;

/// Why the collector has not got the metrics.
#[derive(Debug, Error)]
enum ExportError {
    #[error("cannot connect to {0}")]
    Connect(String, #[source] std::io::Error),
    #[error("the collector ended the connection")]
    Broken(#[from] hyper::Error),
    #[error("the collector answered {0}: {1}")]
    Refused(StatusCode, String),
    #[error("no answer within {PATIENCE:?}")]
    Silent,
    #[error("the request cannot be made")]
    Request(#[from] hyper::http::Error),
}

/// Quicker than a node looks at itself would be the same again.
const SHORTEST: Duration = Duration::from_secs(10);

/// Starts the task that sends, if a collector is named.
pub(super) fn start(config: &TelemetryConfig, desk: &Desk, tasks: &mut JoinSet<()>) -> anyhow::Result<()> {
    let Collector::At(address) = &config.otlp else { return Ok(()) };
    if config.interval < SHORTEST {
        anyhow::bail!("telemetry.interval: write {SHORTEST:?} at least");
    }
    info!(collector = %address, every = ?config.interval, "metrics are sent by OTLP");
    tasks.spawn(export(address.clone(), config.interval, desk.clone()));
    Ok(())
}

async fn export(collector: String, every: Duration, desk: Desk) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut fails = false;
    loop {
        ticks.tick().await;
        let Some(Reply::Fleet(fleet)) = desk.forward(Question::Fleet).await else { continue };
        match (send_all(&collector, *fleet).await, fails) {
            (Ok(()), true) => info!(%collector, "metrics are sent again"),
            (Err(why), false) => {
                warn!(why = crate::admin::describe(&why), "cannot send metrics; goes on trying")
            }
            (Ok(()), false) | (Err(_), true) => continue,
        }
        fails = !fails;
    }
}

async fn send_all(collector: &str, fleet: Fleet) -> Result<(), ExportError> {
    let (time, mut nodes) = (fleet.time, fleet.nodes);
    while !nodes.is_empty() {
        let rest = nodes.split_off(nodes.len().min(NODES));
        let body = tokio::task::spawn_blocking(move || otlp::request(&nodes, time).to_string()).await;
        if let Ok(body) = body {
            timeout(PATIENCE, send(collector, body)).await.map_err(|_| ExportError::Silent)??;
        }
        nodes = rest;
    }
    Ok(())
}

async fn send(collector: &str, body: String) -> Result<(), ExportError> {
    let (authority, path) = collector.split_once('/').unwrap_or((collector, ""));
    let stream = TcpStream::connect(authority).await;
    let stream = stream.map_err(|error| ExportError::Connect(authority.to_owned(), error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let request = Request::post(format!("{}/v1/metrics", prefixed(path)))
        .header(HOST, authority)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let answer = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let answer = answer.map(|body| body.to_bytes()).unwrap_or_default();
    Err(ExportError::Refused(status, String::from_utf8_lossy(&answer).trim().chars().take(200).collect()))
}

/// `""` or `/and/so/on`.
fn prefixed(path: &str) -> String {
    let path = path.trim_matches('/');
    if path.is_empty() { String::new() } else { format!("/{path}") }
}

#[cfg(test)]
mod tests;

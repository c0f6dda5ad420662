//! Sends the metrics of `/metrics`, and what is logged, to a collector, by OTLP over HTTP with JSON (`telemetry.otlp`).
//!
//! Metrics go every [`TelemetryConfig::interval`], one request at a time. None are queued: what a collector that is away
//! does not hear is in the totals of the next request. Lines of the log wait in a bounded queue ([`logs`]) and go once a
//! second; what a collector cannot take stays first in line, and what it does not want is left out.

mod logs;
mod send;

use std::time::Duration;

use bus::NodeId;
use hyper::StatusCode;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

pub(super) use self::logs::ToCollector;
use self::send::{ExportError, Target};
use super::api::{Desk, Question, Reply};
use crate::admin::describe;
use crate::config::{LogLevel, TelemetryConfig};
use crate::health::{Fleet, otlp};

/// Nodes in one request: some 2 MB of JSON, half of what collectors take by default (4 MiB).
const NODES: usize = 100;

/// Quicker than a node looks at itself would be the same again.
const SHORTEST: Duration = Duration::from_secs(10);

/// Lines of the log wait so long for company.
const LOGS_EVERY: Duration = Duration::from_secs(1);

/// After a request that the collector could not take.
const LOGS_AGAIN: Duration = Duration::from_secs(5);

/// Starts the tasks that send, if a collector is named.
pub(super) fn start(
    config: &TelemetryConfig,
    me: &NodeId,
    desk: &Desk,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let Some(target) = Target::of(config)? else {
        logs::listen(LogLevel::Off);
        return Ok(());
    };
    if config.interval < SHORTEST {
        anyhow::bail!("telemetry.interval: write {SHORTEST:?} at least");
    }
    let collector = String::from(config.otlp.clone());
    info!(%collector, every = ?config.interval, logs = config.logs.as_str(), "metrics are sent by OTLP");
    tasks.spawn(export(target.clone(), collector.clone(), config.interval, desk.clone()));
    logs::listen(config.logs);
    if config.logs != LogLevel::Off {
        tasks.spawn(export_logs(target, collector, me.to_string()));
    }
    Ok(())
}

async fn export(target: Target, collector: String, every: Duration, desk: Desk) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut fails = false;
    loop {
        ticks.tick().await;
        let Some(Reply::Fleet(fleet)) = desk.forward(Question::Fleet).await else { continue };
        match (send_all(&target, *fleet).await, fails) {
            (Ok(()), true) => info!(%collector, "metrics are sent again"),
            (Err(why), false) => warn!(why = describe(&why), "cannot send metrics; goes on trying"),
            (Ok(()), false) | (Err(_), true) => continue,
        }
        fails = !fails;
    }
}

async fn send_all(target: &Target, fleet: Fleet) -> Result<(), ExportError> {
    let (time, mut nodes) = (fleet.time, fleet.nodes);
    while !nodes.is_empty() {
        let rest = nodes.split_off(nodes.len().min(NODES));
        let body = tokio::task::spawn_blocking(move || otlp::request(&nodes, time).to_string()).await;
        if let Ok(body) = body {
            target.send("metrics", body).await?;
        }
        nodes = rest;
    }
    Ok(())
}

async fn export_logs(target: Target, collector: String, me: String) {
    let mut fails = false;
    loop {
        sleep(LOGS_EVERY).await;
        while let Some(batch) = logs::take() {
            let body = logs::request(&me, &batch).to_string();
            let mut is_over = false;
            while !is_over {
                let sent = target.send("logs", body.clone()).await;
                match (&sent, fails) {
                    (Ok(()), true) => info!(%collector, "the log is sent again"),
                    (Err(why), false) => warn!(why = describe(why), "cannot send the log; goes on trying"),
                    (Ok(()), false) | (Err(_), true) => {}
                }
                fails = sent.is_err();
                is_over = sent.as_ref().err().is_none_or(is_final);
                if fails {
                    sleep(LOGS_AGAIN).await;
                }
            }
        }
    }
}

/// The same request would be refused again (OTLP 1.x, failures).
fn is_final(why: &ExportError) -> bool {
    let is_again = |status: &StatusCode| status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS;
    matches!(why, ExportError::Refused(status, _) if !is_again(status))
}

#[cfg(test)]
mod tests;

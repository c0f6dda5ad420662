//! Sends the metrics of `/metrics`, and what is logged, to a collector, by OTLP over HTTP with JSON (`telemetry.otlp`).
//!
//! Metrics go every [`TelemetryConfig::interval`], one request at a time. None are queued: what a collector that is away
//! does not hear is in the totals of the next request. Lines of the log wait in a bounded queue ([`logs`]) and go once a
//! second, from before the node stands until it stops ([`sender`]).

mod logs;
mod send;
mod sender;

use std::time::Duration;

use bus::NodeId;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use self::logs::Lines;
pub(super) use self::logs::ToCollector;
use self::send::{ExportError, Target};
use self::sender::Sender;
use super::api::{Desk, Question, Reply};
use crate::admin::describe;
use crate::config::{LogLevel, TelemetryConfig};
use crate::health::{Fleet, otlp};

/// Nodes in one request: some 2 MB of JSON, half of what collectors take by default (4 MiB).
const NODES: usize = 100;

/// Quicker than a node looks at itself would be the same again.
const SHORTEST: Duration = Duration::from_secs(10);

/// How long a node that stops waits for its last lines to be taken.
const LAST: Duration = Duration::from_secs(1);

/// What is sent, until the node stops.
pub(super) struct Telemetry {
    target: Option<Target>,
    collector: String,
    every: Duration,
    /// The log's sender; it ends with this.
    log: JoinSet<()>,
    stop: Option<oneshot::Sender<()>>,
}

impl Telemetry {
    /// Starts with the log, so that the lines of a start and of a replica that waits are sent too.
    pub(super) fn start(config: &TelemetryConfig, me: &NodeId) -> anyhow::Result<Self> {
        let target = Target::of(config);
        if target.is_some() && config.interval < SHORTEST {
            anyhow::bail!("telemetry.interval: write {SHORTEST:?} at least");
        }
        let logs = if target.is_some() { config.logs } else { LogLevel::Off };
        logs::PROCESS.listen(logs);
        let mut telemetry = Self {
            target,
            collector: config.otlp.clone().into(),
            every: config.interval,
            log: JoinSet::new(),
            stop: None,
        };
        if logs != LogLevel::Off {
            telemetry.send_log(me.to_string(), &logs::PROCESS);
        }
        Ok(telemetry)
    }

    fn send_log(&mut self, me: String, lines: &'static Lines) {
        let Some(target) = self.target.clone() else { return };
        let (stop, stopped) = oneshot::channel();
        self.log.spawn(Sender::new(target, me, lines).run(stopped));
        self.stop = Some(stop);
    }

    pub(super) fn send_metrics(&self, desk: &Desk, tasks: &mut JoinSet<()>) {
        let Some(target) = self.target.clone() else { return };
        let (collector, every) = (self.collector.clone(), self.every);
        info!(%collector, ?every, "metrics are sent by OTLP");
        tasks.spawn(export(target, collector, every, desk.clone()));
    }

    /// The log's last lines are sent, if that takes no longer than [`LAST`].
    pub(super) async fn finish(mut self) {
        // It has ended if nobody hears.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = timeout(LAST, self.log.join_next()).await;
    }
}

/// Why the collector that is named cannot be used, as far as this machine tells.
pub(super) fn problem(config: &TelemetryConfig) -> Option<String> {
    Target::of(config)?.check().err().map(|why| describe(&why))
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

#[cfg(test)]
mod tests;

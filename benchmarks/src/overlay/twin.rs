//! What a change of a twin takes from one broker to the other.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::peers::{self, Place};
use super::space::Space;
use crate::mqtt::Mqtt;

const EVERY: Duration = Duration::from_millis(100);

/// For the first to come through, once everybody is connected; and for the last, when no more are sent.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the brokers of both sites are, each in its own network.
const BROKER: &str = "127.0.0.1:1883";

const MODEL: &str = "apiVersion: devices.kubeedge.io/v1beta1\nkind: DeviceModel\n\
     metadata: {name: station, namespace: plant}\nspec:\n  properties:\n  \
     - {name: up, type: DOUBLE, accessMode: ReadOnly}\n  - {name: down, type: DOUBLE, accessMode: ReadWrite}\n\
     ---\napiVersion: devices.kubeedge.io/v1beta1\nkind: Device\n\
     metadata: {name: station, namespace: plant}\n\
     spec: {deviceModelRef: {name: station}, nodeName: edge1, protocol: {protocolName: app}}\n";

/// Changes every [`EVERY`], and what came of them.
pub(super) struct Twin {
    says: Mqtt,
    hears: Mqtt,
    topic: &'static str,
    sent: Vec<Instant>,
    /// How many of them were heard.
    heard: usize,
    delays: Vec<f64>,
}

/// Makes the device known; once a run.
pub(super) fn declare(place: Place<'_>) -> Result<()> {
    peers::apply(place, MODEL)
}

impl Twin {
    /// Values that the edge reports, as the cloud hears them.
    pub(super) fn reported(place: Place<'_>) -> Result<Self> {
        let (edge, cloud) = (&place.sites.edges[0], place.sites.cloud);
        Self::between(edge, cloud, "twin/plant/station/report/up", "twin/plant/station/reported/up")
    }

    /// Wishes of the cloud, as the edge hears them.
    pub(super) fn desired(place: Place<'_>) -> Result<Self> {
        let (edge, cloud) = (&place.sites.edges[0], place.sites.cloud);
        Self::between(cloud, edge, "twin/plant/station/set/down", "twin/plant/station/desired/down")
    }

    fn between(says: &Space, hears: &Space, topic: &'static str, heard: &str) -> Result<Self> {
        let connect = |space: &Space, id: &str| -> Result<Mqtt> {
            let broker = BROKER.parse().context("an address")?;
            // Its thread, and so its socket, stays in the network in which it was made.
            Ok(space.namespace().run(|| Mqtt::connect(broker, id))?)
        };
        let (says, mut hears) = (connect(says, "bench-says")?, connect(hears, "bench-hears")?);
        hears.subscribe(heard)?;
        let mut twin = Self { says, hears, topic, sent: Vec::new(), heard: 0, delays: Vec::new() };
        twin.wait_for_the_first()?;
        Ok(twin)
    }

    fn wait_for_the_first(&mut self) -> Result<()> {
        let start = Instant::now();
        while self.heard == 0 {
            anyhow::ensure!(start.elapsed() < PATIENCE, "no change came through within {PATIENCE:?}");
            self.glance()?;
            std::thread::sleep(Duration::from_millis(5));
        }
        self.hear_the_rest()?;
        self.delays.clear();
        Ok(())
    }

    /// Says one if it is time, and takes what came. Call it every few milliseconds.
    pub(super) fn glance(&mut self) -> Result<()> {
        if self.sent.last().is_none_or(|last| last.elapsed() >= EVERY) {
            let value = self.sent.len();
            self.sent.push(Instant::now());
            self.says.publish(self.topic, value.to_string())?;
        }
        while let Some(heard) = self.hears.hear(Duration::ZERO) {
            self.take(&heard.payload, heard.at)?;
        }
        Ok(())
    }

    /// A node that has no room for every value sends the last one: whoever hears it is up to date with those before.
    fn take(&mut self, payload: &[u8], at: Instant) -> Result<()> {
        let document: Value = serde_json::from_slice(payload).context("a twin's value")?;
        let Some(value) = document["value"].as_f64() else { return Ok(()) };
        while self.heard <= value as usize && self.heard < self.sent.len() {
            self.delays.push((at - self.sent[self.heard]).as_secs_f64() * 1000.0);
            self.heard += 1;
        }
        Ok(())
    }

    fn hear_the_rest(&mut self) -> Result<()> {
        let start = Instant::now();
        while self.heard < self.sent.len() {
            anyhow::ensure!(start.elapsed() < PATIENCE, "a change did not come through within {PATIENCE:?}");
            if let Some(heard) = self.hears.hear(Duration::from_millis(10)) {
                self.take(&heard.payload, heard.at)?;
            }
        }
        Ok(())
    }

    /// In ms, in order of size, since it was asked last.
    pub(super) fn delays(&mut self) -> Result<Vec<f64>> {
        self.hear_the_rest()?;
        let mut delays = std::mem::take(&mut self.delays);
        delays.sort_by(f64::total_cmp);
        Ok(delays)
    }
}

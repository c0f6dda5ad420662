//! The fourth act: the cloud is away, and everything goes on.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{SOON, Story, indent, since};
use crate::io::demo::app::Meter;

/// How long the cloud is cut off.
const CUT: Duration = Duration::from_secs(30);

/// Both sides must agree again this soon after a cut.
const AGREE_WITHIN: Duration = Duration::from_secs(5);

impl Story {
    /// The cloud is away; everything goes on; it returns.
    pub(super) fn survive_a_cut(&mut self) -> Result<()> {
        self.cut(true);
        match &self.stage {
            Some(_) => {
                self.narrator.say("the cloud is cut off from the internet; its operator goes on typing")
            }
            None => self.narrator.say("the cloud is frozen"),
        }
        let mixed = self.plant.mixer_commands();
        let commands = self.plant.snapshot().commands;
        let acknowledged = self.meter.as_ref().map_or(0, Meter::acknowledged);
        if self.stage.is_some() {
            self.cloud.tell(&self.narrator, &["twin", "set", "water/tank", "mixer", "100"])?;
            self.cloud.tell(&self.narrator, &["twin", "set", "water/valve", "setpoint", "3.0"])?;
        }
        self.watch_until(Instant::now() + CUT)?;
        let moved = self.plant.snapshot().commands - commands;
        let reports = self.meter.as_ref().map_or(0, Meter::acknowledged) - acknowledged;
        let local = self.edges[1].twin("water/valve", "pressure")?;
        let fresh = local["age_ms"].as_u64().is_some_and(|age| age < 10_000);
        let seen =
            format!("{moved} valve commands by the local rule, {reports} reports acknowledged at site A");
        self.check(fresh && reports > 0 && moved > 0, "sites carry on without the cloud", seen);
        self.cut(false);
        if self.stage.is_none() {
            self.cloud.tell(&self.narrator, &["twin", "set", "water/valve", "setpoint", "3.0"])?;
        }
        let restored = Instant::now();
        self.narrator.say("the cloud is back");
        let took = self.wait_for(SOON, |story| story.agree())?;
        let within = took.is_some_and(|took| took <= AGREE_WITHIN);
        self.check(within, "twins agree within 5 s of the end of a 30 s cut", since(took));
        if self.stage.is_some() {
            let expired = |story: &mut Self| {
                let mixer = story.cloud.twin("water/tank", "mixer")?;
                Ok(mixer["ack"]["outcome"] == "expired" && mixer["ack"]["version"] == mixer["version"])
            };
            let took = self.wait_for(SOON, expired)?;
            self.check(took.is_some(), "the wish that arrived too late is answered 'expired'", since(took));
            let after = self.plant.mixer_commands();
            let seen = format!("mixer commands {mixed:?} before, {after:?} after");
            self.check(mixed == after, "nothing stale moved an actuator", seen);
        }
        if took.is_some() {
            self.narrator
                .say(format_args!("both sides agree, {:.1} s after", restored.elapsed().as_secs_f64()));
        }
        let shown = self.cloud.tell(&self.narrator, &["twin", "get"])?;
        self.narrator.print(indent(&shown));
        Ok(())
    }

    /// Off the internet where there is one; else the process itself is frozen.
    fn cut(&self, is_cut: bool) {
        match (&self.stage, is_cut) {
            (Some(stage), true) => stage.wire.cut(stage.cloud_port),
            (Some(stage), false) => stage.wire.restore(stage.cloud_port),
            (None, is_cut) => self.cloud.freeze(is_cut),
        }
    }
}

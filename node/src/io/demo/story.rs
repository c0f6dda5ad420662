//! What happens in the demo, in order; each act is in a file of its own.

mod joining;
mod parting;
mod reaching;
mod working;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::app::{Meter, Watcher};
use super::cast::Actor;
use super::cluster::Member;
use super::page::Doorstep;
use super::plant::{Plant, TIME_FACTOR};
use super::report::{Narrator, Report};
use super::stage::Stage;
use super::{kills, pause, stopped};
use crate::io::cli::DemoArgs;

/// For things that take a round trip or two; a check that runs into it does not hold.
const SOON: Duration = Duration::from_secs(20);

/// The demo under way.
#[derive(Debug)]
pub(super) struct Story {
    narrator: Narrator,
    report: Report,
    began: Instant,
    pub(super) stage: Option<Stage>,
    pub(super) cloud: Member,
    pub(super) edges: [Member; 2],
    mappers: Vec<Actor>,
    pub(super) plant: Plant,
    /// The plant as it was at the start.
    before: water::Snapshot,
    manifests: PathBuf,
    /// Meter at site A, watcher at site B.
    pub(super) meter: Option<Meter>,
    pub(super) watcher: Option<Watcher>,
}

impl Story {
    /// Prepares; nothing runs yet.
    pub(super) fn open(
        stage: Option<Stage>,
        room: &Path,
        narrator: Narrator,
        doorstep: Doorstep,
    ) -> Result<Self> {
        let plant = Plant::start(room, 7).context("start the plant")?;
        let mqtt = |offset: u16| match &stage {
            Some(_) => SocketAddr::from(([127, 0, 0, 1], 1883)),
            None => SocketAddr::from(([127, 0, 0, 1], 21883 + offset)),
        };
        let inside = |index: usize| stage.as_ref().map(|s| s.sites[index].edge.clone());
        let mut cloud =
            Member::new("cloud", "cloud", room, stage.as_ref().map(|s| s.cloud.clone()), mqtt(0))?;
        cloud.doorstep = Some(doorstep);
        let edges = [
            Member::new("edge", "a", room, inside(0), mqtt(1))?,
            Member::new("edge", "b", room, inside(1), mqtt(2))?,
        ];
        let manifests = room.join("manifests");
        std::fs::create_dir_all(&manifests).context("a directory for the manifests")?;
        Ok(Self {
            narrator,
            report: Report::default(),
            began: Instant::now(),
            stage,
            cloud,
            edges,
            mappers: Vec::new(),
            before: plant.snapshot(),
            plant,
            manifests,
            meter: None,
            watcher: None,
        })
    }

    pub(super) fn narrator(&self) -> &Narrator {
        &self.narrator
    }

    /// Everything, or as far as Ctrl-C lets it come.
    pub(super) fn tell(&mut self, args: &DemoArgs) -> Result<Report> {
        let acts: [fn(&mut Self) -> Result<()>; 6] = [
            Self::form_cluster,
            Self::reach_everybody,
            Self::give_devices,
            Self::follow_the_set_point,
            Self::survive_a_cut,
            Self::weigh,
        ];
        let calm: [fn(&mut Self) -> Result<()>; 3] =
            [Self::form_cluster, Self::give_devices, Self::follow_the_set_point];
        let acts: &[fn(&mut Self) -> Result<()>] = if args.calm { &calm } else { &acts };
        for act in acts {
            if stopped() {
                return Ok(std::mem::take(&mut self.report));
            }
            act(self)?;
        }
        if args.kills > 0 {
            kills::run(self, args.kills)?;
        }
        if let Some(duration) = args.duration {
            self.watch_until(self.began + duration)?;
        }
        self.check_nothing_lost()?;
        Ok(std::mem::take(&mut self.report))
    }

    pub(super) fn check(&mut self, held: bool, claim: &str, seen: impl std::fmt::Display) {
        let seen = seen.to_string();
        if !held && stopped() {
            return; // Nobody waited for it.
        }
        if !held {
            self.narrator.say(format_args!("DID NOT HOLD: {claim}: {seen}"));
        }
        self.report.check(held, claim, seen);
    }

    /// Figures that a user asks for first.
    fn weigh(&mut self) -> Result<()> {
        for member in self.edges.iter().chain([&self.cloud]) {
            if let Some(mib) = member.resident_mib() {
                self.narrator.say(format_args!("{} uses {mib:.1} MiB of memory", member.name));
            }
        }
        Ok(())
    }

    /// Every report that got its PUBACK is at the cloud, or a later one is.
    pub(super) fn check_nothing_lost(&mut self) -> Result<()> {
        let Some(meter) = self.meter.take() else { return Ok(()) };
        let last = meter.finish();
        let arrived = |story: &mut Self| {
            let seen = story.cloud.twin("water/meter", "count")?["reported"]["value"].as_i64();
            Ok(seen.is_some_and(|seen| seen >= last))
        };
        let took = self.wait_for(SOON, arrived)?;
        let seen = format!("report {last} of the meter at site A is at the cloud {}", since(took));
        self.check(took.is_some(), "no acknowledged report was lost", seen);
        let agree = self.wait_for(SOON, |story| story.agree())?;
        self.check(agree.is_some(), "desired and reported are the same at cloud and edges", since(agree));
        Ok(())
    }

    /// Whether cloud and edges hold the same desired and reported values, and set points are acknowledged.
    pub(super) fn agree(&self) -> Result<bool> {
        let at_cloud = self.cloud.twins()?;
        if !self.converged("water/valve", "setpoint")? {
            return Ok(false);
        }
        for edge in &self.edges {
            for twin in edge.twins()? {
                let same = |at: &&Value| at["device"] == twin["device"] && at["property"] == twin["property"];
                let Some(other) = at_cloud.iter().find(same) else { return Ok(false) };
                if other["version"] != twin["version"] || other["ack"] != twin["ack"] {
                    return Ok(false);
                }
                if !is_close(&other["reported"], &twin["reported"]) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn converged(&self, device: &str, property: &str) -> Result<bool> {
        let twin = self.cloud.twin(device, property)?;
        Ok(twin["converged"] == true && !twin["desired"].is_null())
    }

    fn seen_at_b(&self, topic: &str) -> Option<Value> {
        self.watcher.as_ref()?.last(topic).map(|seen| seen.last)
    }

    /// Shows the plant every few seconds.
    fn watch_until(&mut self, end: Instant) -> Result<()> {
        while Instant::now() < end && !stopped() {
            let left = end.saturating_duration_since(Instant::now());
            pause(left.min(Duration::from_secs(5)));
            self.check_alive()?;
            let now = self.plant.snapshot();
            self.narrator.say(format_args!(
                "{:4.1} h  level {:.2} m (set {:.2})  valve {:3.0} %  in {:3.0}, out {:3.0} m3/h  {:.1} bar",
                now.time_s / 3600.0,
                now.level_m,
                now.setpoint_m,
                now.position_percent,
                now.inflow,
                now.outflow,
                now.pressure_bar
            ));
        }
        Ok(())
    }

    /// Until Ctrl-C.
    pub(super) fn stay(&mut self) -> Result<()> {
        self.narrator.say(format_args!(
            "it stays up until Ctrl-C; an hour of the utility takes {:.0} s",
            3600.0 / TIME_FACTOR
        ));
        self.show_page()?;
        self.watch_until(Instant::now() + Duration::from_secs(u64::from(u32::MAX)))
    }

    fn check_alive(&mut self) -> Result<()> {
        let nodes = self.edges.iter_mut().chain([&mut self.cloud]);
        if self.stage.is_some() {
            nodes.into_iter().try_for_each(Member::check_alive)?;
        }
        self.mappers.iter_mut().try_for_each(Actor::check_alive)
    }

    /// How long it took until `is_so`; `None` if it was not within `limit`. A node that does not answer just now is
    /// no error.
    pub(super) fn wait_for(
        &mut self,
        limit: Duration,
        is_so: impl Fn(&mut Self) -> Result<bool>,
    ) -> Result<Option<Duration>> {
        let start = Instant::now();
        loop {
            if matches!(is_so(self), Ok(true)) {
                return Ok(Some(start.elapsed()));
            }
            if start.elapsed() > limit || stopped() {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub(super) fn close(&mut self) {
        self.narrator.say("ending: mappers, edges, cloud");
        self.mappers.clear();
        self.edges.iter_mut().for_each(Member::stop);
        self.cloud.stop();
    }
}

/// Two samples of a value that moves all the time, taken one after the other, are as good as the same.
fn is_close(one: &Value, other: &Value) -> bool {
    if one == other {
        return true;
    }
    let time = |sample: &Value| sample["time"].as_i64().unwrap_or_default();
    !one.is_null() && !other.is_null() && (time(one) - time(other)).abs() < 3_000
}

fn since(took: Option<Duration>) -> String {
    took.map_or("not in time".to_owned(), |took| format!("after {:.1} s", took.as_secs_f64()))
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("         {line}")).collect::<Vec<_>>().join("\n")
}

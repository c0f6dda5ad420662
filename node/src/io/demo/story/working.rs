//! The third act: the utility's devices, and a set point from the cloud.

use anyhow::{Context, Result};

use super::{SOON, Story, indent, since};
use crate::io::demo::app::{Meter, Watcher};
use crate::io::demo::stage::Stage;

const TANK_LEVEL: &str = "twin/water/tank/reported/level";
const METER_REPORT: &str = "twin/water/meter/report/count";

impl Story {
    pub(super) fn give_devices(&mut self) -> Result<()> {
        for (name, text) in [
            (
                "models.yaml",
                include_str!("../../../../../simulations/water/manifests/models.yaml").to_owned(),
            ),
            (
                "policies.yaml",
                include_str!("../../../../../simulations/water/manifests/policies.yaml").to_owned(),
            ),
            ("rule.yaml", include_str!("../../../../../simulations/water/manifests/rule.yaml").to_owned()),
            ("devices.yaml", self.device_manifests()),
        ] {
            let path = self.manifests.join(name);
            std::fs::write(&path, text).with_context(|| path.display().to_string())?;
            self.narrator.typed(format_args!("apply -f {name}"));
            let said = self.cloud.ask(&["apply", "-f", &path.display().to_string()])?;
            self.narrator.print(indent(&said));
        }
        for edge in &self.edges {
            self.narrator.typed(format_args!("mapper run virtual        (at edge {})", edge.name));
            self.mappers.push(edge.start_mapper()?);
        }
        let inside =
            |index: usize, stage: &Option<Stage>| stage.as_ref().map(|s| s.sites[index].edge.clone());
        let [a, b] = &self.edges;
        self.meter = Some(Meter::start(inside(0, &self.stage).as_ref(), a.mqtt, METER_REPORT)?);
        self.watcher = Some(Watcher::start(inside(1, &self.stage).as_ref(), b.mqtt, "twin/#")?);
        let took = self.wait_for(SOON, |story| Ok(story.seen_at_b(TANK_LEVEL).is_some()))?;
        self.check(took.is_some(), "an app at site B sees the tank's level of site A over MQTT", since(took));
        let took = self.wait_for(SOON, |story| {
            Ok(!story.cloud.twin("water/valve", "position")?["reported"].is_null())
        })?;
        self.check(took.is_some(), "the cloud sees the valve of site B", since(took));
        Ok(())
    }

    fn device_manifests(&self) -> String {
        include_str!("../../../../../simulations/water/manifests/devices.yaml")
            .replace("/run/water/tank.sock", &self.plant.socket("tank").display().to_string())
            .replace("/run/water/valve.sock", &self.plant.socket("valve").display().to_string())
    }

    pub(super) fn follow_the_set_point(&mut self) -> Result<()> {
        self.cloud.tell(&self.narrator, &["twin", "set", "water/valve", "setpoint", "2.5"])?;
        let took = self.wait_for(SOON, |story| story.converged("water/valve", "setpoint"))?;
        self.check(
            took.is_some(),
            "the set point reaches the valve's controller and is acknowledged",
            since(took),
        );
        self.cloud.tell(&self.narrator, &["twin", "set", "water/tank", "mixer", "60"])?;
        let took = self.wait_for(SOON, |story| story.converged("water/tank", "mixer"))?;
        self.check(took.is_some(), "a fresh wish from the cloud moves an actuator at a site", since(took));
        let before = self.before;
        let moved = |story: &mut Self| {
            let now = story.plant.snapshot();
            let level = (now.level_m - before.level_m).abs() > 0.05;
            Ok(level && (now.position_percent - before.position_percent).abs() > 2.0)
        };
        let took = self.wait_for(SOON, moved)?;
        let now = self.plant.snapshot();
        let seen = format!(
            "level {:.2} to {:.2} m, valve {:.0} to {:.0} %, {} valve commands",
            before.level_m, now.level_m, before.position_percent, now.position_percent, now.commands
        );
        self.check(took.is_some() && now.commands > 0, "level and valve move by the rule at site B", seen);
        let shown = self.cloud.tell(&self.narrator, &["twin", "get"])?;
        self.narrator.print(indent(&shown));
        Ok(())
    }
}

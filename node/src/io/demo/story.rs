//! What happens in the demo, in order.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use serde_json::Value;

use super::app::{Meter, Watcher};
use super::cast::Actor;
use super::cluster::Member;
use super::matrix::{Echoes, Endpoint, Matrix, knock};
use super::plant::{Plant, TIME_FACTOR};
use super::report::{Narrator, Report};
use super::stage::{CLOUD, Stage, VM_SUBNETS, attach_container};
use super::{kills, pause, stopped};
use crate::io::cli::DemoArgs;

/// How long the cloud is cut off.
const CUT: Duration = Duration::from_secs(30);

/// Both sides must agree again this soon after a cut.
const AGREE_WITHIN: Duration = Duration::from_secs(5);

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
    pub(super) fn open(stage: Option<Stage>, room: &Path, narrator: Narrator) -> Result<Self> {
        let plant = Plant::start(room, 7).context("start the plant")?;
        let mqtt = |offset: u16| match &stage {
            Some(_) => SocketAddr::from(([127, 0, 0, 1], 1883)),
            None => SocketAddr::from(([127, 0, 0, 1], 21883 + offset)),
        };
        let inside = |index: usize| stage.as_ref().map(|s| s.sites[index].edge.clone());
        let cloud = Member::new("cloud", "cloud", room, stage.as_ref().map(|s| s.cloud.clone()), mqtt(0))?;
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

    fn form_cluster(&mut self) -> Result<()> {
        if let Some(stage) = &self.stage {
            self.narrator.say(format_args!(
                "a small internet: cloud {CLOUD}; site a behind NAT {}, site b behind NAT {}; 3 Mbit/s, 60 ms",
                stage.sites[0].public, stage.sites[1].public
            ));
        }
        self.cloud.configure(&self.cloud_config())?;
        self.narrator.typed("cloud");
        self.cloud.start()?;
        let address = self.stage.as_ref().map_or("127.0.0.1:21001".to_owned(), |_| CLOUD.to_string());
        for index in 0..self.edges.len() {
            self.join(index, &address)?;
        }
        let names = ["a", "b"];
        let both = |story: &mut Self| {
            let listed = story.cloud.ask(&["get", "nodes", "-o", "json"])?;
            let listed: Vec<Value> = serde_json::from_str(&listed)?;
            Ok(names
                .iter()
                .all(|n| listed.iter().any(|node| node["name"] == *n && node["connected"] == true)))
        };
        let took = self.wait_for(SOON, both)?;
        self.check(took.is_some(), "both sites joined by token and connected", since(took));
        let listed = self.cloud.tell(&self.narrator, &["get", "nodes"])?;
        self.narrator.print(indent(&listed));
        Ok(())
    }

    fn cloud_config(&self) -> String {
        let mqtt = self.cloud.mqtt;
        match &self.stage {
            Some(_) => format!(
                "cloud: {{cluster: water, vm-subnets: [{}]}}\nmqtt: {{listen: '{mqtt}'}}\n",
                VM_SUBNETS.map(|subnet| format!("'{subnet}'")).join(", ")
            ),
            None => format!(
                "cloud: {{cluster: water, listen: '127.0.0.1:21001'}}\nmqtt: {{listen: '{mqtt}'}}\n\
                 overlay: {{enabled: false}}\n"
            ),
        }
    }

    fn join(&mut self, index: usize, address: &str) -> Result<()> {
        let site = format!("site-{}", self.edges[index].name);
        let mut create = vec!["token".to_owned(), "create".to_owned(), "--site".to_owned(), site];
        if let Some(stage) = &self.stage {
            create.extend(stage.sites[index].lans().into_iter().flat_map(|lan| ["--lan".to_owned(), lan]));
        }
        let create: Vec<&str> = create.iter().map(String::as_str).collect();
        let token = self.cloud.tell(&self.narrator, &create)?;
        let edge = &mut self.edges[index];
        let packets = if self.stage.is_some() { "" } else { "overlay: {enabled: false}\n" };
        edge.configure(&format!("mqtt: {{listen: '{}'}}\n{packets}", edge.mqtt))?;
        let name = edge.name.clone();
        self.narrator.typed(format_args!("join {address} --token {}… --name {name}", &token[..12]));
        edge.ask(&["join", address, "--token", &token, "--name", &name])?;
        self.narrator.typed("edge");
        edge.start()?;
        let again = edge.ask(&["join", address, "--token", &token, "--name", "impostor"]);
        if again.is_ok() {
            bail!("a used token let a second node in");
        }
        Ok(())
    }

    fn reach_everybody(&mut self) -> Result<()> {
        let Some(stage) = self.stage.take() else { return Ok(()) };
        let endpoints = self.endpoints(&stage);
        let done = endpoints.and_then(|endpoints| self.probe(&stage, &endpoints));
        self.stage = Some(stage);
        done
    }

    fn endpoints(&self, stage: &Stage) -> Result<Vec<Endpoint>> {
        let endpoint = |label: String, namespace: &lab::io::Namespace, addresses: [IpAddr; 2]| Endpoint {
            label,
            namespace: namespace.clone(),
            addresses,
        };
        let vm = ["10.50.1.10".parse()?, "fd50:1::10".parse()?];
        let cloud = &self.cloud;
        let mut all = vec![
            endpoint("cloud-node".to_owned(), &stage.cloud, addresses(cloud)?),
            endpoint("cloud-vm".to_owned(), &stage.vm, vm),
        ];
        let container = attach_container(&stage.cloud, &stage.cloud_container, &containers(cloud)?)?;
        all.push(endpoint("cloud-cont".to_owned(), &stage.cloud_container, container));
        for (site, edge) in stage.sites.iter().zip(&self.edges) {
            let container = attach_container(&site.edge, &site.container, &containers(edge)?)?;
            all.push(endpoint(format!("edge-{}", site.letter), &site.edge, addresses(edge)?));
            all.push(endpoint(format!("cont-{}", site.letter), &site.container, container));
            all.push(endpoint(format!("lan-{}", site.letter), &site.host, site.host_addresses()?));
        }
        Ok(all)
    }

    fn probe(&mut self, stage: &Stage, endpoints: &[Endpoint]) -> Result<()> {
        self.narrator.say("who reaches whom over the overlay: ping, UDP and TCP, IPv4 and IPv6");
        let echoes = Echoes::start(endpoints)?;
        let matrix = Matrix::probe(endpoints)?;
        drop(echoes);
        self.narrator.print(matrix.render());
        let failures = matrix.failures();
        let seen = match failures.first() {
            None => format!("{} pairs, each by ping, UDP and TCP over IPv4 and IPv6", matrix.pairs()),
            Some(first) => format!("{} probes failed, the first: {first}", failures.len()),
        };
        self.check(failures.is_empty(), "all subnet kinds reach each other over the overlay", seen);
        for (site, other) in [(0, 1), (1, 0)] {
            let target = &stage.sites[site];
            for outside in [&stage.cloud, &stage.sites[other].edge] {
                let through = knock(outside, &target.edge, target.private, target.public)?;
                let claim = format!("nothing gets in through the NAT of site {}", target.letter);
                let seen =
                    format!("UDP, TCP and ping from {} to {}: {through:?}", outside.name(), target.public);
                self.check(through.is_empty(), &claim, seen);
            }
        }
        self.narrator.say("and nobody gets in through a NAT unasked");
        Ok(())
    }

    fn give_devices(&mut self) -> Result<()> {
        for (name, text) in [
            ("models.yaml", include_str!("../../../../simulations/water/manifests/models.yaml").to_owned()),
            (
                "policies.yaml",
                include_str!("../../../../simulations/water/manifests/policies.yaml").to_owned(),
            ),
            ("rule.yaml", include_str!("../../../../simulations/water/manifests/rule.yaml").to_owned()),
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
        include_str!("../../../../simulations/water/manifests/devices.yaml")
            .replace("/run/water/tank.sock", &self.plant.socket("tank").display().to_string())
            .replace("/run/water/valve.sock", &self.plant.socket("valve").display().to_string())
    }

    fn follow_the_set_point(&mut self) -> Result<()> {
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

    /// The cloud is away; everything goes on; it returns.
    fn survive_a_cut(&mut self) -> Result<()> {
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

const TANK_LEVEL: &str = "twin/water/tank/reported/level";
const METER_REPORT: &str = "twin/water/meter/report/count";

fn addresses(member: &Member) -> Result<[IpAddr; 2]> {
    match member.overlay("addresses")?.as_slice() {
        [v4, v6] => Ok([v4.parse()?, v6.parse()?]),
        other => bail!("{} has addresses {other:?}", member.name),
    }
}

fn containers(member: &Member) -> Result<[IpNet; 2]> {
    match member.overlay("containers")?.as_slice() {
        [v4, v6] => Ok([v4.parse()?, v6.parse()?]),
        other => bail!("{} has container subnets {other:?}", member.name),
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

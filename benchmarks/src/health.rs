//! What a cloud with 10,000 edges pays for knowing how they are, and whoever asks it.
//!
//! The cloud is the pure one, with its members in its keyspace; each edge is its own [`Teller`], so that reports and
//! their answers are encoded and decoded as between real nodes. The time of [`Cloud::handle`] is what the owner loop
//! stands still for.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bus::bus::LinkId;
use bus::token::{CaHash, TokenId};
use bus::{Channel, Frame, KeyHash, Mono, Name, NodeId, Now, UnixMillis};
use controller::join::{CsrError, Signed};
use controller::nodes::{self, NodeRecord};
use controller::{CloudSubnets, Cluster, Plan};
use metadata::Keyspace;
use node::cloud::CloudSettings;
use node::health::links::{LinkHead, LinkState, Path};
use node::health::part::Order;
use node::health::series::{LinkSeries, Series};
use node::health::{Condition, Fleet, Measured, MeasuredLink, Part, Teller, prometheus};
use node::seam::{DialLane, Input, Output};
use node::Cloud;

use crate::table::{Table, count, median, percentile};

const EDGES: usize = 10_000;
const SITES: usize = 100;
const ROUNDS: usize = 5;

/// Of 10,000 edges, those that are away, and those that have something to say of their disk.
const AWAY: usize = 20;
const ILL: usize = 30;

/// Nodes on one screen.
const SCREEN: usize = 50;

/// The cloud and what its edges told it.
struct Site {
    cloud: Cloud,
    tellers: Vec<Teller>,
    now: Now,
    /// What the owner loop took for each report, in microseconds.
    took: Vec<f64>,
    bytes: usize,
}

fn name(text: &str) -> Result<Name> {
    Name::new(text).context("a name")
}

fn edge(number: usize) -> Result<Name> {
    name(&format!("edge-{number:05}"))
}

fn key(number: usize) -> KeyHash {
    KeyHash::of_spki(&number.to_be_bytes())
}

impl Site {
    fn start() -> Result<Self> {
        let mut keyspace = Keyspace::new();
        for number in 0..EDGES {
            let signed = Signed {
                certificate_der: Vec::new(),
                public_key: key(number),
                serial: vec![1; 16],
                not_after: UnixMillis(u64::MAX),
            };
            let site = name(&format!("site-{:03}", number % SITES))?;
            let member = NodeRecord::new(edge(number)?, site, TokenId([1; 32]), &signed, UnixMillis(1));
            nodes::put(&member, &mut keyspace);
        }
        let (cluster, ca) = (name("bench")?, CaHash::of_der(b"ca"));
        let plan = Plan::new(Plan::DEFAULT_POOL, &cluster, &ca)?;
        let endpoints = vec!["cloud.example:10001".to_owned()];
        let cluster = Cluster { name: cluster, cloud: name("hub")?, ca_der: Vec::new(), endpoints, plan };
        let settings = CloudSettings { cluster, subnets: CloudSubnets::default(), ca, seed: 1, term: None };
        let now = Now { mono: Mono(1_000_000_000), wall: UnixMillis(1_760_000_000_000) };
        let cloud = Cloud::new(settings, Box::new(|_, _| Err(CsrError::Malformed)), keyspace, now)?;
        let tellers = (0..EDGES).map(|_| Teller::default()).collect();
        let mut site = Self { cloud, tellers, now, took: Vec::new(), bytes: 0 };
        for number in 0..EDGES {
            let peer = NodeId::edge(edge(number)?);
            site.handle(Input::LinkUp { link: link(number), peer, key: key(number), attempt: None });
        }
        Ok(site)
    }

    /// Everything that is said but not done here, the durable store included.
    fn handle(&mut self, input: Input) -> Vec<Output> {
        self.cloud.handle(input, self.now);
        let mut said = Vec::new();
        while let Some(output) = self.cloud.poll_output() {
            match output {
                Output::Persist(commit) => self.cloud.handle(Input::Persisted(commit.revision), self.now),
                Output::Fleet { .. } | Output::Send { .. } => said.push(output),
                _ => {}
            }
        }
        said
    }

    /// Each edge looks at itself and tells what is new; the answer reaches it.
    fn tell(&mut self, round: u64) -> Result<()> {
        self.now = later(self.now, Duration::from_secs(30));
        for number in 0..EDGES {
            let condition = condition(number, round)?;
            let told = self.tellers[number].handle_condition(&condition, self.now.mono);
            let payload = told.context("an edge that has nothing to tell")?;
            self.bytes += payload.len();
            let frame = Frame::new(Channel::Health, payload);
            let began = Instant::now();
            let said = self.handle(Input::Frame { link: link(number), frame });
            self.took.push(began.elapsed().as_secs_f64() * 1e6);
            let ack = said.into_iter().find_map(|output| match output {
                Output::Send { frame, .. } if frame.channel == Channel::Health => Some(frame.payload),
                _ => None,
            });
            self.tellers[number].handle_frame(&ack.context("a report without an answer")?);
        }
        Ok(())
    }

    /// As the shell measures a cloud's own links.
    fn measured(&self, round: u64) -> Result<Input> {
        let mut links = Vec::with_capacity(2 * EDGES);
        for number in 0..EDGES {
            for (at, lane) in [DialLane::Bus, DialLane::Packets].into_iter().enumerate() {
                links.push(MeasuredLink {
                    link: LinkId((2 * number + at) as u64),
                    peer: NodeId::edge(edge(number)?),
                    lane,
                    in_reserve: false,
                    remote: "203.0.113.10:10001".parse()?,
                    rtt: Duration::from_micros(30_000 + number as u64),
                    mtu: 1452,
                    segments: 1,
                    queued: 0,
                    sent: 1_000 * round,
                    lost: 3,
                    sent_bytes: 100_000 * round,
                    received_bytes: 200_000 * round,
                });
            }
        }
        Ok(Input::Measured(Box::new(Measured { links, ..Measured::default() })))
    }

    fn fleet(&mut self) -> Result<Fleet> {
        let said = self.handle(Input::Fleet { id: 1 });
        let fleet = said.into_iter().find_map(|o| if let Output::Fleet { fleet, .. } = o { Some(fleet) } else { None });
        Ok(*fleet.context("no fleet")?)
    }
}

fn link(number: usize) -> LinkId {
    LinkId(2 * number as u64)
}

fn later(now: Now, by: Duration) -> Now {
    Now { mono: now.mono + by, wall: UnixMillis(now.wall.0 + by.as_millis() as u64) }
}

/// An edge with work to do: all its totals move, and so do its links' figures.
fn condition(number: usize, round: u64) -> Result<Condition> {
    let mut condition = Condition::default();
    for (at, series) in Series::ALL.iter().enumerate() {
        condition.values.set(*series, (number * 37 + at * 1_013) as u64 + round * (at as u64 % 5) * 211);
    }
    for series in [Series::DiskDegraded, Series::DevicesOffline, Series::RulesTripped, Series::OutboxOldest] {
        condition.values.set(series, 0);
    }
    let head = |is_packets| {
        let peer = NodeId::cloud(name("hub")?);
        let remote = Some("203.0.113.1:10001".parse()?);
        Ok::<_, anyhow::Error>(LinkHead { path: Path::Quic, peer, is_packets, in_reserve: false, remote })
    };
    for is_packets in [false, true] {
        let numbers = std::array::from_fn(|at| match LinkSeries::ALL[at] {
            LinkSeries::Loss | LinkSeries::QueueBytes => 0,
            _ => 1_400 + number as u64 + round * (at as u64 + 1) * 97,
        });
        condition.links.push(LinkState { head: head(is_packets)?, numbers });
    }
    condition.about.version = "0.1.0".to_owned();
    if (AWAY..AWAY + ILL).contains(&number) {
        condition.about.disk = Some("no space left on device".to_owned());
        condition.values.set(Series::DiskDegraded, 1);
    }
    Ok(condition)
}

/// Of this process, in bytes.
fn resident() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/status").context("memory")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>().context("memory")? * 1024.0)
}

pub(crate) fn run() -> Result<Table> {
    let mut table = Table::new(
        format!("health: a cloud with {EDGES} edges, {AWAY} of them away and {ILL} ill"),
        &["", "owner loop", "beside it", "bytes"],
    );
    let before = resident()?;
    let mut site = Site::start()?;
    let silent = (resident()? - before) / EDGES as f64;
    site.tell(0)?;
    let told = (resident()? - before) / EDGES as f64;
    reports(&mut table, &mut site, "a first report")?;
    for round in 1..=ROUNDS as u64 {
        site.tell(round)?;
    }
    reports(&mut table, &mut site, "a later report")?;
    for number in 0..AWAY {
        site.handle(Input::LinkDown { link: link(number) });
    }
    let mut measured = Vec::new();
    for round in 1..=ROUNDS as u64 {
        site.now = later(site.now, Duration::from_secs(10));
        let input = site.measured(round)?;
        measured.push(millis(|| drop(site.handle(input))));
    }
    table.row(["its own 20,000 links".to_owned(), ms(&measured), "-".to_owned(), "-".to_owned()]);
    asked(&mut table, &mut site)?;
    // What the start needed for a while lies free, and the first reports find room there: only the sum is sure.
    table.note(format!(
        "memory: {:.1} KiB an edge that has told how it is, its row of the register, its link and its teller in this \
         process included; {:.1} before",
        told / 1024.0,
        silent / 1024.0
    ));
    Ok(table)
}

fn reports(table: &mut Table, site: &mut Site, what: &str) -> Result<()> {
    let mut took = std::mem::take(&mut site.took);
    ensure!(!took.is_empty(), "nothing was told");
    took.sort_by(f64::total_cmp);
    let owner = format!("{:.1} us, 99 %: {:.1}", percentile(&took, 50), percentile(&took, 99));
    let bytes = std::mem::take(&mut site.bytes) as f64 / took.len() as f64;
    table.row([what.to_owned(), owner, "-".to_owned(), count(bytes)]);
    Ok(())
}

/// What whoever asks costs.
fn asked(table: &mut Table, site: &mut Site) -> Result<()> {
    let (mut owner, mut fleet) = (Vec::new(), None);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        fleet = Some(site.fleet()?);
        owner.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let fleet = fleet.context("no fleet")?;
    let everybody = Part::default();
    let one_site = Part { sites: ["site-007".to_owned()].into(), ..Part::default() };
    let screen = Part { order: Order::Ills, limit: Some(SCREEN), ..Part::default() };
    let shown = fleet.view(&screen);
    ensure!(
        (shown.total, shown.connected, shown.unwell, shown.nodes.len())
            == (EDGES + 1, EDGES + 1 - AWAY, AWAY + ILL, SCREEN),
        "{} of {}, {} not well",
        shown.connected,
        shown.total,
        shown.unwell
    );
    let document = |part: &Part| serde_json::to_string(&fleet.view(part)).unwrap_or_default();
    for (what, text) in [
        ("/metrics", &(|| prometheus::render(&fleet, &everybody)) as &dyn Fn() -> String),
        ("/metrics?site=..", &|| prometheus::render(&fleet, &one_site)),
        ("/kubebus/v1/fleet", &|| document(&everybody)),
        ("../fleet?order=ills&limit=50 (status)", &|| document(&screen)),
    ] {
        let mut bytes = 0;
        let took: Vec<f64> = (0..ROUNDS).map(|_| millis(|| bytes = text().len())).collect();
        table.row([what.to_owned(), ms(&owner), ms(&took), count(bytes as f64)]);
    }
    Ok(())
}

fn millis(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64() * 1e3
}

fn ms(all: &[f64]) -> String {
    format!("{:.1} ms", median(all.to_vec()))
}

//! The deterministic world: real nodes, everything around them played from one seed.
//!
//! ```text
//!   faults, people --+                                  +--> links --> nodes
//!   mappers ---------+--> queue of (time, number) --> event
//!   disks, timers ---+                                  +--> node --> outputs --> links, disks, mappers, people
//!                                                                        \--> oracle
//! ```
//! Time passes in jumps from event to event. Who asks for chance asks a stream of the seed, so that a run is repeated
//! to the letter by its number.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::bus::LinkId;
use bus::twin::{DesiredVersion, MapperTopic, ReportedVersion};
use bus::{Mono, Topic, UnixMillis};
use bytes::Bytes;
use device_twin::PropertyId;
use node::Input;

use crate::devices::{Habits, Mapper, MapperEvent};
use crate::dice::{Dice, Purpose};
use crate::faults::{self, Fault, Machine};
use crate::host::{About, Host, Question};
use crate::links::{Links, NetEvent, Path};
use crate::oracle::{Oracle, Settled, Violation};
use crate::people::People;
use crate::plant::Bug;
use crate::report::RunReport;
use crate::trace::Trace;

/// Sites of the largest world.
pub const MAX_SITES: usize = 4;

/// After the last fault: the longest wait of a dialler, a stalled sync, an operator's hold, and some more.
const QUIET: Duration = Duration::from_secs(1800);
/// Mappers fall silent before the end, so that nothing is under way then.
const HUSH: Duration = Duration::from_secs(1200);
/// More events than any honest run needs: nodes that never rest are a failure.
const MAX_EVENTS: u64 = 3_000_000;
/// Inputs handled at one instant of time: more is a node that turns in a circle.
const MAX_AT_ONCE: u32 = 20_000;

/// What happens next.
#[derive(Debug)]
pub(crate) enum Event {
    Net(NetEvent),
    Timer { machine: Machine, life: u32, at: Mono },
    DiskDone { machine: Machine, life: u32 },
    CrashNow { machine: Machine, life: u32, away: Duration },
    Boot { machine: Machine },
    Fault(usize),
    FaultEnds(usize),
    Mapper { site: usize, event: MapperEvent },
    MapperConnects { site: usize, life: u32 },
    ToMapper { site: usize, life: u32, topic: MapperTopic, payload: Bytes, expires: Option<Mono> },
    FromMapper { site: usize, life: u32, topic: Topic, payload: Bytes, retain: bool, sure: bool },
    Subscribe { site: usize, life: u32 },
    Join { site: usize },
    Apply,
    Wish,
    Operator,
    Quiet,
    Hush,
}

/// Events in the order of time, those of one time in the order of coming.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    events: BTreeMap<(Mono, u64), Event>,
    next: u64,
}

impl Agenda {
    pub(crate) fn at(&mut self, at: Mono, event: Event) {
        self.next += 1;
        self.events.insert((at, self.next), event);
    }

    fn pop(&mut self) -> Option<(Mono, Event)> {
        self.events.pop_first().map(|((at, _), event)| (at, event))
    }
}

/// What is remembered until its answer comes.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) next: u64,
    pub(crate) reports: BTreeMap<u64, (Machine, u32, PropertyId, Option<ReportedVersion>)>,
    pub(crate) wishes: BTreeMap<Question, (u32, PropertyId, Option<DesiredVersion>)>,
    pub(crate) manifests: BTreeMap<u64, usize>,
    pub(crate) tokens: BTreeMap<u64, usize>,
    pub(crate) joins: BTreeMap<LinkId, usize>,
}

/// One run.
#[derive(Debug)]
pub struct World {
    pub(crate) seed: u64,
    pub(crate) now: Mono,
    pub(crate) agenda: Agenda,
    pub(crate) hosts: BTreeMap<Machine, Host>,
    pub(crate) mappers: Vec<Mapper>,
    pub(crate) links: Links,
    pub(crate) oracle: Oracle,
    pub(crate) trace: Trace,
    pub(crate) people: People,
    pub(crate) asked: Asked,
    pub(crate) bug: Bug,
    /// When the last wish was made, on the cloud's clock.
    pub(crate) last_wish: Option<UnixMillis>,
    pub(crate) disks: Dice,
    pub(crate) chance: Dice,
    faults: Vec<(Mono, Fault)>,
    done: BTreeMap<&'static str, u64>,
    quiet_from: Mono,
    pub(crate) quiet: bool,
    events: u64,
    at_once: u32,
}

impl World {
    /// The world of `seed`, with `bug` built into the player; `keep`: the event log is wanted.
    pub fn new(seed: u64, bug: Bug, keep: bool) -> Self {
        let mut setting = Dice::new(seed, Purpose::Setting);
        let sites = setting.between(2, MAX_SITES as u64) as usize;
        let quiet_from = Mono::ZERO + setting.span(Duration::from_secs(3600), Duration::from_secs(3 * 3600));
        let paths = (0..sites).map(|site| Path::new(site, &mut setting)).collect();
        let mut faults_dice = Dice::new(seed, Purpose::Faults);
        let faults = faults::draw(sites, Mono::ZERO + Duration::from_secs(60), quiet_from, &mut faults_dice);
        let mut world = Self {
            seed,
            now: Mono::ZERO,
            agenda: Agenda::default(),
            hosts: BTreeMap::new(),
            mappers: (0..sites).map(|site| mapper(seed, site, &mut setting)).collect(),
            links: Links::new(paths, Dice::new(seed, Purpose::Network)),
            oracle: Oracle::default(),
            trace: Trace::new(keep),
            people: People::new(sites, &mut setting),
            asked: Asked::default(),
            bug,
            last_wish: None,
            disks: Dice::new(seed, Purpose::Disks),
            chance: Dice::new(seed, Purpose::Apps),
            faults,
            done: BTreeMap::new(),
            quiet_from,
            quiet: false,
            events: 0,
            at_once: 0,
        };
        world.set_up(sites, &mut setting);
        world
    }

    fn set_up(&mut self, sites: usize, dice: &mut Dice) {
        let machines = std::iter::once(Machine::Cloud).chain((0..sites).map(Machine::Edge));
        for machine in machines {
            let offset = dice.between(0, 20_000) as i64 - 10_000;
            self.hosts.insert(machine, Host::new(offset));
        }
        self.agenda.at(Mono::ZERO, Event::Boot { machine: Machine::Cloud });
        for site in 0..sites {
            let at = Mono::ZERO + dice.span(Duration::from_secs(1), Duration::from_secs(40));
            self.agenda.at(at, Event::Join { site });
        }
        for (number, (at, _)) in self.faults.iter().enumerate() {
            self.agenda.at(*at, Event::Fault(number));
        }
        for (after, event) in [(2, Event::Apply), (50, Event::Wish), (90, Event::Operator)] {
            self.agenda.at(Mono::ZERO + Duration::from_secs(after), event);
        }
        self.agenda.at(self.quiet_from, Event::Quiet);
        self.agenda.at(self.quiet_from + HUSH, Event::Hush);
    }

    /// Plays until the end or the first violation.
    pub fn run(mut self) -> RunReport {
        let end = self.quiet_from + QUIET;
        while self.oracle.violation().is_none() {
            let Some((at, event)) = self.agenda.pop() else { break };
            if at > end {
                break;
            }
            self.at_once = if at > self.now { 0 } else { self.at_once + 1 };
            self.now = at;
            self.events += 1;
            self.play(event);
            if self.events > MAX_EVENTS || self.at_once > MAX_AT_ONCE {
                let what = format!("{} events, {} of them at this instant", self.events, self.at_once);
                self.oracle.accuse(self.now, "nodes come to rest", what);
            }
        }
        if self.oracle.violation().is_none() {
            self.now = end;
            self.check_settled();
        }
        self.report()
    }

    fn check_settled(&mut self) {
        let lasting = |site: usize| self.people.properties_of(site);
        let settled: Vec<Settled> = self
            .mappers
            .iter()
            .enumerate()
            .map(|(site, mapper)| Settled {
                site,
                positions: lasting(site).into_iter().map(|id| (id.clone(), mapper.position(&id))).collect(),
                lied: mapper.lies > 0,
            })
            .collect();
        self.oracle.check_settled(&settled, self.now);
    }

    fn report(self) -> RunReport {
        let violation: Option<Violation> = self.oracle.violation().cloned();
        let mut trace = self.trace;
        if let Some(violation) = &violation {
            trace.say(self.now, format_args!("VIOLATED {violation}"));
        }
        let (lines, hash) = trace.finish();
        RunReport {
            seed: self.seed,
            events: self.events,
            faults: self.done,
            asked: self.oracle.asked().clone(),
            net: self.links.stats,
            span: self.now.since(Mono::ZERO),
            violation,
            hash,
            lines,
        }
    }

    fn play(&mut self, event: Event) {
        match event {
            Event::Net(event) => self.on_net(event),
            Event::Timer { machine, life, at } => self.on_timer(machine, life, at),
            Event::DiskDone { machine, life } => self.on_disk_done(machine, life),
            Event::CrashNow { machine, life, away } => {
                if self.hosts[&machine].life == life {
                    self.crash(machine, away);
                }
            }
            Event::Boot { machine } => self.boot(machine),
            Event::Fault(number) => self.begin_fault(number),
            Event::FaultEnds(number) => self.end_fault(number),
            Event::Mapper { site, event } => {
                let now = self.hosts[&Machine::Edge(site)].now(self.now);
                self.mappers[site].handle(event, now);
                self.take_mapper_actions(site);
            }
            Event::MapperConnects { site, life } => self.mapper_connects(site, life),
            Event::ToMapper { site, life, topic, payload, expires } => {
                self.deliver_to_mapper(site, life, &topic, &payload, expires);
            }
            Event::FromMapper { site, life, topic, payload, retain, sure } => {
                self.hear_mapper(site, life, topic, payload, retain, sure);
            }
            Event::Subscribe { site, life } => self.subscribe(site, life),
            Event::Join { site } => self.join(site),
            Event::Apply => self.apply(),
            Event::Wish => self.wish(),
            Event::Operator => self.operate(),
            Event::Quiet => self.begin_quiet(),
            Event::Hush => self.mappers.iter_mut().for_each(|mapper| mapper.hushed = true),
        }
    }

    fn begin_fault(&mut self, number: usize) {
        let fault = self.faults[number].1.clone();
        self.trace.say(self.now, format_args!("fault {fault:?}"));
        *self.done.entry(fault.kind()).or_default() += 1;
        let (now, latest) = (self.now, self.quiet_from);
        let ends = |lasts: Duration| (now + lasts).min(latest);
        match fault {
            Fault::Partition { site, towards, inside, lasts } => {
                self.links.path(site).0.cut(&towards, inside, true);
                self.agenda.at(ends(lasts), Event::FaultEnds(number));
            }
            Fault::Loss { site, per_mille, lasts } => {
                self.links.path(site).0.loss_per_mille += per_mille;
                self.agenda.at(ends(lasts), Event::FaultEnds(number));
            }
            Fault::NatRestart { site } => {
                let (path, dice) = self.links.path(site);
                path.restart_nat(site, dice);
            }
            Fault::Crash { machine, away } => self.crash(machine, away),
            Fault::CrashInCommit { machine, away } => self.host(machine).armed = Some(away),
            Fault::Wipe { site, away } => self.wipe(site, away),
            Fault::OldDisk { site, away } => self.put_old_disk_back(site, away),
            Fault::WallJump { machine, by_ms } => {
                self.host(machine).wall_offset_ms += by_ms;
                self.oracle.on_wall_jump(machine, self.now);
            }
            Fault::DiskStuck { machine, lasts } => self.host(machine).stuck_until = ends(lasts),
            Fault::MapperCrash { site, away } => {
                self.mapper_crashes(site);
                self.agenda.at(ends(away), Event::FaultEnds(number));
            }
        }
    }

    fn end_fault(&mut self, number: usize) {
        self.trace.say(self.now, format_args!("fault {number} ends"));
        match self.faults[number].1.clone() {
            Fault::Partition { site, towards, inside, .. } => {
                self.links.path(site).0.cut(&towards, inside, false)
            }
            Fault::Loss { site, per_mille, .. } => self.links.path(site).0.loss_per_mille -= per_mille,
            Fault::MapperCrash { site, .. } => {
                self.mappers[site].running = true;
                let life = self.hosts[&Machine::Edge(site)].life;
                self.agenda.at(self.now, Event::MapperConnects { site, life });
            }
            Fault::NatRestart { .. }
            | Fault::Crash { .. }
            | Fault::CrashInCommit { .. }
            | Fault::Wipe { .. }
            | Fault::OldDisk { .. }
            | Fault::WallJump { .. }
            | Fault::DiskStuck { .. } => {}
        }
    }

    /// Faults have ended; machines that are away come back soon.
    fn begin_quiet(&mut self) {
        self.trace.say(self.now, format_args!("quiet"));
        self.quiet = true;
        self.hosts.values_mut().for_each(|host| host.armed = None);
        self.mappers.iter_mut().for_each(|mapper| mapper.habits = Habits::default());
    }

    pub(crate) fn quiet_from(&self) -> Mono {
        self.quiet_from
    }

    pub(crate) fn host(&mut self, machine: Machine) -> &mut Host {
        self.hosts.entry(machine).or_insert_with(|| Host::new(0))
    }

    /// Asks something of the node; the answer will have this number.
    pub(crate) fn number(&mut self) -> u64 {
        self.asked.next += 1;
        self.asked.next
    }

    pub(crate) fn tell(&mut self, machine: Machine, input: Input) {
        self.tell_about(machine, input, About::Nothing);
    }
}

fn mapper(seed: u64, site: usize, setting: &mut Dice) -> Mapper {
    let mut some = |limit: u64| if setting.one_in(2) { setting.between(0, limit) } else { 0 };
    let (slow, silent, lying, repeated) = (some(300), some(200), some(200), some(100));
    let dice = Dice::new(seed ^ (site as u64 + 1) << 56, Purpose::Devices);
    Mapper::new(Habits { slow, silent, lying, repeated }, dice)
}

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
use crate::disk::Disk;
use crate::faults::{self, Fault, Moment};
use crate::host::{About, Host, Question};
use crate::links::{Links, NetEvent, Path};
use crate::machine::{Machine, PerSeat, Seat};
use crate::oracle::{Oracle, Settled, Violation};
use crate::people::People;
use crate::plant::Bug;
use crate::report::RunReport;
use crate::trace::Trace;

/// Sites of the largest world.
pub const MAX_SITES: usize = 4;

/// How many deletions a cloud may remember: few, so that some are forgotten while an edge is away.
const MEMORIES: [usize; 4] = [2, 8, 40, metadata::keyspace::MAX_TOMBSTONES];

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
    DiskTried { machine: Machine, life: u32 },
    CrashNow { machine: Machine, life: u32 },
    Boot { machine: Machine },
    Fault(usize),
    FaultEnds(usize),
    Mapper { seat: Seat, event: MapperEvent },
    MapperConnects { seat: Seat, life: u32 },
    ToMapper { seat: Seat, life: u32, topic: MapperTopic, payload: Bytes, expires: Option<Mono> },
    FromMapper { seat: Seat, life: u32, topic: Topic, payload: Bytes, retain: bool, sure: bool },
    Subscribe { seat: Seat, life: u32 },
    Join { site: usize },
    Apply,
    Wish,
    Rework,
    Operator,
    Deed,
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

/// Wishes of one question, with the versions that they got.
pub(crate) type Noted = Vec<(PropertyId, Option<DesiredVersion>)>;

/// What is remembered until its answer comes.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) next: u64,
    pub(crate) reports: BTreeMap<u64, (Machine, u32, PropertyId, Option<ReportedVersion>)>,
    pub(crate) wishes: BTreeMap<Question, (u32, Noted)>,
    /// Commands given at the cloud: `<namespace>/<device>/<id>`.
    pub(crate) orders: BTreeMap<u64, String>,
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
    pub(crate) mappers: PerSeat<Mapper>,
    pub(crate) links: Links,
    pub(crate) oracle: Oracle,
    pub(crate) trace: Trace,
    pub(crate) people: People,
    /// How many deletions the cloud remembers.
    pub(crate) memory: usize,
    /// The last copy of the cloud's disk.
    pub(crate) backup: Option<Disk>,
    pub(crate) asked: Asked,
    pub(crate) bug: Bug,
    /// When the last wish was made, on the cloud's clock.
    pub(crate) last_wish: Option<UnixMillis>,
    pub(crate) disks: Dice,
    pub(crate) chance: Dice,
    pub(crate) faults: Vec<(Mono, Fault)>,
    /// Faults that happened, by kind.
    pub(crate) done: BTreeMap<&'static str, u64>,
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
        let hours = if setting.one_in(4) { 3..=8 } else { 1..=3 };
        let hour = |hours: &u64| Duration::from_secs(hours * 3600);
        let quiet_from = Mono::ZERO + setting.span(hour(hours.start()), hour(hours.end()));
        let paths = PerSeat::new(sites, |seat| Path::new(seat, &mut setting));
        let mut faults_dice = Dice::new(seed, Purpose::Faults);
        let faults = faults::draw(sites, Mono::ZERO + Duration::from_secs(60), quiet_from, &mut faults_dice);
        let mut world = Self {
            seed,
            now: Mono::ZERO,
            agenda: Agenda::default(),
            hosts: BTreeMap::new(),
            mappers: PerSeat::new(sites, |seat| mapper(seed, seat, &mut setting)),
            links: Links::new(paths, Dice::new(seed, Purpose::Network)),
            oracle: Oracle::default(),
            trace: Trace::new(keep),
            people: People::new(sites, &mut setting),
            memory: MEMORIES[setting.between(0, MEMORIES.len() as u64 - 1) as usize],
            backup: None,
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
        let seats = (0..sites).flat_map(|site| [Seat::of(site), Seat::clone_of(site)]);
        for machine in std::iter::once(Machine::Cloud).chain(seats.map(Machine::Edge)) {
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
        for (after, event) in [
            (2, Event::Apply),
            (30, Event::Rework),
            (50, Event::Wish),
            (70, Event::Deed),
            (90, Event::Operator),
        ] {
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
        let settled: Vec<Settled> = (0..self.mappers.sites()).map(|site| self.settled(site)).collect();
        self.oracle.check_settled(&settled, self.now);
    }

    fn settled(&self, site: usize) -> Settled {
        let mapper = &self.mappers[Seat::of(site)];
        let lasting = self.people.properties_of(site);
        let positions = lasting.into_iter().map(|id| (id.clone(), mapper.position(&id))).collect();
        Settled { site, positions, lied: mapper.lies > 0 }
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
            net: self.links.stats(),
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
            Event::DiskTried { machine, life } => self.on_disk_tried(machine, life),
            Event::CrashNow { machine, life } => {
                if self.hosts[&machine].life == life {
                    self.crash_if_armed(machine, Moment::Writing);
                }
            }
            Event::Boot { machine } => self.boot(machine),
            Event::Fault(number) => self.begin_fault(number),
            Event::FaultEnds(number) => self.end_fault(number),
            Event::Mapper { seat, event } => {
                let now = self.hosts[&Machine::Edge(seat)].now(self.now);
                self.mappers[seat].handle(event, now);
                self.take_mapper_actions(seat);
            }
            Event::MapperConnects { seat, life } => self.mapper_connects(seat, life),
            Event::ToMapper { seat, life, topic, payload, expires } => {
                self.deliver_to_mapper(seat, life, &topic, &payload, expires);
            }
            Event::FromMapper { seat, life, topic, payload, retain, sure } => {
                self.hear_mapper(seat, life, topic, payload, retain, sure);
            }
            Event::Subscribe { seat, life } => self.subscribe(seat, life),
            Event::Join { site } => self.join(site),
            Event::Apply => self.apply(),
            Event::Wish => self.wish(),
            Event::Rework => self.rework(),
            Event::Operator => self.operate(),
            Event::Deed => self.deed(),
            Event::Quiet => self.begin_quiet(),
            Event::Hush => self.mappers.iter_mut().for_each(|mapper| mapper.hushed = true),
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

fn mapper(seed: u64, seat: Seat, setting: &mut Dice) -> Mapper {
    let mut some = |limit: u64| if setting.one_in(2) { setting.between(0, limit) } else { 0 };
    let (slow, silent, lying, repeated) = (some(300), some(200), some(200), some(100));
    let dice = Dice::new(
        seed ^ (seat.site as u64 + 1 + if seat.is_clone { 128 } else { 0 }) << 56,
        Purpose::Devices,
    );
    Mapper::new(Habits { slow, silent, lying, repeated }, dice)
}

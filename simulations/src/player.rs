//! Plays nodes: inputs in, outputs to where their names say, as `node/src/io/driver.rs` does with real things.

use std::collections::VecDeque;
use std::time::Duration;

use bus::bus::LinkId;
use bus::twin::{MapperTopic, TwinTopic};
use bus::{Channel, Class, Frame, Mono, Now};
use device_twin::Announcement;
use metadata::sync::{Packed, ToEdge};
use metadata::{Commit, Revision};
use node::seam::DialLane;
use node::{Input, Node, Output};

use crate::faults::Moment;
use crate::host::{About, Running};
use crate::links::{self, Effects, End, NetEvent, News};
use crate::machine::{Machine, Seat};
use crate::people;
use crate::plant::Bug;
use crate::world::{Event, World};

/// Between two tries of a disk that refuses to write, as in `node/src/io/store.rs`.
const RETRY: Duration = Duration::from_secs(1);
/// Written by a cloud that forgets deletions.
const COMPACTED: &str = "/sync/compacted";

impl World {
    pub(crate) fn tell_about(&mut self, machine: Machine, input: Input, about: About) {
        let now = self.clock_for(machine, &input);
        if let About::Wish { .. } = about {
            self.last_wish = Some(now.wall);
        }
        let host = self.host(machine);
        let Some(running) = &mut host.running else { return };
        let waits = running.node.is_full() && !matches!(input, Input::Persisted(_));
        if waits || (!running.deferred.is_empty() && !matches!(input, Input::Persisted(_))) {
            running.deferred.push_back((input, about));
            return;
        }
        if let (Machine::Cloud, Input::Frame { link, frame }) = (machine, &input) {
            let is_metadata = frame.channel == Channel::Metadata;
            let payload = if is_metadata { &frame.payload[..] } else { &[] };
            self.oracle.on_arrival(self.links.seat_of(*link), payload);
        }
        let Some(running) = &mut self.host(machine).running else { return };
        running.node.handle(input, now);
        self.note(machine, about);
        self.perform_all(machine);
        self.set_timer(machine);
    }

    fn clock_for(&self, machine: Machine, input: &Input) -> Now {
        let mut now = self.hosts[&machine].now(self.now);
        let answers = machine == Machine::Cloud && matches!(input, Input::Frame { .. });
        if self.bug == Bug::StopsCloudTime && answers {
            now.wall = self.last_wish.unwrap_or(now.wall);
        }
        now
    }

    pub(crate) fn start(&mut self, machine: Machine, node: Node) {
        let running = Running { node, timer: None, deferred: VecDeque::new() };
        self.host(machine).running = Some(running);
        if machine == Machine::Cloud {
            self.links.cloud_runs = true;
        }
        self.set_timer(machine);
    }

    fn set_timer(&mut self, machine: Machine) {
        let now = self.now;
        let host = self.host(machine);
        let life = host.life;
        let Some(running) = &mut host.running else { return };
        let Some((at, _)) = running.node.poll_timeout() else { return };
        let at = at.max(now);
        if running.timer != Some(at) {
            running.timer = Some(at);
            self.agenda.at(at, Event::Timer { machine, life, at });
        }
    }

    pub(crate) fn on_timer(&mut self, machine: Machine, life: u32, at: Mono) {
        let host = self.host(machine);
        let Some(running) = host.running.as_mut().filter(|_| host.life == life) else { return };
        if running.timer == Some(at) {
            running.timer = None;
            if !running.node.is_full() {
                self.tell(machine, Input::Timeout);
            }
        }
    }

    fn perform_all(&mut self, machine: Machine) {
        while let Some(output) = self.next_output(machine) {
            self.perform(machine, output);
        }
    }

    fn next_output(&mut self, machine: Machine) -> Option<Output> {
        self.host(machine).running.as_mut()?.node.poll_output()
    }

    fn perform(&mut self, machine: Machine, output: Output) {
        match output {
            Output::Persist(commit) => {
                let revision = commit.revision;
                self.persist(machine, commit);
                if self.bug == Bug::SpeaksBeforeDurable {
                    self.tell(machine, Input::Persisted(revision));
                }
            }
            Output::Send { link, class, frame } => self.send(machine, link, class, frame),
            Output::Close { link, why } => {
                self.trace.say(self.now, format_args!("{machine} closes {}: {why}", link.0));
                let effects = self.links.close(link, end_of(machine), self.now);
                self.follow(effects);
            }
            Output::Dial { lane, attempt, .. } => {
                self.trace.say(self.now, format_args!("{machine} dials {lane:?} {attempt}"));
                if let Machine::Edge(seat) = machine {
                    let effects = self.links.dial(seat, lane, attempt, self.now);
                    self.follow(effects);
                }
            }
            Output::Endpoints(endpoints) => {
                self.trace.say(self.now, format_args!("{machine} is told to dial {endpoints:?}"));
            }
            Output::Publish(Announcement { topic, payload, expiry, .. }) => {
                self.trace
                    .say(self.now, format_args!("{machine} publishes {} {}", topic.as_str(), show(&payload)));
                let expires = expiry.map(|expiry| self.now + expiry.0);
                if let (Some(topic), Machine::Edge(seat)) = (MapperTopic::parse(&topic), machine) {
                    self.publish_to_mapper(seat, topic, payload, expires);
                } else if let Some(TwinTopic::Reported { device, property }) = TwinTopic::parse(&topic) {
                    let id = crate::manifests::property(&device, &property);
                    self.oracle.on_seen(machine, &id, &payload, self.now);
                }
            }
            Output::Accept(ticket) => self.accepted(ticket.0),
            Output::Reject(ticket, why) => self.rejected(ticket.0, &why),
            Output::Unkept(ticket) => self.rejected(ticket.0, "the disk refuses writes"),
            Output::Full(ticket) => self.rejected(ticket.0, "there is no room"),
            Output::Overlay { lease, routes } => self.check_overlay(machine, &lease, &routes),
            // Packets do not travel here, so nobody gets to be a neighbour, and nobody asks for names.
            Output::Policy(_)
            | Output::Names(_)
            | Output::Users(_)
            | Output::Wireguard(_)
            | Output::Admit { .. } => {}
            Output::DialNeighbour { .. } | Output::Knock { .. } => {}
            // Nobody is told of certificates here.
            Output::Renew { .. } | Output::ShowOther => {}
            Output::Admin { id, response } => self.answered(id, response),
            Output::Backup { snapshot, .. } => {
                self.trace.say(self.now, format_args!("{machine} is backed up at {}", snapshot.revision));
            }
            // Nobody counts here: what a node tells is what its parts know.
            Output::Measure => self.tell(machine, Input::Measured(Box::default())),
            // Nor does anybody ask a node to look at itself.
            Output::Fleet { .. } | Output::Examine { .. } => {}
            // Nobody keeps a history here.
            Output::Recall(_) => self.tell(machine, Input::Recalled(Err("no history is kept".to_owned()))),
            // Nobody of this world has kubectl.
            Output::Api { .. } => {}
            // No edge of this world serves DMI.
            Output::Call(_) | Output::Registered(..) => {}
            // Kept beside the store, and read by nobody here.
            Output::Record(_) => {}
            Output::Note(text) => self.trace.say(self.now, format_args!("{machine} notes: {text}")),
        }
    }

    fn send(&mut self, machine: Machine, link: LinkId, class: Class, frame: Frame) {
        if self.asked.joins.contains_key(&link) {
            return self.join_answered(link, &frame.payload);
        }
        let seat = match machine {
            Machine::Edge(seat) => Some(seat),
            Machine::Cloud => self.links.seat_of(link),
        };
        let Some(seat) = seat else { return };
        let (now, durable) = (self.now, self.hosts[&machine].disk.durable());
        self.oracle.on_send(machine, seat, link, &frame, durable, now);
        let effects = self.links.send(link, end_of(machine), class, frame, now);
        self.follow(effects);
    }

    fn persist(&mut self, machine: Machine, commit: Commit) {
        if self.crash_if_armed(machine, Moment::Sealed) {
            return;
        }
        self.oracle.on_commit(machine, &commit, self.now);
        if machine == Machine::Cloud && commit.writes.iter().any(|write| write.key.as_str() == COMPACTED) {
            self.count_compaction();
        }
        let (revision, rows) = (commit.revision, commit.writes.len());
        self.trace.say(self.now, format_args!("{machine} commits {revision}: {rows} rows"));
        if self.host(machine).disk.submit(commit) {
            self.begin_writing(machine);
        } else {
            self.crash_if_armed(machine, Moment::Waiting);
        }
    }

    fn begin_writing(&mut self, machine: Machine) {
        let mut latency = self.disks.skewed(Duration::from_micros(200), Duration::from_millis(40));
        let luck = self.disks.span(Duration::ZERO, latency);
        if self.refuses(machine) {
            return;
        }
        let now = self.now;
        let host = self.host(machine);
        if !host.disk.begin() {
            return;
        }
        latency += host.stuck_until.since(now);
        let life = host.life;
        if host.armed.is_some_and(|(moment, _)| moment == Moment::Writing) {
            self.agenda.at(now + luck, Event::CrashNow { machine, life });
        }
        self.agenda.at(now + latency, Event::DiskDone { machine, life });
    }

    /// A full disk takes nothing, the node is told, and the disk is tried again: as the store thread does.
    fn refuses(&mut self, machine: Machine) -> bool {
        let now = self.now;
        let host = self.host(machine);
        let is_full = now < host.full_until && host.disk.pending() > 0;
        if is_full && !std::mem::replace(&mut host.refused, true) {
            let life = host.life;
            self.agenda.at(now + RETRY, Event::DiskTried { machine, life });
            self.oracle.on_refused(machine);
            self.tell(machine, Input::Degraded { why: "no space left".to_owned() });
        }
        is_full
    }

    pub(crate) fn on_disk_tried(&mut self, machine: Machine, life: u32) {
        let host = self.host(machine);
        if host.life == life {
            host.refused = false;
            self.begin_writing(machine);
        }
    }

    pub(crate) fn on_disk_done(&mut self, machine: Machine, life: u32) {
        let host = self.host(machine);
        if host.life != life {
            return;
        }
        let Some(revision) = host.disk.finish() else { return };
        self.trace.say(self.now, format_args!("{machine} has persisted {revision}"));
        if self.crash_if_armed(machine, Moment::Synced) {
            return;
        }
        // What a full disk refuses next is told after what it has taken.
        let is_full = self.now < self.hosts[&machine].full_until;
        if !is_full {
            self.begin_writing(machine);
        }
        if self.hosts[&machine].armed.is_some_and(|(moment, _)| moment == Moment::Said) {
            return self.crash_while_speaking(machine, revision);
        }
        if self.bug != Bug::SpeaksBeforeDurable {
            self.tell(machine, Input::Persisted(revision));
        }
        if is_full {
            self.begin_writing(machine);
        } else {
            self.oracle.on_taken_again(machine);
        }
        self.take_deferred(machine);
    }

    /// Tells the node that its commit is durable, lets out some of what waited for that, and crashes.
    fn crash_while_speaking(&mut self, machine: Machine, revision: Revision) {
        let now = self.hosts[&machine].now(self.now);
        let Some(running) = &mut self.host(machine).running else { return };
        running.node.handle(Input::Persisted(revision), now);
        let waited: Vec<Output> = std::iter::from_fn(|| running.node.poll_output()).collect();
        let out = self.disks.between(0, waited.len() as u64) as usize;
        waited.into_iter().take(out).for_each(|output| self.perform(machine, output));
        self.crash_if_armed(machine, Moment::Said);
    }

    /// What waited for the disk.
    fn take_deferred(&mut self, machine: Machine) {
        while let Some(running) = self.host(machine).running.as_mut()
            && !running.node.is_full()
            && let Some((input, about)) = running.deferred.pop_front()
        {
            let rest = std::mem::take(&mut running.deferred);
            self.tell_about(machine, input, about);
            if let Some(running) = self.host(machine).running.as_mut() {
                running.deferred.extend(rest);
            }
        }
    }

    pub(crate) fn follow(&mut self, effects: Effects) {
        for (at, event) in effects.wake {
            self.agenda.at(at, Event::Net(event));
        }
        for (seat, end, news) in effects.news {
            let machine = match end {
                End::Edge => Machine::Edge(seat),
                End::Cloud => Machine::Cloud,
            };
            self.on_news(machine, seat, news);
        }
    }

    pub(crate) fn on_net(&mut self, event: NetEvent) {
        let effects = self.links.handle(event, self.now);
        self.follow(effects);
    }

    fn on_news(&mut self, machine: Machine, seat: Seat, news: News) {
        let input = match news {
            News::Up { link, lane, attempt } => {
                self.trace.say(self.now, format_args!("{machine} link {} {lane:?} up", link.0));
                self.up(machine, seat, link, lane, attempt)
            }
            News::Failed { attempt } => {
                self.trace.say(self.now, format_args!("{machine} dial {attempt} failed"));
                Input::DialFailed { attempt, retry_after: None }
            }
            News::Frame { link, frame } => {
                let len = frame.payload.len();
                self.trace.say(
                    self.now,
                    format_args!("{machine} gets {:?} on {}: {len} bytes", frame.channel, link.0),
                );
                Input::Frame { link, frame: self.tampered(machine, frame) }
            }
            News::Down { link, lane } => {
                self.trace.say(self.now, format_args!("{machine} link {} down", link.0));
                match lane {
                    DialLane::Bus => Input::LinkDown { link },
                    DialLane::Packets => Input::PacketsDown { link },
                }
            }
        };
        self.tell(machine, input);
    }

    fn up(&self, machine: Machine, seat: Seat, link: LinkId, lane: DialLane, attempt: u64) -> Input {
        let (peer, key) = (people::edge_id(seat.site), people::key_of(seat.site));
        match (lane, machine) {
            (DialLane::Bus, Machine::Edge(_)) => Input::LinkUp {
                link,
                peer: people::cloud_id(),
                key: people::cloud_key(),
                attempt: Some(attempt),
            },
            (DialLane::Bus, Machine::Cloud) => Input::LinkUp { link, peer, key, attempt: None },
            (DialLane::Packets, Machine::Edge(_)) => {
                Input::PacketsUp { link, peer: people::cloud_id(), key: people::cloud_key(), attempt }
            }
            (DialLane::Packets, Machine::Cloud) => {
                Input::PeerPackets { link, peer, key, remote: links::outside(seat) }
            }
        }
    }

    fn tampered(&self, machine: Machine, frame: Frame) -> Frame {
        if self.bug != Bug::TearsBatches || machine == Machine::Cloud || frame.channel != Channel::Metadata {
            return frame;
        }
        let Ok(ToEdge::Part(mut part)) = minicbor::decode(&frame.payload) else { return frame };
        let Ok(mut changes) = part.changes.unpack() else { return frame };
        changes.pop();
        part.changes = Packed::pack(&changes);
        Frame::new(frame.channel, minicbor::to_vec(ToEdge::Part(part)).unwrap_or_default())
    }

    pub(crate) fn boot(&mut self, machine: Machine) {
        let host = &self.hosts[&machine];
        let is_gone = host.made_by.is_none() && matches!(machine, Machine::Edge(seat) if seat.is_clone);
        if host.running.is_some() || is_gone {
            return;
        }
        let (now, seed) = (self.hosts[&machine].now(self.now), self.chance.number());
        let memory = self.memory;
        let forgotten = self.bug.forgotten();
        let keyspace = match self.host(machine).disk.load(forgotten) {
            Ok(mut keyspace) => {
                keyspace.remember_deletions(memory);
                keyspace
            }
            Err(why) => return self.oracle.accuse(self.now, "disks can be read", why.to_string()),
        };
        let host = self.host(machine);
        host.copy = host.disk.clone();
        self.trace.say(self.now, format_args!("{machine} starts at {}", keyspace.revision()));
        let node = match machine {
            Machine::Cloud => {
                self.oracle.on_cloud_start(seed.max(1));
                people::cloud(seed, keyspace, now)
            }
            Machine::Edge(seat) => {
                self.oracle.on_edge_start(seat, self.now);
                Ok(people::edge(seat, seed, keyspace, now))
            }
        };
        match node {
            Ok(node) => self.start(machine, node),
            Err(why) => {
                return self.oracle.accuse(self.now, "a cloud starts on its own disk", why.to_string());
            }
        }
        if let Machine::Edge(seat) = machine {
            self.clients_come(seat);
        }
    }

    fn check_overlay(&mut self, machine: Machine, lease: &bus::Lease, routes: &[bus::Route]) {
        self.trace.say(self.now, format_args!("{machine} overlay {} with {} routes", lease.v4, routes.len()));
        let mut prefixes: Vec<_> = routes.iter().map(|route| route.prefix).collect();
        prefixes.sort_unstable();
        let twice = prefixes.windows(2).find(|pair| pair[0] == pair[1]);
        if let Some(pair) = twice {
            self.oracle.accuse(self.now, "a prefix has one owner", format!("{machine}: {}", pair[0]));
        }
    }
}

fn end_of(machine: Machine) -> End {
    match machine {
        Machine::Cloud => End::Cloud,
        Machine::Edge(_) => End::Edge,
    }
}

/// A payload in the event log.
fn show(payload: &[u8]) -> std::borrow::Cow<'_, str> {
    const SHOWN: usize = 200;
    String::from_utf8_lossy(&payload[..payload.len().min(SHOWN)])
}

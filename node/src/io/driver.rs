//! The owner loop: plays a [`Node`] with real links, a broker, a disk and a clock.
//!
//! It decides nothing: inputs come from five queues and a timer, outputs go where their name says. All queues are
//! bounded; while the journal is full (a stuck disk) only the store's word is taken, so that back-pressure reaches
//! whoever causes the load.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::bus::LinkId;
use bus::io::Clock;
use bus::overlay::{Lease, Route};
use bus::{Channel, Identity, KeyHash, NodeId};
use bytes::Bytes;
use controller::api::index::Moved;
use device_twin::gate::Refusal;
use device_twin::gate::access::ClientKeys;
use device_twin::io::dmi::{Answered, DmiEvent, DmiHandle};
use device_twin::io::recorder::{Record as Kept, Recorder};
use device_twin::io::{BrokerEvent, BrokerHandle, Ticket as BrokerTicket};
use device_twin::{Expiry, Ticket};
use metadata::{Commit, StoreError};
use router::Table;
use router::io::device::Overlay;
use router::io::shard::{Command, DialError, Event, Expect, Lane, LinkReport, ShardHandle};
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use super::api::{Asked, Question, Reply};
use super::debug::dials;
use super::debug::examiner::Examiner;
use super::dns::Dns;
use super::identity::Pair;
use super::join::resolve;
use super::metrics;
use super::patience::{PATIENCE, Patience};
use super::records::recall;
use super::renew::{Papers, RenewError};
use super::session::UsersSender;
use super::shutdown::Shutdown;
use super::status;
use super::store::{StoreEvent, StoreThread};
use super::upstream::{Target, Upstream};
use super::wireguard::Wireguard;
use crate::admin::{AdminResponse, describe};
use crate::checkup::Report;
use crate::diagnose::{Failures, LinkFault};
use crate::health::{Trouble, TroubleKind};
use crate::history::Told;
use crate::renewal::{Certificate, News};
use crate::seam::{DialLane, Input, Line, Node, Output, Record};
use crate::wireguard::CLIENTS;

/// Step two of the shutdown: how long goodbyes may take.
const FLUSH: Duration = Duration::from_secs(1);

/// How long a name server may take to tell where the cloud is.
const LOOKUP: Duration = Duration::from_secs(5);

/// Inputs handled between two looks at the other queues.
const BURST: usize = 64;

/// Everything that the loop plays with.
#[derive(Debug)]
pub struct Driver {
    pub node: Node,
    pub me: NodeId,
    pub papers: Papers,
    pub upstream: Option<Upstream>,
    pub shard: ShardHandle,
    pub shard_events: mpsc::Receiver<Event>,
    pub broker: BrokerHandle,
    pub broker_events: mpsc::Receiver<BrokerEvent>,
    /// KubeEdge's mappers, where they are served.
    pub dmi: Option<(DmiHandle, mpsc::Receiver<DmiEvent>)>,
    pub store: StoreThread,
    pub store_events: mpsc::Receiver<StoreEvent>,
    pub admin: mpsc::Receiver<Asked>,
    /// Tells watches of the resource API what is durable.
    pub moved: watch::Sender<Moved>,
    pub overlay: Option<Overlay>,
    /// Where names are answered.
    pub dns: Option<Dns>,
    pub wireguard: Wireguard,
    /// Looks at this machine when the cloud asks.
    pub(super) examiner: Examiner,
    pub recorder: Recorder,
    /// Who is let in over HTTPS.
    pub users: UsersSender,
    /// Whose certificates the broker believes.
    pub client_keys: watch::Sender<Arc<ClientKeys>>,
    pub clock: Clock,
    pub state: State,
}

/// What the loop remembers between two turns: numbers that the pure side knows things by.
#[derive(Debug, Default)]
pub struct State {
    tickets: BTreeMap<u64, Asker>,
    next_ticket: u64,
    questions: BTreeMap<u64, oneshot::Sender<Reply>>,
    /// Answers that lack the shard's part.
    waiting_status: BTreeMap<u64, Document>,
    next_question: u64,
    /// Measurements under way, and the question about the fleet that each is for.
    measures: BTreeMap<u64, Option<u64>>,
    /// What went wrong last with the way to the cloud.
    trouble: Option<Trouble>,
    lanes: BTreeMap<LinkId, Lane>,
    /// Who is at the other end of a lane for renewals, until it has asked.
    renewing: BTreeMap<LinkId, (NodeId, KeyHash)>,
    /// At most one a lane of each line.
    lookups: JoinSet<Lookup>,
    /// Checks that the cloud asked for; the core lets one run at a time.
    exams: JoinSet<Exam>,
    /// What the recorder is asked for the cloud: one at a time.
    recalls: JoinSet<Recalled>,
    /// Dials of the cloud that are on their way.
    dials: BTreeMap<u64, (Line, SocketAddr)>,
    /// Of links to the cloud, for people.
    failures: Failures,
    /// Dials of other edges that are on their way.
    neighbours: BTreeSet<u64>,
    lease: Option<Lease>,
    patience: Patience,
}

impl State {
    /// Of a node that has links already.
    pub fn with_lanes(lanes: BTreeMap<LinkId, Lane>) -> Self {
        Self { lanes, ..Self::default() }
    }
}

type Document = serde_json::Map<String, serde_json::Value>;

/// Who waits for what a ticket stands for.
#[derive(Debug)]
enum Asker {
    Client(BrokerTicket),
    Mapper(Answered),
}

/// What checks found, by the number that they were asked for with.
type Exam = (u64, Option<Report>);

/// Where an endpoint is, for a dial.
type Lookup = (Line, DialLane, u64, Result<SocketAddr, NotFound>);

/// What the recorder tells, or why it does not.
type Recalled = Result<Told, String>;

/// A host, and why nobody tells where it is.
type NotFound = (String, String);

fn lane_of(lane: DialLane) -> Lane {
    match lane {
        DialLane::Bus => Lane::Bus,
        DialLane::Packets => Lane::Packets,
    }
}

/// The address from which this machine sends towards `remote`. Nothing is sent.
fn local_address(remote: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(remote).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// What woke the loop.
enum Wake {
    Shard(Option<Event>),
    Broker(Option<BrokerEvent>),
    Dmi(Option<DmiEvent>),
    Store(Option<StoreEvent>),
    Admin(Option<Asked>),
    Lookup(Lookup),
    Exam(Exam),
    Renewed(Result<Pair, RenewError>),
    Recalled(Recalled),
    Timeout,
    DiskStuck,
    Stop,
}

/// Why a node ends that nobody told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It cannot go on without that.
    #[error("the {0} has ended")]
    PartEnded(&'static str),
    #[error("this cloud has lost its turn")]
    Fenced(#[source] StoreError),
}

impl Driver {
    /// Runs until the signal, or until a part ends that a node cannot do without. `inputs` is what happened before.
    pub async fn run(mut self, inputs: Vec<Input>, mut shutdown: Shutdown) -> Result<(), RunError> {
        self.wake_watches();
        inputs.into_iter().for_each(|input| self.handle(input));
        if let Some(gateway) = self.wireguard.told() {
            self.handle(Input::Wireguard(gateway));
        }
        self.perform_all().await;
        loop {
            match self.wake(&mut shutdown).await {
                Wake::Shard(event) => self.on_shard(event.ok_or(RunError::PartEnded("shard thread"))?),
                Wake::Broker(event) => self.on_broker(event.ok_or(RunError::PartEnded("MQTT broker"))?),
                Wake::Dmi(event) => self.on_dmi(event.ok_or(RunError::PartEnded("DMI socket"))?),
                Wake::Store(event) => {
                    if let Err(why) = self.on_store(event.ok_or(RunError::PartEnded("store thread"))?) {
                        self.stop().await;
                        return Err(why);
                    }
                }
                Wake::Admin(asked) => self.on_admin(asked.ok_or(RunError::PartEnded("admin socket"))?),
                Wake::Lookup(found) => self.on_lookup(found),
                Wake::Exam((id, report)) => {
                    self.handle(Input::Examined { id, report: report.map(Box::new) });
                }
                Wake::Renewed(answer) => self.on_renewed(answer),
                Wake::Recalled(told) => self.handle(Input::Recalled(told)),
                Wake::Timeout => self.handle(Input::Timeout),
                Wake::DiskStuck => self.on_disk_stuck(),
                Wake::Stop => break,
            }
            self.take_burst();
            self.perform_all().await;
            if matches!(self.node, Node::Edge(_)) && self.recorder.handle().rule_heads_due() {
                self.handle(Input::RuleLog);
                self.perform_all().await;
            }
        }
        self.stop().await;
        Ok(())
    }

    async fn wake(&mut self, shutdown: &mut Shutdown) -> Wake {
        let open = !self.node.is_full();
        let timeout = self.node.poll_timeout();
        let timer = async {
            match timeout {
                Some((at, _)) => self.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let patience = async {
            match self.state.patience.poll_timeout() {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let dmi = async {
            match &mut self.dmi {
                Some((_, events)) => events.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = self.store_events.recv() => Wake::Store(event),
            event = self.shard_events.recv(), if open => Wake::Shard(event),
            event = self.broker_events.recv(), if open => Wake::Broker(event),
            event = dmi, if open => Wake::Dmi(event),
            asked = self.admin.recv(), if open => Wake::Admin(asked),
            Some(Ok(found)) = self.state.lookups.join_next(), if open => Wake::Lookup(found),
            Some(Ok(exam)) = self.state.exams.join_next(), if open => Wake::Exam(exam),
            answer = self.papers.answered(), if open => Wake::Renewed(answer),
            Some(Ok(told)) = self.state.recalls.join_next(), if open => Wake::Recalled(told),
            () = timer, if open => Wake::Timeout,
            () = patience => Wake::DiskStuck,
            () = shutdown.requested() => Wake::Stop,
        }
    }

    /// What else is there already: one commit can carry it all.
    fn take_burst(&mut self) {
        for _ in 0..BURST {
            if self.node.is_full() {
                return;
            }
            if let Ok(event) = self.shard_events.try_recv() {
                self.on_shard(event);
            } else if let Ok(event) = self.broker_events.try_recv() {
                self.on_broker(event);
            } else {
                return;
            }
        }
    }

    fn handle(&mut self, input: Input) {
        let was_degraded = self.node.degraded().is_some();
        self.node.handle(input, self.clock.now());
        match (was_degraded, self.node.degraded()) {
            (false, Some(why)) => error!(
                why,
                "degraded: the disk refuses writes; this node goes on in memory and promises nothing"
            ),
            (true, None) => info!("the disk takes writes again: all that waited is being written"),
            (false, None) | (true, Some(_)) => {}
        }
    }

    fn on_shard(&mut self, event: Event) {
        match event {
            Event::Up { link, attempt, peer, remote, lane } => {
                debug!(link = link.0, %lane, %remote, "link up");
                self.state.lanes.insert(link, lane);
                if let (Lane::Renew, Some(asker)) = (lane, &peer) {
                    self.state.renewing.insert(link, asker.clone());
                }
                attempt.map(|attempt| self.state.neighbours.remove(&attempt));
                if let Some((line, _)) = attempt.and_then(|attempt| self.state.dials.remove(&attempt)) {
                    self.on_upstream(line, link, lane, remote);
                }
                match (lane, peer, attempt) {
                    (Lane::Bus, Some((peer, key)), attempt) => {
                        self.handle(Input::LinkUp { link, peer, key, attempt });
                    }
                    (Lane::Packets, Some((peer, key)), Some(attempt)) => {
                        self.handle(Input::PacketsUp { link, peer, key, attempt });
                    }
                    (Lane::Packets, Some((peer, key)), None) => {
                        self.handle(Input::PeerPackets { link, peer, key, remote });
                    }
                    // A join says what it wants in its first frame.
                    (Lane::Join | Lane::Renew, ..) | (Lane::Bus | Lane::Packets, None, _) => {}
                }
            }
            Event::Failed { attempt, why } => {
                if self.state.neighbours.remove(&attempt) {
                    debug!(%why, "cannot reach a neighbour");
                } else if self.on_dial_failed(attempt, &why) {
                    self.handle(Input::Certificate(News::Over));
                }
                self.handle(Input::DialFailed { attempt, retry_after: why.retry_after() });
            }
            Event::Down { link, why, .. } => {
                debug!(link = link.0, why, "link down");
                let now = self.clock.now();
                let at = self.upstream.as_ref().and_then(|upstream| upstream.address_of(link));
                if let Some(at) = at {
                    dials::record_end(&mut self.state.failures, at.to_string(), &why, now.wall);
                }
                let is_bus = self.state.lanes.get(&link) == Some(&Lane::Bus);
                if at.is_some() && is_bus && dials::is_turned_away(&why) {
                    self.handle(Input::Certificate(News::TurnedAway));
                }
                if self.upstream.as_mut().is_some_and(|upstream| upstream.handle_down(link, now.mono)) {
                    self.on_trouble(TroubleKind::LinkLost, format!("the link to the cloud ended: {why}"));
                }
                match self.state.lanes.remove(&link) {
                    Some(Lane::Bus) => self.handle(Input::LinkDown { link }),
                    Some(Lane::Packets) => self.handle(Input::PacketsDown { link }),
                    Some(Lane::Join | Lane::Renew) | None => {}
                }
                self.state.renewing.remove(&link);
            }
            Event::Frame { link, frame } if self.state.renewing.contains_key(&link) => {
                // One request a connection, as for those that join.
                self.state.lanes.remove(&link);
                if let Some((peer, key)) = self.state.renewing.remove(&link) {
                    self.handle(Input::Renew { link, peer, key, request: frame.payload });
                }
            }
            Event::Frame { link, frame } if self.state.lanes.get(&link) == Some(&Lane::Join) => {
                // One request a connection: strangers get no more of our time.
                self.state.lanes.remove(&link);
                if frame.channel == Channel::Join {
                    self.handle(Input::Join { link, request: frame.payload });
                }
            }
            Event::Frame { link, .. } if !self.state.lanes.contains_key(&link) => {
                self.command(Command::Close { link, reason: "one request is enough".into() });
            }
            Event::Frame { link, frame } => self.handle(Input::Frame { link, frame }),
            Event::Moved { link, remote } => self.handle(Input::Moved { link, remote }),
            Event::Talk { peers } => self.handle(Input::Talk { peers }),
            Event::Report { id, links } => self.on_report(id, &links),
        }
    }

    /// Whether the cloud would take our next certificate: nobody else's word counts for that.
    fn on_dial_failed(&mut self, attempt: u64, why: &DialError) -> bool {
        let dialled = self.state.dials.remove(&attempt);
        let is_over = dialled.is_some() && why.is_renewable();
        if let Some((Line::Second, _)) = dialled {
            debug!(%why, "cannot reach a replica of the cloud that stands by");
            return is_over;
        }
        info!(%why, "cannot reach the cloud");
        self.state.trouble = Some(metrics::trouble_of_dial(why, self.clock.now().wall));
        let at = dialled.map_or_else(String::new, |(_, address)| address.to_string());
        dials::record(&mut self.state.failures, at, why, self.clock.now().wall);
        is_over
    }

    fn on_upstream(&mut self, line: Line, link: LinkId, lane: Lane, remote: SocketAddr) {
        if lane == Lane::Bus {
            let port = self.shard.local_addr().port();
            let addresses = local_address(remote).map(|ip| SocketAddr::new(ip, port)).into_iter().collect();
            self.handle(Input::Local { addresses });
        }
        let Some(upstream) = &mut self.upstream else { return };
        let lane = match lane {
            Lane::Bus => DialLane::Bus,
            Lane::Packets => DialLane::Packets,
            Lane::Join | Lane::Renew => return,
        };
        if let Some(stale) = upstream.handle_up((line, lane), link, remote, self.clock.now().mono) {
            self.command(Command::Close { link: stale, reason: "the cloud is elsewhere now".into() });
        }
    }

    fn on_trouble(&mut self, kind: TroubleKind, detail: String) {
        self.state.trouble = Some(Trouble { kind, detail, at: self.clock.now().wall });
    }

    fn on_broker(&mut self, event: BrokerEvent) {
        match event {
            BrokerEvent::Publish {
                ticket,
                client: _,
                who,
                topic,
                payload,
                qos,
                retain,
                expiry,
                properties,
                rows,
            } => {
                let ticket = ticket.map(|ticket| self.ticket(Asker::Client(ticket)));
                let expiry = expiry.map(Expiry);
                self.handle(Input::Mqtt {
                    ticket,
                    who,
                    topic,
                    payload,
                    qos,
                    retain,
                    expiry,
                    properties,
                    rows,
                });
            }
            BrokerEvent::Keep { ticket, rows, receipt } => {
                let ticket = ticket.map(|ticket| self.ticket(Asker::Client(ticket)));
                self.handle(Input::Keep { ticket, rows, receipt });
            }
            BrokerEvent::Interest { filter, wanted } => self.handle(Input::Interest { filter, wanted }),
            BrokerEvent::Restored => self.handle(Input::Restored),
        }
    }

    fn on_dmi(&mut self, event: DmiEvent) {
        match event {
            DmiEvent::Request(request, asker) => {
                let ticket = self.ticket(Asker::Mapper(asker));
                self.handle(Input::Dmi { ticket, request });
            }
            DmiEvent::Answer(call, answer) => self.handle(Input::DmiAnswer { call, answer }),
        }
    }

    fn ticket(&mut self, asker: Asker) -> Ticket {
        self.state.next_ticket += 1;
        self.state.tickets.insert(self.state.next_ticket, asker);
        Ticket(self.state.next_ticket)
    }

    /// Fails when this node must write no more: its peers are to hear a goodbye, and go to the cloud that may.
    fn on_store(&mut self, event: StoreEvent) -> Result<(), RunError> {
        let now = Instant::now();
        match event {
            StoreEvent::Durable(revision) => {
                self.state.patience.handle_durable(revision, now);
                self.handle(Input::Persisted(revision));
                self.wake_watches();
            }
            StoreEvent::Degraded(why) => {
                self.state.patience.handle_refused(now);
                self.handle(Input::Degraded { why: describe(&why) });
            }
            StoreEvent::Fenced(why) => return Err(RunError::Fenced(why)),
        }
        Ok(())
    }

    fn wake_watches(&self) {
        let newest = self.node.moved();
        self.moved.send_if_modified(|moved| std::mem::replace(moved, newest) != newest);
    }

    fn on_disk_stuck(&mut self) {
        self.state.patience.handle_timeout();
        self.handle(Input::Degraded { why: format!("a write to the disk takes more than {PATIENCE:?}") });
    }

    fn submit(&mut self, commit: Commit) {
        self.state.patience.handle_submit(commit.revision, Instant::now());
        self.store.submit(commit);
    }

    fn on_admin(&mut self, asked: Asked) {
        // Who asked was told that the node is busy: what he wished then must not happen now.
        if asked.reply.is_closed() {
            return;
        }
        if matches!(asked.question, Question::Alive) {
            // Who asked may have hung up.
            return drop(asked.reply.send(Reply::Alive));
        }
        self.state.next_question += 1;
        self.state.questions.insert(self.state.next_question, asked.reply);
        let id = self.state.next_question;
        self.handle(match asked.question {
            Question::Document(request) => Input::Admin { id, request },
            Question::Order { who, request } => Input::Order { id, who, request },
            Question::Api(request) => Input::Api { id, request },
            Question::Backup => Input::Backup { id },
            // Once it is measured.
            Question::Fleet => return self.measure(Some(id)),
            // It was answered.
            Question::Alive => return,
        });
    }

    async fn perform_all(&mut self) {
        while let Some(output) = self.node.poll_output() {
            self.perform(output).await;
        }
    }

    async fn perform(&mut self, output: Output) {
        match output {
            Output::Persist(commit) => self.submit(commit),
            Output::Send { link, class, frame } => self.command(Command::Send { link, class, frame }),
            Output::Close { link, why } => self.command(Command::Close { link, reason: why.into() }),
            Output::Dial { line, lane, attempt } => self.dial(line, lane, attempt),
            Output::DialNeighbour { lane, attempt, peer, address } => {
                self.dial_neighbour(lane, attempt, peer, address);
            }
            Output::Renew { line } => self.renew(line),
            Output::ShowOther => self.show_other(),
            Output::Knock { addresses } => self.command(Command::Knock { addresses }),
            Output::Admit { link } => self.command(Command::Admit { link }),
            Output::Endpoints(endpoints) => self.on_endpoints(&endpoints),
            Output::Publish(announcement) => {
                // The broker never waits for this loop; that it has ended shows at its events.
                let _ = self.broker.publish(announcement).await;
            }
            Output::Accept(ticket) => self.accept(ticket, Bytes::new()),
            Output::Registered(ticket, reply) => self.accept(ticket, reply),
            Output::Reject(ticket, why) => self.reject(ticket, why),
            Output::Unkept(ticket) => match self.state.tickets.remove(&ticket.0) {
                Some(Asker::Client(ticket)) => self.broker.reject(ticket, Refusal::Disk),
                Some(Asker::Mapper(asker)) => asker.unkept(),
                None => {}
            },
            Output::Call(call) => {
                if let Some((dmi, _)) = &self.dmi {
                    dmi.call(call).await;
                }
            }
            // Only what clients publish goes to other sites.
            Output::Full(ticket) => {
                if let Some(Asker::Client(ticket)) = self.state.tickets.remove(&ticket.0) {
                    self.broker.reject(ticket, Refusal::Quota);
                }
            }
            Output::Overlay { lease, routes } => self.set_overlay(lease, routes),
            Output::Names(names) => self.dns.iter().for_each(|dns| dns.set_names(Arc::clone(&names))),
            Output::Policy(policy) => {
                self.wireguard.set_policy(&policy);
                self.command(Command::SetPolicy(policy));
            }
            Output::Users(users) => {
                self.client_keys.send_replace(Arc::new(users.keys()));
                self.users.say(users, self.clock.now().wall);
            }
            Output::Wireguard(clients) => self.wireguard.set_clients(clients),
            Output::Admin { id, response } => self.answer(id, response),
            Output::Api { id, answer } => self.reply(id, Reply::Api(answer)),
            Output::Backup { id, snapshot } => self.reply(id, Reply::Backup(snapshot)),
            Output::Measure => self.measure(None),
            Output::Examine { id } => {
                let examiner = self.examiner.clone();
                self.state.exams.spawn(async move { (id, examiner.run().await) });
            }
            Output::Fleet { id, fleet } => self.reply(id, Reply::Fleet(fleet)),
            Output::Recall(question) => {
                let recorder = self.recorder.handle().clone();
                let recall = async move { recall(&recorder, question).await.map_err(|why| describe(&why)) };
                self.state.recalls.spawn(recall);
            }
            Output::Record(record) => self.record(record),
            Output::Note(text) => info!("{text}"),
        }
    }

    /// A mapper gets the reply; a client of the broker needs none.
    fn accept(&mut self, ticket: Ticket, reply: Bytes) {
        match self.state.tickets.remove(&ticket.0) {
            Some(Asker::Client(ticket)) => self.broker.accept(ticket),
            Some(Asker::Mapper(asker)) => asker.done(reply),
            None => {}
        }
    }

    fn reject(&mut self, ticket: Ticket, why: String) {
        debug!(why, "refused a message");
        match self.state.tickets.remove(&ticket.0) {
            Some(Asker::Client(ticket)) => self.broker.reject(ticket, Refusal::Payload),
            Some(Asker::Mapper(asker)) => asker.refused(why),
            None => {}
        }
    }

    fn record(&self, record: Record) {
        self.recorder.handle().record(match record {
            Record::Sample { id, sample } => Kept::Sample { id, sample, stored: self.clock.now().wall },
            Record::Audit(entry) => Kept::Audit(entry),
            Record::Rule(line) => Kept::Rule(line),
            Record::RuleHeads(lines) => Kept::RuleHeads(lines),
        });
    }

    fn command(&self, command: Command) {
        // That the shard has ended shows at its events.
        let _ = self.shard.send(command);
    }

    /// The lookup is a task: without its cloud a site has no name server either, and must go on meanwhile.
    fn dial(&mut self, line: Line, lane: DialLane, attempt: u64) {
        match self.upstream.as_mut().and_then(|upstream| upstream.next(line, lane)) {
            Some(Target::Address(address)) => self.on_lookup((line, lane, attempt, Ok(address))),
            Some(Target::Endpoint((host, port))) => {
                self.state.lookups.spawn(async move {
                    let found = tokio::time::timeout(LOOKUP, resolve(&host, port)).await;
                    let address = found.map_err(|_| format!("no name server tells where {host} is"));
                    let address = address.and_then(|found| found.map_err(|why| describe(&why)));
                    (line, lane, attempt, address.map_err(|why| (host, why)))
                });
            }
            None => self.handle(Input::DialFailed { attempt, retry_after: None }),
        }
    }

    fn renew(&mut self, line: Line) {
        let upstream = self.upstream.as_mut();
        let target = upstream.and_then(|upstream| Some((upstream.to_renew(line)?, upstream.cloud.clone())));
        self.papers.renew(target, self.clock.now().wall);
    }

    fn on_renewed(&mut self, answer: Result<Pair, RenewError>) {
        match answer.and_then(|next| self.papers.show(next)) {
            Ok(()) => self.say_certificate("this node has its next certificate", News::Renewed),
            Err(why) => {
                let news = why.into_news();
                if let News::Failed { why, .. } = &news {
                    warn!(why, "this node's certificate is not renewed, which is tried again");
                }
                self.handle(Input::Certificate(news));
            }
        }
    }

    fn show_other(&mut self) {
        match self.papers.show_other() {
            Ok(true) => {
                let what = "the cloud does not know this certificate: the one before is tried";
                self.say_certificate(what, News::Shown);
            }
            Ok(false) => {}
            Err(why) => warn!(why = describe(&why), "the certificate before this one cannot be used"),
        }
    }

    fn say_certificate(&mut self, what: &str, news: fn(Certificate) -> News) {
        self.command(Command::SetCredentials(Box::new(self.papers.credentials().clone())));
        let certificate = self.papers.certificate();
        info!(?certificate, "{what}");
        self.handle(Input::Certificate(news(certificate)));
    }

    fn dial_neighbour(&mut self, lane: DialLane, attempt: u64, peer: NodeId, address: SocketAddr) {
        let Some(Upstream { cloud, .. }) = &self.upstream else { return };
        let expect = Expect::Node(Identity { cluster: cloud.cluster.clone(), node: peer });
        self.state.neighbours.insert(attempt);
        let lane = lane_of(lane);
        self.command(Command::Dial { attempt, address, expect, lane, in_reserve: false });
    }

    fn on_endpoints(&mut self, endpoints: &[String]) {
        let Some(upstream) = &mut self.upstream else { return };
        for invalid in upstream.handle_told(endpoints) {
            warn!("{invalid}");
        }
    }

    fn on_lookup(&mut self, (line, lane, attempt, found): Lookup) {
        let Some(upstream) = &self.upstream else { return };
        match found {
            Ok(address) if upstream.is_taken(line, address) => {
                debug!(%address, "the other line to the cloud leads there");
                self.handle(Input::DialFailed { attempt, retry_after: None });
            }
            Ok(address) => {
                let (expect, lane) = (Expect::Node(upstream.cloud.clone()), lane_of(lane));
                self.state.dials.insert(attempt, (line, address));
                self.command(Command::Dial { attempt, address, expect, lane, in_reserve: true });
            }
            Err((host, why)) => {
                info!("{why}");
                self.state.failures.record(LinkFault::Lookup, host, why.clone(), self.clock.now().wall.0);
                self.on_trouble(TroubleKind::Name, why);
                self.handle(Input::DialFailed { attempt, retry_after: None });
            }
        }
    }

    fn set_overlay(&mut self, lease: Lease, routes: Vec<Route>) {
        if let Some(overlay) = &mut self.overlay {
            match overlay.sync(&lease, &self.me, &routes) {
                Ok(report) => debug!(?report, "overlay interface in line"),
                Err(why) => error!(why = describe(&why), "cannot bring the overlay interface in line"),
            }
            self.dns.iter().for_each(|dns| dns.set_lease(&lease));
        }
        let via = self.upstream.as_ref().map(|upstream| upstream.cloud.node.clone());
        let table = Arc::new(Table::new(self.me.clone(), routes, via).with_lease(&lease));
        self.wireguard.set_overlay(&lease, &table);
        self.command(Command::SetTable(table));
        self.state.lease = Some(lease);
    }

    fn answer(&mut self, id: u64, response: AdminResponse) {
        match response {
            Ok(serde_json::Value::Object(mut status)) if status.contains_key("node") => {
                self.describe_parts(&mut status);
                self.state.waiting_status.insert(id, status);
                self.command(Command::Report { id });
            }
            Ok(mut document) if document.get(CLIENTS).is_some() => {
                self.reply(id, Reply::Document(Ok(self.wireguard.with_tunnels(document[CLIENTS].take()))));
            }
            response => self.reply(id, Reply::Document(response)),
        }
    }

    fn reply(&mut self, id: u64, reply: Reply) {
        if let Some(asked) = self.state.questions.remove(&id) {
            // Who asked may have hung up.
            let _ = asked.send(reply);
        }
    }

    /// What the parts of this process say of themselves. The shard's word comes later, with [`Event::Report`].
    fn describe_parts(&self, status: &mut Document) {
        status
            .insert("overlay".to_owned(), status::overlay(self.overlay.as_ref(), self.state.lease.as_ref()));
        status.insert("wireguard".to_owned(), self.wireguard.status());
        if let Some(upstream) = &self.upstream {
            status.insert("upstream".to_owned(), dials::describe(upstream, &self.state.failures));
        }
        let mut counters = status::counters(
            &self.shard.stats(),
            &self.broker.stats(),
            &self.store.stats(),
            &self.recorder.handle().stats(),
        );
        if let Some(dns) = &self.dns {
            counters["dns_queries"] = dns.counters();
        }
        status.insert("counters".to_owned(), counters);
        if let Some(state) = self.broker.external_state() {
            status.insert("mqtt".to_owned(), json!({ "external": state }));
        }
    }

    /// Goes on with [`Self::on_measured`].
    fn measure(&mut self, asked: Option<u64>) {
        self.state.next_question += 1;
        let id = self.state.next_question;
        self.state.measures.insert(id, asked);
        self.command(Command::Report { id });
    }

    fn on_measured(&mut self, asked: Option<u64>, links: &[LinkReport]) {
        let parts = metrics::Parts {
            shard: self.shard.stats(),
            broker: self.broker.stats(),
            store: self.store.stats(),
            recorder: self.recorder.handle().stats(),
            overlay: self.overlay.as_ref(),
            trouble: self.state.trouble.clone(),
        };
        self.handle(Input::Measured(Box::new(metrics::measured(parts, links))));
        if let Some(id) = asked {
            self.handle(Input::Fleet { id });
        }
    }

    fn on_report(&mut self, id: u64, links: &[LinkReport]) {
        if let Some(asked) = self.state.measures.remove(&id) {
            return self.on_measured(asked, links);
        }
        let Some(mut status) = self.state.waiting_status.remove(&id) else { return };
        status.insert("links".to_owned(), status::links(links));
        self.reply(id, Reply::Document(Ok(status.into())));
    }

    /// Steps two to five; accepting stopped with the loop.
    async fn stop(mut self) {
        info!("stopping");
        self.node.goodbye();
        let flushed = async {
            self.perform_all().await;
            self.broker.shutdown().await;
        };
        if tokio::time::timeout(FLUSH, flushed).await.is_err() {
            warn!("some goodbyes were not said in time");
        }
        drop(self.dmi);
        // The thread waits for room to tell that it is done.
        drop(self.store_events);
        self.store.finish();
        self.recorder.finish();
        let _ = self.shard.send(Command::Stop);
        self.shard.join();
        drop(self.wireguard);
        drop(self.overlay);
    }
}

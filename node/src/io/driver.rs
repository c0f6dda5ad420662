//! The owner loop: plays a [`Node`] with real links, a broker, a disk and a clock.
//!
//! It decides nothing: inputs come from five queues and a timer, outputs go where their name says. All queues are
//! bounded; while the journal is full (a stuck disk) only the store's word is taken, so that back-pressure reaches
//! whoever causes the load.

mod answers;
mod certificates;
mod clients;
mod dialling;
mod links;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::bus::LinkId;
use bus::io::Clock;
use bus::overlay::{Lease, Route};
use bus::{KeyHash, NodeId};
use bytes::Bytes;
use controller::api::index::Moved;
use device_twin::gate::Refusal;
use device_twin::gate::access::ClientKeys;
use device_twin::io::dmi::{DmiEvent, DmiHandle};
use device_twin::io::recorder::{Record as Kept, Recorder};
use device_twin::io::{BrokerEvent, BrokerHandle};
use metadata::{Commit, StoreError};
use router::Table;
use router::io::device::Overlay;
use router::io::shard::{Command, Event, Lane, ShardHandle};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use self::answers::Document;
use self::clients::Asker;
use self::dialling::Lookup;

use super::api::{Asked, Reply};
use super::debug::examiner::Examiner;
use super::dns::Dns;
use super::identity::Pair;
use super::patience::{PATIENCE, Patience};
use super::records::recall;
use super::renew::{Papers, RenewError};
use super::session::UsersSender;
use super::shutdown::Shutdown;
use super::store::{StoreEvent, StoreThread};
use super::upstream::Upstream;
use super::wireguard::Wireguard;
use crate::admin::describe;
use crate::checkup::Report;
use crate::diagnose::Failures;
use crate::health::Trouble;
use crate::history::Told;
use crate::seam::{Input, Line, Node, Output, Record};

/// Step two of the shutdown: how long goodbyes may take.
const FLUSH: Duration = Duration::from_secs(1);

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

/// What checks found, by the number that they were asked for with.
type Exam = (u64, Option<Report>);

/// What the recorder tells, or why it does not.
type Recalled = Result<Told, String>;

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

//! Plays a [`Standby`] with real links, until its turn has come.
//!
//! etcd is asked once a second whether the turn is free, and at once when the replica that leads falls silent: then its
//! turn is ended first. A replica that has just begun to lead is not taken over from so fast: two that do not see each
//! other would else take turns.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bus::bus::LinkId;
use bus::io::Clock;
use bus::{Class, Identity, NodeKind};
use metadata::StoreError;
use metadata::io::Turn;
use router::io::device::Overlay;
use router::io::shard::{Command, Event, Expect, Lane};
use serde_json::json;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::api::{Asked, Question, Reply};
use super::cloud_store::Begun;
use super::identity::Pair;
use super::join::resolve;
use super::node::{CloudStart, Equipment, Open, Proof, Sockets, seed};
use super::renew::RenewError;
use super::replica::{Asked as Answer, Replica, ReplicaError};
use super::shutdown::Shutdown;
use super::upstream::Endpoint;
use crate::admin::{AdminError, AdminRequest, describe};
use crate::renewal::{News, Renewal, Wish};
use crate::resources::{ApiAnswer, as_refusal};
use crate::seam::Input;
use crate::standby::{Output, Standby};

/// Between two questions whether the turn is free.
const RETRY: Duration = Duration::from_secs(1);

/// A replica that has led for less than this loses its turn only with its lease, which takes as long.
const SETTLED: Duration = Duration::from_secs(10);

/// How long a name server may take to tell where a replica is.
const LOOKUP: Duration = Duration::from_secs(2);

type Asking = Pin<Box<dyn Future<Output = Result<(Replica, Answer), ReplicaError>>>>;

/// The turn, as far as it is known.
pub(super) struct Turns {
    /// `None` while it is asked.
    replica: Option<Replica>,
    asking: Option<Asking>,
    ask_at: Instant,
    /// Whose turn is to be ended.
    depose: Option<u64>,
    leads: Option<Leads>,
    waits_for: String,
}

/// Who leads, and since when that is known.
struct Leads {
    term: u64,
    since: Instant,
}

impl Turns {
    fn new(replica: Replica) -> Self {
        Self {
            replica: Some(replica),
            asking: None,
            ask_at: Instant::now(),
            depose: None,
            leads: None,
            waits_for: String::new(),
        }
    }

    /// The answer, when it is time to ask and etcd has answered.
    async fn answer(&mut self) -> Result<(Replica, Answer), ReplicaError> {
        if self.asking.is_none() {
            tokio::time::sleep_until(self.ask_at.into()).await;
            let Some(replica) = self.replica.take() else { return Err(ReplicaError::Ended) };
            self.asking = Some(Box::pin(replica.stand(self.depose.take())));
        }
        match &mut self.asking {
            Some(asking) => {
                let answer = asking.await;
                self.asking = None;
                answer
            }
            None => Err(ReplicaError::Ended),
        }
    }

    /// Takes the answer; the replica, if the turn is its own.
    fn handle(&mut self, (replica, answer): (Replica, Answer)) -> Result<Option<Replica>> {
        let waits_for = match answer {
            Ok(Turn::Ours) => return Ok(Some(replica)),
            Ok(Turn::Held { by, term }) => {
                if self.leads.as_ref().is_none_or(|leads| leads.term != term) {
                    self.leads = Some(Leads { term, since: Instant::now() });
                }
                format!("standby: {by} leads, and this cloud takes over when it does not")
            }
            Ok(Turn::Lost) => "standby: another replica asked first".to_owned(),
            Err(why @ StoreError::Unreachable { .. }) => format!("waiting for etcd: {}", describe(&why)),
            Err(other) => return Err(other.into()),
        };
        if waits_for != self.waits_for {
            warn!("{waits_for}");
            self.waits_for = waits_for;
        }
        self.replica = Some(replica);
        // What came up meanwhile is not left to the next round.
        self.ask_at = Instant::now() + if self.depose.is_some() { Duration::ZERO } else { RETRY };
        Ok(None)
    }

    /// Whether the replica that leads has done so for long enough.
    fn is_settled(&self) -> bool {
        self.leads.as_ref().is_some_and(|leads| leads.since.elapsed() >= SETTLED)
    }

    /// The replica that leads, in this term, is silent.
    fn handle_lost(&mut self, term: u64) {
        self.ask_at = Instant::now();
        match &self.leads {
            Some(leads) if leads.term == term && self.is_settled() => {
                warn!("the replica that leads is silent: it is taken over from");
                self.depose = Some(term);
            }
            _ => {
                warn!("the replica that leads is silent, and began a moment ago: its lease is waited for")
            }
        }
    }
}

/// What came of waiting for the files that replicas share.
pub(super) enum Files {
    /// There are none, and it is for this replica to make them.
    ToBeMade(Box<Replica>),
    /// They are in place; another replica leads.
    InPlace(Box<Turns>),
}

/// Waits without links while there is no authority to know others by, since no replica ever led. `None` if told to stop
/// before.
pub(super) async fn wait_for_files(replica: Replica, shutdown: &mut Shutdown) -> Result<Option<Files>> {
    let mut turns = Turns::new(replica);
    loop {
        let answer = tokio::select! {
            answer = turns.answer() => answer?,
            () = shutdown.requested() => return Ok(None),
        };
        if let Some(replica) = turns.handle(answer)? {
            return Ok(Some(Files::ToBeMade(Box::new(replica))));
        }
        // While etcd is away nothing is known of who else there is.
        let Some(replica) = turns.replica.take_if(|_| turns.leads.is_some()) else { continue };
        let (replica, are_there) = replica.fetch().await?;
        turns.replica = Some(replica);
        match are_there {
            Ok(true) => return Ok(Some(Files::InPlace(Box::new(turns)))),
            Ok(false) | Err(ReplicaError::Store(StoreError::Unreachable { .. })) => {}
            Err(other) => return Err(other.into()),
        }
    }
}

/// Where an endpoint is, for a dial.
type Lookup = (u64, Result<SocketAddr, String>);

/// A replica that waits for its turn with all that it needs to lead.
pub(super) struct Waiting {
    core: Standby,
    me: Identity,
    proof: Proof,
    overlay: Option<Overlay>,
    open: Open,
    lanes: BTreeMap<LinkId, Lane>,
    endpoints: Vec<Endpoint>,
    lookups: JoinSet<Lookup>,
    clock: Clock,
    /// Of this replica's own certificate.
    renewal: Renewal,
}

/// What woke the loop.
enum Wake {
    Shard(Option<Event>),
    Admin(Option<Asked>),
    Answer(Box<Result<(Replica, Answer), ReplicaError>>),
    Lookup(Lookup),
    Renewed(Result<Pair, RenewError>),
    Timeout,
    Stop,
}

impl Waiting {
    /// Replicas are looked for at `endpoints`.
    pub(super) fn new(
        start: &CloudStart<'_>,
        equipment: Equipment,
        endpoints: Vec<Endpoint>,
    ) -> Result<Self> {
        let CloudStart { me, data_dir, clock, .. } = *start;
        let Equipment { proof, overlay, sockets } = equipment;
        let mut renewal = Renewal::new(NodeKind::Cloud, seed()?);
        renewal.handle(News::Shown(proof.papers.certificate()), clock.now());
        Ok(Self {
            renewal,
            core: Standby::new(me.node.clone(), endpoints.len(), clock.now().mono),
            me: me.clone(),
            proof,
            overlay,
            open: sockets.open(data_dir, NodeKind::Cloud)?,
            lanes: BTreeMap::new(),
            endpoints,
            lookups: JoinSet::new(),
            clock,
        })
    }

    /// `None` if told to stop before.
    pub(super) async fn run(
        mut self,
        mut turns: Turns,
        shutdown: &mut Shutdown,
    ) -> Result<Option<(Replica, Begun)>> {
        loop {
            match self.wake(&mut turns, shutdown).await {
                Wake::Shard(Some(event)) => self.on_shard(event),
                Wake::Admin(Some(asked)) => self.on_admin(asked, &turns),
                Wake::Shard(None) | Wake::Admin(None) => bail!("a part of this replica has ended"),
                Wake::Answer(answer) => {
                    if let Some(replica) = turns.handle((*answer)?)? {
                        return Ok(Some((replica, self.hand_over())));
                    }
                }
                Wake::Lookup(found) => self.on_lookup(found),
                Wake::Timeout => {
                    self.renewal.handle_timeout(self.clock.now());
                    self.handle(Input::Timeout);
                }
                Wake::Renewed(answer) => self.on_renewed(answer),
                Wake::Stop => {
                    self.stop();
                    return Ok(None);
                }
            }
            while let Some(output) = self.core.poll_output() {
                self.perform(output, &mut turns);
            }
            while let Some(Wish::Renew) = self.renewal.poll_output() {
                self.proof.papers.renew(None, self.clock.now().wall);
            }
        }
    }

    async fn wake(&mut self, turns: &mut Turns, shutdown: &mut Shutdown) -> Wake {
        let timeout = [self.core.poll_timeout(), self.renewal.poll_timeout()].into_iter().flatten().min();
        let timer = async {
            match timeout {
                Some((at, _)) => self.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = self.open.shard_events.recv() => Wake::Shard(event),
            asked = self.open.console.asked.recv() => Wake::Admin(asked),
            answer = turns.answer() => Wake::Answer(Box::new(answer)),
            Some(Ok(found)) = self.lookups.join_next() => Wake::Lookup(found),
            answer = self.proof.papers.answered() => Wake::Renewed(answer),
            () = timer => Wake::Timeout,
            () = shutdown.requested() => Wake::Stop,
        }
    }

    fn handle(&mut self, input: Input) {
        self.core.handle(input, self.clock.now().mono);
    }

    fn on_shard(&mut self, event: Event) {
        match event {
            Event::Up { link, attempt, peer, remote, lane } => {
                self.lanes.insert(link, lane);
                match (lane, peer) {
                    (Lane::Bus, Some((peer, key))) => self.handle(Input::LinkUp { link, peer, key, attempt }),
                    (Lane::Packets, Some((peer, key))) => {
                        self.handle(Input::PeerPackets { link, peer, key, remote });
                    }
                    (Lane::Join | Lane::Renew, _) | (Lane::Bus | Lane::Packets, None) => {}
                }
            }
            Event::Failed { attempt, why } => {
                debug!(%why, "cannot reach another replica");
                self.handle(Input::DialFailed { attempt, retry_after: None });
            }
            Event::Down { link, why, .. } => {
                debug!(link = link.0, why, "link down");
                self.lanes.remove(&link);
                self.handle(Input::LinkDown { link });
            }
            Event::Frame { link, frame } if self.lanes.get(&link) == Some(&Lane::Join) => {
                self.handle(Input::Join { link, request: frame.payload });
            }
            Event::Frame { link, .. } if self.lanes.get(&link) == Some(&Lane::Renew) => {
                self.core.refuse_to_renew(link);
            }
            Event::Frame { link, frame } => self.handle(Input::Frame { link, frame }),
            Event::Moved { link, remote } => self.handle(Input::Moved { link, remote }),
            Event::Talk { .. } | Event::Report { .. } => {}
        }
    }

    fn on_renewed(&mut self, answer: Result<Pair, RenewError>) {
        let news = match answer.and_then(|next| self.proof.papers.show(next)) {
            Ok(()) => {
                let shown = Box::new(self.proof.papers.credentials().clone());
                self.command(Command::SetCredentials(shown));
                info!("this replica has its next certificate");
                News::Renewed(self.proof.papers.certificate())
            }
            Err(why) => why.into_news(),
        };
        self.renewal.handle(news, self.clock.now());
    }

    fn on_admin(&mut self, asked: Asked, turns: &Turns) {
        let answer = match asked.question {
            Question::Api(_) => {
                let error = AdminError::Standby(turns.waits_for.clone());
                let refused = ApiAnswer::Written(Err(as_refusal(&error)));
                let _ = asked.reply.send(Reply::Api(refused));
                return;
            }
            Question::Alive => return drop(asked.reply.send(Reply::Alive)),
            Question::Document(AdminRequest::Status) => Ok(json!({
                "node": self.me.to_string(),
                "replica": {
                    "state": "waits",
                    "for": turns.waits_for,
                    "takes_over": if self.core.watches() && turns.is_settled() { "at once" } else { "when its lease ends" },
                    "edges_standing_by": self.core.edges(),
                },
            })),
            Question::Document(_) | Question::Order { .. } | Question::Backup | Question::Fleet => {
                Err(AdminError::Standby(turns.waits_for.clone()))
            }
        };
        // Who asked may have hung up.
        let _ = asked.reply.send(Reply::Document(answer));
    }

    fn perform(&mut self, output: Output, turns: &mut Turns) {
        match output {
            Output::Send { link, frame } => {
                self.command(Command::Send { link, class: Class::Control, frame });
            }
            Output::Close { link, why } => self.command(Command::Close { link, reason: why.into() }),
            Output::Dial { attempt, endpoint } => self.dial(attempt, endpoint),
            Output::Lost { term } => turns.handle_lost(term),
        }
    }

    fn command(&self, command: Command) {
        // That the shard has ended shows at its events.
        let _ = self.open.shard.send(command);
    }

    fn dial(&mut self, attempt: u64, endpoint: usize) {
        let Some((host, port)) = self.endpoints.get(endpoint).cloned() else { return };
        self.lookups.spawn(async move {
            let found = tokio::time::timeout(LOOKUP, resolve(&host, port)).await;
            let address = found.map_err(|_| format!("no name server tells where {host} is"));
            (attempt, address.and_then(|found| found.map_err(|why| describe(&why))))
        });
    }

    fn on_lookup(&mut self, (attempt, found): Lookup) {
        match found {
            Ok(address) => {
                let (expect, lane) = (Expect::Node(self.me.clone()), Lane::Bus);
                self.command(Command::Dial { attempt, address, expect, lane, in_reserve: true });
            }
            Err(why) => {
                debug!("{why}");
                self.handle(Input::DialFailed { attempt, retry_after: None });
            }
        }
    }

    fn hand_over(self) -> Begun {
        let Self { core, proof, overlay, open, lanes, .. } = self;
        info!(edges = core.edges(), "this replica's turn has come");
        let (inputs, left) = core.into_inputs();
        for link in left {
            let reason = "this replica leads".into();
            // That the shard has ended shows at its events.
            let _ = open.shard.send(Command::Close { link, reason });
        }
        let equipment = Equipment { proof, overlay, sockets: Sockets::Open(Box::new(open)) };
        Begun { equipment, lanes, inputs }
    }

    fn stop(self) {
        let _ = self.open.shard.send(Command::Stop);
        self.open.shard.join();
        self.open.console.recorder.finish();
    }
}

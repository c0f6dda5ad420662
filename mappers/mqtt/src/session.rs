//! One device: listens on the shared connection, passes on what it says, and writes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kubebus_sdk::{
    Batch, Consumed, Error, Point, Samples, Session, Sink, Value, ValueType, WriteOutcome, WritePermit,
};
use rumqttc::v5::mqttbytes::QoS;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::board::{Known, Source};
use crate::config::Address;
use crate::exchange::{Grant, MemberId};
use crate::link::{Kept, Link, unix_now};
use crate::shape::{self, Command, Voice};

/// How long a broker may take to answer a subscription or to acknowledge a command.
const ANSWER: Duration = Duration::from_secs(5);

/// How long retained values may take to come after a new subscription, before a reading does without them.
const FIRST_VALUES: Duration = Duration::from_millis(500);

/// How long a device may take to confirm a write by its own report; then it counts as accepted and under way.
const CONFIRM: Duration = Duration::from_secs(5);

/// So much of a write's time is left for what comes after the confirmation.
const MARGIN: Duration = Duration::from_millis(100);

/// A device is asked no more often than this.
const ASK_PAUSE: Duration = Duration::from_secs(5);

/// See the module's page.
pub struct MqttSession {
    kept: Arc<Kept>,
    id: MemberId,
    voice: Arc<Voice>,
    news: Arc<Notify>,
    /// Passes on what the device says.
    pusher: JoinSet<()>,
    asked: Option<Instant>,
}

impl std::fmt::Debug for MqttSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MqttSession").field("voice", &self.voice).finish_non_exhaustive()
    }
}

impl Drop for MqttSession {
    fn drop(&mut self) {
        self.link().exchange().leave(self.id);
        self.link().wake();
    }
}

impl MqttSession {
    /// Listens; returns when the broker has granted it.
    pub(crate) async fn open(kept: Arc<Kept>, voice: Voice) -> Result<Self, Error> {
        let voice = Arc::new(voice);
        let (id, news) = kept.link.exchange().join(Arc::clone(&voice));
        let session = Self { kept, id, voice, news, pusher: JoinSet::new(), asked: None };
        session.granted().await?;
        for filter in session.filters() {
            if let Grant::Refused(why) = session.link().exchange().grant(&filter) {
                return Err(Error::Auth(format!("the broker refuses the topic {filter}: {why}")));
            }
        }
        Ok(session)
    }

    fn link(&self) -> &Link {
        &self.kept.link
    }

    fn filters(&self) -> Vec<String> {
        self.link().exchange().filters_of(self.id)
    }

    /// Waits for the broker's answers to all subscriptions.
    async fn granted(&self) -> Result<(), Error> {
        let id = self.id;
        self.link().wake();
        let answered = self.link().when(|exchange| {
            if let Some(error) = exchange.ended() {
                return Some(Err(error.clone()));
            }
            let is_open = |filter: &String| exchange.grant(filter) == Grant::Asked;
            (!exchange.filters_of(id).iter().any(is_open)).then_some(Ok(()))
        });
        timeout(ANSWER, answered).await.unwrap_or_else(|_| Err(Error::Timeout("subscribe".to_owned())))
    }

    /// Listens for points; those that make no sense come back with the reason.
    async fn watch(
        &mut self,
        points: &[&Point<Address>],
        pushed: bool,
    ) -> Result<Vec<(String, Error)>, Error> {
        let (mut faults, mut fresh) = (Vec::new(), false);
        let before = self.filters().len();
        for point in points {
            match self.voice.source(point) {
                Ok(source) => fresh |= self.watch_one(point, source, pushed)?,
                Err(error) => faults.push((point.name.clone(), error)),
            }
        }
        if fresh || before != self.filters().len() {
            self.granted().await?;
            self.asked = None;
            self.ask(points.iter().map(|point| &point.address));
            self.first_values(points).await;
        }
        faults.extend(points.iter().filter_map(|point| Some((point.name.clone(), self.refused(point)?))));
        Ok(faults)
    }

    /// Subscribes once more: the broker sends what it has retained, and shows that it is there at all. Whatever it had before
    /// its answer has then been heard.
    async fn hear_again(&self, points: &[&Point<Address>]) -> Result<(), Error> {
        let sources = points.iter().filter_map(|point| self.voice.source(point).ok());
        let topics = sources
            .filter_map(|source| if let Source::Topic(topic, _) = source { Some(topic) } else { None });
        let mut filters: BTreeSet<String> = topics.collect();
        if filters.is_empty() {
            filters.extend(self.voice.filters().pop());
        }
        {
            let mut exchange = self.link().exchange();
            filters.iter().for_each(|filter| exchange.renew(filter));
        }
        self.granted().await
    }

    /// Returns whether nothing is known of it yet.
    fn watch_one(&self, point: &Point<Address>, source: Source, pushed: bool) -> Result<bool, Error> {
        let mut exchange = self.link().exchange();
        let is_new = !exchange.board(self.id)?.listens_to(&point.name, &source);
        if is_new {
            match (&source, &*self.voice) {
                (Source::Topic(topic, _), _) => {
                    exchange.want(self.id, topic.clone());
                    exchange.renew(topic);
                }
                (Source::Metric(_), Voice::Sparkplug(unit)) => exchange.want_rebirth(&unit.node),
                (Source::Metric(_) | Source::Body(_), voice) => {
                    voice.filters().iter().for_each(|filter| exchange.renew(filter));
                }
            }
        }
        exchange.board(self.id)?.watch(&point.name, source, point.value_type, pushed);
        Ok(is_new)
    }

    async fn first_values(&self, points: &[&Point<Address>]) {
        let id = self.id;
        let all = self.link().when(|exchange| match exchange.board(id) {
            Ok(board) => points.iter().all(|point| board.known(&point.name).is_ok()).then_some(()),
            Err(_) => Some(()),
        });
        drop(timeout(FIRST_VALUES, all).await);
    }

    fn refused(&self, point: &Point<Address>) -> Option<Error> {
        let Ok(Source::Topic(topic, _)) = self.voice.source(point) else { return None };
        let Grant::Refused(why) = self.link().exchange().grant(&topic) else { return None };
        Some(shape::bad(point, format!("topic: the broker refuses {topic}: {why}")))
    }

    /// Asks the device to say what it knows, where its protocol has a question that changes nothing.
    fn ask<'a>(&mut self, addresses: impl Iterator<Item = &'a Address>) {
        if self.asked.is_some_and(|asked| asked.elapsed() < ASK_PAUSE) {
            return;
        }
        let questions = self.voice.questions(addresses);
        if questions.is_empty() {
            return;
        }
        self.asked = Some(Instant::now());
        let mut exchange = self.link().exchange();
        questions.into_iter().for_each(|(topic, payload)| exchange.ask(topic, payload.into_bytes()));
        drop(exchange);
        self.link().wake();
    }

    fn known(&self, name: &str) -> Result<Known, Error> {
        self.link().exchange().board(self.id)?.known(name)
    }

    fn command(&self, point: &Point<Address>, value: &Value) -> Result<(Command, QoS), Error> {
        let Voice::Sparkplug(unit) = &*self.voice else {
            return Ok((self.voice.command(point, value)?, QoS::AtLeastOnce));
        };
        let metric = shape::metric(&point.address).map_err(|why| shape::bad(point, why))?;
        let mut exchange = self.link().exchange();
        let node = exchange.node(&unit.node).ok_or_else(|| Error::Bug("no node".to_owned()))?;
        let made = node.command(unit.device.as_deref(), metric, value, unix_now());
        if let Err(Error::Transient { .. }) = made {
            exchange.want_rebirth(&unit.node);
            self.link().wake();
        }
        let payload = made?;
        // Sparkplug 3.0.0 §6.4.26: at QoS 0.
        Ok((Command { topic: unit.command_topic(), payload, name: metric.to_owned() }, QoS::AtMostOnce))
    }

    /// How often the device has said it so far. Fails for a device that is not there.
    fn before_write(&self, point: &Point<Address>) -> Result<u64, Error> {
        let mut exchange = self.link().exchange();
        let board = exchange.board(self.id)?;
        if board.is_offline() {
            return Err(Error::Device("the device is offline".to_owned()));
        }
        board.forget_refusals();
        Ok(board.live(&point.name).0)
    }

    /// Waits for the device's own word: the value, a refusal, or nothing.
    async fn confirmed(
        &self,
        point: &Point<Address>,
        command: &Command,
        value: &Value,
        before: u64,
        patience: Duration,
    ) -> Result<Option<Value>, Error> {
        let id = self.id;
        let word = self.link().when(|exchange| {
            let board = match exchange.board(id) {
                Ok(board) => board,
                Err(error) => return Some(Err(error)),
            };
            if board.has_refused(&command.name) {
                return Some(Err(Error::Device(format!("it refuses the command {}", command.name))));
            }
            let (said, last) = board.live(&point.name);
            let heard = last.filter(|last| said > before && is_same(last, value, point.value_type))?;
            Some(Ok(Some(heard.clone())))
        });
        timeout(patience, word).await.unwrap_or(Ok(None))
    }
}

impl Session for MqttSession {
    type Address = Address;
    type Bus = ();

    async fn read(&mut self, batch: &Batch<'_, Address>, out: &mut Samples) -> Result<(), Error> {
        let faults = self.watch(batch, false).await?;
        self.hear_again(batch).await?;
        self.ask(batch.iter().map(|point| &point.address));
        for point in batch {
            match self.known(&point.name) {
                Ok(Known { value, quality, time }) => out.push(point, value, quality, Some(time)),
                Err(error) if error_is_final(self.link()) => return Err(error),
                Err(error) => out.failed(point, error),
            }
        }
        for (name, fault) in faults {
            batch
                .iter()
                .filter(|point| point.name == name)
                .for_each(|point| out.failed(point, fault.clone()));
        }
        Ok(())
    }

    async fn write(
        &mut self,
        point: &Point<Address>,
        value: Value,
        permit: WritePermit,
    ) -> Result<WriteOutcome, Error> {
        let can_be_heard = self.voice.source(point).is_ok();
        if can_be_heard && let Some((_, fault)) = self.watch(&[point], false).await?.pop() {
            return Err(fault);
        }
        let before = self.before_write(point)?;
        let (command, qos) = self.command(point, &value)?;
        let patience = permit.left().saturating_sub(MARGIN).min(CONFIRM);
        let guard = Unanswered(Some(Arc::clone(&self.kept)));
        let (consumed, receipt) = match self.link().publish(&command, qos, permit) {
            Ok(sent) => sent,
            Err(error) => {
                guard.answered();
                return Err(error);
            }
        };
        let received = timeout(ANSWER, receipt).await.map_err(|_| Error::Timeout("the broker".to_owned()))?;
        let taken = received.map_err(|_| Error::transient("the connection broke"))?;
        guard.answered();
        taken?;
        if !can_be_heard {
            return Ok(consumed.accepted());
        }
        let heard = self.confirmed(point, &command, &value, before, patience).await?;
        Ok(outcome(consumed, heard))
    }

    async fn subscribe(&mut self, points: &[&Point<Address>], sink: Sink) -> Result<(), Error> {
        let faults = self.watch(points, true).await?;
        let names: BTreeSet<&str> = points.iter().map(|point| point.name.as_str()).collect();
        self.link().exchange().board(self.id)?.push_only(&names);
        self.pusher.shutdown().await;
        let (kept, id, news) = (Arc::clone(&self.kept), self.id, Arc::clone(&self.news));
        self.pusher.spawn(push(Pushing { link: Arc::clone(&kept.link), id, news, sink }, faults));
        Ok(())
    }

    async fn probe(&mut self) -> Result<(), Error> {
        self.link().exchange().board(self.id).map(drop)
    }
}

fn outcome(consumed: Consumed, heard: Option<Value>) -> WriteOutcome {
    match heard {
        Some(value) => consumed.read_back(value),
        None => consumed.accepted(),
    }
}

fn error_is_final(link: &Link) -> bool {
    link.exchange().ended().is_some()
}

/// Whether a device says what it was told. Numbers may have gone through a 32-bit float.
fn is_same(said: &Value, told: &Value, value_type: ValueType) -> bool {
    const PRECISION: f64 = 1e-6;
    match (value_type, said.as_f64(), told.as_f64()) {
        (ValueType::Int | ValueType::Float, Some(said), Some(told)) => {
            (said - told).abs() <= PRECISION * told.abs().max(1.0)
        }
        _ => said == told,
    }
}

/// Ends the connection when a write is given up before the broker has taken it: what waits in it must not leave later.
struct Unanswered(Option<Arc<Kept>>);

impl Unanswered {
    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(kept) = &self.0 {
            kept.link.end(Error::transient("the broker did not take a command in time"));
        }
    }
}

struct Pushing {
    link: Arc<Link>,
    id: MemberId,
    news: Arc<Notify>,
    sink: Sink,
}

/// Passes on what the device says, until the connection breaks or the session ends.
async fn push(this: Pushing, faults: Vec<(String, Error)>) {
    for (name, fault) in faults {
        this.sink.failed(&name, fault).await;
    }
    while !this.sink.is_closed() {
        let (changed, ended) = {
            let mut exchange = this.link.exchange();
            (exchange.take_changed(this.id), exchange.ended().cloned())
        };
        for (name, known) in changed {
            match known {
                Ok(Known { value, quality, time }) => this.sink.push(&name, value, quality, Some(time)).await,
                Err(error) => this.sink.failed(&name, error).await,
            }
        }
        if let Some(error) = ended {
            return this.sink.lost(error).await;
        }
        this.news.notified().await;
    }
}

//! The shell of the desk: carries out what it decides.

use std::collections::BTreeMap;
use std::future::pending;
use std::time::Duration;

use bus::backoff::Jitter;
use bus::io::Clock;
use bus::twin::{DeviceConfig, DeviceId, MapperTopic, Outcome};
use bus::{Mono, Topic};
use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Filter;
use tokio::sync::{mpsc, watch};
use tokio::task::{self, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::Options;
use super::buses::Buses;
use super::line::LineEvent;
use super::task::{Attendant, DeviceEvent, Report};
use crate::desk::{Desk, Order, Output};
use crate::{Mapper, Session};

/// How long a stop may take for a write under way to finish and for results to go out.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Writes that wait for one device. They are moments old or expire; when full a further one is refused.
const WAITING_WRITES: usize = 16;

/// Reports and results that wait for the hub; when full the devices' tasks wait before their next call.
const DEVICE_EVENTS: usize = 64;

/// One device's task, as seen from outside. Dropping both senders ends it.
struct Slot {
    task: task::Id,
    orders: mpsc::Sender<Order>,
    config: watch::Sender<DeviceConfig>,
}

/// How far the goodbye is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    Stopping {
        until: Instant,
    },
    /// The goodbye is on its way out.
    Leaving {
        until: Instant,
    },
    Gone,
}

/// What happens among the tasks.
pub(super) enum Happening {
    Device(DeviceEvent),
    /// A task has ended, perhaps with a crash.
    Ended {
        id: task::Id,
        crash: Option<String>,
    },
    /// The stop has taken too long.
    GraceOver,
    /// The desk has something to do by now.
    Due,
}

pub(super) struct Hub<M: Mapper> {
    desk: Desk,
    config_topic: Topic,
    write_topic: Topic,
    clock: Clock,
    seeds: Jitter,
    client: Option<AsyncClient>,
    /// Tasks that are running and wanted.
    slots: BTreeMap<DeviceId, Slot>,
    /// Every task that has not ended yet, by its id.
    names: Vec<(task::Id, DeviceId)>,
    tasks: JoinSet<()>,
    buses: Buses<<M::Session as Session>::Bus>,
    events: mpsc::Sender<DeviceEvent>,
    events_rx: mpsc::Receiver<DeviceEvent>,
    phase: Phase,
    mapper: std::marker::PhantomData<fn() -> M>,
}

impl<M: Mapper> Hub<M> {
    pub(super) fn new(options: &Options) -> Self {
        let (events, events_rx) = mpsc::channel(DEVICE_EVENTS);
        let mapper = || options.name.clone();
        Self {
            desk: Desk::new(mapper()),
            config_topic: MapperTopic::Config { mapper: mapper() }.topic(),
            write_topic: MapperTopic::Write { mapper: mapper() }.topic(),
            clock: Clock::start(),
            seeds: Jitter::new(options.seed),
            client: None,
            slots: BTreeMap::new(),
            names: Vec::new(),
            tasks: JoinSet::new(),
            buses: Buses::default(),
            events,
            events_rx,
            phase: Phase::Serving,
            mapper: std::marker::PhantomData,
        }
    }

    pub(super) fn handle_line(&mut self, event: LineEvent) {
        match event {
            LineEvent::Connected(client) => self.connected(client),
            LineEvent::Subscribed { granted } => self.subscribed(granted),
            LineEvent::Acked => self.desk.handle_acked(),
            LineEvent::Message { topic, payload, retained } => self.message(&topic, &payload, retained),
            LineEvent::Lost => {
                self.client = None;
                self.desk.handle_disconnected();
            }
            LineEvent::Closed => self.phase = Phase::Gone,
        }
    }

    /// The configuration first: a write for a device that is not known yet would be rejected.
    fn connected(&mut self, client: AsyncClient) {
        if self.phase != Phase::Serving {
            return;
        }
        let filter = |topic: &Topic| Filter::new(topic.as_str(), QoS::AtLeastOnce);
        match client.try_subscribe_many([filter(&self.config_topic), filter(&self.write_topic)]) {
            Ok(()) => self.client = Some(client),
            Err(error) => tracing::error!(%error, "cannot subscribe"),
        }
    }

    /// Only now are we `online`: a write that is sent to us because of it arrives.
    fn subscribed(&mut self, granted: bool) {
        if !granted {
            return tracing::error!("the broker refuses us our topics: may this client act for this mapper?");
        }
        tracing::info!("connected to the broker");
        self.desk.handle_connected();
    }

    fn message(&mut self, topic: &[u8], payload: &[u8], retained: bool) {
        if self.phase != Phase::Serving {
            return; // nothing new begins
        }
        if topic == self.config_topic.as_str().as_bytes() {
            self.desk.handle_config(payload);
        } else if topic == self.write_topic.as_str().as_bytes() {
            self.desk.handle_write(payload, retained, self.clock.now());
        }
    }

    /// What happens among the tasks, next.
    pub(super) async fn wait(&mut self) -> Happening {
        tokio::select! {
            Some(event) = self.events_rx.recv() => Happening::Device(event),
            (id, crash) = next_end(&mut self.tasks) => Happening::Ended { id, crash },
            () = grace_over(self.phase) => Happening::GraceOver,
            () = due(self.clock, self.desk.next_due()) => Happening::Due,
        }
    }

    pub(super) fn handle(&mut self, happening: Happening) {
        match happening {
            Happening::Device(event) => self.handle_device(event),
            Happening::Ended { id, crash } => self.ended(id, crash),
            Happening::GraceOver => self.phase = Phase::Gone,
            Happening::Due => {}
        }
    }

    fn handle_device(&mut self, event: DeviceEvent) {
        match event {
            DeviceEvent::Report(Report { device, samples, health, counts }) => {
                self.desk.handle_report(&device, samples);
                self.desk.handle_health(&device, health, counts);
            }
            DeviceEvent::Written { id, outcome, detail } => self.desk.finish(&id, outcome, detail),
        }
    }

    /// What the task sent before its end counts: no result is overtaken by it.
    fn ended(&mut self, id: task::Id, crash: Option<String>) {
        while let Ok(event) = self.events_rx.try_recv() {
            self.handle_device(event);
        }
        let Some(at) = self.names.iter().position(|(task, _)| *task == id) else { return };
        let (_, device) = self.names.swap_remove(at);
        if let Some(crash) = crash {
            tracing::error!(%device, crash, "the driver crashed");
        }
        if self.slots.get(&device).is_some_and(|slot| slot.task == id) {
            self.slots.remove(&device);
        }
        self.desk.handle_ended(&device);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.phase != Phase::Serving
    }

    pub(super) fn begin_stop(&mut self) {
        self.phase = Phase::Stopping { until: Instant::now() + STOP_GRACE };
        self.desk.handle_config(b"");
    }

    /// Carries out what the desk has decided. Returns whether the mapper has ended.
    pub(super) fn carry_out(&mut self) -> bool {
        self.desk.handle_time(self.clock.now().mono);
        while let Some(output) = self.desk.poll_output() {
            match output {
                Output::Start { config, after } => self.start(config, after),
                Output::Configure(config) => {
                    if let Some(slot) = self.slots.get(&config.device) {
                        slot.config.send_replace(config);
                    }
                }
                Output::Stop(device) => drop(self.slots.remove(&device)),
                Output::Write(order) => self.order(*order),
                Output::Publish { topic, payload, retain } => self.publish(&topic, payload, retain),
                Output::Warn(text) => tracing::warn!("{text}"),
            }
        }
        self.leave()
    }

    fn start(&mut self, config: DeviceConfig, after: Duration) {
        let device = config.device.clone();
        let (orders, orders_rx) = mpsc::channel(WAITING_WRITES);
        let (config, config_rx) = watch::channel(config);
        let seed = self.seeds.next_u64();
        let attendant = Attendant::<M>::new(
            config_rx,
            orders_rx,
            self.events.clone(),
            self.buses.clone(),
            self.clock,
            after,
            seed,
        );
        let task = self.tasks.spawn(attendant.run()).id();
        self.names.push((task, device.clone()));
        self.slots.insert(device, Slot { task, orders, config });
    }

    fn order(&mut self, order: Order) {
        let Some(slot) = self.slots.get(&order.request.device) else {
            return self.desk.finish(&order.request.id, Outcome::Failed, "the device is gone".to_owned());
        };
        if let Err(refused) = slot.orders.try_send(order) {
            let Order { request, .. } = refused.into_inner();
            self.desk.finish(
                &request.id,
                Outcome::Rejected,
                "too many writes wait for this device".to_owned(),
            );
        }
    }

    /// The desk keeps to its window, so there is room; if a connection breaks here, everything is said again on the
    /// next one.
    fn publish(&mut self, topic: &Topic, payload: Vec<u8>, retain: bool) {
        let Some(client) = &self.client else { return };
        if let Err(error) = client.try_publish(topic.as_str(), QoS::AtLeastOnce, retain, payload) {
            tracing::debug!(%error, %topic, "not published");
        }
    }

    /// When all is done and said: `offline`, then the goodbye.
    fn leave(&mut self) -> bool {
        let Phase::Stopping { until } = self.phase else { return self.phase == Phase::Gone };
        if !self.tasks.is_empty() || !self.desk.is_quiet() {
            return false;
        }
        self.phase = Phase::Leaving { until };
        self.desk.handle_stop();
        while let Some(Output::Publish { topic, payload, retain }) = self.desk.poll_output() {
            self.publish(&topic, payload, retain);
        }
        let Some(client) = &self.client else { return true };
        client.try_disconnect().is_err()
    }
}

async fn next_end(tasks: &mut JoinSet<()>) -> (task::Id, Option<String>) {
    match tasks.join_next_with_id().await {
        None => pending().await,
        Some(Ok((id, ()))) => (id, None),
        Some(Err(error)) => (error.id(), Some(error.to_string())),
    }
}

async fn due(clock: Clock, at: Option<Mono>) {
    match at {
        Some(at) => clock.sleep_until(at).await,
        None => pending().await,
    }
}

async fn grace_over(phase: Phase) {
    match phase {
        Phase::Stopping { until } | Phase::Leaving { until } => sleep_until(until).await,
        Phase::Serving | Phase::Gone => pending().await,
    }
}

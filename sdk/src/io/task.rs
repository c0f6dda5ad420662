//! One device's task: owns the session and does what [`Device`] says, one call at a time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bus::io::Clock;
use bus::twin::{DeviceConfig, DeviceId, Outcome};
use bus::{Mono, Sample};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::buses::{Bus, Buses};
use crate::batch::SpanLimits;
use crate::batch::{self, Batch};
use crate::desk::Order;
use crate::device::{Device, Step};
use crate::permit::{self, WritePermit, outcome_of};
use crate::plan::Plan;
use crate::{Context, Error, Mapper, Samples, Session, WriteOutcome};

/// How long a driver may take, in its own calls: long enough for slow field buses, short enough that a hanging one is
/// seen.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// For a mapper without spans.
const UNLIMITED: SpanLimits = SpanLimits { longest: u64::MAX, gap: 0 };
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the hub hears of a device.
pub(super) enum DeviceEvent {
    Report { device: DeviceId, report: BTreeMap<String, Sample> },
    Written { id: String, outcome: Outcome, detail: String },
}

/// See the module's page.
pub(super) struct Attendant<M: Mapper> {
    device: DeviceId,
    core: Device,
    config: DeviceConfig,
    plan: Option<Plan<M>>,
    session: Option<M::Session>,
    buses: Buses<<M::Session as Session>::Bus>,
    bus: Arc<Bus<<M::Session as Session>::Bus>>,
    /// What is due and not yet read, a request each: a write may come between two of them.
    requests: VecDeque<Vec<String>>,
    configs: watch::Receiver<DeviceConfig>,
    orders: mpsc::Receiver<Order>,
    events: mpsc::Sender<DeviceEvent>,
    clock: Clock,
}

impl<M: Mapper> Attendant<M> {
    pub(super) fn new(
        mut configs: watch::Receiver<DeviceConfig>,
        orders: mpsc::Receiver<Order>,
        events: mpsc::Sender<DeviceEvent>,
        buses: Buses<<M::Session as Session>::Bus>,
        clock: Clock,
        after: Duration,
        seed: u64,
    ) -> Self {
        let config = configs.borrow_and_update().clone();
        let core = Device::new(after, clock.now().mono, seed);
        let device = config.device.clone();
        Self {
            device,
            core,
            config,
            plan: None,
            session: None,
            buses,
            bus: Arc::default(),
            requests: VecDeque::new(),
            configs,
            orders,
            events,
            clock,
        }
    }

    /// Until the hub lets go of the device. One write and one other step in turn, so that neither starves.
    pub(super) async fn run(mut self) {
        self.configure();
        while let Ok(changed) = self.configs.has_changed() {
            if changed {
                self.reconfigure().await;
            }
            if !self.core.is_closed()
                && let Ok(order) = self.orders.try_recv()
            {
                self.write(order).await;
            }
            self.step().await;
            self.report().await;
        }
        self.end().await;
    }

    async fn step(&mut self) {
        if let Some(request) = self.requests.pop_front() {
            return self.read(request).await;
        }
        match self.core.step(self.mono()) {
            Step::Open => self.open().await,
            Step::Read(due) => self.plan_reading(due),
            Step::Wait(until) => self.wait(until).await,
        }
    }

    fn mono(&self) -> Mono {
        self.clock.now().mono
    }

    /// Makes sense of the configuration; what makes none is logged and left out.
    fn configure(&mut self) {
        let now = self.mono();
        self.core.configure(&self.config.properties, now);
        match Plan::<M>::new(&self.config) {
            Ok(plan) => {
                for fault in &plan.faults {
                    tracing::error!(device = %self.device, %fault, "left out");
                }
                let properties = self.config.properties.iter().map(|p| &p.name);
                properties.filter(|p| !plan.points.contains_key(*p)).for_each(|p| self.core.quarantine(p));
                self.plan = Some(plan);
            }
            Err(error) => {
                self.plan = None;
                self.lost(&error);
            }
        }
    }

    /// The session stays if its settings do.
    async fn reconfigure(&mut self) {
        let new = self.configs.borrow_and_update().clone();
        let same = new.connection == self.config.connection;
        self.config = new;
        if !same || !self.core.is_open() {
            self.close().await;
            self.core.reopen();
        }
        self.configure();
    }

    async fn open(&mut self) {
        let Some(plan) = &self.plan else { return };
        self.bus = self.buses.get(M::bus(&plan.connection));
        let context = Context { device: self.device.clone(), bus: self.bus.shared.clone() };
        let opening = async {
            let _turn = self.bus.turn().await;
            timeout(OPEN_TIMEOUT, M::open(&plan.connection, &context)).await
        };
        let opened = tokio::select! {
            opened = opening => opened,
            () = abandoned(self.configs.clone()) => return,
        };
        match opened.unwrap_or_else(|_| Err(Error::Timeout("open".to_owned()))) {
            Ok(session) => {
                tracing::info!(device = %self.device, "open");
                self.session = Some(session);
                self.core.handle_opened();
            }
            Err(error) => self.lost(&error),
        }
    }

    fn lost(&mut self, error: &Error) {
        self.session = None;
        self.requests.clear();
        let now = self.mono();
        self.core.handle_lost(error, now);
        let again = self.core.pause(now);
        tracing::warn!(device = %self.device, %error, ?again, "no session");
    }

    /// Puts what is due into requests.
    fn plan_reading(&mut self, due: Vec<String>) {
        let Some(plan) = &self.plan else { return };
        let points = due.iter().filter_map(|name| plan.points.get(name)).collect();
        let limits = M::manifest().spans.unwrap_or(UNLIMITED);
        let names = |batch: &Batch<'_, _>| batch.iter().map(|point| point.name.clone()).collect();
        self.requests.extend(batch::requests(points, M::span, limits).iter().map(names));
    }

    async fn read(&mut self, names: Vec<String>) {
        let (Some(plan), Some(session)) = (&self.plan, &mut self.session) else { return };
        let points: Vec<_> = names.iter().filter_map(|name| plan.points.get(name)).collect();
        let batch = Batch::of(points, M::span);
        let mut samples = Samples::default();
        let asked = async {
            let _turn = self.bus.turn().await;
            timeout(READ_TIMEOUT, session.read(&batch, &mut samples)).await
        };
        let read = tokio::select! {
            read = asked => read,
            () = abandoned(self.configs.clone()) => {
                self.session = None; // nobody knows what it was in the middle of
                return;
            }
        };
        let result = read.unwrap_or_else(|_| Err(Error::Timeout("read".to_owned())));
        let silent = Error::Device("no value".to_owned());
        let missing = match &result {
            Ok(()) => Some(&silent),
            Err(error) => error.keeps_session().then_some(error),
        };
        // What was read before the error was read.
        for (property, error) in self.core.handle_read(&names, samples, missing, self.clock.now()) {
            tracing::warn!(device = %self.device, property, %error, "not read");
        }
        if let Err(error) = result
            && !error.keeps_session()
        {
            self.lost(&error);
        }
    }

    async fn write(&mut self, order: Order) {
        // An order is meant for the device as it is configured now, not as it was when the order came.
        if self.configs.has_changed().is_ok_and(|changed| changed) {
            self.reconfigure().await;
        }
        let Order { request, .. } = &order;
        tracing::info!(device = %self.device, property = request.property, value = %request.value, cause = request.cause, "write");
        let (id, property) = (request.id.clone(), request.property.clone());
        let (outcome, detail) = match self.try_write(order).await {
            Ok(done) => {
                let detail = if done.pending { "accepted, under way" } else { "" };
                self.core.handle_written(&property, done.readback, self.clock.now());
                (Outcome::Succeeded, detail.to_owned())
            }
            Err((outcome, detail)) => (outcome, detail),
        };
        self.tell(DeviceEvent::Written { id, outcome, detail }).await;
    }

    /// Hands the write to the driver, under a permit and within its time.
    async fn try_write(&mut self, order: Order) -> Result<WriteOutcome, (Outcome, String)> {
        let Order { request, deadline } = order;
        if deadline.is_over(self.clock.now()) {
            return Err((Outcome::Expired, "its turn came too late".to_owned()));
        }
        if let Some(why) = self.core.unreachable() {
            return Err((Outcome::Failed, format!("not connected: {why}")));
        }
        let (Some(plan), Some(session)) = (&self.plan, &mut self.session) else {
            return Err((Outcome::Failed, "not connected".to_owned()));
        };
        let Some(point) = plan.points.get(&request.property) else {
            return Err((
                Outcome::Rejected,
                "the property's address makes no sense to the mapper".to_owned(),
            ));
        };
        let left = deadline.left(self.clock.now());
        let Some(_turn) = self.clock.timeout(left, self.bus.turn()).await else {
            return Err((Outcome::Expired, "the bus was busy until it was too old".to_owned()));
        };
        let (permit, consumed) = WritePermit::grant(request.cause, deadline, permits(self.clock));
        let writing = self.clock.timeout(permit.left(), session.write(point, request.value, permit));
        let result = writing.await.unwrap_or_else(|| Err(Error::Timeout("write".to_owned())));
        result.map_err(|error| {
            let consumed = consumed.load(Ordering::SeqCst);
            let end = ended(&error, consumed, deadline.is_over(self.clock.now()));
            if !error.keeps_session() {
                self.lost(&error);
            }
            (end, error.to_string())
        })
    }

    /// Until something is due, or somebody wants something.
    async fn wait(&mut self, until: Option<Mono>) {
        let until = until.unwrap_or_else(|| self.mono() + LONG);
        let order = tokio::select! {
            () = self.clock.sleep_until(until) => None,
            changed = self.configs.changed() => {
                if changed.is_ok() {
                    self.configs.mark_changed(); // `run` looks at it
                }
                None
            }
            Some(order) = self.orders.recv() => Some(order),
        };
        if let Some(order) = order {
            self.write(order).await;
        }
    }

    async fn report(&mut self) {
        let report = self.core.take_report();
        if !report.is_empty() {
            self.tell(DeviceEvent::Report { device: self.device.clone(), report }).await;
        }
    }

    /// If the hub has ended, nobody listens any more.
    async fn tell(&mut self, event: DeviceEvent) {
        drop(self.events.send(event).await);
    }

    async fn close(&mut self) {
        if let Some(session) = self.session.take() {
            drop(timeout(CLOSE_TIMEOUT, session.close()).await);
        }
    }

    /// The device is served no more: what waits has not moved anything.
    async fn end(&mut self) {
        self.orders.close();
        while let Some(order) = self.orders.recv().await {
            let (id, outcome) = (order.request.id, Outcome::Rejected);
            let detail = "the device is no longer served".to_owned();
            self.tell(DeviceEvent::Written { id, outcome, detail }).await;
        }
        self.close().await;
    }
}

/// With nothing to do the task sleeps this long and looks again.
const LONG: Duration = Duration::from_secs(3600);

/// The clock that permits look at.
fn permits(clock: Clock) -> permit::Clock {
    permit::Clock(Arc::new(move || clock.now()))
}

/// A driver that was still waiting when the time was over has moved nothing.
fn ended(error: &Error, consumed: bool, over: bool) -> Outcome {
    if matches!(error, Error::Timeout(_)) && over && !consumed {
        return Outcome::Expired;
    }
    outcome_of(error, consumed)
}

/// Comes true when the hub has let go of the device.
async fn abandoned(mut configs: watch::Receiver<DeviceConfig>) {
    while configs.changed().await.is_ok() {}
}

//! One device's task: owns the session and does what [`Device`] says, one call at a time.

mod call;
mod hearing;
mod writing;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bus::io::Clock;
use bus::twin::{DeviceConfig, DeviceHealth, DeviceId, MapperCounts, Outcome};
use bus::{Mono, Sample};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::buses::{Bus, Buses};
use super::inbox::Inbox;
use crate::batch::SpanLimits;
use crate::batch::{self, Batch};
use crate::desk::Order;
use crate::device::{Device, Step};
use crate::plan::Plan;
use crate::{Context, Error, Manifest, Mapper, Samples, Session};
use call::Call;

/// How long a driver may take to open a session and to close it; for its other calls see [`Manifest::timeout`].
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// For a mapper without spans.
const UNLIMITED: SpanLimits = SpanLimits { longest: u64::MAX, gap: 0 };

/// What the hub hears of a device.
pub(super) enum DeviceEvent {
    Report(Report),
    Written { id: String, outcome: Outcome, detail: String },
}

/// What is new about a device.
pub(super) struct Report {
    pub(super) device: DeviceId,
    pub(super) samples: BTreeMap<String, Sample>,
    pub(super) health: DeviceHealth,
    /// What was done since the last report.
    pub(super) counts: MapperCounts,
}

/// See the module's page.
pub(super) struct Attendant<M: Mapper> {
    device: DeviceId,
    core: Device,
    config: DeviceConfig,
    plan: Option<Plan<M>>,
    session: Option<M::Session>,
    manifest: Manifest,
    inbox: Inbox,
    told: Option<DeviceHealth>,
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
        let manifest = M::manifest();
        let core = Device::new(after, clock.now(), seed, &manifest);
        let device = config.device.clone();
        Self {
            device,
            core,
            config,
            plan: None,
            session: None,
            manifest,
            inbox: Inbox::silent(),
            told: None,
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
            // Before the step, which may be a long wait.
            self.hear_and_report().await;
            self.step().await;
        }
        self.end().await;
    }

    /// Each value that was pushed is reported, so a point that says more than one takes several rounds.
    async fn hear_and_report(&mut self) {
        for _ in 0..ROUNDS {
            let heard = self.inbox.take();
            let is_last = heard.is_empty();
            self.pass_on(heard);
            self.report().await;
            if is_last {
                break;
            }
        }
    }

    async fn step(&mut self) {
        if let Some(request) = self.requests.pop_front() {
            return self.read(request).await;
        }
        match self.core.step(self.mono()) {
            Step::Open => self.open().await,
            Step::Subscribe => self.subscribe().await,
            Step::Read(due) => self.plan_reading(due),
            Step::Probe => self.probe().await,
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
                for (property, fault) in &plan.faults {
                    tracing::error!(device = %self.device, %fault, "left out");
                    self.core.leave_out(property, fault);
                }
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
        let waiting = std::mem::take(&mut self.requests);
        if !same || !self.core.is_open() {
            self.close().await;
            self.core.reopen(self.mono());
        }
        self.configure();
        // Planned for addresses that may be others by now: what was due is planned anew.
        let now = self.mono();
        waiting.iter().flatten().for_each(|name| self.core.hurry(name, now));
    }

    async fn open(&mut self) {
        let Some(plan) = &self.plan else { return };
        // The bus of before is still held, so that what its line knows (an answer that is owed) outlives a session.
        self.bus = self.buses.get(M::bus(&plan.connection));
        let context = Context { device: self.device.clone(), bus: self.bus.shared.clone() };
        let call = Call { bus: &self.bus, configs: &self.configs, name: "open", limit: OPEN_TIMEOUT };
        match call.make(&mut self.inbox, M::open(&plan.connection, &context)).await {
            Some(Ok(session)) => {
                tracing::info!(device = %self.device, "open");
                self.session = Some(session);
                self.core.handle_opened(self.mono());
            }
            Some(Err(error)) => self.lost(&error),
            None => {}
        }
    }

    /// What a session said before its end is as good as ever; afterwards its sink is dead.
    fn hear_the_last(&mut self) {
        let mut last = self.inbox.close();
        last.retain(|pushed| pushed.point().is_some());
        self.pass_on(last);
        self.inbox = Inbox::silent();
    }

    fn lost(&mut self, error: &Error) {
        self.session = None;
        self.requests.clear();
        self.hear_the_last();
        let now = self.mono();
        self.core.handle_lost(error, now);
        let again = self.core.pause(now);
        tracing::warn!(device = %self.device, %error, ?again, "no session");
    }

    /// Puts what is due into requests.
    fn plan_reading(&mut self, due: Vec<String>) {
        let Some(plan) = &self.plan else { return };
        let points = due.iter().filter_map(|name| plan.points.get(name)).collect();
        let limits = self.manifest.spans.unwrap_or(UNLIMITED);
        let names = |batch: &Batch<'_, _>| batch.iter().map(|point| point.name.clone()).collect();
        self.requests.extend(batch::requests(points, M::span, limits).iter().map(names));
    }

    async fn read(&mut self, names: Vec<String>) {
        let (Some(plan), Some(session)) = (&self.plan, &mut self.session) else { return };
        let points: Vec<_> = names.iter().filter_map(|name| plan.points.get(name)).collect();
        let batch = Batch::of(points, M::span);
        let mut samples = Samples::default();
        let call =
            Call { limit: self.manifest.timeout, bus: &self.bus, configs: &self.configs, name: "read" };
        let Some(result) = call.make(&mut self.inbox, session.read(&batch, &mut samples)).await else {
            self.session = None; // nobody knows what it was in the middle of
            return;
        };
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

    /// Until something is due, or somebody wants something.
    async fn wait(&mut self, until: Option<Mono>) {
        let until = until.unwrap_or_else(|| self.mono() + LONG);
        let order = tokio::select! {
            biased;
            changed = self.configs.changed() => {
                if changed.is_ok() {
                    self.configs.mark_changed(); // `run` looks at it
                }
                None
            }
            () = self.clock.sleep_until(until) => None,
            Some(order) = self.orders.recv() => Some(order),
            () = self.inbox.heard() => None, // `run` takes it
        };
        if let Some(order) = order {
            self.write(order).await;
        }
    }

    async fn report(&mut self) {
        self.core.expire(self.mono());
        let (samples, counts) = (self.core.take_report(), self.core.take_counts());
        let health = self.core.health(self.clock.now().wall);
        if samples.is_empty() && counts == MapperCounts::default() && self.told.as_ref() == Some(&health) {
            return;
        }
        self.told = Some(health.clone());
        let device = self.device.clone();
        self.tell(DeviceEvent::Report(Report { device, samples, health, counts })).await;
    }

    /// If the hub has ended, nobody listens any more.
    async fn tell(&mut self, event: DeviceEvent) {
        drop(self.events.send(event).await);
    }

    async fn close(&mut self) {
        self.hear_the_last();
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

/// Values of one point that are passed on between two calls to the driver.
const ROUNDS: usize = 64;

/// With nothing to do the task sleeps this long and looks again.
const LONG: Duration = Duration::from_secs(3600);

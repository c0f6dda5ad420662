//! What the conformance kit needs to drive a driver as the SDK does, without a broker. Behind the feature `testing`:
//! never in what ships.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bus::twin::{DeviceConfig, DeviceId, Outcome};
use bus::{Now, UnixMillis, Value};
use tokio::sync::mpsc;

use crate::batch::{self, Batch, SpanLimits};
use crate::permit::{Clock, Deadline, outcome_of};
use crate::plan::Plan;
use crate::samples::Reading;
use crate::sink::Pushed;
use crate::{
    Context, Error, Mapper, Point, Quality, Samples, Session, Shared, Sink, WriteOutcome, WritePermit,
};

/// What became of each point of one reading.
pub type Readings = BTreeMap<String, Result<(Value, Quality), Error>>;

/// One device, as its task in the SDK sees it: the configuration in the mapper's types, and its bus.
pub struct Driven<M: Mapper> {
    device: DeviceId,
    plan: Plan<M>,
    bus: Shared<<M::Session as Session>::Bus>,
}

impl<M: Mapper> fmt::Debug for Driven<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driven").field("device", &self.device).finish_non_exhaustive()
    }
}

impl<M: Mapper> Driven<M> {
    pub fn new(config: &DeviceConfig) -> Result<Self, Error> {
        Ok(Self { device: config.device.clone(), plan: Plan::new(config)?, bus: Shared::default() })
    }

    /// What is wrong with addresses that make no sense.
    pub fn faults(&self) -> impl Iterator<Item = &Error> {
        self.plan.faults.iter().map(|(_, fault)| fault)
    }

    pub fn settings(&self) -> &M::Config {
        &self.plan.connection
    }

    pub fn shared(&self) -> &Shared<<M::Session as Session>::Bus> {
        &self.bus
    }

    pub async fn open(&self) -> Result<M::Session, Error> {
        let context = Context { device: self.device.clone(), bus: self.bus.clone() };
        M::open(&self.plan.connection, &context).await
    }

    fn batches(&self) -> Vec<Batch<'_, M::Address>> {
        let limits = M::manifest().spans.unwrap_or(SpanLimits { longest: u64::MAX, gap: 0 });
        batch::requests(self.plan.points.values().collect(), M::span, limits)
    }

    /// In how many requests all points are read.
    pub fn requests(&self) -> usize {
        self.batches().len()
    }

    /// Reads all points once. An error that ends a session ends the reading.
    pub async fn read(&self, session: &mut M::Session) -> Result<Readings, Error> {
        let mut readings = Readings::new();
        for batch in self.batches() {
            let mut samples = Samples::default();
            let silent = match session.read(&batch, &mut samples).await {
                Ok(()) => Error::Device("no value".to_owned()),
                Err(error) if error.keeps_session() => error,
                Err(error) => return Err(error),
            };
            for point in &batch {
                let reading = match samples.take(&point.name) {
                    Some(Reading::Value { value, quality, .. }) => Ok((value, quality)),
                    Some(Reading::Failed(error)) => Err(error),
                    None => Err(silent.clone()),
                };
                readings.insert(point.name.clone(), reading);
            }
        }
        Ok(readings)
    }

    /// Writes a property's value.
    pub async fn write(
        &self,
        session: &mut M::Session,
        property: &str,
        value: Value,
        permit: WritePermit,
    ) -> Result<WriteOutcome, Error> {
        let point = self.plan.points.get(property).ok_or_else(|| Error::BadAddress {
            point: property.to_owned(),
            why: "not among the device's properties".to_owned(),
        })?;
        let raw = point.scale.write(value, point.value_type).map_err(|e| Error::Bug(e.to_string()))?;
        session.write(point, raw, permit).await
    }

    /// Subscribes to all points.
    pub async fn subscribe(&self, session: &mut M::Session) -> Result<Pushes<'_, M>, Error> {
        let (sink, pushes) = Sink::new(bus::io::Clock::start());
        let points: Vec<&Point<M::Address>> = self.plan.points.values().collect();
        session.subscribe(&points, sink).await?;
        Ok(Pushes { plan: &self.plan, pushes })
    }
}

/// What a device says by itself.
pub struct Pushes<'a, M: Mapper> {
    plan: &'a Plan<M>,
    pushes: mpsc::Receiver<Pushed>,
}

impl<M: Mapper> Pushes<'_, M> {
    /// The next point that was subscribed to, and its value; an error when the session is over.
    pub async fn next(&mut self) -> Result<(String, Result<Value, Error>), Error> {
        loop {
            let pushed = self.pushes.recv().await;
            let pushed = pushed.ok_or_else(|| Error::transient("nobody pushes any more"))?;
            let (point, value) = match pushed {
                Pushed::Value { point, value, .. } => (point, Ok(value)),
                Pushed::Failed { point, error } => (point, Err(error)),
                Pushed::Lost(error) => return Err(error),
            };
            let Some(known) = self.plan.points.get(&point) else { continue };
            let scaled = |raw| known.scale.read(raw, known.value_type).map_err(|e| Error::Bug(e.to_string()));
            return Ok((point, value.and_then(scaled)));
        }
    }
}

impl<M: Mapper> fmt::Debug for Pushes<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pushes").finish_non_exhaustive()
    }
}

/// A permit of this length by a clock of the test's choice, and whether it has been consumed.
pub fn permit(ttl: Duration, clock: impl Fn() -> Now + Send + Sync + 'static) -> (WritePermit, Consumption) {
    let clock = Clock(Arc::new(clock));
    let now = clock.now();
    let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    let wall = UnixMillis(now.wall.0.saturating_add(ttl_ms));
    let (permit, consumed) =
        WritePermit::grant("conformance".to_owned(), Deadline { mono: now.mono + ttl, wall }, clock);
    (permit, Consumption(consumed))
}

/// Whether a permit has been consumed.
#[derive(Debug, Clone)]
pub struct Consumption(Arc<AtomicBool>);

impl Consumption {
    pub fn is_consumed(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// What the node is told of a write that ended with this error.
    pub fn outcome(&self, error: &Error) -> Outcome {
        outcome_of(error, self.is_consumed())
    }
}

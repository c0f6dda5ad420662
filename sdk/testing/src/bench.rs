//! What a case works with: devices, a node, the mapper running.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus::twin::{DeviceConfig, DeviceId, Outcome, WriteRequest, WriteResult};
use bus::{Name, Quality, UnixMillis};
use kubebus_sdk::{Mapper, Options, Value};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::fixture::{Fixture, Property};
use crate::node::Node;
use crate::site::{Site, same};
use crate::verdict::{Stop, ensure, failed};

/// How long anything may take that should happen at once, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// How long a mapper may take to serve a device again that is back: the SDK gives up an opening after 30 s, a reading
/// after 10 s, and waits some seconds before it tries again.
pub(crate) fn recovery() -> Duration {
    Duration::from_secs(if HURRIED.load(Ordering::Relaxed) { 12 } else { 60 })
}

static HURRIED: AtomicBool = AtomicBool::new(false);

/// From now on a mapper must recover within 12 s: for the kit's own tests, whose bad mappers never do.
#[doc(hidden)]
pub fn hurry() {
    HURRIED.store(true, Ordering::Relaxed);
}

/// How long a case watches that something does not happen.
pub(crate) const QUIET: Duration = Duration::from_millis(1500);

/// How long a write of a case is good for, unless the case is about that.
pub(crate) const TTL: Duration = Duration::from_secs(10);

/// Starts a fixture.
pub type Starter<F> = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<F, String>> + Send>> + Send + Sync>;

/// See the module's page.
pub struct Bench<M, F> {
    start: Starter<F>,
    devices: AtomicU32,
    mapper: PhantomData<fn() -> M>,
}

impl<M: Mapper, F: Fixture> Bench<M, F> {
    pub(crate) fn new(start: Starter<F>) -> Self {
        Self { start, devices: AtomicU32::new(0), mapper: PhantomData }
    }

    /// A device of its own.
    pub(crate) async fn site(&self) -> Result<Site<F>, Stop> {
        let fixture =
            (self.start)().await.map_err(|why| failed(format!("the fixture does not start: {why}")))?;
        let n = self.devices.fetch_add(1, Ordering::Relaxed);
        Site::new(device(n), fixture).await
    }

    /// A node and the mapper, serving these devices.
    pub(crate) async fn run(&self, devices: Vec<DeviceConfig>) -> Result<Run<M>, Stop> {
        let name =
            Name::new(M::manifest().protocol).map_err(|e| failed(format!("the manifest's protocol: {e}")))?;
        let node = Node::start(name).await.map_err(|e| failed(format!("the kit's node: {e}")))?;
        node.configure(devices);
        let mut run = Run { node, mapper: None, kind: PhantomData };
        run.start_mapper().await?;
        Ok(run)
    }

    /// One device, served and all its values told.
    pub(crate) async fn served(&self) -> Result<(Site<F>, Run<M>), Stop> {
        let site = self.site().await?;
        let run = self.run(vec![site.config()]).await?;
        run.tells(&site, SOON).await?;
        Ok((site, run))
    }
}

impl<M, F> fmt::Debug for Bench<M, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench").finish_non_exhaustive()
    }
}

fn device(n: u32) -> DeviceId {
    #[expect(clippy::expect_used, reason = "letters and digits")]
    format!("conformance/device{n}").parse().expect("a device's name")
}

/// A node and a mapper that runs.
pub(crate) struct Run<M> {
    pub(crate) node: Node,
    mapper: Option<(oneshot::Sender<()>, JoinSet<()>)>,
    kind: PhantomData<fn() -> M>,
}

impl<M: Mapper> Run<M> {
    pub(crate) async fn start_mapper(&mut self) -> Result<(), Stop> {
        let name = Name::new(M::manifest().protocol).map_err(|e| failed(e.to_string()))?;
        let options = Options::new(name, &self.node.address()).map_err(|e| failed(e.to_string()))?;
        let (stop, stopped) = oneshot::channel::<()>();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            kubebus_sdk::run::<M>(options, async { drop(stopped.await) }).await;
        });
        self.mapper = Some((stop, tasks));
        ensure!(self.node.state("online", SOON).await, "the mapper does not come online");
        Ok(())
    }

    /// Stops it in order and waits for its end.
    pub(crate) async fn stop_mapper(&mut self, limit: Duration) -> Result<(), Stop> {
        let Some((stop, mut tasks)) = self.mapper.take() else { return Ok(()) };
        let _ = stop.send(()); // it may have ended already
        match timeout(limit, tasks.join_next()).await {
            Err(_) => {
                tasks.detach_all();
                Err(failed(format!("the mapper does not stop within {} s", limit.as_secs())))
            }
            Ok(Some(Err(crash))) => Err(failed(format!("the mapper crashed: {crash}"))),
            Ok(Some(Ok(())) | None) => Ok(()),
        }
    }

    /// Waits until every property's value is told as the device holds it.
    pub(crate) async fn tells<F: Fixture>(&self, site: &Site<F>, limit: Duration) -> Result<(), Stop> {
        self.tells_of(site, &site.fixture.properties(), limit).await
    }

    async fn tells_of<F: Fixture>(
        &self,
        site: &Site<F>,
        properties: &[Property],
        limit: Duration,
    ) -> Result<(), Stop> {
        let mut wanted = Vec::new();
        for Property { name, .. } in properties {
            wanted.extend(site.fixture.value(name).await.map(|value| (name.clone(), value)));
        }
        self.tells_these(&site.id, &wanted, limit).await
    }

    pub(crate) async fn tells_these(
        &self,
        device: &DeviceId,
        wanted: &[(String, Value)],
        limit: Duration,
    ) -> Result<(), Stop> {
        let mut missing = String::new();
        let told = self.node.until(limit, |hearing| {
            let wrong = wanted
                .iter()
                .find(|(name, value)| !hearing.value(device, name).is_some_and(|v| same(v, value)));
            let Some((name, value)) = wrong else { return Some(()) };
            missing = match hearing.samples(device, name).last() {
                None => format!("{name} is not told; it is {value}"),
                Some(last) => format!("{name} is told as {} ({:?}); it is {value}", last.value, last.quality),
            };
            None
        });
        told.await.ok_or_else(|| failed(format!("after {} s {missing}", limit.as_secs())))
    }

    /// Waits until everything is told that comes from now on. What is pushed comes when it changes: a device that only
    /// pushes gets new values.
    pub(crate) async fn tells_anew<F: Fixture>(&self, site: &Site<F>, limit: Duration) -> Result<(), Stop> {
        self.node.forget(&site.id);
        let polled = site.polled();
        if polled.is_empty() {
            site.renew().await?;
            return self.tells(site, limit).await;
        }
        self.tells_of(site, &polled, limit).await
    }

    /// Fails if a good value was told that the property never held.
    pub(crate) fn told_nothing_wrong<F: Fixture>(&self, site: &Site<F>) -> Result<(), Stop> {
        self.node.look(|hearing| {
            for property in site.fixture.properties() {
                for sample in hearing.samples(&site.id, &property.name).filter(|s| s.quality != Quality::Bad)
                {
                    site.has_held(&property.name, &sample.value)?;
                }
            }
            Ok(())
        })
    }

    /// Sends a write and waits for its result.
    pub(crate) async fn write(&self, request: &WriteRequest) -> Result<WriteResult, Stop> {
        self.node.write(request).await;
        self.result(request).await
    }

    pub(crate) async fn result(&self, request: &WriteRequest) -> Result<WriteResult, Stop> {
        let limit = Duration::from_millis(request.ttl_ms) + SOON;
        let result = self.node.result(&request.id, limit).await;
        result
            .ok_or_else(|| failed(format!("no result of write {} within {} s", request.id, limit.as_secs())))
    }

    /// Sends a write that must end so.
    pub(crate) async fn write_ends(&self, request: &WriteRequest, outcome: Outcome) -> Result<(), Stop> {
        let result = self.write(request).await?;
        ensure!(
            result.outcome == outcome,
            "write {} of {} to {} ended as {:?} ({}), not {outcome:?}",
            request.id,
            request.value,
            request.property,
            result.outcome,
            result.detail
        );
        Ok(())
    }
}

/// A write of now.
pub(crate) fn write(
    id: &str,
    device: &DeviceId,
    property: &str,
    value: Value,
    ttl: Duration,
) -> WriteRequest {
    WriteRequest {
        id: id.to_owned(),
        device: device.clone(),
        property: property.to_owned(),
        value,
        sent: unix_now(),
        ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
        cause: "conformance".to_owned(),
    }
}

pub(crate) fn unix_now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

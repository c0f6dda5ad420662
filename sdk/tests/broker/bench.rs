//! Devices that do as they are told and count what is done to them, and the mapper that serves them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use kubebus_sdk::{
    Batch, Context, Error, JsonSchema, Manifest, Mapper, Point, Samples, Session, Sink, Span, Value,
    WriteOutcome, WritePermit,
};
use tokio::time::sleep;

/// How long a reading may take here: short for the test's sake, long on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A device that does as it is told and counts.
#[derive(Default)]
pub(crate) struct Bench {
    pub(crate) opened: AtomicU64,
    pub(crate) closed: AtomicU64,
    pub(crate) probed: AtomicU64,
    /// Writes that the device has heard of.
    pub(crate) written: AtomicU64,
    /// Writes that its driver was given.
    pub(crate) offered: AtomicU64,
    pub(crate) refuse_to_open: AtomicBool,
    pub(crate) fail_probes: AtomicBool,
    pub(crate) panic_on_write: AtomicBool,
    pub(crate) read_back: AtomicBool,
    /// Readings do not end while this is set.
    pub(crate) hold_reading: AtomicBool,
    /// How long the driver waits before it consumes the permit, in ms.
    pub(crate) wait_before_write: AtomicU64,
    /// How long the device takes after that, in ms.
    pub(crate) wait_in_write: AtomicU64,
    pub(crate) wait_in_read: AtomicU64,
    /// What was asked of the device, in order: `read 0 1`, `write`.
    pub(crate) calls: Mutex<Vec<String>>,
    /// The points of each subscription, and where their values go.
    pub(crate) subscriptions: Mutex<Vec<(Vec<String>, Sink)>>,
    pub(crate) value: Mutex<f64>,
}

static BENCHES: LazyLock<Mutex<BTreeMap<String, Arc<Bench>>>> = LazyLock::new(Mutex::default);

/// The device of this name, which is the test's own.
pub(crate) fn bench(name: &str) -> Arc<Bench> {
    Arc::clone(BENCHES.lock().unwrap().entry(name.to_owned()).or_default())
}

impl Bench {
    pub(crate) fn value(&self) -> f64 {
        *self.value.lock().unwrap()
    }

    /// Every reading so far, as `read 0 1`.
    pub(crate) fn readings(&self) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|call| call.starts_with("read")).cloned().collect()
    }

    /// The sink of the subscription of this number, when it has come.
    pub(crate) fn sink(&self, number: usize) -> Option<Sink> {
        self.subscriptions.lock().unwrap().get(number).map(|(_, sink)| sink.clone())
    }

    async fn pause(duration: &AtomicU64) {
        sleep(Duration::from_millis(duration.load(SeqCst))).await;
    }

    fn call(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }
}

/// Calls that are under way on a bus, and the most there ever were.
#[derive(Default)]
pub(crate) struct Wire {
    under_way: AtomicU64,
    pub(crate) most: AtomicU64,
}

static WIRES: LazyLock<Mutex<BTreeMap<String, Arc<Wire>>>> = LazyLock::new(Mutex::default);

pub(crate) fn wire(name: &str) -> Arc<Wire> {
    Arc::clone(WIRES.lock().unwrap().entry(name.to_owned()).or_default())
}

/// A call on the wire, until it is dropped.
struct OnWire(Arc<Wire>);

impl OnWire {
    fn begin(wire: &Arc<Wire>) -> Self {
        let under_way = wire.under_way.fetch_add(1, SeqCst) + 1;
        wire.most.fetch_max(under_way, SeqCst);
        Self(Arc::clone(wire))
    }
}

impl Drop for OnWire {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, SeqCst);
    }
}

/// The mapper under test.
pub(crate) struct BenchMapper;

pub(crate) struct BenchSession {
    bench: Arc<Bench>,
    wire: Arc<Wire>,
}

#[derive(serde::Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
pub(crate) struct BenchConfig {
    bench: String,
    bus: Option<String>,
}

#[derive(serde::Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
#[serde(deny_unknown_fields)]
pub(crate) struct BenchAddress {
    register: u64,
}

impl Mapper for BenchMapper {
    type Config = BenchConfig;
    type Address = BenchAddress;
    type Session = BenchSession;

    fn manifest() -> Manifest {
        let manifest = Manifest::new("bench", env!("CARGO_PKG_VERSION")).spans(10, 0).pushes();
        manifest.timeout(TIMEOUT).probe_after(Duration::from_secs(1))
    }

    fn bus(config: &BenchConfig) -> Option<String> {
        config.bus.clone()
    }

    fn span(address: &BenchAddress) -> Option<Span> {
        Some(Span { area: 0, start: address.register, len: 1 })
    }

    async fn open(config: &BenchConfig, _: &Context<BenchSession>) -> Result<BenchSession, Error> {
        let bench = bench(&config.bench);
        let wire = wire(config.bus.as_ref().unwrap_or(&config.bench));
        let _call = OnWire::begin(&wire);
        bench.opened.fetch_add(1, SeqCst);
        if bench.refuse_to_open.load(SeqCst) {
            return Err(Error::transient("nobody there"));
        }
        Ok(BenchSession { bench, wire })
    }
}

impl Session for BenchSession {
    type Address = BenchAddress;
    type Bus = ();

    async fn read(&mut self, batch: &Batch<'_, BenchAddress>, out: &mut Samples) -> Result<(), Error> {
        let _call = OnWire::begin(&self.wire);
        let registers: Vec<_> = batch.iter().map(|point| point.address.register.to_string()).collect();
        self.bench.call(format!("read {}", registers.join(" ")));
        Bench::pause(&self.bench.wait_in_read).await;
        while self.bench.hold_reading.load(SeqCst) {
            sleep(Duration::from_millis(5)).await;
        }
        for point in batch {
            out.good(point, Value::Float(self.bench.value()));
        }
        Ok(())
    }

    async fn write(
        &mut self,
        _: &Point<BenchAddress>,
        value: Value,
        permit: WritePermit,
    ) -> Result<WriteOutcome, Error> {
        let (bench, _call) = (&self.bench, OnWire::begin(&self.wire));
        bench.offered.fetch_add(1, SeqCst);
        bench.call("write".to_owned());
        assert!(!bench.panic_on_write.load(SeqCst), "a bug in the driver");
        Bench::pause(&bench.wait_before_write).await;
        let consumed = permit.consume()?;
        bench.written.fetch_add(1, SeqCst);
        Bench::pause(&bench.wait_in_write).await;
        *bench.value.lock().unwrap() = value.as_f64().unwrap();
        Ok(if bench.read_back.load(SeqCst) { consumed.read_back(value) } else { consumed.applied() })
    }

    async fn subscribe(&mut self, points: &[&Point<BenchAddress>], sink: Sink) -> Result<(), Error> {
        let names = points.iter().map(|point| point.name.clone()).collect();
        self.bench.subscriptions.lock().unwrap().push((names, sink));
        Ok(())
    }

    async fn probe(&mut self) -> Result<(), Error> {
        self.bench.probed.fetch_add(1, SeqCst);
        if self.bench.fail_probes.load(SeqCst) { Err(Error::transient("it is gone")) } else { Ok(()) }
    }

    async fn close(self) {
        self.bench.closed.fetch_add(1, SeqCst);
    }
}

//! Two apps of the demo, on MQTT as any app would be: a meter that reports, and a watcher at the other site.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use lab::io::Namespace;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::time::{Instant, interval, sleep};

/// Between two reports of the meter.
const REPORT_EVERY: Duration = Duration::from_millis(250);

/// Without a PUBACK for so long the meter says it again: its node was killed and may never have heard it.
const SAY_AGAIN: Duration = Duration::from_secs(2);

/// Counts upwards and reports each number with QoS 1; knows the last one that its node acknowledged.
#[derive(Debug)]
pub(super) struct Meter {
    acknowledged: Arc<AtomicI64>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Subscribes at a site and keeps the last payload of each topic.
#[derive(Debug)]
pub(super) struct Watcher {
    seen: Arc<Mutex<BTreeMap<String, Seen>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What a watcher saw on one topic.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) last: serde_json::Value,
    pub(super) messages: u64,
}

impl Meter {
    /// `topic` is a report topic of a device that is bound to the node at `broker`, in `namespace`.
    pub(super) fn start(namespace: Option<&Namespace>, broker: SocketAddr, topic: &str) -> Result<Self> {
        let acknowledged = Arc::new(AtomicI64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (acked, stopped, topic) = (Arc::clone(&acknowledged), Arc::clone(&stop), topic.to_owned());
        let thread = on_thread(namespace, "meter", move || report(broker, &topic, &acked, &stopped))?;
        Ok(Self { acknowledged, stop, thread: Some(thread) })
    }

    /// The last number whose PUBACK came.
    pub(super) fn acknowledged(&self) -> i64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// Ends the meter and returns the last number whose PUBACK came.
    pub(super) fn finish(mut self) -> i64 {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.acknowledged()
    }
}

impl Watcher {
    pub(super) fn start(namespace: Option<&Namespace>, broker: SocketAddr, filter: &str) -> Result<Self> {
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (kept, stopped, filter) = (Arc::clone(&seen), Arc::clone(&stop), filter.to_owned());
        let thread = on_thread(namespace, "watcher", move || watch(broker, &filter, &kept, &stopped))?;
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    pub(super) fn last(&self, topic: &str) -> Option<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(topic).cloned()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs `work` on a thread of its own, inside the namespace if there is one.
fn on_thread(
    namespace: Option<&Namespace>,
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>> {
    let namespace = namespace.cloned();
    let inside = move || match namespace {
        // Entering failed for nobody else before it; if it does, the check that counts this app's messages tells.
        Some(namespace) => drop(namespace.run(work)),
        None => work(),
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(inside).context("start an app")
}

fn session(name: &str, broker: SocketAddr) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(name, broker.ip().to_string(), broker.port());
    options.set_keep_alive(Duration::from_secs(5));
    options.set_clean_start(true);
    AsyncClient::new(options, 16)
}

fn run_async(work: impl Future<Output = ()>) {
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
        runtime.block_on(work);
    }
}

fn report(broker: SocketAddr, topic: &str, acknowledged: &AtomicI64, stop: &AtomicBool) {
    run_async(async {
        let (client, mut events) = session("demo-meter", broker);
        let mut tick = interval(REPORT_EVERY);
        let mut waiting: Option<(i64, Instant)> = None;
        // A number that was said twice is acknowledged twice: the packet id tells which one is meant.
        let mut saying = None;
        let mut numbers = BTreeMap::new();
        while !stop.load(Ordering::Acquire) {
            tokio::select! {
                event = events.poll() => match event {
                    Ok(Event::Outgoing(Outgoing::Publish(id))) => {
                        if let Some(number) = saying.take() {
                            numbers.insert(id, number);
                        }
                    }
                    Ok(Event::Incoming(Packet::PubAck(ack))) => {
                        if let Some(number) = numbers.remove(&ack.pkid) {
                            acknowledged.fetch_max(number, Ordering::Release);
                            waiting.take_if(|(waited, _)| *waited == number);
                        }
                    }
                    Ok(_) => {}
                    Err(_) => sleep(Duration::from_millis(200)).await,
                },
                _ = tick.tick() => {
                    let number = match waiting {
                        Some((_, since)) if since.elapsed() < SAY_AGAIN => continue,
                        Some((number, _)) => number,
                        None => acknowledged.load(Ordering::Acquire) + 1,
                    };
                    let said = client.try_publish(topic, QoS::AtLeastOnce, false, number.to_string());
                    if said.is_ok() {
                        saying = Some(number);
                        waiting = Some((number, Instant::now()));
                    }
                }
            }
        }
    });
}

fn watch(broker: SocketAddr, filter: &str, seen: &Mutex<BTreeMap<String, Seen>>, stop: &AtomicBool) {
    run_async(async {
        let (client, mut events) = session("demo-watcher", broker);
        let mut tick = interval(Duration::from_millis(200));
        while !stop.load(Ordering::Acquire) {
            let event = tokio::select! {
                event = events.poll() => event,
                _ = tick.tick() => continue,
            };
            match event {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    // The queue of requests is empty right after a connection was made.
                    let _ = client.try_subscribe(filter, QoS::AtLeastOnce);
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                    let last = serde_json::from_slice(&publish.payload).unwrap_or_default();
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    let messages = seen.get(&topic).map_or(0, |s| s.messages) + 1;
                    seen.insert(topic, Seen { last, messages });
                }
                Ok(_) => {}
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    });
}

//! Devices read once, without a broker: for a person who wants to see values.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;

use bus::Sample;
use bus::backoff::Jitter;
use bus::io::Clock;
use bus::twin::{DeviceConfig, DeviceId};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::buses::Buses;
use super::task::{Attendant, DeviceEvent, Report};
use crate::Mapper;

/// Reports that wait for the loop below; when full the devices' tasks wait.
const REPORTS: usize = 64;

/// One device: what was read of it, and why nothing else was.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) samples: BTreeMap<String, Sample>,
    /// Empty if it is well.
    pub(crate) error: String,
}

/// Serves the devices until each of `wanted` properties has a value, or `enough` comes true. They are served as
/// always, but nobody writes: the tasks' queues of writes stay empty.
pub(crate) async fn read_once<M: Mapper>(
    devices: &[DeviceConfig],
    wanted: usize,
    enough: impl Future<Output = ()>,
) -> BTreeMap<DeviceId, Heard> {
    let (events, mut heard) = mpsc::channel(REPORTS);
    let (mut tasks, mut held) = (JoinSet::new(), Vec::new());
    let (buses, clock) = (Buses::default(), Clock::start());
    let mut seeds = Jitter::new(clock.now().wall.0);
    for device in devices {
        let (config, configs) = watch::channel(device.clone());
        let (orders, none) = mpsc::channel(1);
        let (events, buses, seed) = (events.clone(), buses.clone(), seeds.next_u64());
        let attendant =
            Attendant::<M>::new(configs, none, events, buses, clock, std::time::Duration::ZERO, seed);
        tasks.spawn(attendant.run());
        held.push((config, orders));
    }
    drop(events);
    let mut devices: BTreeMap<DeviceId, Heard> = BTreeMap::new();
    let mut enough = pin!(enough);
    while devices.values().map(|heard| heard.samples.len()).sum::<usize>() < wanted {
        tokio::select! {
            () = &mut enough => break,
            event = heard.recv() => match event {
                Some(DeviceEvent::Report(Report { device, samples, health, counts: _ })) => {
                    let heard = devices.entry(device).or_default();
                    heard.samples.extend(samples);
                    heard.error = health.error;
                }
                Some(DeviceEvent::Written { .. }) => {}
                None => break, // all drivers have crashed
            },
        }
    }
    // Nobody listens any more, and the tasks close their sessions.
    drop((heard, held));
    while tasks.join_next().await.is_some() {}
    devices
}

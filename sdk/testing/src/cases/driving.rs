//! Calls to a driver as the SDK makes them, each within its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bus::{Mono, Now, UnixMillis};
use kubebus_sdk::testing::{Consumption, Driven, Readings, permit};
use kubebus_sdk::{Error, Mapper, Session, Value, WriteOutcome, WritePermit};
use tokio::time::timeout;

use crate::bench::SOON;
use crate::fixture::Fixture;
use crate::site::{Site, same};
use crate::verdict::{Stop, ensure, failed};

/// How long the SDK lets this mapper read: a driver that waits longer for an answer is dropped.
pub(super) fn read_limit<M: Mapper>() -> Duration {
    M::manifest().timeout
}

pub(super) async fn open<M: Mapper>(driven: &Driven<M>) -> Result<M::Session, Stop> {
    match timeout(SOON, driven.open()).await {
        Ok(Ok(session)) => Ok(session),
        Ok(Err(error)) => Err(failed(format!("open: {error}"))),
        Err(_) => Err(failed(format!("open does not end within {} s", SOON.as_secs()))),
    }
}

pub(super) async fn read<M: Mapper>(driven: &Driven<M>, session: &mut M::Session) -> Result<Readings, Stop> {
    match timeout(read_limit::<M>(), driven.read(session)).await {
        Ok(Ok(readings)) => Ok(readings),
        Ok(Err(error)) => Err(failed(format!("read: {error}"))),
        Err(_) => Err(failed(format!("read does not end within {} s", read_limit::<M>().as_secs()))),
    }
}

pub(super) async fn close<S: Session>(session: S) {
    drop(timeout(Duration::from_secs(2), session.close()).await);
}

/// Reads until all values are those that the device holds.
pub(super) async fn reads_right<M: Mapper, F: Fixture>(
    driven: &Driven<M>,
    session: &mut M::Session,
    site: &Site<F>,
) -> Result<(), Stop> {
    let readings = read(driven, session).await?;
    for property in site.polled() {
        let Some(value) = site.fixture.value(&property.name).await else { continue };
        match readings.get(&property.name) {
            Some(Ok((read, _))) => {
                ensure!(same(read, &value), "{} was read as {read}; it is {value}", property.name);
            }
            Some(Err(error)) => return Err(failed(format!("{} was not read: {error}", property.name))),
            None => return Err(failed(format!("{} was left out", property.name))),
        }
    }
    Ok(())
}

/// Opens and reads until all is right. A driver that notices that something is wrong with its line may say so, and is
/// opened again.
pub(super) async fn recovers<M: Mapper, F: Fixture>(driven: &Driven<M>, site: &Site<F>) -> Result<(), Stop> {
    for tries_left in (0..4).rev() {
        let tried = async {
            let mut session = open(driven).await?;
            reads_right(driven, &mut session, site).await
        };
        match tried.await {
            Err(Stop::Failed(_)) if tries_left > 0 => {}
            end => return end,
        }
    }
    Ok(())
}

/// Fails if a reading holds a value that its property never had.
pub(super) fn nothing_wrong<F: Fixture>(readings: &Readings, site: &Site<F>) -> Result<(), Stop> {
    for (name, reading) in readings {
        if let Ok((value, _)) = reading {
            site.has_held(name, value)?;
        }
    }
    Ok(())
}

/// A clock that a case moves.
#[derive(Debug, Clone, Default)]
pub(super) struct Hands(Arc<(AtomicU64, AtomicU64)>);

impl Hands {
    /// Ten minutes past the start of both clocks.
    pub(super) fn new() -> Self {
        let hands = Self::default();
        hands.set(Duration::from_secs(600), Duration::from_secs(600));
        hands
    }

    pub(super) fn set(&self, mono: Duration, wall: Duration) {
        let (mono_us, wall_ms) = &*self.0;
        mono_us.store(u64::try_from(mono.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
        wall_ms.store(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    pub(super) fn permit(&self, ttl: Duration) -> (WritePermit, Consumption) {
        let hands = self.clone();
        permit(ttl, move || {
            let (mono_us, wall_ms) = &*hands.0;
            Now {
                mono: Mono(mono_us.load(Ordering::SeqCst)),
                wall: UnixMillis(wall_ms.load(Ordering::SeqCst)),
            }
        })
    }
}

/// A write that comes too late must fail as `Expired`, and nothing may move.
pub(super) fn is_expired(written: Result<WriteOutcome, Error>, consumed: &Consumption) -> Result<(), Stop> {
    ensure!(!consumed.is_consumed(), "a permit whose time was over was taken as fresh");
    match written {
        Err(Error::Expired) => Ok(()),
        Err(other) => Err(failed(format!("a late write ended with '{other}', not with what consume() says"))),
        Ok(_) => Err(failed("a late write was said to be done")),
    }
}

pub(super) async fn write<M: Mapper>(
    driven: &Driven<M>,
    session: &mut M::Session,
    property: &str,
    value: Value,
    permit: WritePermit,
) -> Result<Result<WriteOutcome, Error>, Stop> {
    let written = timeout(SOON, driven.write(session, property, value, permit)).await;
    written.map_err(|_| failed(format!("write does not end within {} s", SOON.as_secs())))
}

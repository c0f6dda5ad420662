//! Nothing that a line does makes it attribute, repeat or leak.

mod writes;

pub(crate) use writes::*;

use std::time::Duration;

use bus::twin::DeviceId;
use kubebus_sdk::testing::{Driven, Pushes};
use kubebus_sdk::{Found, FoundProperty, Mapper};
use tokio::time::{sleep, timeout};

use super::driving::{self, nothing_wrong, open, read_limit, reads_right, recovers};
use crate::bench::{Bench, QUIET, SOON, recovery};
use crate::fixture::{Endpoint, Fixture, Property};
use crate::footprint::Footprint;
use crate::proxy::{Fault, Mode};
use crate::site::{Site, same};
use crate::verdict::{Stop, ensure, failed, not_applicable};

/// An answer that comes when its request was given up is not taken for that of the next request.
pub(crate) async fn late_answer_is_nobodys<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let site = bench.site().await?;
    let driven = site.driven::<M>()?;
    let proxy = site.proxy()?;
    let mut session = Some(open(&driven).await?);
    proxy.arm(Fault::LateAnswer);
    for round in 1..=6 {
        let Some(opened) = &mut session else {
            session = Some(open(&driven).await?);
            continue;
        };
        // As the SDK does: a driver that takes too long, or says that it is lost, is dropped with its session.
        match timeout(read_limit::<M>(), driven.read(opened)).await {
            Ok(Ok(readings)) => fresh(&readings, &site).await?,
            Ok(Err(_)) | Err(_) => session = None,
        }
        site.change(round % 3).await?;
    }
    recovers(&driven, &site).await
}

/// The device's values hold still while it is read: whatever is read is what it holds now.
async fn fresh<F: Fixture>(readings: &kubebus_sdk::testing::Readings, site: &Site<F>) -> Result<(), Stop> {
    for (name, reading) in readings {
        if let (Ok((read, _)), Some(value)) = (reading, site.fixture.value(name).await) {
            ensure!(same(read, &value), "{name} was read as {read} from an old answer; it is {value}");
        }
    }
    Ok(())
}

/// An answer that comes twice is not taken for that of the next request.
pub(crate) async fn doubled_answer_is_nobodys<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let site = bench.site().await?;
    let driven = site.driven::<M>()?;
    let proxy = site.proxy()?;
    let mut session = Some(open(&driven).await?);
    proxy.set(Mode::Double);
    for round in 1..=6 {
        match &mut session {
            Some(opened) => match timeout(read_limit::<M>(), driven.read(opened)).await {
                Ok(Ok(readings)) => fresh(&readings, &site).await?,
                Ok(Err(_)) | Err(_) => session = None,
            },
            None => session = timeout(SOON, driven.open()).await.ok().and_then(Result::ok),
        }
        site.change(round % 3).await?;
    }
    proxy.set(Mode::Pass);
    drop(session);
    recovers(&driven, &site).await
}

/// Readings that are dropped in their midst leave no answer, no write and no connection behind.
pub(crate) async fn cancelled_calls_leave_nothing<M: Mapper, F: Fixture>(
    bench: Bench<M, F>,
) -> Result<(), Stop> {
    let site = bench.site().await?;
    let driven = site.driven::<M>()?;
    let proxy = site.proxy()?;
    proxy.set(Mode::Delay(Duration::from_millis(20)));
    for ms in [0, 1, 5, 10, 15, 19, 21, 25, 30] {
        let mut session = open(&driven).await?;
        drop(timeout(Duration::from_millis(ms), driven.read(&mut session)).await);
        drop(session); // as the SDK does
        site.change(u32::try_from(ms).unwrap_or(0) % 3).await?;
        let mut session = open(&driven).await?;
        match timeout(read_limit::<M>(), driven.read(&mut session)).await {
            Ok(Ok(readings)) => {
                nothing_wrong(&readings, &site)?;
                fresh(&readings, &site).await?;
            }
            Ok(Err(_)) => {} // it saw that something is wrong, and says so
            Err(_) => return Err(failed("a reading after one that was dropped does not end")),
        }
    }
    proxy.set(Mode::Pass);
    recovers(&driven, &site).await?;
    site.untouched("by a reading that was dropped").await?;
    drop(driven);
    if matches!(proxy.at(), Endpoint::Tcp(_)) {
        let left = proxy.reaches(SOON, |counts| counts.open == 0).await;
        ensure!(left, "{} connections stay open", proxy.counts().open);
    }
    Ok(())
}

/// A thousand readings cost neither memory nor descriptors.
pub(crate) async fn thousand_readings_do_not_grow<M: Mapper, F: Fixture>(
    bench: Bench<M, F>,
) -> Result<(), Stop> {
    /// Allocators keep what they had: less than a KiB per reading is no leak.
    const GROWTH: u64 = 8 * 1024 * 1024;
    let site = bench.site().await?;
    let driven = site.driven::<M>()?;
    let mut session = open(&driven).await?;
    let before = readings(&driven, &mut session, &site, 200).await?;
    let after = readings(&driven, &mut session, &site, 1000).await?;
    let memory = after.memory.saturating_sub(before.memory);
    ensure!(memory < GROWTH, "1,000 readings took {} KiB more memory", memory / 1024);
    let more = after.descriptors.saturating_sub(before.descriptors);
    ensure!(more < 10, "1,000 readings left {more} more descriptors open");
    Ok(())
}

/// Reads so many times, or as often as half a minute allows.
async fn readings<M: Mapper, F: Fixture>(
    driven: &Driven<M>,
    session: &mut M::Session,
    site: &Site<F>,
    times: u32,
) -> Result<Footprint, Stop> {
    let many = async {
        for _ in 0..times {
            nothing_wrong(&driving::read(driven, session).await?, site)?;
        }
        Ok(())
    };
    timeout(Duration::from_secs(30), many).await.unwrap_or(Ok(()))?;
    Footprint::now().ok_or_else(|| not_applicable("this system has no /proc"))
}

/// A reading takes as few requests as the manifest's spans allow.
pub(crate) async fn asks_as_little_as_it_can<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let site = bench.site().await?;
    let driven = site.driven::<M>()?;
    if M::manifest().spans.is_none() {
        return Err(not_applicable("its points have no spans"));
    }
    let proxy = site.proxy()?;
    let mut session = open(&driven).await?;
    reads_right(&driven, &mut session, &site).await?;
    let before = proxy.counts().requests;
    const READINGS: u64 = 10;
    for _ in 0..READINGS {
        reads_right(&driven, &mut session, &site).await?;
    }
    let (asked, ideal) = (proxy.counts().requests - before, driven.requests() as u64 * READINGS);
    ensure!(asked <= ideal, "{READINGS} readings took {asked} requests; {ideal} are enough");
    Ok(())
}

/// What a subscribed point becomes is pushed.
pub(crate) async fn pushes_what_changes<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    if !M::manifest().pushes {
        return Err(not_applicable("it does not push"));
    }
    let site = bench.site().await?;
    let driven = site.pushed::<M>()?;
    let mut session = open(&driven).await?;
    let mut pushes = subscribe(&driven, &mut session).await?;
    for round in [1, 2] {
        site.change(round).await?;
        pushed(&mut pushes, &site).await?;
    }
    site.untouched("by a subscription").await
}

async fn subscribe<'a, M: Mapper>(
    driven: &'a Driven<M>,
    session: &mut M::Session,
) -> Result<Pushes<'a, M>, Stop> {
    match timeout(read_limit::<M>(), driven.subscribe(session)).await {
        Ok(Ok(pushes)) => Ok(pushes),
        Ok(Err(error)) => Err(failed(format!("subscribe: {error}"))),
        Err(_) => Err(failed("subscribe does not end")),
    }
}

/// Waits until every pushed property has come as it is now.
async fn pushed<M: Mapper, F: Fixture>(pushes: &mut Pushes<'_, M>, site: &Site<F>) -> Result<(), Stop> {
    let mut wanted = Vec::new();
    for property in site.fixture.properties().into_iter().filter(|p| p.pushed) {
        wanted.extend(site.fixture.value(&property.name).await.map(|value| (property.name, value)));
    }
    let come = async {
        while !wanted.is_empty() {
            let (point, value) =
                pushes.next().await.map_err(|e| failed(format!("the subscription ended: {e}")))?;
            if let Ok(value) = value {
                site.has_held(&point, &value)?;
                wanted.retain(|(name, wanted)| *name != point || !same(wanted, &value));
            }
        }
        Ok(())
    };
    let come = timeout(SOON, come).await;
    come.unwrap_or_else(|_| Err(failed("a change was not pushed")))
}

/// After its line was cut the mapper subscribes again.
pub(crate) async fn pushes_again_after_a_cut<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    if !M::manifest().pushes {
        return Err(not_applicable("it does not push"));
    }
    let site = bench.site().await?;
    site.pushed::<M>()?;
    let proxy = site.cuttable()?;
    let run = bench.run(vec![site.config()]).await?;
    for round in [1, 2] {
        site.change(round).await?;
        run.tells(&site, recovery()).await?;
        proxy.cut();
        sleep(QUIET).await;
    }
    site.change(1).await?;
    run.tells(&site, recovery()).await?;
    run.told_nothing_wrong(&site)
}

/// Discovery finds the fixture's device, and what it found can be read; where nothing is claimed it says so.
pub(crate) async fn finds_what_it_can_read<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let site = bench.site().await?;
    let driven = Driven::<M>::new(&site.config()).map_err(|e| failed(e.to_string()))?;
    if !M::manifest().discovers {
        return Err(not_applicable("it does not discover"));
    }
    let found = match timeout(recovery(), M::discover(driven.settings())).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(failed(format!("discover: {error}"))),
        Err(_) => return Err(failed(format!("discover does not end within {} s", recovery().as_secs()))),
    };
    ensure!(!found.is_empty(), "discovery does not find the fixture's device");
    for device in &found {
        can_be_read::<M>(device).await?;
    }
    site.untouched("by discovery").await
}

async fn can_be_read<M: Mapper>(found: &Found) -> Result<(), Stop> {
    let id: DeviceId = format!("conformance/{}", found.name)
        .parse()
        .map_err(|e| failed(format!("found '{}': {e}", found.name)))?;
    let property = |FoundProperty { name, value_type, writable: _, address }: &FoundProperty| {
        Property::new(name, *value_type, address.clone()).config(100)
    };
    let config = bus::twin::DeviceConfig {
        device: id,
        connection: crate::json::to_bus(&found.connection),
        properties: found.properties.iter().map(property).collect(),
    };
    let driven =
        Driven::<M>::new(&config).map_err(|e| failed(format!("what was found as {}: {e}", found.name)))?;
    if let Some(fault) = driven.faults().next() {
        return Err(failed(format!("what was found as {}: {fault}", found.name)));
    }
    let mut session = open(&driven).await?;
    for (name, reading) in driving::read(&driven, &mut session).await? {
        ensure!(reading.is_ok(), "{name} of {} was found and cannot be read: {reading:?}", found.name);
    }
    Ok(())
}

/// A hundred configurations in a row leave one session and no write.
pub(crate) async fn hundred_reloads_change_nothing<M: Mapper, F: Fixture>(
    bench: Bench<M, F>,
) -> Result<(), Stop> {
    let (site, run) = bench.served().await?;
    let open = site.proxy().map_or(0, |proxy| proxy.counts().open);
    for n in 0..100u64 {
        let devices = if n % 10 == 9 { Vec::new() } else { vec![site.config_every(100 + n)] };
        run.node.configure(devices);
        sleep(Duration::from_millis(15)).await;
    }
    run.node.configure(vec![site.config()]);
    run.tells_anew(&site, recovery()).await?;
    site.untouched("by a hundred configurations").await?;
    let Ok(proxy) = site.cuttable() else { return Ok(()) };
    let settled = proxy.reaches(SOON, |counts| counts.open <= open).await;
    ensure!(settled, "{open} connections have become {}", proxy.counts().open);
    Ok(())
}

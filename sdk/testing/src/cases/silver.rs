//! It writes once and in time, and gets over what lines and devices do.

mod writes;

pub(crate) use writes::*;

use std::time::Duration;

use kubebus_sdk::{Error, Mapper};
use serde_json::json;
use tokio::time::sleep;

use super::driving::{self, open, read};
use crate::bench::{Bench, QUIET, SOON, recovery};
use crate::fixture::Fixture;
use crate::proxy::{Fault, Garbage, Mode};
use crate::verdict::{Stop, ensure, failed, not_applicable};

/// A device that was switched off and on again is served again.
pub(crate) async fn survives_a_device_restart<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let (site, run) = bench.served().await?;
    if !site.fixture.stop().await {
        return Err(not_applicable("the fixture cannot stop its device"));
    }
    sleep(QUIET).await;
    site.fixture.restart().await;
    site.change(1).await.ok();
    site.remember().await;
    run.tells_anew(&site, recovery()).await?;
    site.untouched("by a restart of the device").await
}

/// Answers that take their time are awaited.
pub(crate) async fn awaits_slow_answers<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let site = bench.site().await?;
    site.proxy()?.set(Mode::Delay(Duration::from_millis(300)));
    let run = bench.run(vec![site.config()]).await?;
    run.tells(&site, SOON * 2).await?;
    site.change(1).await?;
    run.tells(&site, SOON).await?;
    run.told_nothing_wrong(&site)
}

/// A line that accepts and never answers is given up, and works when it does.
pub(crate) async fn gives_up_a_half_open_line<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let site = bench.site().await?;
    let proxy = site.proxy()?;
    proxy.set(Mode::HalfOpen);
    let run = bench.run(vec![site.config()]).await?;
    sleep(QUIET * 3).await;
    run.told_nothing_wrong(&site)?;
    let told = run.node.look(|hearing| {
        let names = site.fixture.properties().into_iter().map(|p| p.name);
        names.filter(|name| hearing.value(&site.id, name).is_some()).count()
    });
    ensure!(told == 0, "{told} values were told though the device has not said a word");
    proxy.set(Mode::Pass);
    run.tells(&site, recovery()).await
}

/// A device that hangs tells nothing new, and is served when it goes on.
pub(crate) async fn frozen_device_tells_nothing<M: Mapper, F: Fixture>(
    bench: Bench<M, F>,
) -> Result<(), Stop> {
    let (site, run) = bench.served().await?;
    let proxy = site.proxy()?;
    proxy.set(Mode::Freeze);
    sleep(QUIET).await; // what was under way has arrived
    run.node.forget(&site.id);
    sleep(QUIET * 2).await;
    for property in site.fixture.properties() {
        let told = run.node.look(|hearing| hearing.value(&site.id, &property.name).cloned());
        ensure!(told.is_none(), "{} was told while the device was silent", property.name);
    }
    proxy.set(Mode::Pass);
    site.change(1).await.ok();
    run.tells(&site, recovery()).await?;
    run.told_nothing_wrong(&site)
}

/// Half an answer is no value.
pub(crate) async fn half_an_answer_is_no_value<M: Mapper, F: Fixture>(
    bench: Bench<M, F>,
) -> Result<(), Stop> {
    let (site, run) = bench.served().await?;
    let proxy = site.cuttable()?;
    for round in 1..=3 {
        proxy.arm(Fault::CutAnswer);
        ensure!(proxy.struck(recovery()).await, "after a cut the mapper does not ask again");
        site.change(round).await.ok();
        run.tells(&site, recovery()).await?;
        run.told_nothing_wrong(&site)?;
    }
    Ok(())
}

/// Garbage is no value.
pub(crate) async fn garbage_is_no_value<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let (site, run) = bench.served().await?;
    let proxy = site.proxy()?;
    for garbage in [Garbage::Inverted, Garbage::Byte(0), Garbage::Byte(255)] {
        proxy.arm(Fault::Garbage(garbage));
        ensure!(proxy.struck(recovery()).await, "after garbage the mapper does not ask again");
        sleep(QUIET).await;
        run.told_nothing_wrong(&site)?;
        run.tells_anew(&site, recovery()).await?;
        run.told_nothing_wrong(&site)?;
    }
    Ok(())
}

/// A point that the device does not have costs no other one.
pub(crate) async fn missing_point_costs_only_itself<M: Mapper, F: Fixture>(
    bench: Bench<M, F>,
) -> Result<(), Stop> {
    let site = bench.site().await?;
    let Some(address) = site.fixture.missing_address() else {
        return Err(not_applicable("the fixture knows no address that the device does not have"));
    };
    let mut properties = site.polled();
    let Some(mut missing) = properties.first().cloned() else {
        return Err(not_applicable("no property is polled"));
    };
    (missing.name, missing.address) = ("missing".to_owned(), address);
    properties.push(missing);
    let driven = kubebus_sdk::testing::Driven::<M>::new(&site.config_of(&properties, 100))
        .map_err(|e| failed(format!("it costs the whole device: {e}")))?;
    let mut session = open(&driven).await?;
    driving::reads_right(&driven, &mut session, &site).await?;
    let reading = read(&driven, &mut session).await?.remove("missing");
    match reading {
        None if driven.faults().next().is_some() => Ok(()),
        Some(Err(Error::BadAddress { .. } | Error::Device(_) | Error::Unsupported(_))) => Ok(()),
        other => Err(failed(format!("a point that the device does not have was read as {other:?}"))),
    }
}

/// An address that makes no sense costs no other point.
pub(crate) async fn senseless_address_costs_only_itself<M: Mapper, F: Fixture>(
    bench: Bench<M, F>,
) -> Result<(), Stop> {
    let site = bench.site().await?;
    let mut properties = site.fixture.properties();
    let Some(mut senseless) = properties.first().cloned() else {
        return Err(not_applicable("no properties"));
    };
    (senseless.name, senseless.address) = ("senseless".to_owned(), json!([{"kit": 1}]));
    properties.insert(0, senseless);
    let run = bench.run(vec![site.config_of(&properties, 100)]).await?;
    run.tells(&site, SOON).await
}

/// A new configuration of one property keeps the device's session.
pub(crate) async fn reload_keeps_the_session<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let (site, run) = bench.served().await?;
    let proxy = site.cuttable()?;
    if F::CONNECTS_PER_REQUEST {
        return Err(not_applicable("the protocol connects anew for each request"));
    }
    let before = proxy.counts().connections;
    for poll_ms in [150, 200, 100] {
        run.node.configure(vec![site.config_every(poll_ms)]);
        run.tells_anew(&site, SOON).await?;
    }
    let new = proxy.counts().connections - before;
    ensure!(new == 0, "three new periods made it connect {new} times");
    Ok(())
}

/// A device that hangs does not keep another from being read.
pub(crate) async fn devices_do_not_disturb_each_other<M: Mapper, F: Fixture>(
    bench: Bench<M, F>,
) -> Result<(), Stop> {
    let (dead, alive) = (bench.site().await?, bench.site().await?);
    let run = bench.run(vec![dead.config(), alive.config()]).await?;
    run.tells(&dead, SOON).await?;
    run.tells(&alive, SOON).await?;
    dead.proxy()?.set(Mode::Freeze);
    for round in [1, 2, 1] {
        sleep(Duration::from_millis(300)).await;
        alive.change(round).await?;
        // Far less than any driver's patience with the dead one.
        run.tells(&alive, Duration::from_secs(4)).await?;
    }
    Ok(())
}

/// On a bus one request waits for its answer before the next one goes out.
pub(crate) async fn asks_one_at_a_time_on_a_bus<M: Mapper, F: Fixture>(
    bench: Bench<M, F>,
) -> Result<(), Stop> {
    let site = bench.site().await?;
    let driven = site.driven::<M>()?;
    if M::bus(driven.settings()).is_none() {
        return Err(not_applicable("its devices share no bus"));
    }
    let proxy = site.proxy()?;
    proxy.set(Mode::Delay(Duration::from_millis(100)));
    let mut second = site.config();
    second.device = "conformance/second".parse().map_err(|e| failed(format!("{e}")))?;
    let run = bench.run(vec![site.config(), second]).await?;
    run.tells(&site, SOON * 2).await?;
    sleep(QUIET).await;
    let overlaps = proxy.counts().overlaps;
    ensure!(overlaps == 0, "{overlaps} requests went out while another one's answer was awaited");
    Ok(())
}

/// A driver that waits for its device lets others work: its calls are asynchronous.
pub(crate) async fn does_not_block_its_thread<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let site = bench.site().await?;
    let driven = site.driven::<M>()?;
    let proxy = site.proxy()?;
    let mut session = open(&driven).await?;
    proxy.set(Mode::Freeze);
    let beats = crate::heartbeat::beside(async move {
        drop(tokio::time::timeout(QUIET, driven.read(&mut session)).await);
    });
    let beats = beats.await;
    proxy.set(Mode::Pass);
    ensure!(beats > 20, "its thread could do but {beats} other things while it waited for an answer");
    Ok(())
}

/// A device that refuses is not called without a pause.
pub(crate) async fn does_not_hammer_a_refusing_device<M: Mapper, F: Fixture>(
    bench: Bench<M, F>,
) -> Result<(), Stop> {
    let site = bench.site().await?;
    let proxy = site.cuttable()?;
    let _run = bench.run(vec![site.config()]).await?;
    proxy.set(Mode::HangUp);
    let before = proxy.counts().connections;
    sleep(QUIET * 2).await;
    let tries = proxy.counts().connections - before;
    ensure!(tries <= 12, "it connected {tries} times in {} s", (QUIET * 2).as_secs());
    Ok(())
}

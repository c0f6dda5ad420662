//! What became of a write is told as it is, and no write is repeated.

use std::time::Duration;

use bus::twin::{Outcome, WriteRequest, WriteResult};
use kubebus_sdk::Mapper;
use tokio::time::sleep;

use super::super::driving::{self, Hands, is_expired, open};
use crate::bench::{Bench, QUIET, Run, SOON, TTL, recovery, write};
use crate::fixture::{Fixture, Property};
use crate::proxy::{Fault, Mode};
use crate::site::Site;
use crate::verdict::{Stop, ensure, failed, not_applicable};

/// Longer than any polling of a case: nothing but the case's own write is under way.
const SELDOM_MS: u64 = 3_600_000;

/// A device whose only traffic is the case's own write.
async fn still<M: Mapper, F: Fixture>(bench: &Bench<M, F>) -> Result<(Site<F>, Run<M>, Property), Stop> {
    let site = bench.site().await?;
    let property = site.writable()?;
    site.proxy()?;
    let run = bench.run(vec![site.config_every(SELDOM_MS)]).await?;
    run.tells(&site, SOON).await?;
    Ok((site, run, property))
}

/// What the node is told of a write agrees with what the device has done, now and after the line is back.
async fn is_true<F: Fixture>(site: &Site<F>, property: &str, result: &WriteResult) -> Result<(), Stop> {
    sleep(QUIET).await; // time in which somebody might try again
    let written = site.written(property).await;
    ensure!(written.len() <= 1, "the write was carried out {} times", written.len());
    match result.outcome {
        Outcome::Succeeded => Err(failed("a write whose answer never came was said to have succeeded")),
        Outcome::Unknown => Ok(()),
        Outcome::Failed | Outcome::Rejected | Outcome::Expired | Outcome::Superseded => {
            ensure!(
                written.is_empty(),
                "the write was carried out, and told as {:?} ({})",
                result.outcome,
                result.detail
            );
            Ok(())
        }
    }
}

/// Brings the mapper back to a device whose line was cut in a write.
async fn after_the_cut<M: Mapper, F: Fixture>(
    site: &Site<F>,
    run: &Run<M>,
    property: &Property,
    request: &WriteRequest,
) -> Result<(), Stop> {
    let result = run.result(request).await?;
    run.node.configure(vec![site.config()]);
    site.remember().await;
    run.tells_anew(site, recovery()).await?;
    is_true(site, &property.name, &result).await
}

/// The line is cut when the device has the write and before its answer: unknown, and never repeated.
pub(crate) async fn cut_after_a_write_is_unknown<M: Mapper, F: Fixture>(
    bench: Bench<M, F>,
) -> Result<(), Stop> {
    let (site, run, property) = still(&bench).await?;
    let proxy = site.cuttable()?;
    proxy.arm(Fault::CutAfterRequest);
    let request = write("cut", &site.id, &property.name, property.value(2), TTL);
    run.node.write(&request).await;
    ensure!(proxy.struck(SOON).await, "the write sends nothing");
    after_the_cut(&site, &run, &property, &request).await
}

/// The line is cut in the middle of the write: no success, and never repeated.
pub(crate) async fn cut_within_a_write_is_no_success<M: Mapper, F: Fixture>(
    bench: Bench<M, F>,
) -> Result<(), Stop> {
    let (site, run, property) = still(&bench).await?;
    let proxy = site.cuttable()?;
    proxy.arm(Fault::CutRequest);
    let request = write("cut", &site.id, &property.name, property.value(2), TTL);
    run.node.write(&request).await;
    ensure!(proxy.struck(SOON).await, "the write sends nothing");
    after_the_cut(&site, &run, &property, &request).await
}

/// The device is silent until the write's time is over, and then takes it: unknown, and never repeated.
pub(crate) async fn silence_after_a_write_is_unknown<M: Mapper, F: Fixture>(
    bench: Bench<M, F>,
) -> Result<(), Stop> {
    let (site, run, property) = still(&bench).await?;
    let proxy = site.proxy()?;
    proxy.set(Mode::Mute);
    let request = write("silence", &site.id, &property.name, property.value(2), Duration::from_secs(2));
    run.node.write(&request).await;
    let result = run.result(&request).await?;
    proxy.set(Mode::Pass);
    run.node.configure(vec![site.config()]);
    is_true(&site, &property.name, &result).await?;
    site.remember().await;
    run.tells_anew(&site, recovery()).await?;
    is_true(&site, &property.name, &result).await
}

/// A driver that waits for its bus asks its permit afterwards.
pub(crate) async fn permit_is_asked_after_the_bus<M: Mapper, F: Fixture>(
    bench: Bench<M, F>,
) -> Result<(), Stop> {
    let site = bench.site().await?;
    let property = site.writable()?;
    let driven = site.driven::<M>()?;
    if M::bus(driven.settings()).is_none() {
        return Err(not_applicable("its devices share no bus"));
    }
    let mut session = open(&driven).await?;
    let hands = Hands::new();
    let (permit, consumed) = hands.permit(Duration::from_secs(1));
    let busy = driven.shared().lock().await;
    let late = async {
        sleep(Duration::from_millis(500)).await;
        hands.set(Duration::from_secs(602), Duration::from_secs(602));
        drop(busy);
    };
    let writing = driving::write(&driven, &mut session, &property.name, property.value(2), permit);
    let (written, ()) = tokio::join!(writing, late);
    site.untouched("though its time was over when the bus was free").await?;
    is_expired(written?, &consumed)
}

/// A clock that is set ahead ends a write, one that is set back does not prolong it.
pub(crate) async fn clock_jump_ends_a_write<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let site = bench.site().await?;
    let property = site.writable()?;
    let driven = site.driven::<M>()?;
    let mut session = open(&driven).await?;
    let seconds = Duration::from_secs;
    for (mono, wall) in [(seconds(600), seconds(90_000)), (seconds(700), seconds(10))] {
        let hands = Hands::new();
        let (permit, consumed) = hands.permit(seconds(30));
        hands.set(mono, wall);
        let written =
            driving::write(&driven, &mut session, &property.name, property.value(2), permit).await?;
        site.untouched("though a clock had ended the write").await?;
        is_expired(written, &consumed)?;
    }
    Ok(())
}

/// A stop while a write is under way ends, tells nothing false and repeats nothing.
pub(crate) async fn stop_within_a_write_ends<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let (site, mut run, property) = still(&bench).await?;
    let proxy = site.proxy()?;
    let before = proxy.counts().requests;
    proxy.set(Mode::Mute);
    // Shorter than the SDK's grace at a stop: even a driver that waits for ever is dropped in time for a goodbye.
    let request = write("stopped", &site.id, &property.name, property.value(2), Duration::from_secs(3));
    run.node.write(&request).await;
    ensure!(proxy.reaches(SOON, |counts| counts.requests > before).await, "the write sends nothing");
    run.stop_mapper(SOON).await?;
    ensure!(run.node.state("offline", SOON).await, "the mapper stopped without saying offline");
    proxy.set(Mode::Pass);
    sleep(QUIET).await;
    let told = run.node.look(|hearing| hearing.result(&request.id).cloned());
    let written = site.written(&property.name).await.len();
    ensure!(written <= 1, "the write was carried out {written} times");
    match told {
        Some(result) => is_true(&site, &property.name, &result).await,
        None => Ok(()),
    }
}

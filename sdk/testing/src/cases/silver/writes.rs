//! A write is carried out once, in order and in time, or not at all.

use std::time::Duration;

use bus::UnixMillis;
use bus::twin::Outcome;
use kubebus_sdk::Mapper;
use tokio::time::sleep;

use super::super::driving::{self, Hands, is_expired, open};
use crate::bench::{Bench, QUIET, SOON, TTL, unix_now, write};
use crate::fixture::Fixture;
use crate::site::same;
use crate::verdict::{Stop, ensure, not_applicable};

/// Each writable property takes a value, and the node is told the new one.
pub(crate) async fn writes_what_it_is_told<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let (site, run) = bench.served().await?;
    site.writable()?;
    for property in site.fixture.properties().into_iter().filter(|p| p.writable) {
        let value = property.value(2);
        let request = write(&property.name, &site.id, &property.name, value.clone(), TTL);
        run.write_ends(&request, Outcome::Succeeded).await?;
        let written = site.written(&property.name).await;
        ensure!(
            matches!(&written[..], [once] if same(once, &value)),
            "{} was to be written once, as {value}; the device says {written:?}",
            property.name
        );
        run.tells_these(&site.id, &[(property.name, value)], SOON).await?;
    }
    Ok(())
}

/// Writes to one property are carried out all, and in their order.
pub(crate) async fn keeps_the_order_of_writes<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let (site, run) = bench.served().await?;
    let property = site.writable()?;
    let requests: Vec<_> =
        (0..8).map(|n| write(&format!("w{n}"), &site.id, &property.name, property.value(n), TTL)).collect();
    for request in &requests {
        run.node.write(request).await;
    }
    for request in &requests {
        let result = run.result(request).await?;
        ensure!(
            result.outcome == Outcome::Succeeded,
            "{} ended as {:?}: {}",
            result.id,
            result.outcome,
            result.detail
        );
    }
    let written = site.written(&property.name).await;
    let in_order =
        written.len() == requests.len() && written.iter().zip(&requests).all(|(w, r)| same(w, &r.value));
    ensure!(in_order, "eight writes were carried out as {written:?}");
    Ok(())
}

/// A driver that is late asks its permit, hears that it is too late, and moves nothing.
pub(crate) async fn expired_permit_moves_nothing<M: Mapper, F: Fixture>(
    bench: Bench<M, F>,
) -> Result<(), Stop> {
    let site = bench.site().await?;
    let property = site.writable()?;
    let driven = site.driven::<M>()?;
    let mut session = open(&driven).await?;
    let hands = Hands::new();
    let (permit, consumed) = hands.permit(Duration::from_secs(1));
    hands.set(Duration::from_secs(602), Duration::from_secs(602));
    let written = driving::write(&driven, &mut session, &property.name, property.value(2), permit).await?;
    sleep(QUIET).await;
    site.untouched("though the permit's time was over").await?;
    is_expired(written, &consumed)
}

/// A write that was sent long ago moves nothing.
pub(crate) async fn old_write_moves_nothing<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let (site, run) = bench.served().await?;
    let property = site.writable()?;
    let mut request = write("old", &site.id, &property.name, property.value(2), TTL);
    request.sent = UnixMillis(unix_now().0.saturating_sub(3_600_000));
    run.write_ends(&request, Outcome::Expired).await?;
    site.untouched("though the write was an hour old").await
}

/// A write that the broker had kept moves nothing.
pub(crate) async fn retained_write_moves_nothing<M: Mapper, F: Fixture>(
    bench: Bench<M, F>,
) -> Result<(), Stop> {
    let (site, run) = bench.served().await?;
    let property = site.writable()?;
    let request = write("kept", &site.id, &property.name, property.value(2), TTL);
    run.node.write_retained(&request).await;
    let result = run.result(&request).await?;
    ensure!(result.outcome == Outcome::Rejected, "a retained write ended as {:?}", result.outcome);
    site.untouched("though the write was a retained one").await
}

/// A write that comes twice is carried out once.
pub(crate) async fn repeated_write_is_done_once<M: Mapper, F: Fixture>(
    bench: Bench<M, F>,
) -> Result<(), Stop> {
    let (site, run) = bench.served().await?;
    let property = site.writable()?;
    let request = write("twice", &site.id, &property.name, property.value(2), TTL);
    run.node.write(&request).await;
    run.write_ends(&request, Outcome::Succeeded).await?;
    sleep(QUIET).await;
    let written = site.written(&property.name).await;
    ensure!(written.len() == 1, "one write was carried out {} times", written.len());
    Ok(())
}

/// A value out of range does not reach the device.
pub(crate) async fn out_of_range_moves_nothing<M: Mapper, F: Fixture>(
    bench: Bench<M, F>,
) -> Result<(), Stop> {
    let (site, run) = bench.served().await?;
    let ranged = site.fixture.properties().into_iter().filter(|p| p.writable);
    let Some((property, value)) = ranged.filter_map(|p| p.too_large().map(|value| (p, value))).next() else {
        return Err(not_applicable("no writable property has a range"));
    };
    let request = write("too-large", &site.id, &property.name, value, TTL);
    run.write_ends(&request, Outcome::Rejected).await?;
    site.untouched("though the value was out of range").await
}

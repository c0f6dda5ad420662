//! It reads, and never writes by itself.

use bus::Name;
use bus::twin::Outcome;
use kubebus_sdk::testing::Driven;
use kubebus_sdk::{Error, Mapper, schemars};
use serde_json::{Value as Json, json};
use tokio::time::{sleep, timeout};

use super::driving::{close, open, read, reads_right};
use crate::bench::{Bench, QUIET, SOON, TTL, recovery, write};
use crate::fixture::{Endpoint, Fixture};
use crate::proxy::Mode;
use crate::schema;
use crate::site::Site;
use crate::verdict::{Stop, ensure, failed, not_applicable};

/// Protocol, version and span limits are of use.
pub(crate) async fn manifest_is_sound<M: Mapper, F: Fixture>(_: Bench<M, F>) -> Result<(), Stop> {
    let manifest = M::manifest();
    let protocol = manifest.protocol;
    ensure!(Name::new(protocol).is_ok(), "protocol '{protocol}': lower case letters, digits and '-'");
    ensure!(!manifest.version.is_empty(), "the manifest names no version");
    ensure!(manifest.spans.is_none_or(|s| s.longest > 0), "spans of length 0 hold no point");
    Ok(())
}

/// The exported schemas accept the settings and addresses that the mapper itself accepts.
pub(crate) async fn schemas_accept_what_works<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let site = bench.site().await?;
    let settings = schemars::schema_for!(M::Config);
    schema::check(settings.as_value(), &site.connection()).map_err(|e| failed(format!("connection: {e}")))?;
    let address = schemars::schema_for!(M::Address);
    for property in site.fixture.properties() {
        let named = |e| failed(format!("address of {}: {e}", property.name));
        schema::check(address.as_value(), &property.address).map_err(named)?;
    }
    Ok(())
}

/// Something of the wrong type where `good` stands.
fn nonsense(good: &Json) -> Json {
    if good.is_object() || good.is_array() { json!(true) } else { json!([{"kit": 1}]) }
}

/// `good` with nonsense in one field after the other.
fn spoilt(good: &Json) -> Vec<(String, Json)> {
    let Json::Object(fields) = good else { return vec![(String::new(), nonsense(good))] };
    let spoil = |(field, value): (&String, &Json)| {
        let mut bad = fields.clone();
        bad.insert(field.clone(), nonsense(value));
        (field.clone(), Json::Object(bad))
    };
    fields.iter().map(spoil).collect()
}

/// Settings of the wrong type are refused, by an error that names the field.
pub(crate) async fn bad_settings_name_the_field<M: Mapper, F: Fixture>(
    bench: Bench<M, F>,
) -> Result<(), Stop> {
    let site = bench.site().await?;
    let mut config = site.config();
    for (field, settings) in spoilt(&site.connection()) {
        config.connection = crate::json::to_bus(&settings);
        let error = match Driven::<M>::new(&config) {
            Err(error) => error,
            Ok(driven) => match timeout(SOON, driven.open()).await {
                Ok(Err(error)) => error,
                Ok(Ok(_)) | Err(_) => return Err(failed(format!("{settings} is not refused"))),
            },
        };
        ensure!(
            matches!(error, Error::Config(_)),
            "{settings} is refused as '{error}', not as Error::Config"
        );
        ensure!(
            error.to_string().contains(&field),
            "'{error}' does not name the field '{field}' of {settings}"
        );
    }
    Ok(())
}

/// An address of the wrong type is refused, by an error that names property and field.
pub(crate) async fn bad_addresses_name_the_property<M: Mapper, F: Fixture>(
    bench: Bench<M, F>,
) -> Result<(), Stop> {
    let site = bench.site().await?;
    let Some(mut property) = site.polled().into_iter().next() else {
        return Err(not_applicable("no property is polled"));
    };
    for (field, address) in spoilt(&property.address.clone()) {
        property.address = address.clone();
        let driven = Driven::<M>::new(&site.config_of(&[property.clone()], 100))
            .map_err(|e| failed(format!("the address {address} costs the whole device: {e}")))?;
        let error = match driven.faults().next() {
            Some(fault) => fault.clone(),
            None => {
                let mut session = open(&driven).await?;
                let reading = read(&driven, &mut session).await?.remove(&property.name);
                match reading {
                    Some(Err(error)) => error,
                    Some(Ok(_)) | None => {
                        return Err(failed(format!("the address {address} is not refused")));
                    }
                }
            }
        };
        let Error::BadAddress { point, why } = &error else {
            return Err(failed(format!(
                "the address {address} is refused as '{error}', not as Error::BadAddress"
            )));
        };
        ensure!(*point == property.name, "'{error}' names the property '{point}'");
        ensure!(why.contains(&field), "'{error}' does not name the field '{field}' of {address}");
    }
    Ok(())
}

/// A session opens, and closing it leaves no connection behind.
pub(crate) async fn opens_and_closes<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let site = bench.site().await?;
    let driven = Driven::<M>::new(&site.config()).map_err(|e| failed(e.to_string()))?;
    let session = open(&driven).await?;
    close(session).await;
    drop(driven);
    all_closed(&site, "after close").await?;
    site.untouched("by opening").await
}

/// Waits until the mapper has no connection any more, where lines know connections.
async fn all_closed<F: Fixture>(site: &Site<F>, when: &str) -> Result<(), Stop> {
    let Ok(proxy) = site.proxy() else { return Ok(()) };
    if !matches!(proxy.at(), Endpoint::Tcp(_)) {
        return Ok(());
    }
    let closed = proxy.reaches(SOON, |counts| counts.open == 0).await;
    ensure!(closed, "{when} {} connections stay open", proxy.counts().open);
    Ok(())
}

/// One reading gives every point, as the device holds it.
pub(crate) async fn reads_every_point<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let site = bench.site().await?;
    let driven = site.driven::<M>()?;
    let mut session = open(&driven).await?;
    reads_right(&driven, &mut session, &site).await?;
    site.change(1).await?;
    reads_right(&driven, &mut session, &site).await
}

/// Every value is of its property's type, so that the SDK need not throw it away.
pub(crate) async fn values_have_their_types<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let site = bench.site().await?;
    let driven = site.driven::<M>()?;
    let mut session = open(&driven).await?;
    for (name, reading) in read(&driven, &mut session).await? {
        if let Err(error @ Error::Bug(_)) = reading {
            return Err(failed(format!("{name}: {error}")));
        }
    }
    Ok(())
}

/// The node is told every property's value.
pub(crate) async fn tells_every_point<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let (site, run) = bench.served().await?;
    run.told_nothing_wrong(&site)
}

/// The node is told what changes in the device.
pub(crate) async fn follows_changes<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let (site, run) = bench.served().await?;
    for round in [1, 2] {
        site.change(round).await?;
        run.tells(&site, SOON).await?;
    }
    run.told_nothing_wrong(&site)
}

/// Opening, reading and closing move nothing.
pub(crate) async fn reading_does_not_write<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let (site, mut run) = bench.served().await?;
    sleep(QUIET).await;
    run.stop_mapper(SOON).await?;
    site.untouched("by reading").await
}

/// A mapper that starts anew moves nothing.
pub(crate) async fn restart_does_not_write<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let (site, mut run) = bench.served().await?;
    run.stop_mapper(SOON).await?;
    run.start_mapper().await?;
    run.tells_anew(&site, SOON).await?;
    site.untouched("by a restart of the mapper").await
}

/// A lost connection that comes back moves nothing.
pub(crate) async fn reconnect_does_not_write<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let (site, run) = bench.served().await?;
    let proxy = site.cuttable()?;
    proxy.cut();
    site.change(1).await.ok();
    run.tells_anew(&site, recovery()).await?;
    site.untouched("by a reconnection").await
}

/// A new configuration moves nothing.
pub(crate) async fn reload_does_not_write<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let (site, run) = bench.served().await?;
    for poll_ms in [150, 200] {
        run.node.configure(vec![site.config_every(poll_ms)]);
        run.tells_anew(&site, SOON).await?;
    }
    site.untouched("by a new configuration").await
}

/// A device that refuses at first is served when it is there.
pub(crate) async fn waits_for_a_refusing_device<M: Mapper, F: Fixture>(
    bench: Bench<M, F>,
) -> Result<(), Stop> {
    let site = bench.site().await?;
    let proxy = site.cuttable()?;
    proxy.set(Mode::Refuse);
    let run = bench.run(vec![site.config()]).await?;
    sleep(QUIET).await;
    proxy.set(Mode::Pass);
    run.tells(&site, recovery()).await
}

/// A device that is no longer configured is let go.
pub(crate) async fn lets_a_removed_device_go<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let (site, run) = bench.served().await?;
    site.cuttable()?;
    run.node.configure(Vec::new());
    all_closed(&site, "after the device's removal").await
}

/// It stops in time and says so.
pub(crate) async fn stops_in_time<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let (site, mut run) = bench.served().await?;
    run.stop_mapper(SOON).await?;
    ensure!(run.node.state("offline", SOON).await, "the mapper stopped without saying offline");
    all_closed(&site, "after the stop").await
}

/// Two devices are told each with its own values.
pub(crate) async fn serves_two_devices<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let (one, other) = (bench.site().await?, bench.site().await?);
    one.change(1).await?;
    other.change(2).await?;
    let run = bench.run(vec![one.config(), other.config()]).await?;
    run.tells(&one, SOON).await?;
    run.tells(&other, SOON).await
}

/// A property that is not writable is not written.
pub(crate) async fn read_only_stays_untouched<M: Mapper, F: Fixture>(bench: Bench<M, F>) -> Result<(), Stop> {
    let (site, run) = bench.served().await?;
    let Some(property) = site.fixture.properties().into_iter().find(|p| !p.writable) else {
        return Err(not_applicable("every property can be written"));
    };
    let request = write("read-only", &site.id, &property.name, property.value(1), TTL);
    run.write_ends(&request, Outcome::Rejected).await?;
    site.untouched("though the property is not writable").await
}

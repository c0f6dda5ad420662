//! One device of a case, with the proxy before it, and what its values have been.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use bus::twin::{DeviceConfig, DeviceId};
use kubebus_sdk::testing::Driven;
use kubebus_sdk::{Mapper, Value};

use crate::fixture::{Endpoint, Fixture, Property, Write};
use crate::json;
use crate::proxy::Proxy;
use crate::verdict::{Stop, ensure, failed, not_applicable};

/// How often a case reads, in milliseconds.
pub(crate) const POLL_MS: u64 = 100;

/// See the module's page.
pub(crate) struct Site<F> {
    pub(crate) id: DeviceId,
    pub(crate) fixture: F,
    proxy: Option<Proxy>,
    /// How often all values were changed for their own sake.
    renewals: AtomicU32,
    /// Every value that each property has had.
    held: Mutex<BTreeMap<String, Vec<Value>>>,
}

impl<F: Fixture> Site<F> {
    pub(crate) async fn new(id: DeviceId, fixture: F) -> Result<Self, Stop> {
        let proxy = match fixture.endpoint() {
            Endpoint::Direct => None,
            device @ (Endpoint::Tcp(_) | Endpoint::Udp(_) | Endpoint::Serial(_)) => {
                let proxy = Proxy::before(&device).await;
                Some(proxy.map_err(|e| failed(format!("the kit's proxy: {e}")))?)
            }
        };
        let site = Self { id, fixture, proxy, renewals: AtomicU32::new(0), held: Mutex::default() };
        site.remember().await;
        Ok(site)
    }

    pub(crate) fn proxy(&self) -> Result<&Proxy, Stop> {
        self.proxy.as_ref().ok_or_else(|| not_applicable("the fixture has no endpoint for the kit's proxy"))
    }

    /// Where the line can be broken, other than a serial one that is there for good.
    pub(crate) fn cuttable(&self) -> Result<&Proxy, Stop> {
        match self.proxy()?.at() {
            Endpoint::Tcp(_) => self.proxy(),
            Endpoint::Udp(_) | Endpoint::Serial(_) | Endpoint::Direct => {
                Err(not_applicable("this line knows no connections"))
            }
        }
    }

    pub(crate) fn connection(&self) -> serde_json::Value {
        let direct = self.fixture.endpoint();
        self.fixture.connection(self.proxy.as_ref().map_or(&direct, Proxy::at))
    }

    pub(crate) fn config(&self) -> DeviceConfig {
        self.config_every(POLL_MS)
    }

    pub(crate) fn config_every(&self, poll_ms: u64) -> DeviceConfig {
        self.config_of(&self.fixture.properties(), poll_ms)
    }

    pub(crate) fn config_of(&self, properties: &[Property], poll_ms: u64) -> DeviceConfig {
        DeviceConfig {
            device: self.id.clone(),
            connection: json::to_bus(&self.connection()),
            properties: properties.iter().map(|property| property.config(poll_ms)).collect(),
        }
    }

    fn properties(&self, pushed: bool) -> Vec<Property> {
        self.fixture.properties().into_iter().filter(|property| property.pushed == pushed).collect()
    }

    /// The device as the SDK drives it, with the points that are polled.
    pub(crate) fn driven<M: Mapper>(&self) -> Result<Driven<M>, Stop> {
        self.driven_with(&self.properties(false), "no property is polled")
    }

    /// The same with those that are pushed.
    pub(crate) fn pushed<M: Mapper>(&self) -> Result<Driven<M>, Stop> {
        self.driven_with(&self.properties(true), "no property is pushed")
    }

    fn driven_with<M: Mapper>(&self, properties: &[Property], none: &str) -> Result<Driven<M>, Stop> {
        if properties.is_empty() {
            return Err(not_applicable(none));
        }
        let config = self.config_of(properties, POLL_MS);
        Driven::new(&config).map_err(|e| failed(format!("the fixture's own settings are refused: {e}")))
    }

    pub(crate) fn polled(&self) -> Vec<Property> {
        self.properties(false)
    }

    pub(crate) fn writable(&self) -> Result<Property, Stop> {
        let mut properties = self.fixture.properties().into_iter();
        properties.find(|p| p.writable).ok_or_else(|| not_applicable("no property can be written"))
    }

    /// Takes the values of now as rightful ones.
    pub(crate) async fn remember(&self) {
        for Property { name, .. } in self.fixture.properties() {
            if let Some(value) = self.fixture.value(&name).await {
                self.held.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().push(value);
            }
        }
    }

    /// Gives each property a value of its own that it has not had before.
    pub(crate) async fn change(&self, round: u32) -> Result<(), Stop> {
        let mut changed = false;
        for (i, property) in (0u32..).zip(self.fixture.properties()) {
            changed |= self.fixture.set(&property.name, property.value(i * 3 + round)).await;
        }
        self.remember().await;
        if changed { Ok(()) } else { Err(not_applicable("the fixture cannot change a value")) }
    }

    /// Changes all values, to whatever.
    pub(crate) async fn renew(&self) -> Result<(), Stop> {
        self.change(self.renewals.fetch_add(1, Ordering::Relaxed) % 2 + 1).await
    }

    /// Fails unless the property has held this value at some time.
    pub(crate) fn has_held(&self, property: &str, value: &Value) -> Result<(), Stop> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let values = held.get(property).map_or(&[][..], Vec::as_slice);
        ensure!(
            values.iter().any(|v| same(v, value)),
            "{property} was told as {value}, which it never was: {values:?}"
        );
        Ok(())
    }

    pub(crate) async fn untouched(&self, after: &str) -> Result<(), Stop> {
        let writes = self.fixture.writes().await;
        ensure!(writes.is_empty(), "the device was written to {after}: {writes:?}");
        Ok(())
    }

    pub(crate) async fn written(&self, property: &str) -> Vec<Value> {
        let writes = self.fixture.writes().await.into_iter();
        writes.filter(|w| w.property == property).map(|Write { value, .. }| value).collect()
    }
}

/// Equal, but for the digits that a device's number format does not hold.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-4 * a.abs().max(1.0),
        _ => a == b,
    }
}

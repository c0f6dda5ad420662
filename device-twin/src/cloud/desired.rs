//! Wishes: checked, numbered, and written where the device's edge will find them.

use bus::twin::{DesiredVersion, DeviceId, Outcome, ResultBody, TwinTopic};
use bus::{Name, Now};
use metadata::{Key, Keyspace, epoch};
use thiserror::Error;

use super::{CloudTwins, Placed};
use crate::model::{InvalidValue, Lookup};
use crate::twin::{self, Desired, DesiredBody, PropertyId, Publish, SetBody, brief, explain, key};

/// Why a desired value is not taken.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SetError {
    #[error(transparent)]
    Lookup(#[from] Lookup),
    #[error("device {0} is bound to no edge: its manifest needs spec.nodeName")]
    Unbound(DeviceId),
    #[error("{0} cannot be set to this")]
    Value(PropertyId, #[source] InvalidValue),
}

/// The version after the newest one known: the next number in an even epoch. What an edge acknowledges may be any
/// number; at the end of one epoch the next even one begins.
fn after(DesiredVersion { epoch, seq }: DesiredVersion) -> DesiredVersion {
    match seq.checked_add(1) {
        Some(seq) if epoch.is_multiple_of(2) => DesiredVersion { epoch, seq },
        _ => DesiredVersion { epoch: epoch.saturating_add(2) & !1, seq: 1 },
    }
}

fn place(edge: &Name, id: &PropertyId) -> Key {
    key(&format!("/e/{edge}/desired/"), id)
}

impl CloudTwins {
    /// Wishes `value` for a property: checked by model and policy, given the next version, put into the keyspace of
    /// the device's edge.
    ///
    /// # Errors
    /// Nothing is changed if the device or property is unknown, the device is bound to no edge, or the value is
    /// read-only, of another type or out of range.
    pub fn set_desired(
        &mut self,
        device: &DeviceId,
        property: &str,
        value: impl Into<SetBody>,
        by: &str,
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<DesiredVersion, SetError> {
        let id = PropertyId::new(device, property);
        let resolved = self.catalog.property(device, property)?;
        let node = self.catalog.device(device).and_then(|info| info.node.clone());
        let edge = node.ok_or_else(|| SetError::Unbound(device.clone()))?;
        let value = value.into().check(resolved).map_err(|why| SetError::Value(id.clone(), why))?;
        let version = after(self.newest_version(&id, ks));
        let desired = Desired { value, version, issued: now.wall, by: by.to_owned() };
        ks.put(key("/c/version/", &id), twin::cbor(&version));
        self.put_desired(&id, Placed { edge, desired }, ks);
        Ok(version)
    }

    fn put_desired(&mut self, id: &PropertyId, placed: Placed, ks: &mut Keyspace) {
        ks.put(place(&placed.edge, id), twin::cbor(&placed.desired));
        self.publish(Publish::retained(&id.desired_topic(), &DesiredBody::from(&placed.desired)));
        self.twins.entry(id.clone()).or_default().desired = Some(placed);
    }

    /// A restored cloud's own memory is behind, and the edge's acknowledgement, which counts too, may not be here yet: the
    /// versions of each of its epochs begin above all of the one before.
    fn newest_version(&self, id: &PropertyId, ks: &Keyspace) -> DesiredVersion {
        let restored = epoch::get(ks).saturating_sub(epoch::FIRST).saturating_mul(2);
        let floor = Some(DesiredVersion { epoch: restored, seq: 0 });
        let given = ks.get(&format!("/c/version/{id}")).and_then(|bytes| twin::decode(bytes));
        let acked = self.twins.get(id).and_then(|twin| Some(twin.reported.as_ref()?.ack.as_ref()?.version));
        given.max(acked).max(floor).unwrap_or_default()
    }

    /// Takes the wish out of the edge's keyspace.
    pub(super) fn take_back(&mut self, id: &PropertyId, ks: &mut Keyspace) {
        let Some(placed) = self.twins.get_mut(id).and_then(|twin| twin.desired.take()) else { return };
        ks.delete(&place(&placed.edge, id));
        self.clear(&id.desired_topic());
    }

    /// The device may have moved to another edge: its wishes go with it, as old as they are.
    pub(super) fn follow(&mut self, device: &DeviceId, ks: &mut Keyspace) {
        let Some(info) = self.catalog.device(device).cloned() else { return };
        for id in self.ids_of(device) {
            let known = info.properties.contains_key(&id.property);
            match (&info.node, self.twins.get(&id).and_then(|twin| twin.desired.clone())) {
                (_, None) => {}
                (Some(node), Some(placed)) if known && placed.edge == *node => {}
                (Some(node), Some(placed)) if known => {
                    ks.delete(&place(&placed.edge, &id));
                    self.put_desired(&id, Placed { edge: node.clone(), ..placed }, ks);
                }
                (_, Some(_)) if info.problem.is_some() => {}
                (_, Some(_)) => self.take_back(&id, ks),
            }
        }
    }

    /// KubeEdge's `desired` in a device's manifest is a wish each time its text changes.
    pub(super) fn take_manifest_wishes(&mut self, device: &DeviceId, ks: &mut Keyspace, now: Now) {
        let Some(info) = self.catalog.device(device).filter(|info| info.node.is_some()).cloned() else {
            return;
        };
        for (name, property) in &info.properties {
            let Some(text) = &property.manifest_desired else { continue };
            let id = PropertyId::new(device, name);
            let taken = key("/c/manifest-desired/", &id);
            if ks.get(taken.as_str()).is_some_and(|before| before == text.as_bytes()) {
                continue;
            }
            ks.put(taken, text.clone().into());
            let done = property
                .parse(text)
                .map_err(|why| SetError::Value(id.clone(), why))
                .and_then(|value| self.set_desired(device, name, value, "manifest", ks, now));
            if let Err(why) = done {
                self.refused(&id, &why);
            }
        }
    }

    pub(super) fn set_from_app(
        &mut self,
        id: &PropertyId,
        payload: &[u8],
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<(), String> {
        let body: SetBody =
            serde_json::from_slice(payload).map_err(|why| brief(&format!("malformed: {why}")))?;
        self.set_desired(&id.device, &id.property, body, "app", ks, now).map(|_| ()).map_err(|why| {
            self.refused(id, &why);
            explain(&why)
        })
    }

    fn refused(&mut self, id: &PropertyId, why: &SetError) {
        let property = id.property.clone();
        let body = ResultBody {
            property: property.to_string(),
            outcome: Outcome::Rejected,
            version: None,
            detail: explain(why),
        };
        self.publish(Publish::once(&TwinTopic::Result { device: id.device.clone() }, &body));
    }
}

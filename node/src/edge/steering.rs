//! Devices steered over the resource API at an edge, with or without the cloud: what its console may do, by its own words.

use bus::Now;
use bus::twin::{DeviceId, Json};
use controller::api::Layout;
use controller::api::part::desired::Held;
use controller::role::Asker;
use device_twin::command::CommandView;
use device_twin::twin::SetBody;
use device_twin::{PropertyId, TwinView, patch};
use metadata::Keyspace;
use serde_json::json;

use super::Edge;
use crate::admin::{AdminError, AdminRequest, AdminResponse, describe};
use crate::steering::Helm;

impl Helm for Edge {
    const LAYOUT: Layout = Layout::Edge;

    fn keyspace(&mut self) -> &mut Keyspace {
        &mut self.keyspace
    }

    fn knows(&self, device: &DeviceId) -> bool {
        self.twins.catalog().device(device).is_some()
    }

    fn views(&self, device: &DeviceId, now: Now) -> Vec<TwinView> {
        self.twins.view(device, now)
    }

    fn held(&self, views: &[TwinView], device: &DeviceId, now: Now) -> Held {
        let held = |view: &TwinView| {
            let value = self.twins.held_to(&PropertyId::new(device, &view.property), now.mono)?;
            Some((view.property.clone(), value.clone()))
        };
        views.iter().filter(|view| view.writable).filter_map(held).collect()
    }

    fn commands(&self, device: &DeviceId, now: Now) -> Vec<CommandView> {
        self.twins.commands(Some(device), now)
    }

    fn may_patch(&self, device: &DeviceId, json: &Json, now: Now) -> Result<(), AdminError> {
        self.patched(device, json, now).map(drop)
    }

    fn ask(&mut self, asker: &Asker, request: AdminRequest, now: Now) -> AdminResponse {
        self.asker = (!asker.is_console()).then(|| asker.who.clone());
        let answer = self.answer(request, now);
        self.asker = None;
        answer
    }
}

impl Edge {
    /// A JSON merge patch of what is desired of a device: all of it, or nothing.
    pub(super) fn patch_twin(&mut self, device: &DeviceId, json: &Json, now: Now) -> AdminResponse {
        self.known(device)?;
        let by = self.by();
        let mut rows = Vec::new();
        for (id, body) in self.patched(device, json, now)? {
            let version = self.twins.set(&id, body, &by, &mut self.keyspace, now);
            let version = version.map_err(|why| AdminError::Conflict(format!("{id}: {why}")))?;
            rows.push(json!({ "device": device.to_string(), "property": &*id.property, "version": version }));
        }
        Ok(rows.into())
    }

    /// What the patch sets, if all of it may be set.
    fn patched(
        &self,
        device: &DeviceId,
        json: &Json,
        now: Now,
    ) -> Result<Vec<(PropertyId, SetBody)>, AdminError> {
        let wishes = patch::wishes(json).map_err(|why| AdminError::Invalid(why.to_string()))?;
        if wishes.is_empty() {
            return Err(AdminError::Invalid("nothing is wished".to_owned()));
        }
        wishes.into_iter().map(|(property, json)| self.patched_one(device, &property, json, now)).collect()
    }

    fn patched_one(
        &self,
        device: &DeviceId,
        property: &str,
        json: Option<Json>,
        now: Now,
    ) -> Result<(PropertyId, SetBody), AdminError> {
        let id = PropertyId::new(device, property);
        let found = self.twins.catalog().property(device, property);
        let found = found.map_err(|why| AdminError::NotFound(describe(&why)))?;
        let Some(json) = json else {
            let why = format!("{id}: a wish is taken back at {}; here another value can be set", self.cloud);
            return Err(AdminError::Invalid(why));
        };
        let present = self.twins.replaced(&id, now.mono);
        let value = patch::merge(property, found.value_type, present, &json)
            .map_err(|why| AdminError::Invalid(why.to_string()))?;
        let checked = SetBody::from(value.clone()).check(found);
        checked.map_err(|why| AdminError::Invalid(format!("{id}: {}", describe(&why))))?;
        self.twins.may_set(&id, now.mono).map_err(|why| AdminError::Conflict(format!("{id}: {why}")))?;
        Ok((id, value.into()))
    }
}

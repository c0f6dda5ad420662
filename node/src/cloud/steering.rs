//! Devices steered over the resource API at the cloud: by their parts, and by a patch that changes nothing but what is
//! desired.

use std::collections::BTreeSet;

use bus::Now;
use bus::twin::{DeviceId, Json};
use controller::api::call::PatchType;
use controller::api::draft::{self, Current, Draft};
use controller::api::object;
use controller::api::part::desired::{self, Held};
use controller::api::wish::{self, NotWishes};
use controller::api::{Id, Kind, Layout, Refusal, writes_whole};
use controller::role::Asker;
use device_twin::TwinView;
use device_twin::command::CommandView;
use metadata::Keyspace;
use serde_json::Value;

use super::Cloud;
use super::answers::set_error;
use crate::admin::{AdminError, AdminRequest, AdminResponse};
use crate::resources::{Order, Outcome, Written, as_refusal, moment};
use crate::steering::{Helm, not_his};
use crate::veil;

impl Helm for Cloud {
    const LAYOUT: Layout = Layout::Cloud;

    fn keyspace(&mut self) -> &mut Keyspace {
        &mut self.keyspace
    }

    fn knows(&self, device: &DeviceId) -> bool {
        self.twins.catalog().device(device).is_some()
    }

    fn views(&self, device: &DeviceId, now: Now) -> Vec<TwinView> {
        self.twins.view(device, now)
    }

    /// Its edge alone knows.
    fn held(&self, _: &[TwinView], _: &DeviceId, _: Now) -> Held {
        Held::new()
    }

    fn commands(&self, device: &DeviceId, now: Now) -> Vec<CommandView> {
        self.twins.commands(Some(device), now)
    }

    fn may_patch(&self, device: &DeviceId, patch: &Json, now: Now) -> Result<(), AdminError> {
        let wishes = self.twins.patched(device, patch, "").map_err(set_error)?;
        self.twins.may_change(&wishes, now).map_err(set_error)
    }

    fn ask(&mut self, asker: &Asker, request: AdminRequest, now: Now) -> AdminResponse {
        self.asker = (!asker.is_console()).then(|| asker.who.clone());
        let answer = self.answer(request, now);
        self.asker = None;
        answer
    }
}

/// A patch that changes nothing but what is desired.
struct Wished {
    /// The manifest as it becomes, of whoever may write it.
    object: Value,
    wishes: Vec<wish::Wish>,
    warnings: Vec<String>,
}

impl Cloud {
    /// A patch that only wishes is a wish, of whoever sends it: taken as at the other doors, or refused as there. An
    /// administrator's manifest says it then, or neither; of who may only wish the manifest stays as it is, so that to
    /// apply its file anew moves nothing. `None`: it is more than that, of somebody who may.
    pub(super) fn patch_device(&mut self, order: &Order, now: Now) -> Result<Option<Written>, Refusal> {
        let (write, info) = (&order.write, order.write.kind.info());
        let id = draft::id_of(write, &order.body, moment(&self.keyspace, now))?;
        let is_his = writes_whole(order.asker.role, write.kind);
        if is_his && !wish::names_desired(&order.body) {
            return Ok(None);
        }
        let Some(current) = self.current(write.kind, &id) else {
            let missing = Refusal::not_found(info.group, info.plural, id.name());
            return if is_his { Ok(None) } else { Err(missing) };
        };
        if !is_his && write.patch == Some(PatchType::Apply) {
            return Err(desired::nobodys_field());
        }
        let wished = match self.wished(order, &id, &current, now)? {
            Ok(wished) => wished,
            Err(_) if is_his => return Ok(None),
            Err(why) => return Err(not_his(&order.asker, &why.to_string())),
        };
        match (wished.wishes.is_empty(), is_his) {
            // Nothing, or what stands beside the values: who owns them.
            (true, true) => Ok(None),
            (true, false) => self.unchanged(write.kind, &id, wished.warnings, now).map(Some),
            (false, true) => {
                let passed_over = self.passed_over((&id, &order.body), &current, &wished.object, now);
                let mut written = self.wish_by_patch(order, &id, wished, now)?;
                written.iter_mut().for_each(|written| written.warnings.extend(passed_over.iter().cloned()));
                Ok(written)
            }
            (false, false) => self.only_wish(order, &id, wished, now).map(Some),
        }
    }

    /// What the patch makes of what its sender sees.
    fn wished(
        &self,
        order: &Order,
        id: &Id,
        current: &Current,
        now: Now,
    ) -> Result<Result<Wished, NotWishes>, Refusal> {
        let mut seen = current.clone();
        veil::over(order.asker.role, &mut seen.object);
        let views = id.device().map(|device| self.twins.view(&device, now)).unwrap_or_default();
        // These name what they mean. A merge patch brings the whole list as it was read.
        let names = !writes_whole(order.asker.role, order.write.kind)
            && matches!(order.write.patch, Some(PatchType::Json | PatchType::Strategic));
        for view in views.iter().filter(|view| names && view.desired.is_some()) {
            object::show_desired(&mut seen.object, &view.property, view.desired.as_ref());
        }
        let at = moment(&self.keyspace, now);
        let (object, warnings) = match draft::draft(&order.write, id, &order.body, Some(&seen), at)? {
            Draft::Unchanged { warnings } => (seen.object.clone(), warnings),
            Draft::Remove { .. } => return Ok(Err(NotWishes::Other("metadata.finalizers".to_owned()))),
            Draft::Store { object, warnings, .. } => (object, warnings),
        };
        let mut wishes = match wish::wishes(&seen.object, &object) {
            Ok(wishes) => wishes,
            Err(why) => return Ok(Err(why)),
        };
        let meant = if names { wish::named(&order.body, &object) } else { BTreeSet::new() };
        // What the manifest says already, while nothing is desired.
        for view in views.iter().filter(|view| view.desired.is_none() && meant.contains(&view.property)) {
            let is_new = !wishes.iter().any(|(property, _)| *property == view.property);
            let text = wish::text_of(&object, &view.property).filter(|_| is_new);
            wishes.extend(text.map(|text| (view.property.clone(), text.to_owned())));
        }
        Ok(Ok(Wished { object, wishes, warnings }))
    }

    fn unchanged(&self, kind: Kind, id: &Id, warnings: Vec<String>, now: Now) -> Result<Written, Refusal> {
        let item = self.item(kind, id, now).ok_or_else(Refusal::no_such_path)?;
        Ok(Written { is_new: false, outcome: Outcome::Item(Box::new(item)), warnings })
    }

    /// The wishes of somebody who may do no more are taken, and the manifest stays.
    fn only_wish(&mut self, order: &Order, id: &Id, wished: Wished, now: Now) -> Result<Written, Refusal> {
        let missing = || Refusal::not_found(Kind::Device.info().group, Kind::Device.info().plural, id.name());
        let device = id.device().ok_or_else(missing)?;
        let refused = |error| as_refusal(&set_error(error));
        let by = order.asker.who.to_string();
        let change = self.twins.of_manifest(&device, &wished.wishes, &by).map_err(refused)?;
        if order.write.options.dry_run {
            self.twins.may_change(&change, now).map_err(refused)?;
            return self.unchanged(order.write.kind, id, wished.warnings, now);
        }
        self.twins.change(&change, &mut self.keyspace, now).map_err(refused)?;
        let mut item = self.item(order.write.kind, id, now).ok_or_else(missing)?;
        item.revision = self.next_revision();
        let outcome = Outcome::Item(Box::new(item));
        Ok(Written { is_new: false, outcome, warnings: wished.warnings })
    }

    /// The wishes are taken, and the manifest says so, or neither. `None`: the device is at no edge yet, so that its
    /// manifest waits.
    fn wish_by_patch(
        &mut self,
        order: &Order,
        id: &Id,
        wished: Wished,
        now: Now,
    ) -> Result<Option<Written>, Refusal> {
        let Wished { object, wishes, warnings } = wished;
        let write = &order.write;
        let Some(device) = id.device() else { return Ok(None) };
        if self.twins.catalog().device(&device).is_none_or(|info| info.node.is_none()) {
            return Ok(None);
        }
        let mut dry = write.clone();
        dry.options.dry_run = true;
        let tried = self.store(&dry, id, (&object, false, warnings.clone()), now)?;
        let refused = |error| as_refusal(&set_error(error));
        let by = order.asker.who.to_string();
        let change = self.twins.of_manifest(&device, &wishes, &by).map_err(refused)?;
        if write.options.dry_run {
            self.twins.may_change(&change, now).map_err(refused)?;
            return Ok(Some(tried.written));
        }
        self.twins.change(&change, &mut self.keyspace, now).map_err(refused)?;
        self.twins.is_wished(&device, &wishes, &mut self.keyspace);
        let stored = self.store(write, id, (&object, false, warnings), now)?;
        Ok(Some(stored.written))
    }
}

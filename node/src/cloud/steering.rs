//! Devices steered over the resource API at the cloud: by their parts, and by a patch that changes nothing but what is
//! desired.

use bus::Now;
use bus::twin::{DeviceId, Json};
use controller::api::draft::{self, Current, Draft};
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
    /// The manifest as it becomes.
    object: Value,
    wishes: Vec<wish::Wish>,
    warnings: Vec<String>,
}

impl Cloud {
    /// A patch that only wishes is a wish, of whoever sends it: taken as at the other doors, or refused as there, and
    /// then the manifest does not say it either. `None`: it is more than that, of somebody who may.
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
        let wished = match self.wished(order, &id, &current, now)? {
            Ok(wished) => wished,
            Err(_) if is_his => return Ok(None),
            Err(why) => return Err(not_his(&order.asker, &why.to_string())),
        };
        let passed_over = self.passed_over(write, &id, &order.body, Some(&current), now);
        let mut written = match wished.wishes.is_empty() {
            // Nothing, or what stands beside the values: who owns them.
            true if is_his => return Ok(None),
            true => self.unchanged(write.kind, &id, wished.warnings, now)?,
            false => match self.wish_by_patch(order, &id, wished, now)? {
                Some(written) => written,
                None => return Ok(None),
            },
        };
        written.warnings.extend(passed_over);
        Ok(Some(written))
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
        let at = moment(&self.keyspace, now);
        let none = |warnings| Wished { object: Value::Null, wishes: Vec::new(), warnings };
        Ok(match draft::draft(&order.write, id, &order.body, Some(&seen), at)? {
            Draft::Unchanged { warnings } => Ok(none(warnings)),
            Draft::Remove { .. } => Err(NotWishes::Other("metadata.finalizers".to_owned())),
            Draft::Store { object, warnings, .. } => wish::wishes(&seen.object, &object).map(|wishes| {
                let object = wish::overlay(&current.object, &object);
                Wished { object, wishes, warnings }
            }),
        })
    }

    fn unchanged(&self, kind: Kind, id: &Id, warnings: Vec<String>, now: Now) -> Result<Written, Refusal> {
        let item = self.item(kind, id, now).ok_or_else(Refusal::no_such_path)?;
        Ok(Written { is_new: false, outcome: Outcome::Item(Box::new(item)), warnings })
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
        let (write, is_his) = (&order.write, writes_whole(order.asker.role, order.write.kind));
        let Some(device) = id.device() else { return Ok(None) };
        let is_bound = self.twins.catalog().device(&device).is_some_and(|info| info.node.is_some());
        if is_his && !is_bound {
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

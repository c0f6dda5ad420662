//! The resource API at an edge: its own part of the cluster, from its store, with or without the cloud.
//!
//! All is read; what is written is what this edge decides: the desired values of devices over which it has the authority,
//! or that its console may operate. Everything else is the cloud's, and is refused with the way to go.

use bus::Now;
use bus::twin::DeviceId;
use controller::api::call::PatchType;
use controller::api::draft::{self, Current};
use controller::api::read::Source;
use controller::api::refusal::Cause;
use controller::api::{Id, Item, Kind, Layout, Refusal, Verb, object, wish};
use device_twin::PropertyId;
use serde_json::Value;

use super::Edge;
use crate::resources::{Answering, ApiAnswer, ApiRequest, Order, Outcome, Written};
use crate::steering::steer;
use crate::veil;

impl Edge {
    pub(super) fn handle_api(&mut self, id: u64, request: ApiRequest, now: Now) {
        let begun = Answering::begin(id, &request, self.journal.degraded(), &mut self.said);
        let Some(answering) = begun else { return };
        let answer = match request {
            ApiRequest::Layout => ApiAnswer::Layout(Layout::Edge),
            ApiRequest::Read(read) => ApiAnswer::Found(self.with_source(now, |source| source.read(&read))),
            ApiRequest::Write(order) => ApiAnswer::Written(self.write(&order, now)),
            ApiRequest::Steer(steering) => ApiAnswer::Steered(steer(self, &steering, now)),
        };
        answering.end(answer, &mut self.said);
    }

    fn with_source<T>(&self, now: Now, use_it: impl FnOnce(&Source<'_>) -> T) -> T {
        let twins = |id: &Id| id.device().map(|device| self.twins.view(&device, now)).unwrap_or_default();
        let alive = |kind: Kind, id: &Id, made: &mut Value| {
            if kind == Kind::EdgeNode && id.name() == self.identity.node.name.as_str() {
                // Of its own link; it does not know how others are.
                made["status"]["connected"] = self.bus.link_of(&self.cloud).is_some().into();
            }
        };
        use_it(&Source {
            index: &self.index,
            ks: &self.keyspace,
            durable: self.journal.durable(),
            twins: &twins,
            placement: &|_, _| None,
            alive: &alive,
        })
    }

    fn item(&self, kind: Kind, id: &Id, now: Now) -> Option<Item> {
        let seen = self.index.seen(kind, id)?;
        self.with_source(now, |source| source.item(kind, id, seen))
    }

    fn write(&mut self, order: &Order, now: Now) -> Result<Written, Refusal> {
        let (write, info) = (&order.write, order.write.kind.info());
        if write.kind != Kind::Device || !matches!(write.verb, Verb::Patch | Verb::Update) {
            return Err(self.not_here(info.plural));
        }
        let id = draft::id_of(write, &order.body, crate::resources::moment(&self.keyspace, now))?;
        let not_found = || Refusal::not_found(info.group, info.plural, id.name());
        let before = self.item(write.kind, &id, now).ok_or_else(not_found)?;
        let device = id.device().ok_or_else(not_found)?;
        let written = object::written_at(Layout::Edge, write.kind, &id, &self.keyspace);
        let newest = object::newest(Layout::Edge, &self.keyspace);
        let mut current = Current { object: object::render(write.kind, before), written, newest };
        veil::over(order.asker.role, &mut current.object);
        if matches!(write.patch, Some(PatchType::Json | PatchType::Strategic | PatchType::Apply)) {
            self.show_replaced(&device, &mut current.object, now);
        }
        let after = draft::patched(write, &id, &order.body, &current)?;
        let warnings = draft::check_fields(write, &after)?;
        let by = order.asker.who.to_string();
        let wishes = wish::wishes(&current.object, &after)
            .map_err(|why| Refusal::forbidden(format!("{why}: {}", self.not_here(info.plural).message)))?;
        let wrong = |property: &str, why: String| {
            let field = format!("spec.properties[name=\"{property}\"].desired.value");
            Refusal::invalid(info.group, info.kind, id.name(), vec![Cause::invalid(field, why)])
        };
        let mut checked = Vec::new();
        for (property, text) in wishes {
            let found = self
                .twins
                .catalog()
                .property(&device, &property)
                .map_err(|why| wrong(&property, why.to_string()))?;
            let value = found.parse(&text).and_then(|value| found.check_desired(value));
            let value = value.map_err(|why| wrong(&property, bus::with_causes(&why)))?;
            let property = PropertyId::new(&device, &property);
            // Another way to write the same value is no other wish.
            if self.twins.replaced(&property, now.mono) != Some(&value) {
                self.twins.may_set(&property, now.mono).map_err(|why| held(&property, &why))?;
                checked.push((property, value));
            }
        }
        if !write.options.dry_run {
            for (property, value) in checked {
                let taken = self.twins.set(&property, value, &by, &mut self.keyspace, now);
                taken.map_err(|why| held(&property, &why))?;
            }
        }
        let item = self.item(write.kind, &id, now).ok_or_else(not_found)?;
        Ok(Written { is_new: false, outcome: Outcome::Item(Box::new(item)), warnings })
    }

    /// These patches name what they mean, so that what they name is wished also where it is no more than what the cloud
    /// desires while the console holds the device to something else. Other writes bring the whole list as it was read.
    fn show_replaced(&self, device: &DeviceId, object: &mut Value, now: Now) {
        for view in self.twins.view(device, now) {
            let id = PropertyId::new(device, &view.property);
            if let Some(value) = self.twins.replaced(&id, now.mono) {
                object::show_desired(object, &view.property, Some(value));
            }
        }
    }

    fn not_here(&self, plural: &str) -> Refusal {
        Refusal::forbidden(format!(
            "{} only keeps copies of {plural}, and writes none but desired values: write this at {}, which has the authority \
             over them",
            self.identity.node, self.cloud
        ))
    }
}

fn held(property: &PropertyId, why: &str) -> Refusal {
    Refusal::forbidden(format!("{property}: {why}"))
}

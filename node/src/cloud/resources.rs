//! The resource API at the cloud.

use std::str::FromStr;
use std::time::Duration;

use bus::{JoinToken, Name, NodeId, Now, WireguardKey};
use controller::api::call::{Options, Validation, Write};
use controller::api::draft::{self, Current, Draft};
use controller::api::read::Source;
use controller::api::refusal::Cause;
use controller::api::selector::Selectors;
use controller::api::{Content, Id, Item, Kind, Layout, Refusal, Verb, object, size, wish};
use controller::label::{Change, Labelled, Labels};
use controller::resource::{self, Applied, InvalidManifest, Manifest};
use controller::wireguard;
use controller::wireguard::Keys;
use device_twin::TwinView;
use ipnet::IpNet;
use metadata::Revision;
use serde_json::{Value, json};

use super::Cloud;
use crate::admin::{AdminResponse, TokenOrder};
use crate::resources::{
    Answering, ApiAnswer, ApiRequest, Order, Outcome, Written, as_refusal, causes, moment,
};
use crate::steering::steer;

/// How long a token is good that does not say so.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);

/// What storing a manifest came to.
pub(super) struct Stored {
    pub(super) applied: Applied,
    pub(super) written: Written,
}

impl Cloud {
    pub(super) fn handle_api(&mut self, id: u64, request: ApiRequest, now: Now) {
        let begun = Answering::begin(id, &request, self.journal.degraded(), &mut self.said);
        let Some(answering) = begun else { return };
        let answer = match request {
            ApiRequest::Layout => ApiAnswer::Layout(Layout::Cloud),
            ApiRequest::Read(read) => ApiAnswer::Found(self.with_source(now, |source| source.read(&read))),
            ApiRequest::Write(order) => ApiAnswer::Written(self.write(&order, now)),
            ApiRequest::Steer(steering) => ApiAnswer::Steered(steer(self, &steering, now)),
        };
        answering.end(answer, &mut self.said);
    }

    fn with_source<T>(&self, now: Now, use_it: impl FnOnce(&Source<'_>) -> T) -> T {
        let twins = |id: &Id| id.device().map(|device| self.twins.view(&device, now)).unwrap_or_default();
        let placement = |kind: Kind, id: &Id| self.placement(kind.manifest()?, &id.device()?);
        let alive = |kind: Kind, id: &Id, made: &mut Value| {
            if let (Kind::EdgeNode, Some(name)) = (kind, id.checked_name()) {
                made["status"]["connected"] = self.bus.link_of(&NodeId::edge(name)).is_some().into();
            }
        };
        use_it(&Source {
            index: &self.index,
            ks: &self.keyspace,
            durable: self.journal.durable(),
            twins: &twins,
            placement: &placement,
            alive: &alive,
        })
    }

    pub(super) fn item(&self, kind: Kind, id: &Id, now: Now) -> Option<Item> {
        let seen = self.index.seen(kind, id)?;
        self.with_source(now, |source| source.item(kind, id, seen))
    }

    fn write(&mut self, order: &Order, now: Now) -> Result<Written, Refusal> {
        if (order.write.kind, order.write.verb) == (Kind::Device, Verb::Patch)
            && let Some(written) = self.patch_device(order, now)?
        {
            return Ok(written);
        }
        if order.write.kind.manifest().is_some() {
            return Ok(self.write_manifest(&order.write, &order.body, now)?.written);
        }
        let kind = order.write.kind;
        if matches!(kind, Kind::EdgeNode | Kind::Site) {
            return self.write_node(order, now);
        }
        if kind == Kind::WireGuardPeer {
            return self.write_wireguard(order, now);
        }
        if kind == Kind::JoinToken {
            return self.write_token(order, now);
        }
        if kind == Kind::User {
            return self.write_user(order, now);
        }
        let plural = kind.info().plural;
        Err(Refusal::not_allowed(format!("{plural} follow from other records: they are read, not written")))
    }

    pub(super) fn current(&self, kind: Kind, id: &Id) -> Option<Current> {
        let key = object::manifest_key(Layout::Cloud, kind, id)?;
        let json = self.keyspace.get(&key)?;
        let meta = self.keyspace.get(object::meta_row(kind, id).as_str());
        let object = object::stored(kind, id, json, meta.map(AsRef::as_ref));
        let written = object::written_at(Layout::Cloud, kind, id, &self.keyspace);
        Some(Current { object, written, newest: object::newest(Layout::Cloud, &self.keyspace) })
    }

    /// The only way by which manifests come, change and go.
    pub(super) fn write_manifest(
        &mut self,
        write: &Write,
        body: &Value,
        now: Now,
    ) -> Result<Stored, Refusal> {
        let at = moment(&self.keyspace, now);
        let id = draft::id_of(write, body, at)?;
        let current = self.current(write.kind, &id);
        let draft = draft::draft(write, &id, body, current.as_ref(), at)?;
        let after = match (&draft, &current) {
            (Draft::Store { object, .. }, _) => Some(object),
            (Draft::Unchanged { .. }, Some(current)) => Some(&current.object),
            (Draft::Unchanged { .. }, None) | (Draft::Remove { .. }, _) => None,
        };
        let passed_over = match (&current, after) {
            (Some(current), Some(after)) if write.kind == Kind::Device => {
                self.passed_over((&id, body), current, after, now)
            }
            _ => Vec::new(),
        };
        let mut stored = match draft {
            Draft::Store { object, created, warnings } => {
                self.store(write, &id, (&object, created, warnings), now)?
            }
            Draft::Unchanged { warnings } => {
                let item = self.item(write.kind, &id, now).ok_or_else(Refusal::no_such_path)?;
                let outcome = Outcome::Item(Box::new(item));
                let written = Written { is_new: false, outcome, warnings };
                Stored { applied: Applied::Unchanged, written }
            }
            Draft::Remove { last } => self.remove(write, &id, last, now)?,
        };
        stored.written.warnings.extend(passed_over);
        Ok(stored)
    }

    /// A manifest's `desired` is a wish when its text changes. Who names the text that is there already, while something
    /// else was wished since, or the wish was taken back, hears that it moves nothing.
    pub(super) fn passed_over(
        &self,
        (id, body): (&Id, &Value),
        before: &Current,
        after: &Value,
        now: Now,
    ) -> Vec<String> {
        let Some(device) = id.device() else { return Vec::new() };
        let named = wish::named(body, after);
        let warning = |view: TwinView| {
            let text = wish::text_of(after, &view.property).filter(|_| named.contains(&view.property))?;
            let property = self.twins.catalog().property(&device, &view.property).ok()?;
            let is_old = wish::text_of(&before.object, &view.property) == Some(text);
            let value = property.parse(text).ok()?;
            (is_old && view.desired.as_ref() != Some(&value)).then(|| {
                let by = view.by.unwrap_or_default();
                let in_force = view.desired.map(|value| format!("{value} is in force (by {by})"));
                let in_force = in_force.unwrap_or_else(|| "nothing is desired any more".to_owned());
                format!(
                    "{}: the manifest said {text} before, so that is no new wish: {in_force}; use 'kubebus twin set', patch \
                     its part desired, or change the text",
                    view.property,
                )
            })
        };
        self.twins.view(&device, now).into_iter().filter_map(warning).collect()
    }

    pub(super) fn store(
        &mut self,
        write: &Write,
        id: &Id,
        (object, created, warnings): (&Value, bool, Vec<String>),
        now: Now,
    ) -> Result<Stored, Refusal> {
        let (kind, info) = (write.kind, write.kind.info());
        let invalid = |causes| Refusal::invalid(info.group, info.kind, id.name(), causes);
        let (lean, meta) =
            object::split(object).map_err(|why| invalid(vec![Cause::invalid("metadata", why)]))?;
        let manifest = Manifest::parse(&lean).map_err(|error| match error {
            InvalidManifest::TooLong(_) => Refusal::too_large(error.to_string()),
            InvalidManifest::UnknownKind { .. } | InvalidManifest::Content { .. } => {
                invalid(causes(&[error]))
            }
        })?;
        let faults = manifest.check(self.twins.catalog());
        if !faults.is_empty() {
            return Err(invalid(causes(&faults)));
        }
        self.check_room(manifest.kind(), manifest.id()).map_err(|error| as_refusal(&error))?;
        let meta =
            serde_json::to_vec(&meta).map_err(|why| Refusal::new(500, "InternalError", why.to_string()))?;
        size::check_len("metadata", meta.len(), resource::MAX_MANIFEST_LEN)?;
        let mut item = Item {
            id: id.clone(),
            revision: object::version(Layout::Cloud, self.journal.durable(), &self.keyspace),
            content: Content::Manifest {
                json: manifest.json().clone(),
                meta: Some(meta.clone().into()),
                twins: Vec::new(),
                placement: None,
                layout: Layout::Cloud,
            },
        };
        let mut applied = if created { Applied::Created } else { Applied::Changed };
        if !write.options.dry_run {
            // The metadata alone concerns nobody but who asks the API.
            applied = manifest.apply(&mut self.keyspace);
            self.keyspace.put(object::meta_row(kind, id), meta.into());
            if applied != Applied::Unchanged {
                self.on_resource(manifest.kind(), manifest.id(), now).map_err(|error| as_refusal(&error))?;
            }
            item.revision = self.next_revision();
        }
        if let (Content::Manifest { twins, placement, .. }, Some(device)) = (&mut item.content, id.device()) {
            if kind == Kind::Device {
                *twins = self.twins.view(&device, now);
            }
            *placement = self.placement(manifest.kind(), &device);
        }
        let written = Written { is_new: created, outcome: Outcome::Item(Box::new(item)), warnings };
        Ok(Stored { applied, written })
    }

    /// That of the cycle's commit.
    pub(super) fn next_revision(&self) -> Revision {
        let next = Revision(self.keyspace.revision().0 + 1);
        object::version(Layout::Cloud, next, &self.keyspace)
    }

    fn remove(&mut self, write: &Write, id: &Id, last: Option<Value>, now: Now) -> Result<Stored, Refusal> {
        let kind = write.kind;
        let mut gone = self
            .item(kind, id, now)
            .ok_or_else(|| Refusal::not_found(kind.info().group, kind.info().plural, id.name()))?;
        if let (false, Some(of), Some(device)) = (write.options.dry_run, kind.manifest(), id.device()) {
            resource::delete(of, &device, &mut self.keyspace);
            self.keyspace.delete(&object::meta_row(kind, id));
            self.on_resource(of, &device, now).map_err(|error| as_refusal(&error))?;
        }
        if let Some(last) = last {
            gone = Item { revision: self.next_revision(), content: Content::Made(last), ..gone };
        }
        let written = Written { is_new: false, outcome: Outcome::Gone(Box::new(gone)), warnings: Vec::new() };
        Ok(Stored { applied: Applied::Changed, written })
    }

    /// Labels can be changed, and an edge be taken out.
    fn write_node(&mut self, order: &Order, now: Now) -> Result<Written, Refusal> {
        let (write, info) = (&order.write, order.write.kind.info());
        let id = draft::id_of(write, &order.body, moment(&self.keyspace, now))?;
        let not_found = || Refusal::not_found(info.group, info.plural, id.name());
        let before = self.item(write.kind, &id, now).ok_or_else(not_found)?;
        let name = id.checked_name().ok_or_else(not_found)?;
        let answer = |outcome| Ok(Written { is_new: false, outcome, warnings: Vec::new() });
        if write.verb == Verb::Delete {
            if !write.options.dry_run {
                self.delete_node(&name, now).map_err(|error| as_refusal(&error))?;
            }
            return answer(Outcome::Gone(Box::new(before)));
        }
        let written = object::written_at(Layout::Cloud, write.kind, &id, &self.keyspace);
        let newest = object::newest(Layout::Cloud, &self.keyspace);
        let current = Current { object: object::render(write.kind, before.clone()), written, newest };
        let after = draft::patched(write, &id, &order.body, &current)?;
        let change = label_change(write.kind, &id, &current.object, &after)?;
        let of = if write.kind == Kind::Site { Labelled::Site(name) } else { Labelled::Edge(name) };
        let is_change = change != Change::default();
        let mut item = before;
        if is_change && !write.options.dry_run {
            self.label(&of, change).map_err(|error| as_refusal(&error))?;
            // A site without nodes goes with its last label.
            let Some(after) = self.item(write.kind, &id, now) else {
                return answer(Outcome::Gone(Box::new(item)));
            };
            item = Item { revision: self.next_revision(), ..after };
        }
        answer(Outcome::Item(Box::new(item)))
    }

    fn write_wireguard(&mut self, order: &Order, now: Now) -> Result<Written, Refusal> {
        let (write, info) = (&order.write, Kind::WireGuardPeer.info());
        let id = draft::id_of(write, &order.body, moment(&self.keyspace, now))?;
        let not_found = || Refusal::not_found(info.group, info.plural, id.name());
        let name = id.checked_name().ok_or_else(not_found)?;
        if write.verb == Verb::Delete {
            let before = self.item(write.kind, &id, now).ok_or_else(not_found)?;
            if !write.options.dry_run {
                self.remove_wireguard(&name, now).map_err(|error| as_refusal(&error))?;
            }
            return Ok(Written {
                is_new: false,
                outcome: Outcome::Gone(Box::new(before)),
                warnings: Vec::new(),
            });
        }
        if write.verb != Verb::Create {
            return self.rotate_wireguard(order, (&id, name), now);
        }
        if wireguard::exists(&name, &self.keyspace) {
            return Err(Refusal::exists(info.group, info.plural, id.name()));
        }
        let spec = Fields { kind: write.kind, name: id.name(), spec: &order.body["spec"] };
        let wanted = wireguard::Order {
            name,
            site: spec.parsed("site")?,
            gateway: spec.parsed::<NodeId>("gateway")?,
            keys: Keys {
                public: spec.required("publicKey")?,
                // WireGuard's own word for none.
                preshared: spec.parsed("presharedKey")?.unwrap_or(WireguardKey([0; 32])),
            },
        };
        if write.options.dry_run {
            return Ok(unstored(&id, &order.body));
        }
        let done = wireguard::add(wanted, &self.cluster, &mut self.keyspace, now);
        self.invite(done).map_err(|error| as_refusal(&error))?;
        let made = (info.made)(Layout::Cloud, &id, &self.keyspace).ok_or_else(not_found)?;
        Ok(self.created(&id, made))
    }

    /// Another key in place of the old one; all else stays as it was given out.
    fn rotate_wireguard(
        &mut self,
        order: &Order,
        (id, name): (&Id, Name),
        now: Now,
    ) -> Result<Written, Refusal> {
        let (write, info) = (&order.write, Kind::WireGuardPeer.info());
        let not_found = || Refusal::not_found(info.group, info.plural, id.name());
        let before = self.item(write.kind, id, now).ok_or_else(not_found)?;
        let (shown, after) = self.small_change(order, id, &before)?;
        only(write.kind, id, (&shown, &after), &["publicKey", "presharedKey"])?;
        let spec = Fields { kind: write.kind, name: id.name(), spec: &after["spec"] };
        let preshared = spec.parsed("presharedKey")?;
        let public: WireguardKey = spec.required("publicKey")?;
        let answer =
            |item| Ok(Written { is_new: false, outcome: Outcome::Item(Box::new(item)), warnings: vec![] });
        let is_same = shown["spec"]["publicKey"] == after["spec"]["publicKey"] && preshared.is_none();
        if is_same || write.options.dry_run {
            return answer(before);
        }
        let present = wireguard::get(&name, &self.keyspace).map_err(|_| not_found())?.peer.preshared_key;
        let keys = Keys { public, preshared: preshared.unwrap_or(present) };
        let done = wireguard::rotate(&name, keys, &mut self.keyspace, now);
        self.invite(done).map_err(|error| as_refusal(&error))?;
        let mut item = self.item(write.kind, id, now).ok_or_else(not_found)?;
        item.revision = self.next_revision();
        answer(item)
    }

    /// What an update or a patch makes of an object of a small kind: as it is shown, and as it becomes.
    pub(super) fn small_change(
        &self,
        order: &Order,
        id: &Id,
        before: &Item,
    ) -> Result<(Value, Value), Refusal> {
        let write = &order.write;
        let written = object::written_at(Layout::Cloud, write.kind, id, &self.keyspace);
        let newest = object::newest(Layout::Cloud, &self.keyspace);
        let current = Current { object: object::render(write.kind, before.clone()), written, newest };
        let after = draft::patched(write, id, &order.body, &current)?;
        draft::check_fields(write, &after)?;
        Ok((current.object, after))
    }

    pub(super) fn created(&self, id: &Id, made: Value) -> Written {
        let item = Item { id: id.clone(), revision: self.next_revision(), content: Content::Made(made) };
        Written { is_new: true, outcome: Outcome::Item(Box::new(item)), warnings: Vec::new() }
    }

    fn write_token(&mut self, order: &Order, now: Now) -> Result<Written, Refusal> {
        let (write, info) = (&order.write, Kind::JoinToken.info());
        if write.verb == Verb::Delete {
            let id = draft::id_of(write, &order.body, moment(&self.keyspace, now))?;
            let not_found = || Refusal::not_found(info.group, info.plural, id.name());
            let before = self.item(write.kind, &id, now).ok_or_else(not_found)?;
            if !write.options.dry_run {
                self.revoke_token(id.name()).map_err(|error| as_refusal(&error))?;
            }
            return Ok(Written {
                is_new: false,
                outcome: Outcome::Gone(Box::new(before)),
                warnings: Vec::new(),
            });
        }
        let given = order.body["metadata"]["name"].as_str().unwrap_or_default();
        let spec = Fields { kind: write.kind, name: given, spec: &order.body["spec"] };
        if !given.is_empty() {
            return Err(
                spec.wrong("metadata.name", "the server names tokens: leave it out and give generateName")
            );
        }
        let ttl = spec.parsed::<humantime::Duration>("ttl")?.map_or(TOKEN_TTL, Into::into);
        let wanted = TokenOrder {
            site: spec.required("site")?,
            lans: spec.lans()?,
            ttl_seconds: ttl.as_secs(),
            uses: spec.uses()?,
        };
        let id = Id::from(&JoinToken::id_of(&order.secret).to_string()[..20]);
        if write.options.dry_run {
            return Ok(unstored(&id, &order.body));
        }
        let made: AdminResponse = self.create_token(wanted, order.secret, now);
        let answer = made.map_err(|error| as_refusal(&error))?;
        let mut object =
            (info.made)(Layout::Cloud, &id, &self.keyspace).unwrap_or_else(|| json!({ "metadata": {} }));
        object["status"]["token"] = answer["token"].clone();
        let warnings = answer["warnings"].as_array().into_iter().flatten();
        let warnings = warnings.filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(Written { warnings, ..self.created(&id, object) })
    }

    /// A manifest as `kubebus apply` brings it: what it does not say of metadata stays.
    pub(super) fn order_of_manifest(&self, manifest: &Manifest, document: &Value) -> (Write, Value) {
        let (kind, id) = (Kind::of_manifest(manifest.kind()), Id::from(manifest.id()));
        let current = self.current(kind, &id);
        let mut body = document.clone();
        body["metadata"]["namespace"] = manifest.id().namespace.as_str().into();
        for field in ["annotations", "finalizers", "ownerReferences", "managedFields"] {
            let kept = current.as_ref().and_then(|current| current.object["metadata"].get(field));
            if let (None, Some(kept)) = (body["metadata"].get(field), kept) {
                body["metadata"][field] = kept.clone();
            }
        }
        let verb = if current.is_some() { Verb::Update } else { Verb::Create };
        (own_write(kind, &id, verb), body)
    }
}

/// A write of the command line's own.
pub(super) fn own_write(kind: Kind, id: &Id, verb: Verb) -> Write {
    Write {
        kind,
        namespace: id.namespace().map(str::to_owned),
        name: (verb != Verb::Create).then(|| id.name().to_owned()),
        verb,
        patch: None,
        options: Options {
            manager: "kubebus".to_owned(),
            validation: Validation::Ignore,
            ..Options::default()
        },
        selectors: Selectors::default(),
        form: controller::api::call::Form::Object,
    }
}

/// What a dry run would have made.
fn unstored(id: &Id, body: &Value) -> Written {
    let mut made = body.clone();
    if let Some(spec) = made["spec"].as_object_mut() {
        spec.remove("presharedKey");
    }
    let item = Item { id: id.clone(), revision: Revision::ZERO, content: Content::Made(made) };
    Written { is_new: true, outcome: Outcome::Item(Box::new(item)), warnings: Vec::new() }
}

/// What two versions of a node or a site differ in must be labels.
fn label_change(kind: Kind, id: &Id, before: &Value, after: &Value) -> Result<Change, Refusal> {
    let mut causes = Vec::new();
    let refuse = |field: &str, why: &str| Cause::invalid(field, format!("Forbidden: {why}"));
    if !after["spec"].is_null() && before["spec"] != after["spec"] {
        causes
            .push(refuse("spec", "it follows from the token that the node joined with, and from approvals"));
    }
    for field in ["annotations", "finalizers", "ownerReferences"] {
        let given = after["metadata"]
            .get(field)
            .filter(|value| !value.is_null() && **value != json!({}) && **value != json!([]));
        if given.is_some() {
            causes.push(refuse(&format!("metadata.{field}"), "only labels are kept of this kind"));
        }
    }
    let labels = |object: &Value| -> Result<Labels, Cause> {
        let labels = object["metadata"].get("labels").filter(|labels| !labels.is_null());
        labels.map_or(Ok(Labels::new()), |labels| {
            serde_json::from_value(labels.clone())
                .map_err(|why| Cause::invalid("metadata.labels", format!("Invalid value: {why}")))
        })
    };
    let (was, is) = match (labels(before), labels(after)) {
        (Ok(was), Ok(is)) => (was, is),
        (Err(why), _) | (_, Err(why)) => {
            causes.push(why);
            (Labels::new(), Labels::new())
        }
    };
    if !causes.is_empty() {
        return Err(Refusal::invalid(kind.info().group, kind.info().kind, id.name(), causes));
    }
    let remove = was.keys().filter(|key| !is.contains_key(*key)).cloned().collect();
    let set = is.into_iter().filter(|(key, value)| was.get(key) != Some(value)).collect();
    Ok(Change { set, remove })
}

/// Of a small kind nothing but these fields of the spec can be other ones.
pub(super) fn only(
    kind: Kind,
    id: &Id,
    (before, after): (&Value, &Value),
    fields: &[&str],
) -> Result<(), Refusal> {
    let forbidden = |field: String, why: &str| Cause::invalid(field, format!("Forbidden: {why}"));
    let mut causes = Vec::new();
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let given = after["metadata"].get(field).filter(|given| !given.is_null());
        if given.is_some_and(|given| *given != json!({}) && *given != json!([])) {
            causes.push(forbidden(format!("metadata.{field}"), "nothing of it is kept of this kind"));
        }
    }
    let (was, is) = (before["spec"].as_object(), after["spec"].as_object());
    let names = was.into_iter().chain(is).flat_map(serde_json::Map::keys);
    let changed: std::collections::BTreeSet<&String> = names
        .filter(|name| !fields.contains(&name.as_str()) && before["spec"][*name] != after["spec"][*name])
        .collect();
    causes.extend(
        changed
            .into_iter()
            .map(|name| forbidden(format!("spec.{name}"), "it stays as it was made; make another")),
    );
    match causes.is_empty() {
        true => Ok(()),
        false => Err(Refusal::invalid(kind.info().group, kind.info().kind, id.name(), causes)),
    }
}

/// The fields of a small kind's spec.
pub(super) struct Fields<'a> {
    pub(super) kind: Kind,
    pub(super) name: &'a str,
    pub(super) spec: &'a Value,
}

impl Fields<'_> {
    pub(super) fn wrong(&self, field: &str, why: &str) -> Refusal {
        let causes = vec![Cause::invalid(field, format!("Invalid value: {why}"))];
        Refusal::invalid(self.kind.info().group, self.kind.info().kind, self.name, causes)
    }

    pub(super) fn parsed<T: FromStr>(&self, field: &str) -> Result<Option<T>, Refusal>
    where
        T::Err: std::fmt::Display,
    {
        match self.spec.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => {
                let read = text.parse().map(Some);
                read.map_err(|why: T::Err| self.wrong(&format!("spec.{field}"), &why.to_string()))
            }
            Some(_) => Err(self.wrong(&format!("spec.{field}"), "is no text")),
        }
    }

    pub(super) fn required<T: FromStr>(&self, field: &str) -> Result<T, Refusal>
    where
        T::Err: std::fmt::Display,
    {
        self.parsed(field)?.ok_or_else(|| self.wrong(&format!("spec.{field}"), "is required"))
    }

    fn lans(&self) -> Result<Vec<IpNet>, Refusal> {
        let listed = self.spec.get("lans").filter(|lans| !lans.is_null());
        let Some(listed) = listed else { return Ok(Vec::new()) };
        serde_json::from_value(listed.clone()).map_err(|why| self.wrong("spec.lans", &why.to_string()))
    }

    fn uses(&self) -> Result<u32, Refusal> {
        match self.spec.get("uses").filter(|uses| !uses.is_null()) {
            None => Ok(1),
            Some(uses) => uses
                .as_u64()
                .and_then(|uses| u32::try_from(uses).ok())
                .ok_or_else(|| self.wrong("spec.uses", "is no number of nodes")),
        }
    }
}

#[cfg(test)]
mod tests;

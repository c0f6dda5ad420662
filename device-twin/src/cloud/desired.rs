//! Wishes: checked, numbered, and written where the device's edge will find them.

use std::collections::BTreeSet;

use bus::twin::{DesiredVersion, DeviceId, Json, Outcome, ResultBody, TwinTopic};
use bus::{Name, Now, Value};
use metadata::{Key, Keyspace, epoch};
use thiserror::Error;

use super::authority::MAX_LEAP;
use super::{APP, CloudTwins, Placed, Twin, former};
use crate::condition::{Condition, unmet};
use crate::gate::access::Who;
use crate::history::audit::AuditEvent;
use crate::model::{InvalidValue, Lookup};
use crate::patch::{self, InvalidPatch};
use crate::rule::Truth;
use crate::twin::{self, Desired, DesiredBody, Group, PropertyId, Publish, SetBody, brief, explain, key};

/// Why a desired value is not taken.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SetError {
    #[error(transparent)]
    Lookup(#[from] Lookup),
    #[error("device {0} is bound to no edge: its manifest needs spec.nodeName")]
    Unbound(DeviceId),
    #[error("{0} cannot be set to this")]
    Value(PropertyId, #[source] InvalidValue),
    #[error("{device}: {told}; 'kubebus twin take {device}' takes it back")]
    Authority { device: DeviceId, told: String },
    #[error("{id} is at version {known}, not {expected}: look at it again")]
    Version { id: PropertyId, known: DesiredVersion, expected: DesiredVersion },
    #[error("nothing was changed: {0}")]
    Condition(String),
    #[error(
        "a manifest may have wished {0} before its device was deleted: that is no new wish; use 'kubebus twin set', or change the text"
    )]
    Former(String),
    #[error("nothing is wished")]
    Nothing,
    #[error("more than {MAX_GROUP} properties at a time")]
    TooMany,
    #[error("{0} is there twice")]
    Twice(PropertyId),
    #[error("{0} and {1} are at different edges, and cannot be changed as one")]
    Split(PropertyId, PropertyId),
    #[error(transparent)]
    Patch(#[from] InvalidPatch),
}

/// Properties that can be changed as one: what fits into one batch with room to spare.
pub const MAX_GROUP: usize = 100;

/// What somebody wishes for one property.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    pub id: PropertyId,
    /// `None`: the wish is taken back.
    pub value: Option<SetBody>,
    /// Only if this is the present version; 0.0: only if nothing is desired.
    pub if_version: Option<DesiredVersion>,
}

/// Wishes that are taken, and carried out by their edge, all or none.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Wishes {
    pub wishes: Vec<Wish>,
    /// What must hold of reported values, as the cloud knows them.
    pub when: Vec<Condition>,
    pub by: String,
}

/// A wish that may be taken.
struct Checked {
    id: PropertyId,
    edge: Name,
    value: Option<Value>,
}

/// The version after the newest one known: the next number in an even epoch. What an edge acknowledges may be any
/// number; at the end of one epoch the next even one begins.
fn after(DesiredVersion { epoch, seq }: DesiredVersion) -> DesiredVersion {
    match seq.checked_add(1) {
        Some(seq) if epoch.is_multiple_of(2) => DesiredVersion { epoch, seq },
        _ => DesiredVersion { epoch: epoch.saturating_add(2) & !1, seq: 1 },
    }
}

/// Several wishes with values are one group; their edge must be one.
fn group_of(checked: &[Checked], versions: &[DesiredVersion]) -> Result<Option<Group>, SetError> {
    let mut with_value = checked.iter().zip(versions).filter(|(wish, _)| wish.value.is_some());
    let Some((first, version)) = with_value.next() else { return Ok(None) };
    let mut members = vec![first.id.to_string()];
    for (other, _) in with_value {
        if other.edge != first.edge {
            return Err(SetError::Split(first.id.clone(), other.id.clone()));
        }
        members.push(other.id.to_string());
    }
    // No two changes give one property the same version.
    let id = format!("{}@{version}", first.id);
    Ok((members.len() > 1).then_some(Group { id, members }))
}

fn place(edge: &Name, id: &PropertyId) -> Key {
    key(&format!("/e/{edge}/desired/"), id)
}

/// What the property's manifest wishes from here on. The text before it is remembered for the day its device is gone.
fn take_text(id: &PropertyId, text: &str, ks: &mut Keyspace) {
    let taken = former::taken_key(id);
    let before = ks.get(taken.as_str()).filter(|before| *before != text.as_bytes()).cloned();
    if let Some(before) = before {
        former::replaced(id, &before, ks);
    }
    ks.put(taken, text.to_owned().into());
}

fn withdrawn_at(edge: &Name, id: &PropertyId) -> Key {
    key(&format!("/e/{edge}/withdrawn/"), id)
}

impl CloudTwins {
    /// Wishes `value` for a property: checked by model and policy, given the next version, put into the keyspace of
    /// the device's edge.
    ///
    /// # Errors
    /// Nothing is changed if the device or property is unknown, the device is bound to no edge or under its edge's
    /// authority, or the value is read-only, of another type or out of range.
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
        let wish = Wish { id, value: Some(value.into()), if_version: None };
        let change = Wishes { wishes: vec![wish], when: Vec::new(), by: by.to_owned() };
        let taken = self.change(&change, ks, now)?;
        taken.into_iter().next().and_then(|(_, version)| version).ok_or(SetError::Nothing)
    }

    /// Takes all wishes of `change` in one revision, or none. Each that has a value gets the next version; several of
    /// them are carried out by their edge as one.
    ///
    /// # Errors
    /// As [`Self::set_desired`], and if a version or condition is not as stated.
    pub fn change(
        &mut self,
        change: &Wishes,
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<Vec<(PropertyId, Option<DesiredVersion>)>, SetError> {
        let checked = self.check_change(change, now)?;
        let versions: Vec<DesiredVersion> =
            checked.iter().map(|wish| after(self.newest_version(&wish.id, ks))).collect();
        let group = group_of(&checked, &versions)?;
        let mut taken = Vec::with_capacity(checked.len());
        for (Checked { id, edge, value }, version) in checked.into_iter().zip(versions) {
            let event = AuditEvent::wish(value.clone(), value.as_ref().map(|_| version), &change.by);
            self.audit(&id.device, Some(&id.property), event, now);
            self.dissolve(&id, ks);
            let Some(value) = value else {
                self.withdraw(&id, edge, version, ks);
                taken.push((id, None));
                continue;
            };
            let (by, group) = (change.by.clone(), group.clone());
            let desired = Desired { value, version, issued: now.wall, by, group };
            self.put_desired(&id, Placed { edge, desired }, ks);
            taken.push((id, Some(version)));
        }
        Ok(taken)
    }

    /// Whether [`Self::change`] would take these, now.
    pub fn may_change(&self, change: &Wishes, now: Now) -> Result<(), SetError> {
        let checked = self.check_change(change, now)?;
        let with_value = checked.iter().filter(|wish| wish.value.is_some());
        match with_value.clone().find(|wish| wish.edge != checked[0].edge) {
            Some(other) => Err(SetError::Split(checked[0].id.clone(), other.id.clone())),
            None => Ok(()),
        }
    }

    /// What a JSON merge patch (RFC 7396) of what is desired of a device wishes, as one change.
    pub fn patched(&self, device: &DeviceId, json: &Json, by: &str) -> Result<Wishes, SetError> {
        let mut wishes = Vec::new();
        for (property, json) in patch::wishes(json)? {
            let id = PropertyId::new(device, &property);
            let kind = self.catalog.property(device, &property)?.value_type;
            let present = self.twins.get(&id).and_then(|twin| Some(&twin.desired()?.value));
            let value = json.map(|json| patch::merge(&property, kind, present, &json)).transpose()?;
            wishes.push(Wish { id, value: value.map(SetBody::from), if_version: None });
        }
        Ok(Wishes { wishes, when: Vec::new(), by: by.to_owned() })
    }

    /// [`Self::patched`], carried out.
    pub fn patch(
        &mut self,
        device: &DeviceId,
        json: &Json,
        by: &str,
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<Vec<(PropertyId, Option<DesiredVersion>)>, SetError> {
        let wishes = self.patched(device, json, by)?;
        self.change(&wishes, ks, now)
    }

    /// What `desired` of these properties says in a manifest, as one change.
    pub fn of_manifest(
        &self,
        device: &DeviceId,
        texts: &[(String, String)],
        by: &str,
    ) -> Result<Wishes, SetError> {
        let wish = |(property, text): &(String, String)| {
            let id = PropertyId::new(device, property);
            let value = self.catalog.property(device, property)?.parse(text);
            let value = value.map_err(|why| SetError::Value(id.clone(), why))?;
            Ok(Wish { id, value: Some(value.into()), if_version: None })
        };
        let wishes = texts.iter().map(wish).collect::<Result<_, SetError>>()?;
        Ok(Wishes { wishes, when: Vec::new(), by: by.to_owned() })
    }

    /// The manifest that is about to be stored says so too, and that is no other wish.
    pub fn is_wished(&self, device: &DeviceId, texts: &[(String, String)], ks: &mut Keyspace) {
        for (property, text) in texts {
            take_text(&PropertyId::new(device, property), text, ks);
        }
    }

    fn check_change(&self, change: &Wishes, now: Now) -> Result<Vec<Checked>, SetError> {
        if change.wishes.is_empty() {
            return Err(SetError::Nothing);
        }
        if change.wishes.len() > MAX_GROUP {
            return Err(SetError::TooMany);
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = change.wishes.iter().find(|wish| !seen.insert(&wish.id)) {
            return Err(SetError::Twice(twice.id.clone()));
        }
        let checked: Vec<Checked> =
            change.wishes.iter().map(|wish| self.check_wish(wish)).collect::<Result<_, _>>()?;
        let first = &change.wishes[0].id.device;
        match unmet(&change.when, |condition| self.look(condition, first, now)) {
            Some(why) => Err(SetError::Condition(why)),
            None => Ok(checked),
        }
    }

    /// The rules, in order: the property must be there and at an edge; the cloud must hold the authority; the version
    /// must be the stated one; the value must be one of the property.
    fn check_wish(&self, Wish { id, value, if_version }: &Wish) -> Result<Checked, SetError> {
        let property = self.catalog.property(&id.device, &id.property)?;
        let node = self.catalog.device(&id.device).and_then(|info| info.node.clone());
        let edge = node.ok_or_else(|| SetError::Unbound(id.device.clone()))?;
        if let Some(told) = self.held_by_edge(&id.device) {
            return Err(SetError::Authority { device: id.device.clone(), told });
        }
        let present = self.twins.get(id).and_then(|twin| Some(twin.desired()?.version)).unwrap_or_default();
        if let Some(expected) = if_version.filter(|expected| *expected != present) {
            return Err(SetError::Version { id: id.clone(), known: present, expected });
        }
        let check = |body: SetBody| body.check(property).map_err(|why| SetError::Value(id.clone(), why));
        Ok(Checked { id: id.clone(), edge, value: value.clone().map(check).transpose()? })
    }

    fn look(&self, condition: &Condition, device: &DeviceId, now: Now) -> (Truth, Option<Value>) {
        let twin = self.twins.get(&condition.source(device));
        let sample = twin.and_then(|twin| twin.reported.as_ref()?.sample.as_ref());
        let age = twin.and_then(|twin| twin.age(now));
        (condition.holds(sample.map(|sample| (sample, age))), sample.map(|sample| sample.value.clone()))
    }

    fn put_desired(&mut self, id: &PropertyId, placed: Placed, ks: &mut Keyspace) {
        ks.put(key("/c/version/", id), twin::cbor(&placed.desired.version));
        ks.put(place(&placed.edge, id), twin::cbor(&placed.desired));
        self.forget_withdrawn(id, ks);
        self.twins.entry(id.clone()).or_default().desired = Some(placed);
        self.publish_desired(id);
    }

    /// The wish is taken back, and with it all that the edge may hold in force: it is told so by version, as the wish of
    /// somebody there lies in no row that could be taken away.
    fn withdraw(&mut self, id: &PropertyId, edge: Name, version: DesiredVersion, ks: &mut Keyspace) {
        let Some(twin) = self.twins.get_mut(id).filter(|twin| twin.desired().is_some()) else { return };
        ks.put(key("/c/version/", id), twin::cbor(&version));
        ks.put(withdrawn_at(&edge, id), twin::cbor(&version));
        twin.withdrawn = Some((edge, version));
        self.remove_row(id, ks);
        self.publish_desired(id);
    }

    pub(super) fn forget_withdrawn(&mut self, id: &PropertyId, ks: &mut Keyspace) {
        if let Some((edge, _)) = self.twins.get_mut(id).and_then(|twin| twin.withdrawn.take()) {
            ks.delete(&withdrawn_at(&edge, id));
        }
    }

    pub(super) fn forget_told(&mut self, id: &PropertyId, ks: &mut Keyspace) {
        if self.twins.get_mut(id).and_then(|twin| twin.told.take()).is_some() {
            ks.delete(&key("/c/desired/", id));
        }
    }

    pub(super) fn publish_desired(&mut self, id: &PropertyId) {
        match self.twins.get(id).and_then(|twin| twin.desired()).map(DesiredBody::from) {
            Some(body) => self.publish(Publish::retained(&id.desired_topic(), &body)),
            None => self.clear(&id.desired_topic()),
        }
    }

    /// A restored cloud's own memory is behind, and the edge's acknowledgement, which counts too, may not be here yet: the
    /// versions of each of its epochs begin above all of the one before. Nonsense of an edge does not count.
    pub(super) fn newest_version(&self, id: &PropertyId, ks: &Keyspace) -> DesiredVersion {
        let restored = epoch::get(ks).saturating_sub(epoch::FIRST).saturating_mul(2);
        let floor = Some(DesiredVersion { epoch: restored, seq: 0 });
        let given = ks.get(&format!("/c/version/{id}")).and_then(|bytes| twin::decode(bytes));
        let held = Some(DesiredVersion { epoch: self.epoch_of(&id.device), seq: 0 });
        let own = given.max(held).max(floor).unwrap_or_default();
        let twin = self.twins.get(id);
        let told = twin.and_then(|twin| Some(twin.told.as_ref()?.desired.version));
        let edges = twin.and_then(Twin::acked).into_iter().chain(told);
        edges
            .filter(|version| version.epoch <= own.epoch.saturating_add(MAX_LEAP))
            .fold(own, DesiredVersion::max)
    }

    /// Nothing is said of the property any more: it is gone, or of no edge.
    pub(super) fn take_back(&mut self, id: &PropertyId, ks: &mut Keyspace) {
        let had = self.twins.get(id).is_some_and(|twin| twin.desired().is_some());
        self.remove_row(id, ks);
        self.forget_withdrawn(id, ks);
        self.forget_told(id, ks);
        if had {
            self.publish_desired(id);
        }
    }

    pub(super) fn remove_row(&mut self, id: &PropertyId, ks: &mut Keyspace) {
        if let Some(placed) = self.twins.get_mut(id).and_then(|twin| twin.desired.take()) {
            ks.delete(&place(&placed.edge, id));
        }
    }

    /// Its wish is about to be another one. What was carried out as one with it does not depend on it any more: an edge
    /// whose disk is replaced would refuse the others.
    fn dissolve(&mut self, id: &PropertyId, ks: &mut Keyspace) {
        let placed = self.twins.get(id).and_then(|twin| twin.desired.as_ref());
        let Some(group) = placed.and_then(|placed| placed.desired.group.clone()) else { return };
        let members = group.members.iter().filter_map(|member| PropertyId::parse(member));
        for other in members.filter(|member| member != id) {
            let Some(twin) = self.twins.get_mut(&other) else { continue };
            let done =
                twin.desired.as_ref().is_some_and(|placed| twin.was_carried_out(placed.desired.version));
            let in_group =
                twin.desired.as_mut().filter(|placed| placed.desired.group.as_ref() == Some(&group));
            if let Some(placed) = in_group.filter(|_| done) {
                placed.desired.group = None;
                ks.put(place(&placed.edge, &other), twin::cbor(&placed.desired));
            }
        }
    }

    /// The device may have moved to another edge: its wishes go with it, as old as they are.
    pub(super) fn follow(&mut self, device: &DeviceId, ks: &mut Keyspace) {
        let ids = self.ids_of(device);
        if ids.is_empty() {
            return;
        }
        let Some(info) = self.catalog.device(device).cloned() else { return };
        for id in ids {
            let known = info.properties.contains_key(&id.property);
            let withdrawn = self.twins.get(&id).and_then(|twin| twin.withdrawn.as_ref());
            if withdrawn.is_some_and(|(edge, _)| Some(edge) != info.node.as_ref()) {
                self.take_back(&id, ks);
            }
            let at = self.twins.get(&id).and_then(Twin::newest).map(|(edge, _)| edge.clone());
            match (&info.node, at) {
                (_, None) => {}
                (Some(node), Some(at)) if known && at == *node => {}
                (Some(node), Some(_)) if known => self.move_wish(&id, node, ks),
                (_, Some(_)) if info.problem.is_some() => {}
                (_, Some(_)) => self.take_back(&id, ks),
            }
        }
    }

    /// What is desired lies at `node` from here on, under the present authority.
    fn move_wish(&mut self, id: &PropertyId, node: &Name, ks: &mut Keyspace) {
        self.dissolve(id, ks);
        let Some(twin) = self.twins.get(id) else { return };
        let Some(mut desired) = twin.desired().cloned() else { return };
        if twin.was_carried_out(desired.version) {
            desired.group = None;
        }
        if desired.version.epoch < self.epoch_of(&id.device) {
            desired.version = after(self.newest_version(id, ks));
        }
        self.remove_row(id, ks);
        self.forget_told(id, ks);
        self.put_desired(id, Placed { edge: node.clone(), desired }, ks);
    }

    /// The same wish again, under the present authority, and as old as it is.
    pub(super) fn wish_again(&mut self, id: &PropertyId, ks: &mut Keyspace) {
        let Some(mut placed) = self.twins.get(id).and_then(|twin| twin.desired.clone()) else { return };
        placed.desired.version = after(self.newest_version(id, ks));
        placed.desired.group = None;
        self.put_desired(id, placed, ks);
    }

    /// KubeEdge's `desired` in a device's manifest is a wish each time its text changes.
    pub(super) fn take_manifest_wishes(&mut self, device: &DeviceId, ks: &mut Keyspace, now: Now) {
        let Some(info) = self.catalog.device(device).filter(|info| info.node.is_some()) else { return };
        let all = info.properties.iter();
        let wished: Vec<_> = all
            .filter_map(|(name, property)| {
                Some((name.clone(), property.clone(), property.manifest_desired.clone()?))
            })
            .collect();
        for (name, property, text) in wished {
            let (name, text) = (&*name, &text);
            let id = PropertyId::new(device, name);
            let before = ks.get(former::taken_key(&id).as_str());
            if before.is_some_and(|before| before == text.as_bytes()) {
                continue;
            }
            let is_old = before.is_none() && former::wished(&id, text, ks);
            take_text(&id, text, ks);
            let wish = if is_old { Err(SetError::Former(text.clone())) } else { Ok(property) };
            let done = wish
                .and_then(|property| property.parse(text).map_err(|why| SetError::Value(id.clone(), why)))
                .and_then(|value| self.set_desired(device, name, value, "manifest", ks, now));
            if let Err(why) = done {
                self.refused(&id, &why);
            }
        }
    }

    pub(super) fn set_from_app(
        &mut self,
        id: &PropertyId,
        who: &Who,
        payload: &[u8],
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<(), String> {
        let body: SetBody =
            serde_json::from_slice(payload).map_err(|why| brief(&format!("malformed: {why}")))?;
        self.set_desired(&id.device, &id.property, body, &who.told(APP), ks, now).map(|_| ()).map_err(|why| {
            self.refused(id, &why);
            explain(&why)
        })
    }

    fn refused(&mut self, id: &PropertyId, why: &SetError) {
        let body = ResultBody { detail: explain(why), ..ResultBody::of(&id.property, Outcome::Rejected) };
        self.publish(Publish::once(&TwinTopic::Result { device: id.device.clone() }, &body));
    }
}

//! Who may say what is desired of a device here: see [`crate::authority`].

use std::time::Duration;

use bus::twin::{DesiredVersion, DeviceId, Outcome};
use bus::{Mono, Now};
use metadata::Keyspace;
use thiserror::Error;

use super::EdgeTwins;
use super::output::own_key;
use crate::arbiter::Slot;
use crate::authority::{Authority, Holder};
use crate::history::audit::AuditEvent;
use crate::twin::{self, Desired, PropertyId, SetBody, brief, explain, key};

/// Why the authority does not change hands.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuthorityError {
    #[error("device {0} is not of this edge")]
    NotHere(DeviceId),
    #[error("no TwinPolicy of {0} allows localOverride")]
    NotAllowed(DeviceId),
    #[error("{0} is under the cloud's authority already")]
    NotHeld(DeviceId),
}

impl EdgeTwins {
    /// Somebody at the edge takes the authority over the device's desired values, for `lasting` or until it is handed
    /// back. Nothing moves by it. Taken again, it lasts anew.
    pub fn take_authority(
        &mut self,
        device: &DeviceId,
        (by, reason): (&str, &str),
        lasting: Option<Duration>,
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<Authority, AuthorityError> {
        let Some(bound) = self.devices.get(device) else {
            return Err(AuthorityError::NotHere(device.clone()));
        };
        let info = self.catalog.device(device);
        if !info.is_some_and(|info| info.properties.values().any(|p| p.policy.local_override)) {
            return Err(AuthorityError::NotAllowed(device.clone()));
        }
        let known = bound.authority.epoch.max(self.highest_epoch(device));
        let epoch = match bound.authority.holder() {
            Holder::Edge => bound.authority.epoch,
            Holder::Cloud => Holder::Edge.next_epoch(known),
        };
        let until = lasting.map(|lasting| bus::UnixMillis(now.wall.0.saturating_add(twin::millis(lasting))));
        let taken = Authority { epoch, by: brief(by), reason: brief(reason), at: now.wall, until };
        self.set_authority(device, taken.clone(), ks, now);
        self.decide_waiting(device, ks, now);
        Ok(taken)
    }

    /// Wishes that are not decided on yet may be over with the authority under which they were made.
    fn decide_waiting(&mut self, device: &DeviceId, ks: &mut Keyspace, now: Now) {
        let mut waiting = self.ids_of(device);
        waiting.retain(|id| self.is_waiting(id));
        self.undecided.extend(waiting);
        self.decide_all(ks, now);
    }

    /// A cloud that was restored from a backup does not know that the edge holds the authority; what it wishes under a
    /// later epoch shows that it has it.
    pub(super) fn end_authority(&mut self, device: &DeviceId, wish: &Desired, ks: &mut Keyspace, now: Now) {
        let reason = "the cloud wished under a later one".to_owned();
        let (epoch, by) = (wish.version.epoch, brief(&wish.by));
        let ended = Authority { epoch, by, reason, at: now.wall, until: None };
        self.set_authority(device, ended, ks, now);
    }

    /// The cloud's authority again, as it is when nobody took it.
    pub fn hand_back(
        &mut self,
        device: &DeviceId,
        (by, reason): (&str, &str),
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<Authority, AuthorityError> {
        let Some(bound) = self.devices.get(device) else {
            return Err(AuthorityError::NotHere(device.clone()));
        };
        if bound.authority.holder() == Holder::Cloud {
            return Err(AuthorityError::NotHeld(device.clone()));
        }
        let epoch = Holder::Cloud.next_epoch(bound.authority.epoch);
        let back = Authority { epoch, by: brief(by), reason: brief(reason), at: now.wall, until: None };
        self.set_authority(device, back.clone(), ks, now);
        Ok(back)
    }

    fn highest_epoch(&self, device: &DeviceId) -> u64 {
        let epochs =
            self.ids_of(device).into_iter().filter_map(|id| Some(self.twins.get(&id)?.newest()?.epoch));
        epochs.max().unwrap_or_default()
    }

    fn set_authority(&mut self, device: &DeviceId, authority: Authority, ks: &mut Keyspace, now: Now) {
        ks.put(key("/t/authority/", device), twin::cbor(&authority));
        self.outputs.tell(format!("authority/{device}"), &authority);
        self.audit(device, None, AuditEvent::authority(&authority), now);
        self.hold_authority(device, authority, now);
    }

    fn hold_authority(&mut self, device: &DeviceId, authority: Authority, now: Now) {
        let Some(bound) = self.devices.get_mut(device) else { return };
        if let Some(at) = bound.hand_back_at.take() {
            self.device_timers.remove(&(at, device.clone()));
        }
        let lasting = authority.until.map(|until| until.since(now.wall));
        bound.hand_back_at =
            lasting.filter(|_| authority.holder() == Holder::Edge).map(|span| now.mono + span);
        self.device_timers.extend(bound.hand_back_at.map(|at| (at, device.clone())));
        bound.authority = authority;
    }

    /// Takes up what is stored here and what the cloud says: the higher epoch holds, and is kept, so that it does not go
    /// back with a cloud that forgets it.
    pub(super) fn authority_changed(&mut self, device: &DeviceId, ks: &mut Keyspace, now: Now) {
        let read =
            |prefix: &str| -> Option<Authority> { twin::decode(ks.get(&format!("{prefix}{device}"))?) };
        let (own, told) = (read("/t/authority/"), read("/m/authority/"));
        let newer = told.filter(|told| own.as_ref().is_none_or(|own| told.epoch > own.epoch));
        let is_here = self.devices.contains_key(device);
        // Taken by this edge on a disk that is lost: its numbers are lost too, so it takes it anew.
        if let Some(lost) = newer.as_ref().filter(|newer| is_here && newer.holder() == Holder::Edge) {
            let epoch = Holder::Edge.next_epoch(lost.epoch);
            return self.set_authority(device, Authority { epoch, ..lost.clone() }, ks, now);
        }
        if let Some(newer) = newer.as_ref().filter(|_| is_here) {
            ks.put(key("/t/authority/", device), twin::cbor(newer));
        }
        let highest = newer.or(own).unwrap_or_default();
        if self.devices.get(device).is_some_and(|bound| bound.authority != highest) {
            self.hold_authority(device, highest, now);
            self.decide_waiting(device, ks, now);
        }
    }

    /// Hands back what was taken for a time that is over.
    pub(super) fn authorities_due(&mut self, ks: &mut Keyspace, now: Now) {
        while let Some((_, device)) = self.device_timers.first().filter(|(at, _)| *at <= now.mono).cloned() {
            self.device_timers.pop_first();
            // It fails where somebody else ended it already.
            let _ = self.hand_back(&device, ("the edge", "its time is over"), ks, now);
        }
    }

    /// What the device's present authority is.
    pub fn authority(&self, device: &DeviceId) -> Option<&Authority> {
        self.devices.get(device).map(|bound| &bound.authority)
    }

    /// A wish of somebody here, who holds the authority: numbered in its epoch, and carried out like one of the cloud.
    pub(super) fn wish_here(
        &mut self,
        id: &PropertyId,
        body: SetBody,
        by: &str,
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<DesiredVersion, String> {
        let property = self.catalog.property(&id.device, &id.property).map_err(|why| explain(&why))?;
        let value = body.check(property).map_err(|why| explain(&why))?;
        let epoch = self.devices.get(&id.device).map_or(0, |bound| bound.authority.epoch);
        let twin = self.twins.get(id).ok_or_else(|| format!("device {} is not of this edge", id.device))?;
        let last = twin.newest().filter(|version| version.epoch == epoch);
        let version = DesiredVersion { epoch, seq: last.map_or(1, |version| version.seq.saturating_add(1)) };
        let desired = Desired { value, version, issued: now.wall, by: by.to_owned(), group: None };
        ks.put(key("/t/own/", id), twin::cbor(&desired));
        self.outputs.tell(own_key(id), &Some(&desired));
        self.take_own(id, desired, ks, now);
        Ok(version)
    }

    /// It is of now by this node's own clock, so its age needs no telling.
    fn take_own(&mut self, id: &PropertyId, desired: Desired, ks: &mut Keyspace, now: Now) {
        let version = desired.version;
        // The cloud's row of the wish before it is there until the cloud hears of this one.
        let before = self.twins.get(id).and_then(|twin| twin.newest());
        if let Some(before) = before.filter(|version| Holder::of(version.epoch) == Holder::Cloud) {
            self.pass_over(id, before, ks);
            self.tell_outranked(id);
        }
        self.replace_desired(id, desired, now);
        if let Some(twin) = self.twins.get_mut(id) {
            twin.is_own = true;
        }
        self.mark_handled(id, version, ks);
        let masked = self.masked_actuator(id, Slot::DESIRED, now.mono);
        match (masked, self.lifetime_of(id)) {
            (Some(why), _) => self.settle(id, version, Outcome::Superseded, &why, ks, now),
            (None, lifetime) => self.apply_desired(id, lifetime, ks, now),
        }
        self.reschedule(id);
        self.run_rules_reading(crate::rule::From::Desired, id, ks, now);
    }

    pub(super) fn masked_actuator(&self, id: &PropertyId, slot: Slot, now: Mono) -> Option<String> {
        let is_actuator = self.property(id)?.policy.actuator;
        let (holder, owner) = self.twins.get(id)?.masked_by(slot, now).filter(|_| is_actuator)?;
        Some(format!("{holder} ({owner}) holds it; set it again later"))
    }

    fn lifetime_of(&self, id: &PropertyId) -> Option<Duration> {
        let policy = &self.property(id)?.policy;
        policy.desired_max_age.filter(|_| policy.actuator)
    }
}

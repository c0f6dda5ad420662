//! Who may say what is desired of a device, as the cloud knows it: see [`crate::authority`].

use bus::twin::DeviceId;
use bus::{Name, Now};
use bytes::Bytes;
use metadata::{Key, Keyspace};

use super::{CloudTwins, SetError};
use crate::authority::{Authority, Holder};
use crate::history::audit::AuditEvent;
use crate::model::Lookup;
use crate::twin::{self, brief, key};

/// An authority and the edge in whose keyspace it lies, so that an edge whose disk was lost hears of it again.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Held {
    edge: Name,
    authority: Authority,
}

/// How far an epoch may lie above those that the cloud knows: far more than people take over while an edge is away. An
/// edge that says nonsense must not use the numbers up.
pub(super) const MAX_LEAP: u64 = 1 << 20;

fn place(edge: &Name, device: &DeviceId) -> Key {
    key(&format!("/e/{edge}/authority/"), device)
}

impl CloudTwins {
    pub(super) fn load_authority(&mut self, key: &str, bytes: &Bytes) {
        let held = || {
            let (edge, rest) = key.strip_prefix("/e/")?.split_once('/')?;
            let device: DeviceId = rest.strip_prefix("authority/")?.parse().ok()?;
            Some((device, Held { edge: Name::new(edge).ok()?, authority: twin::decode(bytes)? }))
        };
        self.authorities.extend(held());
    }

    /// The present authority over a device; `None` if nobody ever took it.
    pub fn authority(&self, device: &DeviceId) -> Option<&Authority> {
        self.authorities.get(device).map(|held| &held.authority)
    }

    pub(super) fn epoch_of(&self, device: &DeviceId) -> u64 {
        self.authority(device).map_or(0, |authority| authority.epoch)
    }

    /// Of all that is known of the device: its authority, and the wishes for its properties.
    fn highest_epoch(&self, device: &DeviceId, ks: &Keyspace) -> u64 {
        let ids = self.ids_of(device);
        let wished = ids.iter().map(|id| self.newest_version(id, ks).epoch).max();
        wished.unwrap_or_default().max(self.epoch_of(device))
    }

    /// What whoever wishes something is told if the device is under its edge's authority.
    pub(super) fn held_by_edge(&self, device: &DeviceId) -> Option<String> {
        self.authority(device).filter(|held| held.holder() == Holder::Edge).map(Authority::told)
    }

    /// The cloud takes the authority over a device, also while its edge is away. Nothing moves by it: what was wished at
    /// the edge until it hears of this stands until somebody wishes otherwise.
    pub fn take_authority(
        &mut self,
        device: &DeviceId,
        (by, reason): (&str, &str),
        ks: &mut Keyspace,
        now: Now,
    ) -> Result<Authority, SetError> {
        let info = self.catalog.device(device).ok_or_else(|| Lookup::Device(device.clone()))?;
        let edge = info.node.clone().ok_or_else(|| SetError::Unbound(device.clone()))?;
        let epoch = Holder::Cloud.next_epoch(self.highest_epoch(device, ks));
        let authority = Authority { epoch, by: brief(by), reason: brief(reason), at: now.wall, until: None };
        self.put_authority(device, Held { edge, authority: authority.clone() }, ks);
        self.audit(device, None, AuditEvent::authority(&authority), now);
        Ok(authority)
    }

    fn put_authority(&mut self, device: &DeviceId, held: Held, ks: &mut Keyspace) {
        ks.put(place(&held.edge, device), twin::cbor(&held.authority));
        self.authorities.insert(device.clone(), held);
    }

    /// Whether an edge says an epoch that nobody can have come to.
    pub(super) fn is_nonsense(&self, device: &DeviceId, epoch: u64, ks: &Keyspace) -> bool {
        epoch > self.highest_epoch(device, ks).saturating_add(MAX_LEAP)
    }

    /// `None` if it is malformed.
    pub(super) fn authority_up(
        &mut self,
        edge: &Name,
        rest: &str,
        payload: &[u8],
        ks: &mut Keyspace,
        now: Now,
    ) -> Option<()> {
        let device = twin::parse_device(rest)?;
        let authority: Authority = twin::decode(payload)?;
        if !self.speaks_for(edge, &device) {
            return Some(());
        }
        if self.is_nonsense(&device, authority.epoch, ks) {
            return None;
        }
        if authority.epoch < self.epoch_of(&device) {
            self.stats.repeated += 1;
            return Some(());
        }
        if self.authority(&device) != Some(&authority) {
            self.audit(&device, None, AuditEvent::authority(&authority), now);
        }
        self.put_authority(&device, Held { edge: edge.clone(), authority }, ks);
        Some(())
    }

    /// A device that moved to another edge is under the cloud's authority: who took it stood at the old one. So is one
    /// that is of no edge.
    pub(super) fn follow_authority(&mut self, device: &DeviceId, ks: &mut Keyspace, now: Now) {
        let node = self.catalog.device(device).and_then(|info| info.node.clone());
        let Some(held) = self.authorities.get(device).filter(|held| Some(&held.edge) != node.as_ref()) else {
            return;
        };
        let mut authority = held.authority.clone();
        ks.delete(&place(&held.edge, device));
        let Some(edge) = node else { return self.forget_authority(device, ks) };
        if authority.holder() == Holder::Edge {
            let (by, reason) = ("the cloud".to_owned(), "the device moved to another edge".to_owned());
            let epoch = Holder::Cloud.next_epoch(authority.epoch);
            authority = Authority { epoch, by, reason, at: now.wall, until: None };
        }
        self.put_authority(device, Held { edge, authority }, ks);
    }

    /// The versions of what is wished from here on lie above it all the same: an edge may know it still.
    pub(super) fn forget_authority(&mut self, device: &DeviceId, ks: &mut Keyspace) {
        for id in self.ids_of(device) {
            let newest = self.newest_version(&id, ks);
            ks.put(key("/c/version/", &id), twin::cbor(&newest));
        }
        if let Some(held) = self.authorities.remove(device) {
            ks.delete(&place(&held.edge, device));
        }
    }
}

//! Nothing is said that a crash could undo: what is told to anybody is compared with the disk as a crash at this
//! instant would leave it.

use std::collections::BTreeMap;

use bus::Mono;
use bus::bus::LinkId;
use bus::twin::{DesiredVersion, Incarnation, ReportedVersion};
use bus::{Channel, Frame};
use device_twin::PropertyId;
use metadata::sync::{Base, Body, Hello, Part, PerLane, ToCloud, ToEdge};
use metadata::{Position, Revision};
use minicbor::Decode;

use super::{Oracle, versions};
use crate::disk::Image;
use crate::machine::{Machine, Seat};
use crate::manifests;

const INVARIANT: &str = "nothing is said before it is durable";

/// `/sync/in/<edge>` as the cloud keeps it: the lives of the edge's disk, the present one first.
pub(super) type Inbox = Vec<Life>;

/// What concerns the oracle of one life of an edge's disk.
#[derive(Debug, Decode)]
pub(super) struct Life {
    #[n(0)]
    pub(super) incarnation: Incarnation,
    /// The last entry stored, by lane.
    #[n(1)]
    pub(super) stored: PerLane,
}

/// What was said to somebody.
#[derive(Debug, Default)]
pub(super) struct Promises {
    /// Reports whose mapper was told that they are taken.
    pub(super) reports: BTreeMap<(Seat, PropertyId), ReportedVersion>,
    /// Wishes whose author was told that they are taken.
    pub(super) wishes: BTreeMap<PropertyId, DesiredVersion>,
    /// The number of a batch's last part and where it leads, by link, session and batch.
    ends: BTreeMap<(LinkId, u32, u32), (u32, Revision)>,
    /// What the last batch of a link and session changes, and once it is said whole where it leads.
    stands: BTreeMap<(LinkId, u32), Revision>,
}

impl Promises {
    /// Where the batch leads of which this is the last part.
    fn follow(&mut self, link: LinkId, part: &Part) -> Option<Revision> {
        let stands = self.stands.entry((link, part.session)).or_default();
        match part.base {
            Some(Base::Nothing) => *stands = Revision::ZERO,
            Some(Base::At(base)) => *stands = base.revision,
            None => {}
        }
        stands.0 += part.advance?;
        Some(*stands)
    }

    /// Wishes made since are lost with the disk.
    pub(super) fn on_cloud_put_back(&mut self, durable: &Image) {
        self.wishes.retain(|id, told| {
            let kept = wish_in(durable, id);
            *told = kept.unwrap_or_default().min(*told);
            kept.is_some()
        });
    }

    /// Its reports are told under other versions from now on.
    pub(super) fn forget(&mut self, seat: Seat) {
        self.reports.retain(|(whose, _), _| *whose != seat);
    }
}

fn holds_report(durable: &Image, id: &PropertyId, told: ReportedVersion) -> bool {
    let kept = durable.get(&format!("/t/reported/{id}")).and_then(versions::reported);
    kept.is_some_and(|kept| kept.incarnation == told.incarnation && kept.rev >= told.rev)
}

fn wish_in(durable: &Image, id: &PropertyId) -> Option<DesiredVersion> {
    let site = manifests::site_of(&id.device).unwrap_or_default();
    durable.get(&format!("/e/{}/desired/{id}", manifests::edge_name(site))).and_then(versions::desired)
}

impl Oracle {
    /// A newer wish that the site made itself takes the place of `told`, as the cloud knows, or the site refused it. What
    /// a site refused while its disk refused writes stands in no commit.
    pub(super) fn is_replaced(&self, cloud: &Image, id: &PropertyId, told: DesiredVersion) -> bool {
        let in_force = cloud.get(&format!("/c/desired/{id}")).and_then(versions::in_force);
        in_force.is_some_and(|desired| desired.version > told)
            || self.outranked.get(id) >= Some(&told)
            || manifests::site_of(&id.device).is_some_and(|site| self.went_on_in_memory.contains(&site))
    }

    fn holds_wish(&self, durable: &Image, id: &PropertyId, told: DesiredVersion) -> bool {
        wish_in(durable, id).is_some_and(|kept| kept >= told) || self.is_replaced(durable, id, told)
    }

    /// The mapper was told that its report is taken; `told` is the version that the node gave it.
    pub fn on_report_accepted(
        &mut self,
        seat: Seat,
        id: &PropertyId,
        told: ReportedVersion,
        durable: &Image,
        now: Mono,
    ) {
        if self.is_past(seat, told) {
            return;
        }
        self.verdict.ask(now, INVARIANT, holds_report(durable, id, told), || {
            format!("{seat} has a PUBACK for {id} {told:?}, which the disk does not hold")
        });
        self.promises.reports.insert((seat, id.clone()), told);
    }

    /// The disk has another life by now, under which all was said again.
    fn is_past(&self, seat: Seat, told: ReportedVersion) -> bool {
        self.lives.get(&seat).and_then(|lives| lives.last()).is_some_and(|life| *life != told.incarnation)
    }

    /// The author of a wish was told that it is taken.
    pub fn on_wish_accepted(&mut self, id: &PropertyId, told: DesiredVersion, durable: &Image, now: Mono) {
        let holds = self.holds_wish(durable, id, told);
        self.verdict.ask(now, INVARIANT, holds, || {
            format!("the wish {told} for {id} was accepted, and the disk does not hold it")
        });
        let known = self.promises.wishes.entry(id.clone()).or_default();
        *known = told.max(*known);
    }

    pub fn on_welcome(&mut self, site: usize, durable: &Image, now: Mono) {
        let key = format!("/c/node/{}", manifests::edge_name(site));
        self.verdict.ask(now, INVARIANT, durable.get(&key).is_some(), || {
            format!("edge-{site} is welcome, and the disk does not know it")
        });
    }

    /// A frame leaves.
    pub fn on_send(
        &mut self,
        from: Machine,
        seat: Seat,
        link: LinkId,
        frame: &Frame,
        durable: &Image,
        now: Mono,
    ) {
        if frame.channel != Channel::Metadata {
            return;
        }
        match from {
            Machine::Cloud => self.cloud_says(seat, link, &frame.payload, durable, now),
            Machine::Edge(_) => self.edge_says(seat, link, &frame.payload, durable, now),
        }
    }

    fn cloud_says(&mut self, seat: Seat, link: LinkId, payload: &[u8], durable: &Image, now: Mono) {
        let Ok(message) = minicbor::decode::<ToEdge>(payload) else { return };
        if let ToEdge::UpAck { lane, seq, .. } = message {
            let key = format!("/sync/in/{}", manifests::edge_name(seat.site));
            let inbox: Inbox = durable.get(&key).and_then(|b| minicbor::decode(b).ok()).unwrap_or_default();
            // The word may be of a session that another disk ended meanwhile.
            let stored = inbox.iter().map(|life| life.stored[lane]).max().unwrap_or_default();
            self.verdict.ask(now, INVARIANT, stored >= seq, || {
                format!("UpAck {seq} of lane {lane:?} to {seat}; the disk holds up to {stored}")
            });
        } else if let ToEdge::Part(part) = message {
            let Some(end) = self.promises.follow(link, &part) else { return };
            self.promises.ends.insert((link, part.session, part.batch), (part.part, end));
            self.verdict.ask(now, INVARIANT, end <= durable.revision, || {
                format!("{seat} is told {end}; the disk is at {}", durable.revision)
            });
        }
    }

    fn edge_says(&mut self, seat: Seat, link: LinkId, payload: &[u8], durable: &Image, now: Mono) {
        let Ok(message) = minicbor::decode::<ToCloud>(payload) else { return };
        let differs = matches!(message, ToCloud::Differs { .. });
        self.verdict
            .ask(now, "no copy differs from its digest", !differs, || format!("{seat} asks for a repair"));
        if self.refused.contains(&seat) {
            return;
        }
        if let ToCloud::Up { entries, .. } = message {
            for entry in entries {
                if let Body::Data { key, payload } = entry.body {
                    self.check_up(seat, &key, &payload, durable, now);
                }
            }
        } else if let ToCloud::Ack { batch, part, session } = message {
            let end = self.promises.ends.get(&(link, session, batch));
            let Some((_, end)) = end.copied().filter(|(last, _)| part >= *last) else { return };
            self.check_applied(seat, end, durable, now);
        } else if let ToCloud::Hello(Hello { applied, .. }) = message {
            self.check_applied(seat, applied.revision, durable, now);
        }
    }

    fn check_applied(&mut self, seat: Seat, told: Revision, durable: &Image, now: Mono) {
        let kept = durable.get("/sync/applied").and_then(|bytes| minicbor::decode::<Position>(bytes).ok());
        let kept = kept.unwrap_or_default();
        self.verdict.ask(now, INVARIANT, kept.revision >= told, || {
            format!("{seat} says it stands at {told}; its disk is at {kept:?}")
        });
    }

    fn check_up(&mut self, seat: Seat, key: &str, payload: &bytes::Bytes, durable: &Image, now: Mono) {
        let Some(id) = key.strip_prefix("reported/").and_then(PropertyId::parse) else { return };
        let Some(told) = versions::reported(payload) else { return };
        let holds = self.is_past(seat, told) || holds_report(durable, &id, told);
        self.verdict.ask(now, INVARIANT, holds, || {
            format!("{seat} tells {id} {told:?}, which its disk does not hold")
        });
    }

    /// After a crash: what was said before must be on the disk.
    pub(super) fn check_kept(&mut self, machine: Machine, durable: &Image, now: Mono) {
        const KEPT: &str = "a crash undoes nothing that was said";
        match machine {
            Machine::Cloud => {
                for (id, told) in &self.promises.wishes {
                    let holds = self.holds_wish(durable, id, *told);
                    self.verdict.ask(now, KEPT, holds, || format!("the wish {told} for {id} is lost"));
                }
            }
            Machine::Edge(seat) => {
                let of_seat = self.promises.reports.iter().filter(|((whose, _), _)| *whose == seat);
                for ((_, id), told) in of_seat {
                    let holds = holds_report(durable, id, *told);
                    self.verdict.ask(now, KEPT, holds, || format!("the report {told:?} of {id} is lost"));
                }
            }
        }
    }
}
